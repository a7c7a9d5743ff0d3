"""The page's files as they lie there: libraries unchanged, nothing inline, nothing remote, all preloaded."""

import gzip
import hashlib
import re
from pathlib import Path

WEBUI = Path(__file__).resolve().parent.parent / "webui"
STATIC = WEBUI / "static"
VENDOR = STATIC / "vendor"
PAGE = WEBUI / "templates" / "index.html"
CRITICAL_KILOBYTES = 100


def own_modules():
    return sorted(path for path in STATIC.rglob("*.js") if VENDOR not in path.parents)


def imports(module):
    """What a module imports before it runs (not what it loads later)."""
    statement = r'^(?:import (?:[^"]*?from )?|export [^"]*?from )"(\.{1,2}/[^"]+)";'
    return [
        (module.parent / name).resolve()
        for name in re.findall(statement, module.read_text(), re.MULTILINE | re.DOTALL)
    ]


def critical_modules():
    found, waiting = set(), [STATIC / "app.js"]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imports(module) if VENDOR not in module.parents else []
    return found


def test_vendored_files_are_those_of_the_list():
    rows = re.findall(
        r"^\| (\S+) \| \S+ \| \S+ \| .+? \| `([0-9a-f]{64})` \|$", (VENDOR / "VENDOR.md").read_text(), re.M
    )
    listed = dict(rows)
    lying = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in ("VENDOR.md", ".gitattributes")
    }
    assert lying == listed


def test_the_page_has_nothing_inline_and_nothing_remote():
    html = PAGE.read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", html)
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    assert not re.findall(r"""(?:src|href)=["'](?!\{\{ static \}\}/|#)""", html)


def test_every_critical_module_is_preloaded_so_that_none_waits_for_another():
    preloaded = set(re.findall(r'rel="modulepreload" href="{{ static }}/([^"]+)"', PAGE.read_text()))
    assert preloaded == {path.relative_to(STATIC).as_posix() for path in critical_modules()} - {"app.js"}


def test_the_critical_path_is_at_most_100_kb_gzipped():
    files = [
        PAGE,
        STATIC / "early.js",
        VENDOR / "lucide" / "sprite.svg",
        *STATIC.glob("css/*.css"),
        *critical_modules(),
    ]
    size = sum(len(gzip.compress(path.read_bytes())) for path in files) / 1000
    assert size <= CRITICAL_KILOBYTES, f"{size:.1f} kB"


def test_own_modules_are_type_checked_small_and_write_no_html():
    for module in own_modules():
        text = module.read_text()
        assert text.startswith("// @ts-check\n"), module.name
        assert len(text.splitlines()) <= 400, module.name
        assert not re.search(
            r"\.(inner|outer)HTML\s*[+]?=|insertAdjacentHTML|document\.write|setAttribute\(\"style\"|"
            r"\beval\(|new Function",
            text,
        ), module.name


def test_all_icons_in_use_are_in_the_sprite():
    known = set(re.findall(r'<symbol id="([^"]+)"', (VENDOR / "lucide" / "sprite.svg").read_text()))
    used = set(re.findall(r"#icon-([a-z0-9-]+)", PAGE.read_text()))
    for module in own_modules():
        used |= set(re.findall(r'\bicon(?:Button)?\("([^"]+)"', module.read_text()))
        used |= set(re.findall(r'icon: "([^"]+)"', module.read_text()))
    assert used <= known, used - known


def test_texts_reach_their_contrast_in_both_themes():
    """WCAG 4.5:1 for every text colour on every background that it is used on."""
    css = (STATIC / "css" / "base.css").read_text()
    colors = {
        name: pair
        for name, *pair in re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    }

    def luminance(color):
        values = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        r, g, b = (
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values
        )
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for theme in (0, 1):
        for text in ("ink", "soft", "faint", "accent", "danger"):
            for ground in ("background", "panel", "raised", "tint", "user", "code"):
                if (text, ground) == ("danger", "user"):
                    continue
                light, dark = sorted(
                    (luminance(colors[text][theme]), luminance(colors[ground][theme])), reverse=True
                )
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (
                    text,
                    ground,
                    theme,
                    round((light + 0.05) / (dark + 0.05), 2),
                )
