"""Typing: which keys send, drafts, input methods, touch."""

import pytest
from playwright.sync_api import expect

from tests.helpers.pdf_files import pdf

from .conftest import MARLOW, OTTO, go_to, say, texts, wait_for_held, wait_until_quiet

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


def test_lines_that_are_typed_leave_the_conversation_at_its_end(page, site):
    go_to(page, site.import_path([f"Word {number}" for number in range(40)]))
    at_end = """() => {
      const { scrollHeight, clientHeight, scrollTop } = document.querySelector("#transcript");
      return scrollHeight - clientHeight - scrollTop <= 4;
    }"""
    for box in ("#text", ".edit-text"):
        if box == ".edit-text":
            page.click(".is-last >> text=Edit")
        page.click(box)
        for word in ("one", "two", "three", "four", "five"):
            page.keyboard.type(word)
            page.keyboard.press("Shift+Enter")
            page.wait_for_function(at_end)
            expect(page.locator("#jump")).to_be_hidden()


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


def sent_text(page, site, session_id):
    """What a click on Send has sent, once the server has it."""
    page.click(".send")
    expect(page.locator(".from-user")).to_have_count(1)
    wait_until_quiet(page)
    return site.read(session_id)["messages"][-2]["text"]


def choose(page, *files):
    """By the button; each is a name and its content."""
    page.set_input_files("#composer input[type=file]", [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files])


def hold_requests(page, url):
    """Hold the next request to `url`; what is returned lets it go, once it is there."""
    held = []
    page.route(url, lambda route: held.append(route))

    def let_go():
        wait_for_held(page, held)
        held[0].continue_()

    return let_go


def test_files_are_chips_beside_the_message_until_they_are_sent_in_it(page, site, open_session):
    session_id = open_session()
    page.fill("#text", "Look:")
    choose(page, ("poem.py", b"print('sea')\n"), ("notes.txt", b"x" * 2000), ("b.csv", b"a,b\n1,2\n"))
    chips = page.locator("#composer .attached-file")
    expect(chips).to_have_count(3)
    expect(chips.nth(0)).to_contain_text("poem.py")
    expect(chips.nth(0)).to_contain_text("13 bytes")
    expect(chips.nth(1)).to_contain_text("2 kB")
    expect(page.get_by_role("list", name="Attached files").get_by_role("listitem")).to_have_count(3)
    page.get_by_role("button", name="Remove notes.txt").focus()
    page.keyboard.press("Enter")
    expect(chips).to_have_count(2)
    expect(page.get_by_role("button", name="Remove b.csv")).to_be_focused()
    expect(page.locator("#announcer")).to_contain_text("notes.txt is removed.")
    expect(page.locator("#text")).to_have_value("Look:")
    assert sent_text(page, site, session_id) == (
        "Look:\n\npoem.py:\n```py\nprint('sea')\n```\n\nb.csv:\n```csv\na,b\n1,2\n```")
    expect(chips).to_have_count(0)
    page.reload()
    expect(page.locator(".from-user")).to_have_count(1)
    expect(chips).to_have_count(0)


def test_attached_files_stay_with_their_session_over_a_reload_and_a_message_that_fails(
        page, site, open_session, watch):
    watch.expected = ("500",)
    other, session_id = site.session(), open_session()
    choose(page, ("a.txt", b"first"))
    choose(page, ("b.txt", b"second"))
    names = page.locator("#composer .attached-name")
    expect(names).to_have_text(["a.txt", "b.txt"])
    page.reload()
    expect(names).to_have_text(["a.txt", "b.txt"])
    page.click(f"[href='./#{other}']")
    expect(names).to_have_count(0)
    page.click(f"[href='./#{session_id}']")
    expect(names).to_have_text(["a.txt", "b.txt"])
    page.route("**/messages", lambda route: route.fulfill(
        status=500, json={"error": {"message": "Something broke.", "code": "internal"}, "id": "1"}))
    page.click(".send")
    expect(page.locator(".toast.serious")).to_contain_text("Something broke.")
    expect(names).to_have_text(["a.txt", "b.txt"])
    page.unroute("**/messages")
    assert sent_text(page, site, session_id) == "a.txt:\n```txt\nfirst\n```\n\nb.txt:\n```txt\nsecond\n```"
    assert page.evaluate("id => localStorage.getItem(`parlor.files.${id}`)", session_id) is None


def test_files_of_a_session_that_begins_with_them_go_with_its_first_message(page, site):
    go_to(page)
    choose(page, ("a.txt", b"first"))
    expect(page.locator("#composer .attached-name")).to_have_text(["a.txt"])
    page.click(".send")
    expect(page.locator(".from-user .md")).to_contain_text("first")
    wait_until_quiet(page)
    expect(page.locator("#composer .attached-file")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('parlor.files'))") == []


