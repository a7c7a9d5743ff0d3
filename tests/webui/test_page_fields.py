"""Every field that the page reads is one that the server sends: types.js against its answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model import EngineAddress
from model.hub.downloads import DownloadState
from tests.helpers.api import MARLOW, OTTO, Page, parse_events
from tests.helpers.shelf import Shelf
from tests.helpers.stand_in_engine import StandInEngine
from webui import create_app
from webui.routes.parlor import parlor
from webui.storage.schema import REPLY_NUMBERS, THOUGHT_NUMBERS

STATIC = Path(__file__).resolve().parents[2] / "webui" / "static"
PAGES_OWN = {"Live", "State", "Outgoing"}
"""Types of types.js that never cross the wire."""


def declared() -> dict[str, dict[str, bool]]:
    """{type: {field: whether it is always there}} of types.js."""
    text = re.sub(r"\n \* *", " ", (STATIC / "types.js").read_text(encoding="utf-8"))
    types = {}
    for body, name in re.findall(r"@typedef \{\{(.*?)\}\} (\w+)(?= @typedef|  |\s*A reply|\s*/)", text):
        while (flat := re.sub(r"\{[^{}]*\}|<[^<>]*>", "", body)) != body:
            body = flat
        types[name] = {field: not optional for field, optional in re.findall(r"(\w+)(\??):", body)}
    return types


def answers(client, model, models) -> dict[str, list[dict]]:
    """What the server says of each type."""
    page = Page(client, MARLOW, OTTO)
    page.say("Hello to both of you")
    page.set(note={"text": "It rains.", "depth": 2}, user_persona="A nurse.",
             lore=[{"keys": ["rain"], "text": "It is wet."}])
    page.send("POST", "/summaries", until=page.session["messages"][0]["id"], text="Hello.")
    compared = page.send("POST", "/comparisons", text="And you?", columns=[{"bot": MARLOW}, {"bot": OTTO}])
    for reply in compared["replies"]:
        page.finish(reply)
    body = page.load()
    running = page.send("POST", "/replies", kind="next", bot=OTTO)["reply"]
    page.finish(running)
    changes = [page.session["history"]["undo"]]
    bots = page.session["bots"]
    for fields in ({"title": "Another"}, {"sampling": {"temperature": 0.5}}, {"bots": bots[::-1]},
                   {"bots": bots[:1]}):
        page.set(**fields)
        changes.append(page.session["history"]["undo"])
    page.send("POST", "/undo")
    client.patch("/api/sessions", json={"sessions": [page.session["id"]], "pinned": True, "folder": "Talk",
                                        "add_tags": ["both"]})
    thrown = client.post("/api/sessions", json={}).json["session"]["id"]
    client.delete("/api/sessions", json={"sessions": [thrown]})
    deleted = client.get("/api/trash").json["entries"]
    listed = client.get("/api/sessions").json
    found = client.get("/api/sessions?q=both").json
    engine = client.post("/api/engines", json={"url": "http://box:1/v1"}).json["engine"]
    revision = client.get(f"/api/bots/{MARLOW}").json["bot"]["revision"]
    client.patch(f"/api/bots/{MARLOW}", json={"revision": revision, "engine": None})
    settings = client.get("/api/settings").json
    own = client.post("/api/presets", json={"name": "Mine", "sampling": {}}).json["preset"]
    page.load()
    known = {"Known-Revision": page.session["revision"]}
    delta = client.get(page.url, headers=known).json["delta"]
    status = client.get("/api/status").json
    reply = next(message for message in page.session["messages"] if message["author"] == MARLOW and
                 message["parent"])
    tokens = client.get(f"{page.url}/messages/{reply['id']}/tokens").json["tokens"]
    prompt = client.get(f"{page.url}/prompt").json
    within = client.get(f"{page.url}/messages/{reply['id']}/tokens/0").json
    replayed = parse_events(client.get(f"{page.url}/messages/{reply['id']}/replay").data)[-1].data
    model.adapters.append("tales")
    adapters = client.get("/api/models").json["adapters"]
    return {
        "NextToken": [within], "Candidate": within["tokens"], "Piece": [*within["tokens"], within["chosen"]],
        "Change": changes, "Adapter": adapters,
        "Deleted": deleted, "Delta": [delta], "Prompt": [prompt], "PromptPart": prompt["parts"],
        "Passage": body["session"]["summaries"], "Comparison": body["session"]["comparisons"],
        "Entry": body["session"]["bots"],
        "Bot": client.get("/api/bots").json["bots"], "Context": [body["context"]],
        "Session": [body["session"]], "Message": body["session"]["messages"], "Running": [running],
        "Summary": [*listed["sessions"], *found["sessions"]], "Parameter": settings["parameters"],
        "Preset": [*settings["presets"], own], "Settings": [settings],
        "Replayed": [replayed], "Side": [replayed["difference"]["then"], replayed["difference"]["now"]],
        "Token": tokens, "OtherToken": [other for token in tokens for other in token["others"]],
        "Status": [status], "Slot": [status["slot"]],
        "Engine": [engine], "Download": [vars(DownloadState("owner/name"))], "Model": models}


@pytest.fixture
def models(tmp_path, store):
    """As a shelf with a model, a broken one and another engine lists them."""
    shelf = Shelf(tmp_path)
    with StandInEngine("small").running() as engine:
        shelf.slot.engines.add(EngineAddress(engine.url))
        shelf.slot.engines.look()
        app = create_app(shelf.slot, store)
        yield app.test_client().get("/api/models").json["models"]
    parlor(app).close("the test is over", 1.0)
    shelf.close()


def test_every_field_that_the_page_reads_is_one_that_the_server_sends(client, model, models):
    types, sent = declared(), answers(client, model, models)
    not_in_each = (*REPLY_NUMBERS, *THOUGHT_NUMBERS, "error", "shortened", "pinned", "label", "far")
    sent["Message"].append(dict.fromkeys(not_in_each, 0))
    types["Context"].pop("problem", None)  # only where there is one
    for name in ("nickname", "post_history_instructions", "adapter", "alternate_greetings",
                 "example_dialogue", "picture_version"):
        types["Bot"].pop(name)  # only where somebody gave one
    types["Message"].pop("for", None)  # only where it is not for all
    types["Passage"].pop("for", None)
    for name in ("since", "notes"):
        types["Entry"].pop(name)  # only where there are some
    types["Change"].pop("undone")  # only where it was the undoing of that
    for name in ("greetings", "seed"):
        types["Session"].pop(name)  # the page's own, until there is a session
    for name in ("Token", "OtherToken", "Piece", "Candidate"):
        types[name].pop("bytes")  # only where they are no characters
    assert set(types) - PAGES_OWN - {"FileProblem"} == set(sent)
    for name, examples in sent.items():
        there = set().union(*examples)
        assert not set(types[name]) - there, name
        always = {field for field, is_always in types[name].items() if is_always}
        whole = examples[:-1] if name == "Message" else examples
        for example in whole:
            assert not always - set(example), (name, example)


def test_what_is_said_of_damaged_files_is_what_the_page_reads(store):
    from webui.storage.store import Store

    store.close()
    (store.folder / "chats" / "0123456789abcdef.json").write_text("{", encoding="utf-8")
    again = Store(store.folder)
    try:
        assert again.problems and all(set(declared()["FileProblem"]) <= set(one) for one in again.problems)
    finally:
        again.close()
