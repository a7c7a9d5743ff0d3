"""Two hundred hostile strings in every field that a person, a file or another program can fill: every dialog
and menu shows them as the texts that they are."""

import itertools
import re

import pytest
from playwright.sync_api import Error, expect

from tests.helpers.stand_in_engine import StandInEngine

from .conftest import MARLOW, OTTO, go_to, say, site_in, wait_until_quiet
from .test_every_dialog import WAYS, WIDE, close_all, furnished, message_menu, resize, with_an_address  # noqa: F401
from .test_untrusted_text import RUN, SAMPLES

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BREAKS = ["\"", "'", "`", "-->", "]]>", "</title>", "</textarea>", "</option>", "\u202e", "\\"]
SHORT = [
    f"<img src=x onerror={RUN}>", f"<svg onload={RUN}>", f" onfocus={RUN} autofocus x=",
    "{name} {0} %s $& $1", "${window.__ran=1}", "{{user}}{{char}}", "__proto__", f"javascript:{RUN}", "url(https://evil.example/c)",
    "\u0301\u200d\ufeff\u2066"]
HOSTILE = [*SAMPLES, *(before + inside for before, inside in itertools.product(BREAKS, SHORT))]
ALL = "\n".join(HOSTILE)
HARM = """() => [...document.querySelectorAll("*")].flatMap((one) => {
  const found = [];
  if (one.matches("iframe, object, embed, base, frame, video, audio, meta[http-equiv=refresh i]"
    + ", style:not(head > style), script:not([src], head > script), foreignObject, svg script"
    + ", img:not(.monogram img, .qr), form:not(#composer, dialog > form)"))
    found.push("is");
  for (const { name, value } of one.attributes) {
    if (/^on/i.test(name)) found.push(name);
    if (/^(href|src|action|formaction|xlink:href|data|poster|srcset|background)$/i.test(name)
      && !/^(https?:|mailto:|data:image\\/png;base64|blob:|\\.?\\/|#)/.test(value)) found.push(name);
    if (name === "style" && /url\\(|expression/i.test(value)) found.push(value);
  }
  if (one.matches("script[src], link") && new URL(one.src || one.href).origin !== location.origin)
    found.push("foreign");
  return found.map((what) => `${what}: ${one.outerHTML.slice(0, 200)}`);
})"""


def in_one_line(text, most):
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)[:most].strip()


def as_name(text):
    return in_one_line(text.replace(":", ";"), 60)


def names():
    """As names of speakers may be, no two alike."""
    return list(dict.fromkeys(filter(None, map(as_name, HOSTILE))))


def as_tag(text):
    return re.sub(r"[\s#,\x00-\x1f\x7f-\x9f\u2028\u2029]+", "_", text)[:40] or "_"


def tags():
    return list({as_tag(text).casefold(): as_tag(text) for text in HOSTILE}.values())


