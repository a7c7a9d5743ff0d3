"""What leaves the page: a message as plain text, the whole chat on paper and as an HTML file."""

import base64

import pytest
from playwright.sync_api import expect

from .conftest import go_to

pytestmark = pytest.mark.browser

MARKDOWN = """## A *title*

One **bold** word, `code` and a [link](https://example.org/a).
Next line

1. first
   - inner
2. second $x^2$

| a | b |
|---|---|
| 1 | *2* |

```python
if a:
    b()
```
"""
PLAIN = """A title

One bold word, code and a link (https://example.org/a).
Next line

1. first
   • inner
2. second x^2

a\tb
1\t2

if a:
    b()"""


def test_a_chat_goes_out_as_plain_text_on_paper_and_as_a_page(context, page, site):
    """Of 80 long messages the page itself holds only some."""
    session_id = site.import_path([f"Message {n} " + "with some words " * 30 for n in range(79)] + [MARKDOWN])
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    go_to(page, session_id)
    last = page.locator(".message").last
    expect(last.locator(".md h3")).to_have_text("A title")
    last.hover()
    last.locator("[aria-label=More]").click()
    page.click(".menu >> text=Copy as plain text")
    expect(last.locator(".actions")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == PLAIN

    expect(page.locator("#right [role=tab]")).to_have_count(4)  # what printing takes came with them
    assert page.locator("#messages .message").count() < 80
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator("#print article")).to_have_count(80)
    expect(page.locator("#print article").first).to_contain_text("Message 0 with")
    expect(page.locator("#print article").last).to_be_visible()
    for hidden in ("#left", "#right", "#main", "#print .code-head", "#print .link-target"):
        expect(page.locator(hidden)).to_be_hidden()
    after = page.locator("#print a").evaluate("one => getComputedStyle(one, '::after').content")
    assert "attr(href)" in after or "https://example.org/a" in after  # where a link goes, in whole
    colors = "all => [...new Set(all.map(one => getComputedStyle(one).color))]"
    assert page.eval_on_selector_all("#print *", colors) == ["rgb(0, 0, 0)"]
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(page.locator("#print")).to_have_count(0)

    with page.expect_download() as download:
        page.click("#right >> text=Session")
        page.click("#right >> text=Export HTML")
    html = base64.b64encode(download.value.path().read_bytes()).decode()
    page.goto(f"data:text/html;base64,{html}")  # a breach of its policy would stand in the console
    expect(page.locator("article")).to_have_count(80)
    assert page.eval_on_selector("main", "main => getComputedStyle(main).maxWidth") == "736px"
