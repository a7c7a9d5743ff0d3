"""The page's files: libraries unchanged, nothing inline, nothing remote, few and compressed when served."""

import base64
import gzip
import hashlib
import posixpath
import re
from itertools import chain
from pathlib import Path

import pytest

from webui.server.bundle import ASKED, FIRST, LATER, bare, bundles
from webui.server.static_files import STYLES

WEBUI = Path(__file__).resolve().parents[2] / "webui"
STATIC = WEBUI / "static"
VENDOR = STATIC / "vendor"
PAGE = WEBUI / "templates" / "index.html"
CRITICAL_KILOBYTES = 100
ZIPPED = {"Accept-Encoding": "gzip, deflate, br"}


def own_modules():
    return sorted(path for path in STATIC.rglob("*.js") if VENDOR not in path.parents)


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


def test_the_page_has_nothing_remote_and_nothing_inline_but_what_its_policy_names(app):
    html = PAGE.read_text()
    assert not re.search(r"\sstyle=|\son\w+=|javascript:", html)
    answer = app.test_client().get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        [inside] = [text for text in re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", answer.text, re.S) if text]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'self' 'sha256-{digest}'"
    assert not re.findall(r"""(?:src|href)=["'](?!\{\{ static \}\}/|#)""", html)


def test_the_critical_path_is_at_most_100_kb_gzipped(app):
    client = app.test_client()
    page = client.get("/").get_data(as_text=True)
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert {Path(path).name for path in named} == {"page.js", "icon.svg", "icon.png", "parlor.webmanifest"}
    size = sum(len(client.get(path, headers=ZIPPED).data) for path in ["/", *named]) / 1000
    assert size <= CRITICAL_KILOBYTES, f"{size:.1f} kB"


def test_the_first_paint_waits_for_no_answer_but_the_page(app):
    page = app.test_client().get("/").get_data(as_text=True)
    assert 0 < page.index("<style>") < page.index("<script>") < page.index("<body")
    head = page[:page.index("<body")]
    assert not re.search(r"<script[^>]*src|stylesheet", head)
    static = re.search(r'src="(/static/[^/]+)/', page)[1]
    assert f'url("{static}/vendor/noto-sans-math/' in head  # as seen from the page, not from a sheet


def test_the_pages_files_are_compressed_for_those_who_can_read_it(app):
    client = app.test_client()
    static = re.search(r'src="(/static/[^/]+)/', client.get("/").get_data(as_text=True))[1]
    for path in ("/", *(f"{static}/{name}" for name in (
            "page.js", "later.js", "asked.js", "asked.css", "icon.svg", "vendor/katex/katex.min.js"))):
        plain, zipped = client.get(path), client.get(path, headers=ZIPPED)
        refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
        assert plain.status_code == zipped.status_code == 200, path
        assert zipped.headers["Content-Encoding"] == "gzip" and gzip.decompress(zipped.data) == plain.data
        assert "Content-Encoding" not in plain.headers and refused.data == plain.data
        by_language = ", Accept-Language, Cookie" if path == "/" else ""
        assert plain.headers["Vary"] == zipped.headers["Vary"] == f"Accept-Encoding{by_language}"
        assert plain.mimetype == zipped.mimetype
    assert "Content-Encoding" not in client.get("/api/status", headers=ZIPPED).headers
    for path in ("page.html", "app.js", "base/dom.js", "css/base.css", "early.js"):
        assert client.get(f"{static}/{path}").status_code == 404, path


def test_what_is_asked_for_brings_its_own_styles_and_the_first_visit_has_none_of_them(app):
    client = app.test_client()
    static = re.search(r'src="(/static/[^/]+)/', client.get("/").get_data(as_text=True))[1]
    first, asked = (client.get(path).get_data(as_text=True) for path in ("/", f"{static}/asked.css"))
    assert ".lens-token {" in asked and ".lens-token" not in first and "#transcript" in first
    assert "./asked.css" in client.get(f"{static}/asked.js").get_data(as_text=True)
    sheets = {path.stem for path in (STATIC / "css").glob("*.css")}
    assert sheets == {*STYLES, "asked"}  # none is left out


def test_every_module_of_ours_is_in_one_bundle():
    sources = {path.relative_to(STATIC).as_posix(): path.read_text() for path in STATIC.rglob("*.js")}
    made = bundles(sources)
    there = [re.findall(r'"(\S+\.js)": \$m', made[name].splitlines()[-1])
             for name in (FIRST, LATER, ASKED)]
    own = {path.relative_to(STATIC).as_posix() for path in own_modules()}
    expected = own - {"early.js", "types.js"} | {"vendor/marked/marked.esm.js"}
    assert sorted(chain(*there)) == sorted(expected)
    before = []
    for name in chain(*there):  # each after those that it imports
        for other in re.findall(r'^import .*?"(\.[^"]+)"', sources[name], re.M):
            needed = posixpath.normpath(posixpath.join(posixpath.dirname(name), other))
            assert needed in before, (name, needed)
        before.append(name)
    assert "panels/right-panel.js" in there[1] and "tokens/lens.js" in there[2]


def test_a_bundle_by_hand():
    made = bundles({
        "app.js": 'import { double as twice, ONE } from "./base/two.js";\n// a note\nconst it = twice(ONE);\n'
                  'export const panel = () => import("./panels/right-panel.js");\n'
                  "export const open = () => import(\"./far/away.js\");\n",
        "base/two.js": "/** @param {number} n */\nexport function double(n) {\n  return 2 * n;\n}\n"
                       "export const ONE = /** @type {number} */ (1);\n",
        "panels/right-panel.js": "export const TWO = 2;\n",
        "far/away.js": 'import { ONE } from "../base/two.js";\n'
                       'import { TWO } from "../panels/right-panel.js";\n'
                       "export async function* one() {\n  yield ONE;\n}\n"
                       'export const load = (name) => import(`../vendor/${name}.js`);\n',
    })
    assert made[FIRST] == (
        "const $m0 = (() => {\nfunction double(n){\nreturn 2*n;\n}\nconst ONE=(1);\n"
        "return { double, ONE };\n})();\n"
        "const $m1 = (() => {\nconst{double:twice,ONE}=$m0;\nconst it=twice(ONE);\n"
        'const panel = () => import("./later.js").then(({ modules }) => modules["panels/right-panel.js"]);\n'
        'const open = () => import("./asked.js").then(({ modules }) => modules["far/away.js"]);\n'
        "return { panel, open };\n})();\n"
        'export const modules = { "base/two.js": $m0, "app.js": $m1 };\n')
    taken = ('import { modules as modules1 } from "./page.js";\nconst $m0 = modules1["base/two.js"];\n'
             'const $m1 = modules1["app.js"];\n')
    assert made[LATER] == (
        taken + "const $m2 = (() => {\nconst TWO=2;\nreturn { TWO };\n})();\n"
        'export const modules = { "panels/right-panel.js": $m2 };\n')
    assert made[ASKED] == (
        taken + 'import { modules as modules2 } from "./later.js";\n'
        'const $m2 = modules2["panels/right-panel.js"];\n'
        "const $m3 = (() => {\nconst{ONE}=$m0;\nconst{TWO}=$m2;\n"
        "async function*one(){\nyield ONE;\n}\n"
        "const load = (name) => import(`./vendor/${name}.js`);\nreturn { one, load };\n})();\n"
        'export const modules = { "far/away.js": $m3 };\n')


def test_spaces_that_nobody_reads_are_left_out_and_those_in_texts_stay():
    source = ('/** Of it. */\n  const a = { b: "x : y", c: [1, 2] };\n  d(); // why\n'
              '  return `a , ${b ? c : "d , e"} `;\n  if (a / b > c) f(`${`a , b`}`);\n'
              "  g(/a , b/, 'a , b'); // a , b\n  h(a + +b - -c, \"//\");\n")
    assert bare(source) == ('const a={b:"x : y",c:[1,2]};\nd();\nreturn `a , ${b ? c : "d , e"} `;\n'
                            "if (a / b > c) f(`${`a , b`}`);\ng(/a , b/, 'a , b'); // a , b\n"
                            'h(a + +b - -c, "//");\n')


@pytest.mark.parametrize(("source", "said"), [
    ('import all from "./b.js";\n', "import all"),
    ('import * as b from "./b.js";\n', "import [*]"),
    ("export default 1;\n", "export default"),
    ("export let n = 1;\n", "export let"),
    ('import { b } from "./c.js";\n', "c.js, which is not there"),
    ('import { b } from "./b.js";\nimport("./b.js");\n', "has it from the beginning"),
    ('import { b } from "./round.js";\n', "app.js -> round.js -> app.js"),
])
def test_what_cannot_be_bundled_is_told(source, said):
    modules = {"app.js": source, "b.js": "export const b = 1;\n",
               "round.js": 'import { x } from "./app.js";\n'}
    with pytest.raises(ValueError, match=said):
        bundles(modules)


def test_own_modules_are_type_checked_small_and_write_no_html():
    for module in own_modules():
        text = module.read_text()
        assert text.startswith("// @ts-check\n"), module.name
        assert len(text.splitlines()) <= 400, module.name
        comments = re.findall(r"^ *(?:/\*\*|\*|//) .*", text, re.MULTILINE)
        assert all(len(line) <= 110 for line in comments if not line.endswith((";", ")"))), module.name
        code = re.sub(r"/\*\*.*?\*/|^ *//.*", "", text, flags=re.MULTILINE | re.DOTALL)
        for line in code.splitlines():  # bundles lose their indents, which a longer text would lose too
            assert re.sub(r'"`"|/`\+/', "", line).count("`") % 2 == 0, (module.name, line)
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