def messages(bots):
    """Each a hostile text, by the user and by bots in turn, with a name, a thought, an error and a label."""
    found, parent = [], None
    for number, text in enumerate(HOSTILE):
        author = "user" if number % 2 == 0 else bots[number // 2 % len(bots)]
        about = {} if author == "user" else {"error": text, "model": text}
        message = {"id": f"{number:016x}", "parent": parent, "author": author, "text": text,
                   "name": as_name(text), "thinking": "" if author == "user" else text,
                   "created": 1.7e9 + number, "label": in_one_line(text, 60), **about}
        if not message["label"]:
            del message["label"]
        found.append(message)
        parent = message["id"]
    return found


def session_of(messages, **fields):
    """As an export has it; its id is a new one once it is taken in."""
    return {"schema_version": 1, "id": "f" * 16, "revision": 1, "title_is_auto": False, "created": 1.7e9,
            "updated": 1.7e9, "leaf": messages[-1]["id"] if messages else None, "user_name": "",
            "system_prompt": "", "turn_order": "in_turn", "sampling": {}, "preset": "balanced",
            "bots": [{"id": MARLOW, "muted": False}], "messages": messages, **fields}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server of its own: what is called by them does not stand beside what other tests look for."""
    with site_in(tmp_path_factory.mktemp("hostile")) as site:
        yield site


@pytest.fixture
def hostile(site, furnished):  # noqa: F811
    """A session with them in every field, beside sessions, bots and presets that are called by them."""
    otto = site.api("GET", f"/api/bots/{OTTO}")["bot"]
    bots = [{"schema_version": 1, "id": f"b{number:015x}", "revision": 1, "name": name, "color": "#7a6a55",
             "persona": ALL, "greeting": name, "nickname": name, "sampling": {}}
            for number, name in enumerate(names())]
    for name in names()[:150]:
        site.api("POST", "/api/presets", {"name": name, "sampling": {}})
    room = [MARLOW, OTTO, *(bot["id"] for bot in bots[:10])]
    path = messages(room)
    session = session_of(
        path, title=ALL[:200], user_name=names()[0], user_persona=ALL, system_prompt=ALL,
        bots=[{"id": bot, "muted": False, "notes": ALL} for bot in room[:1] + room[2:]] + [
            {"id": OTTO, "muted": False, "notes": ALL, "since": path[9]["id"]}],
        sampling={"stop": [text[:40] for text in HOSTILE[:8]], "negative_prompt": ALL[:5_000]},
        preset=site.read(furnished)["preset"], note={"text": ALL, "depth": 3},
        lore=[{"keys": [text[:100] for text in part], "text": "\n".join(part)}
              for part in (HOSTILE[at:at + 10] for at in range(0, len(HOSTILE), 10))],
        summaries=[{"id": "e" * 16, "until": path[5]["id"], "text": ALL, "created": 1.7e9}],
        folder=in_one_line(HOSTILE[0], 60), tags=tags()[:20])
    others = [session_of([], title=text[:200], folder=in_one_line(text, 60), tags=tags()[number % 180:][:3])
              for number, text in enumerate(HOSTILE)]
    data = {"parlor_export": 1, "sessions": [session, *others], "bots": bots}
    taken = site.api("POST", "/api/sessions/import", {"data": data})
    assert taken["number"] == 1 + len(HOSTILE)
    about = {"enabled": True, "insertion_order": 1, "constant": True, "extensions": {}}
    book = {"name": ALL, "entries": [{"keys": [text], "content": text, "name": text, **about}
                                     for text in HOSTILE]}
    site.api("PATCH", f"/api/bots/{OTTO}", {
        "revision": otto["revision"], "persona": ALL, "greeting": ALL, "alternate_greetings": HOSTILE[:100],
        "example_dialogue": ALL, "post_history_instructions": ALL, "nickname": names()[1], "lore_book": book})
    return taken["session"]["id"]


def assert_no_harm(page, where):
    assert page.evaluate("window.__ran") is None, where
    assert page.evaluate(HARM) == [], where


def test_in_every_field_of_every_dialog_they_are_texts(page, site, hostile, watch, monkeypatch):
    assert len(set(HOSTILE)) >= 200
    watch.expected = ("401", "409")
    monkeypatch.setattr(site.model, "max_seq_len", 1 << 22)
    with StandInEngine(HOSTILE[1]).running() as engine:
        body = {"url": engine.url, "name": in_one_line(HOSTILE[1], 60), "key": ""}
        added = site.api("POST", "/api/engines", body)["engine"]
        try:
            through_every_dialog(page, site, hostile)
        finally:
            site.api("DELETE", f"/api/engines/{added['id']}", {})


def through_every_dialog(page, site, session):
    page.set_default_timeout(30_000)
    with_an_address(page)
    go_to(page, session)
    for text in ("Marlow, hello", "Otto, and you?"):
        site.model.scripts.append(" ".join(HOSTILE[:60]))
        say(page, text)
        wait_until_quiet(page)
    message_menu(page, "Regenerate")
    wait_until_quiet(page)
    more = page.locator("#sessions .show-more")
    while more.count():
        more.click()
    assert_no_harm(page, "the chat and the list")
    expect(page.locator("#title")).to_have_text(ALL[:200].replace("\n", " "))
    failed = []
    for name, (width, way) in WAYS.items():
        if name == "chat/way-out 1":
            continue  # its sentences are the page's own, and here no context is full
        resize(page, width)
        try:
            way(page)
            opened = page.locator("dialog[open], [role=menu]").last
            expect(opened).to_be_visible()
            if width == WIDE:  # what comes by itself has had its time
                page.wait_for_timeout(300)
            assert_no_harm(page, name)
        except (AssertionError, Error) as error:
            failed.append(f"{name}: {str(error)[:700]}")
        close_all(page)
    assert not failed, "\n".join(failed)
