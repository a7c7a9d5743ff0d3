"""Typing: which keys send, drafts, input methods, touch."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, texts, wait_until_quiet

pytestmark = pytest.mark.browser


def test_enter_while_an_input_method_composes_does_not_send(page, open_session, context):
    open_session()
    page.focus("#text")
    devtools = context.new_cdp_session(page)
    devtools.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    page.evaluate("""() => {
      const text = document.querySelector("#text");
      const press = (more) => text.dispatchEvent(
        new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...more }));
      press({ isComposing: true });
      press({ keyCode: 229 });
      press({ keyCode: 229, ctrlKey: true });
    }""")
    devtools.send("Input.insertText", {"text": "日本"})
    page.wait_for_timeout(200)
    assert page.input_value("#text") == "日本"
    assert page.locator(".message").count() == 0
    page.keyboard.press("Enter")
    expect(page.locator(".from-user .md")).to_have_text("日本")


def test_shift_enter_makes_a_new_line_and_enter_sends(page, open_session):
    open_session()
    page.focus("#text")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".from-user .md")).to_have_text("one\ntwo", use_inner_text=True)


def test_on_a_touch_screen_enter_is_a_new_line_and_the_button_sends(new_context, site):
    page = new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}).new_page()
    go_to(page, site.session())
    page.focus("#text")
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    assert page.input_value("#text") == "one\ntwo"
    page.tap(".send")
    expect(page.locator(".from-user .md")).to_have_text("one\ntwo", use_inner_text=True)
    wait_until_quiet(page)
    page.fill("#text", "three")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".from-user")).to_have_count(2)


def test_drafts_belong_to_their_session_and_survive_a_reload(page, site):
    first, second = site.session(), site.session()
    go_to(page, first)
    page.fill("#text", "for the first")
    page.click(f"[href='./#{second}']")
    expect(page.locator("#text")).to_have_value("")
    page.fill("#text", "for the second")
    page.click(f"[href='./#{first}']")
    expect(page.locator("#text")).to_have_value("for the first")
    page.reload()
    expect(page.locator("#text")).to_have_value("for the first")
    say(page, "for the first")
    page.reload()
    expect(page.locator("#text")).to_have_value("")
    page.click(f"[href='./#{second}']")
    expect(page.locator("#text")).to_have_value("for the second")


def test_what_was_typed_stays_when_sending_fails(page, open_session, watch):
    watch.expected = ("500",)
    open_session()
    page.route(
        "**/messages",
        lambda route: route.fulfill(
            status=500, json={"error": {"message": "Something broke.", "code": "internal"}, "id": "1"}
        ),
    )
    page.fill("#text", "precious words")
    page.press("#text", "Enter")
    expect(page.locator(".toast.serious")).to_contain_text("Something broke.")
    assert page.input_value("#text") == "precious words"


def test_an_empty_message_lets_the_bots_go_on(page, open_session):
    open_session(MARLOW, OTTO)
    page.focus("#text")
    page.keyboard.press("Enter")
    expect(page.locator(".from-bot .name")).to_have_text(["Marlow"])
    wait_until_quiet(page)
    page.keyboard.press("Enter")
    expect(page.locator(".from-bot .name")).to_have_text(["Marlow", "Otto"])
    wait_until_quiet(page)


def test_a_text_file_is_put_into_the_message(page, open_session, tmp_path):
    file = tmp_path / "poem.py"
    file.write_text("print('sea')\n")
    open_session()
    page.fill("#text", "Look:")
    page.set_input_files("#composer input[type=file]", file)
    expect(page.locator("#text")).to_have_value("Look:\n\npoem.py:\n```py\nprint('sea')\n```\n")


def test_words_in_many_scripts_arrive_unharmed(page, open_session):
    open_session()
    text = "Grüße 👩‍👩‍👧‍👦 你好 שלום नमस्ते"
    say(page, text)
    wait_until_quiet(page)
    assert texts(page)[0] == text
    assert text in texts(page)[1]
    assert page.locator(".from-bot .md > p").get_attribute("dir") == "auto"


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.md", b"Look:\n```py\nx\n```\n", "a.md:\n````md\nLook:\n```py\nx\n```\n````\n"),
        ("b.txt", b"`````\n", "b.txt:\n``````txt\n`````\n``````\n"),
        ("c.txt", "Grüße".encode("latin-1"), "c.txt:\n```txt\nGrüße\n```\n"),
        ("d.txt", "Grüße €".encode(), "d.txt:\n```txt\nGrüße €\n```\n"),
        ("e.txt", "Grüße".encode("utf-16"), "e.txt:\n```txt\nGrüße\n```\n"),
        ("f", b"\xef\xbb\xbfa\r\nb\r\n", "f:\n```\na\nb\n```\n"),
    ],
)
def test_files_of_every_kind_are_attached_as_they_read(page, open_session, name, content, shown):
    open_session()
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.set_input_files("#composer input[type=file]", file)
    expect(page.locator("#text")).to_have_value(shown)


def test_a_file_that_holds_no_text_or_too_much_is_refused_in_words(page, open_session):
    open_session()
    for name, content, said in (
        ("a.png", b"\x89PNG\r\n\x1a\n\x00\x00", "a.png is not a text file"),
        ("b.txt", b"x" * 100_001, "b.txt is too long for a message."),
    ):
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        page.set_input_files("#composer input[type=file]", file)
        expect(page.locator(".toast.serious").last).to_contain_text(said)
    expect(page.locator("#text")).to_have_value("")


def test_files_that_are_read_more_quickly_than_those_before_them_come_after_them(page, open_session):
    open_session()
    page.evaluate(
        """() => {
          const read = Blob.prototype.arrayBuffer;
          let secondIsRead;
          const second = new Promise((resolve) => { secondIsRead = resolve; });
          Blob.prototype.arrayBuffer = async function () {
            const bytes = await read.call(this);
            if (this.name === "b.txt") secondIsRead();
            else await second.then(() => new Promise((resolve) => setTimeout(resolve, 50)));
            return bytes;
          };
          for (const name of ["a.txt", "b.txt"]) {
            const data = new DataTransfer();
            data.items.add(new File([name], name, { type: "text/plain" }));
            document.querySelector("#text").dispatchEvent(
              new ClipboardEvent("paste", { bubbles: true, cancelable: true, clipboardData: data }));
          }
        }"""
    )
    expect(page.locator("#text")).to_have_value("a.txt:\n```txt\na.txt\n```\n\n\nb.txt:\n```txt\nb.txt\n```\n")


def test_dropped_and_pasted_files_are_attached_and_the_page_stays(page, open_session):
    session_id = open_session()
    handled = page.evaluate(
        """() => ["dragover", "drop", "paste"].map((type) => {
          const data = new DataTransfer();
          for (const name of ["a.txt", "b.txt"].slice(0, type === "paste" ? 1 : 2))
            data.items.add(new File([`in ${name}, by ${type}`], name, { type: "text/plain" }));
          const init = { bubbles: true, cancelable: true };
          const event = type === "paste"
            ? new ClipboardEvent(type, { ...init, clipboardData: data })
            : new DragEvent(type, { ...init, dataTransfer: data });
          document.querySelector(type === "paste" ? "#text" : "#transcript").dispatchEvent(event);
          return event.defaultPrevented;
        })"""
    )
    assert handled == [True, True, True]
    expect(page.locator("#text")).to_have_value(
        "a.txt:\n```txt\nin a.txt, by drop\n```\n\nb.txt:\n```txt\nin b.txt, by drop\n```\n"
        "\n\na.txt:\n```txt\nin a.txt, by paste\n```\n"
    )
    expect(page.locator("#composer.is-target")).to_have_count(0)
    assert page.url.endswith(session_id)
