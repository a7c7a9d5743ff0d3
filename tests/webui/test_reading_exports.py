"""A session as one HTML file: what is shown, and nothing that a reader's browser would run or load."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from webui.exchange import html_page as exporter
from webui.exchange.html_page import POLICY, STYLE, html_page
from webui.storage import tree
from webui.storage.schema import USER, new_message, new_session

ALLOWED = {"html": {"lang"}, "meta": {"charset", "http-equiv", "content", "name"}, "article": {"class"},
           "div": {"class", "dir"}, "h1": {"dir"}, "b": {"dir"}, "p": {"class"}, "code": {"class"},
           "a": {"href", "rel", "title"}, "th": {"align"}, "td": {"align"}, "ol": {"start"},
           **{tag: set() for tag in (
               "head", "title", "style", "body", "main", "header", "time", "h2", "strong", "em", "s", "ul",
               "li", "pre", "blockquote", "hr", "br", "table", "thead", "tbody", "tr")}}
NASTY = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&#58;alert(1))", "[a](data:text/html,x)", "![a](http://evil.example/x.png)",
    "![a](data:image/svg+xml;base64,AA)", '[a](https://x.example/" onmouseover="x)',
    '[a](https://x.example \'t" onclick="x\')', "```\" onload=\"x\n</pre><script>1</script>\n```",
    "<https://x.example/><javascript:1>", "[r]: vbscript:x\n[r]", "</main></body><style>*{}</style>",
    "<!-- --!> <iframe src=//evil.example>", "&lt;script&gt;", "| <b> | a |\n|:-:|--|\n| `<` | <u> |",
    "# <svg onload=1>", "> " * 200 + "x", "\0\x1b\ufffe<\r\n>", "[![a](http://e.example/i)](http://f.example/)",
    "\u202e evil", "<a href='javascript:1'>x</a>", "[x](//evil.example)", "[x](file:///etc/passwd)",
    "*[" * 500, "- " * 300 + "x", "<meta http-equiv=refresh content=0>", "~~a~~ **b** _c_ `d`"]


class Tags(HTMLParser):
    """Every element with its attributes, as a browser would find them, and the text between."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def session_of(*texts, **fields):
    session = {**new_session([], "A title"), **fields}
    for number, text in enumerate(texts):
        author, name = (USER, "User") if number % 2 == 0 else ("0" * 16, "Marlow")
        message = {**new_message(author, name, text, session["leaf"]), "created": 1_700_000_000.0 + number}
        session = tree.with_message(session, message, leaf=message["id"])
    return session


def test_a_page_by_hand():
    page = html_page(session_of("Hi *there*", "1 < 2\n\n```py\nprint(\"<b>\")\n```", user_name="Ann & Bo"))
    assert page.startswith("<!doctype html>\n") and page.count("<article") == 2
    assert '<header><b dir="auto">Ann &amp; Bo</b> <time>2023-11-1' in page
    assert '<div class="text" dir="auto">\n<p>Hi <em>there</em></p>\n</div>' in page
    assert '<pre><code class="language-py">print(&quot;&lt;b&gt;&quot;)\n</code></pre>' in page
    assert "2 messages" in page and "1 message," in html_page(session_of("x"))


def test_only_the_branch_that_is_shown_is_in_it():
    session = session_of("first", "second")
    other = new_message("0" * 16, "Marlow", "another version", session["messages"][0]["id"])
    session = tree.with_message(session, other, leaf=session["leaf"])
    assert "another version" not in html_page(session)
    assert "another version" in html_page({**session, "leaf": other["id"]})


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_whatever_is_said_becomes_no_element_and_no_address_but_harmless_ones(text, monkeypatch):
    for rendered in (exporter.MAX_RENDERED, 0):
        monkeypatch.setattr(exporter, "MAX_RENDERED", rendered)
        tags = Tags(html_page(session_of(text, text, title=text[:200], user_name="<b>")))
        for tag, attributes in tags.found:
            assert set(attributes) <= ALLOWED[tag], (tag, attributes)
            address = attributes.get("href", "http://")
            assert re.match(r"https?://|mailto:", address, re.IGNORECASE), address
        assert [tag for tag, _ in tags.found].count("meta") == 4
        assert not re.search("[\x00-\x08\x0e-\x1f]", tags.text)


def test_the_page_forbids_itself_everything_but_its_style():
    tags = Tags(html_page(session_of("x")))
    policies = [attributes["content"] for tag, attributes in tags.found
                if attributes.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert policies == [POLICY] and POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert f"<style>{STYLE}</style>" in html_page(session_of("x")) and "url(" not in STYLE


def test_of_a_very_long_session_the_end_stands_as_written(monkeypatch):
    monkeypatch.setattr(exporter, "MAX_RENDERED", 10)
    page = html_page(session_of("**bold**", "**plain** <b>"))
    assert "<strong>bold</strong>" in page and '<p class="written">**plain** &lt;b&gt;</p>' in page


def test_the_html_export_is_a_file_to_save(client, page):
    page.set(title="Con.txt / <Meer>")
    page.say("code please")
    response = client.get(f"{page.url}/export?format=html")
    assert response.mimetype == "text/html" and "```" not in response.text and "<pre><code" in response.text
    assert response.headers["Content-Disposition"].startswith('attachment; filename="_Con.txt _ _Meer.html"')
    error = client.get(f"{page.url}/export?format=pdf")
    assert error.status_code == 400
    assert "expected json, markdown, html, sillytavern" in error.json["error"]["message"]