def test_the_text_of_a_pdf_is_attached_and_sending_waits_for_it(page, site, open_session):
    session_id = open_session()
    let_go = hold_requests(page, "**/api/pdf-text")
    page.fill("#text", "Look:")
    choose(page, ("Tide.PDF", pdf("High water", "Low water")))
    expect(page.locator("#composer .attached-file")).to_have_text(["Reading Tide.PDF…"])
    page.press("#text", "Enter")
    page.press("#text", "Enter")
    assert page.input_value("#text") == "Look:"
    let_go()
    expect(page.locator(".from-user")).to_have_count(1)
    wait_until_quiet(page)
    assert [one["text"] for one in site.read(session_id)["messages"] if one["author"] == "user"] == [
        "Look:\n\nTide.PDF:\n```\n[Page 1]\nHigh water\n\n[Page 2]\nLow water\n```"]


def test_a_file_that_is_being_read_while_the_page_is_reloaded_is_read_again(page, open_session):
    open_session()
    hold_requests(page, "**/api/pdf-text")
    choose(page, ("Tide.PDF", pdf("High water")), ("note.txt", b"A note."))
    expect(page.locator("#composer .attached-file")).to_have_text(["Reading Tide.PDF…", "Reading note.txt…"])
    page.wait_for_function("() => (sessionStorage.getItem('parlor.unread') || '[]') !== '[]'")
    page.unroute("**/api/pdf-text")
    page.reload()
    expect(page.locator("#composer .attached-name")).to_have_text(["Tide.PDF", "note.txt"])
    page.wait_for_function("() => sessionStorage.getItem('parlor.unread') === '[]'")
    page.reload()
    expect(page.locator("#composer .attached-name")).to_have_text(["Tide.PDF", "note.txt"])


def test_a_pdf_without_text_changes_nothing_and_a_message_that_waits_for_it_stays(page, open_session, watch):
    watch.expected = ("400",)
    open_session()
    let_go = hold_requests(page, "**/api/pdf-text")
    page.fill("#text", "Look:")
    choose(page, ("scan.pdf", pdf("")))
    expect(page.locator("#composer .attached-file")).to_have_count(1)
    page.press("#text", "Enter")
    let_go()
    expect(page.locator(".toast.serious")).to_contain_text("scan.pdf cannot be attached: it holds no text")
    expect(page.locator("#composer .attached-file")).to_have_count(0)
    expect(page.locator("#text")).to_have_value("Look:")
    assert page.locator(".message").count() == 0


def test_files_that_the_browser_has_no_room_for_are_attached_and_it_says_so(page, site, open_session):
    session_id = open_session()
    page.evaluate("""() => {
      Storage.prototype.setItem = () => { throw new DOMException("", "QuotaExceededError"); };
    }""")
    choose(page, ("a.txt", b"first"))
    expect(page.locator(".toast")).to_contain_text("This browser has no room to keep the files")
    assert sent_text(page, site, session_id) == "a.txt:\n```txt\nfirst\n```"


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
def test_files_of_every_kind_are_attached_as_they_read(page, site, open_session, name, content, shown):
    session_id = open_session()
    choose(page, (name, content))
    expect(page.locator("#composer .attached-name")).to_have_text([name])
    assert sent_text(page, site, session_id) == shown.rstrip()


def test_a_file_that_holds_no_text_or_too_much_is_refused_in_words(page, open_session):
    open_session()
    for name, content, said in (
        ("a.png", b"\x89PNG\r\n\x1a\n\x00\x00", "a.png is not a text file"),
        ("b.txt", b"x" * 100_001, "b.txt is too long for a message."),
    ):
        choose(page, (name, content))
        expect(page.locator(".toast.serious").last).to_contain_text(said)
    expect(page.locator("#composer .attached-file")).to_have_count(0)
    choose(page, *((f"{number}.txt", b"x" * 99_000) for number in range(3)))
    expect(page.locator(".toast.serious").last).to_contain_text("2.txt is too long for a message.")
    expect(page.locator("#composer .attached-name")).to_have_text(["0.txt", "1.txt"])


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
    expect(page.locator("#composer .attached-name")).to_have_text(["a.txt", "b.txt"])


def test_dropped_and_pasted_files_are_attached_and_the_page_stays(page, site, open_session):
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
    expect(page.locator("#composer .attached-name")).to_have_text(["a.txt", "b.txt", "a.txt"])
    expect(page.locator("#composer.is-target")).to_have_count(0)
    assert page.url.endswith(session_id)
    assert sent_text(page, site, session_id) == (
        "a.txt:\n```txt\nin a.txt, by drop\n```\n\nb.txt:\n```txt\nin b.txt, by drop\n```\n\n"
        "a.txt:\n```txt\nin a.txt, by paste\n```")
