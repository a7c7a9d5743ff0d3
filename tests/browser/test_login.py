"""A Parlor with a password: the page asks for it, and forgets it when it is told to."""

import pytest
from playwright.sync_api import expect

from tests.helpers.server_process import Server

from .conftest import context_at
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser
WORD = "correct horse"


def test_the_password_lets_in_and_logging_out_asks_for_it_again(chromium, tmp_path):
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbf" + WORD.encode() + b"\r\n")  # as Notepad writes it
    with Server(tmp_path / "sessions", "--password", str(file)) as server:
        context = context_at(chromium, f"http://127.0.0.1:{server.port}")
        page = context.new_page()
        page.goto("/")
        expect(page.locator("dialog h2")).to_have_text("Parlor is locked")
        page.fill("dialog input", "wrong horse")
        page.click("text=Come in")
        expect(page.locator("dialog [role=alert]")).to_have_text("That is not the password.")
        page.fill("dialog input", WORD)
        page.click("text=Come in")
        expect(page.locator(".bot-card").first).to_be_visible()
        page.reload()
        expect(page.locator(".bot-card").first).to_be_visible()
        page.click("[aria-label=Menu]")
        expect(page.locator(".menu")).not_to_contain_text("On another device")
        page.keyboard.press("Escape")
        page.click("[aria-label=Menu]")
        page.click(".menu >> text=Log out")
        expect(page.locator("dialog h2")).to_have_text("Parlor is locked")
        assert [cookie for cookie in context.cookies() if cookie["name"].startswith("parlor")] == []
        context.close()


def test_a_phone_is_shown_the_address_and_its_code(chromium, tmp_path):
    (tmp_path / "password").write_text(WORD, encoding="utf-8")
    with Server(tmp_path / "s", "--host", "0.0.0.0", "--password", str(tmp_path / "password")) as server:
        context = context_at(chromium, f"http://127.0.0.1:{server.port}")
        page = context.new_page()
        page.goto("/")
        page.fill("dialog input", WORD)
        page.click("text=Come in")
        page.click("[aria-label=Menu]")
        page.click(".menu >> text=On another device")
        address = page.locator(".device-address").text_content()
        assert address.startswith("http://") and address.endswith(f":{server.port}/")
        code = page.get_by_role("img", name=f"QR code of {address}")
        expect(code).to_have_js_property("complete", True)
        assert code.evaluate("image => image.naturalWidth") > 0
        assert_accessible(page, "other devices")
        context.close()
