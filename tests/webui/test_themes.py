"""Every theme can be read: contrasts computed from the style sheets, by WCAG's definition."""

import re
from pathlib import Path

import pytest

STYLES = Path(__file__).parents[2] / "webui" / "static" / "css"
BASE = re.sub(r"/\*.*?\*/", "", (STYLES / "base.css").read_text(encoding="utf-8"), flags=re.DOTALL)
CODE = (STYLES / "text.css").read_text(encoding="utf-8")
BACKGROUNDS = ("background", "panel", "raised", "user", "code", "tint")
THEMES = [("", 0), ("", 1), ("light", 0), ("dark", 1), ("paper", 0), ("night", 1), ("contrast", 0),
          ("contrast", 1)]
"""With 0 for a light scheme, 1 for a dark one; "" is what the system says, which "contrast" follows, too."""


def colours(theme: str, scheme: int) -> dict[str, str]:
    """Each variable that is a colour, as #rrggbb."""
    found = {}
    for name in ("", *([theme] if theme else ())):
        selector = f':root[data-theme="{name}"] {{' if name else ":root {"
        block = BASE.split(selector, 1)[1].split("}", 1)[0]
        found |= dict(re.findall(r"--([\w-]+):\s*([^;]+);", block))
    return {name: plain(value, scheme) for name, value in found.items() if "#" in value and "px" not in value}


def plain(value: str, scheme: int) -> str:
    """One of light-dark(), in its long form."""
    two = re.fullmatch(r"light-dark\((.+), (.+)\)", value)
    digits = (two[1 + scheme] if two else value).removeprefix("#")
    return "#" + ("".join(2 * digit for digit in digits) if len(digits) == 3 else digits)


def luminance(colour: str) -> float:
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                        for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrasts_are_computed_as_wcag_defines_them():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("theme", "scheme"), THEMES)
def test_every_text_of_a_theme_reaches_4_5_to_1_and_every_outline_3_to_1(theme, scheme):
    of = colours(theme, scheme)
    pairs = [(text, ground, 4.5) for text in ("ink", "soft", "faint", "accent", "danger")
             for ground in BACKGROUNDS]
    pairs += [("edge", ground, 3.0) for ground in ("background", "panel", "raised")]
    pairs += [("on-accent", "accent", 4.5), ("on-danger", "danger", 4.5), ("danger", "danger-tint", 4.5),
              ("ink", "danger-tint", 4.5)]
    low = {f"{one} on {other}": round(found, 2) for one, other, least in pairs
           if (found := contrast(of[one], of[other])) < least}
    assert not low
    syntax = {plain(value, scheme)
              for value in re.findall(r"\.hljs[^{]*\{\s*color: (light-dark[^;]+);", CODE)}
    assert len(syntax) >= 6
    assert not {colour: round(contrast(colour, of["code"]), 2) for colour in syntax
                if contrast(colour, of["code"]) < 4.5}


def test_every_theme_that_can_be_chosen_has_its_colours():
    source = (STYLES.parent / "overlays" / "appearance.js").read_text(encoding="utf-8")
    chosen = {value for value, _ in re.findall(r'\["(\w*)", t\("([^"]+)"\)\]', source.split('"textSize"')[0])}
    assert chosen == {theme for theme, _ in THEMES}
    for name in ("textSize", "column"):
        attribute = {"textSize": "data-text-size", "column": "data-column"}[name]
        values = re.findall(r'\["(\w+)", t\("[^"]+"\)\]', source.split(f'"{name}"')[1].split("],\n  ],")[0])
        assert values and set(values) == set(re.findall(rf':root\[{attribute}="(\w+)"\]', BASE))
