"""The menu of models over HTTP: listing, switching, cancelling, and what it means for replies."""

from __future__ import annotations

import pytest

from model import Downloads, ModelLoadError
from model.memory.plan import MemoryPlan
from tests.helpers.adapters import random_products, write_gguf_adapter, write_peft
from tests.helpers.api import MARLOW, Page, parse_events, wait_until
from tests.helpers.gguf_models import write_llama
from tests.helpers.shelf import Shelf
from tests.helpers.stand_in_hub import StandInHub
from tests.helpers.tiny_models import TINY, random_tensors

SECRET = "somebodys-folder"


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / SECRET).mkdir()
    shelf = Shelf(tmp_path / SECRET)
    yield shelf
    shelf.close()


@pytest.fixture
def app(shelf, store):
    from webui import create_app
    from webui.routes.parlor import parlor

    app = create_app(shelf.slot, store)
    yield app
    parlor(app).close("the test is over", 1.0)


def load(client, shelf, name="one", **body):
    answer = client.post(f"/api/models/{shelf.ids[name]}/load", json=body)
    if answer.status_code == 202:
        shelf.slot.wait()
    return answer


def now(client):
    return client.get("/api/changes?since=0").json["model"]


def test_the_list_says_what_each_takes_and_what_is_wrong_with_it(client, shelf):
    answer = client.get("/api/models")
    assert SECRET not in answer.text, "where it lies below its place is all that is told"
    by_name = {one["name"]: one for one in answer.json["models"]}
    assert set(by_name) == {"one", "two", "broken"}
    assert by_name["one"]["fits"] and by_name["one"]["family"] == "llama"
    assert by_name["one"]["max_positions"] == by_name["one"]["max_seq_len"] == 256
    assert by_name["one"]["memory_bytes"] > 0 and by_name["one"]["size_bytes"] > 0
    assert by_name["broken"]["fits"] is None and by_name["broken"]["problem"]
    assert answer.json["model"]["phase"] == "empty"


def test_a_larger_context_is_asked_for_with_the_model(client, shelf):
    load(client, shelf)
    assert load(client, shelf, max_seq_len=128).status_code == 202 and len(shelf.models) == 2
    load(client, shelf, max_seq_len=512)
    assert "was made for 256 tokens at most" in now(client)["problem"] and now(client)["phase"] == "ready"
    for wrong in (0, True, "many", 1 << 25):
        assert load(client, shelf, max_seq_len=wrong).status_code == 400


def test_what_does_not_fit_says_what_would(client, shelf, monkeypatch):
    monkeypatch.setattr(shelf.slot.catalogue, "free_bytes", lambda: 1 << 20)
    one = next(one for one in client.get("/api/models").json["models"] if one["name"] == "one")
    assert one["fits"] is False and "smaller model" in one["advice"]


def test_what_a_plan_warns_of_is_told_of_a_model_that_fits(client, shelf, monkeypatch):
    """Weights that would stay on disk."""
    monkeypatch.setattr(MemoryPlan, "warning", "These are read from disk.")
    one = next(one for one in client.get("/api/models").json["models"] if one["name"] == "one")
    assert one["fits"] and one["advice"] == "These are read from disk."


def test_without_a_model_the_page_has_all_but_answers(client, shelf):
    page = Page(client, MARLOW)
    status = client.get("/api/status").json
    assert status["model"] is None and status["engine"] is None and status["slot"]["phase"] == "empty"
    assert client.get("/api/settings").json["limits"]["max_seq_len"] is None
    assert page.load()["context"]["problem"].endswith("No model is loaded.")
    for path, body in (("/messages", {"text": "hello"}), ("/replies", {"kind": "next"})):
        refused = page.send("POST", path, 409, **body)
        assert refused["error"]["code"] == "no_model" and refused["error"]["hint"]
    assert page.load()["session"]["messages"] == [], "what was refused is not half there"
    assert page.send("POST", "/messages", text="a note", reply=False)["reply"] is None
    page.set(sampling={"banned_tokens": [5]})


def test_a_model_is_loaded_and_replies_remember_it(client, shelf):
    page = Page(client, MARLOW)
    assert load(client, shelf).status_code == 202
    assert now(client)["name"] == "one" and client.get("/api/status").json["model"]["name"] == "one"
    assert page.say("hello")[0]["model"] == "one"
    cost = page.load()["context"]
    assert cost["prompt_tokens"] > 0 and cost["max_seq_len"] == 2048
    version = now(client)["version"]
    assert load(client, shelf, "two").status_code == 202
    assert now(client)["name"] == "two" and now(client)["version"] > version
    assert page.say("again")[0]["model"] == "two"
    assert [message.get("model") for message in page.session["messages"]][1::2] == ["one", "two"]
    assert client.post("/api/models/unload", json={}).status_code == 202
    shelf.slot.wait()
    assert now(client)["phase"] == "empty" and shelf.models[1].closed


def test_replies_that_are_written_are_asked_about(client, shelf):
    load(client, shelf)
    shelf.models[0].gate.clear()
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    wait_until(lambda: shelf.models[0].running)
    for path in (f"{shelf.ids['two']}/load", "unload"):
        refused = client.post(f"/api/models/{path}", json={})
        assert refused.status_code == 409 and refused.json["error"]["code"] == "writing"
        assert refused.json["replies"] == 1
    assert client.post("/api/models/unload", json={"running": "never"}).status_code == 400
    assert load(client, shelf, "two", running="stop").status_code == 202
    [message] = page.finish(reply)
    assert message["finish_reason"] == "cancelled" and now(client)["name"] == "two"


def test_a_switch_may_wait_for_the_reply_and_nothing_follows_it(client, shelf):
    load(client, shelf)
    shelf.models[0].gate.clear()
    page = Page(client, MARLOW)
    reply = page.send("POST", "/replies", kind="next", turns=3)["reply"]
    wait_until(lambda: shelf.models[0].running)
    assert client.post(f"/api/models/{shelf.ids['two']}/load", json={"running": "wait"}).status_code == 202
    wait_until(lambda: now(client)["phase"] == "waiting")
    assert (now(client)["name"], now(client)["coming_name"]) == ("one", "two")
    shelf.models[0].gate.set()
    messages = page.finish(reply)
    assert len(messages) == 1 and messages[0]["finish_reason"] == "eos" and messages[0]["model"] == "one"
    assert shelf.slot.wait().name == "two"


def test_a_reply_that_is_asked_for_meanwhile_waits_for_the_new_model(client, shelf):
    load(client, shelf)
    shelf.go_on.clear()
    client.post(f"/api/models/{shelf.ids['two']}/load", json={})
    wait_until(lambda: now(client)["phase"] == "loading")
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    shelf.go_on.set()
    events = page.events(reply)
    assert events[0].name == "loading" and events[0].data["name"] == "two"
    assert events[-1].name == "done" and events[-1].data["message"]["model"] == "two"


def test_while_one_is_on_its_way_another_ends_no_reply(client, shelf):
    shelf.go_on.clear()
    client.post(f"/api/models/{shelf.ids['one']}/load", json={})
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    refused = client.post(f"/api/models/{shelf.ids['two']}/load", json={"running": "stop"})
    assert refused.status_code == 409 and refused.json["error"]["code"] == "busy"
    shelf.go_on.set()
    assert page.finish(reply)[0]["finish_reason"] == "eos"


@pytest.mark.parametrize("end", ["stop", "cancel", "error"])
def test_whoever_waits_for_a_model_that_does_not_come_is_answered(client, shelf, end):
    shelf.go_on.clear()
    client.post(f"/api/models/{shelf.ids['one']}/load", json={})
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    if end == "stop":
        client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    elif end == "cancel":
        client.post("/api/models/cancel", json={})
    else:
        shelf.error = ModelLoadError("the file is cut off")
        shelf.go_on.set()
    last = page.events(reply)[-1]
    page.load()
    assert page.session["replies"] == [] and page.session["messages"][0]["text"] == "hello"
    if end == "stop":
        assert last.name == "done" and last.data["message"]["finish_reason"] == "cancelled"
    else:
        assert last.name == "error"
        assert ("cancelled" if end == "cancel" else "cut off") in last.data["message"]


def test_errors_keep_the_old_model_or_say_that_none_is_loaded(client, shelf, tmp_path):
    load(client, shelf)
    load(client, shelf, "broken")
    assert now(client)["name"] == "one" and now(client)["problem"].startswith("broken was not loaded")
    shelf.error = ModelLoadError("the file is cut off")
    load(client, shelf, "two")
    assert now(client)["phase"] == "empty" and "cut off" in now(client)["problem"]
    shelf.error = None
    load(client, shelf, "two")
    assert now(client)["name"] == "two" and now(client)["problem"] == ""


@pytest.mark.parametrize("model_id", ["0" * 16, "..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "one",
                                      "x" * 5000])
def test_only_ids_of_the_catalogue_name_models(client, shelf, model_id):
    answer = client.post(f"/api/models/{model_id}/load", json={})
    assert answer.status_code == 404 and now(client)["phase"] == "empty"


def test_the_menus_routes_are_guarded_like_all_others(shelf, store):
    from webui import create_app
    from webui.server.guard import Guard
    from webui.server.password import Password

    guard = Guard("0.0.0.0", Password("long enough", cost=16))
    client = create_app(shelf.slot, store, guard=guard).test_client()
    paths = ["/api/models/unload", "/api/models/cancel", "/api/models/downloads",
             "/api/models/downloads/look", "/api/models/downloads/cancel",
             f"/api/models/{shelf.ids['one']}/load"]
    assert client.get("/api/models").status_code == 401
    for path in paths:
        assert client.post(path, json={}).status_code == 401
        assert client.post(path, json={}, headers={"Host": "evil.example"}).status_code == 403
        assert client.post(path, json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert shelf.slot.state.phase == "empty"


def test_when_the_server_ends_a_reply_that_waits_for_the_model_ends_too(app, client, shelf):
    from webui.routes.parlor import parlor

    shelf.go_on.clear()
    client.post(f"/api/models/{shelf.ids['one']}/load", json={})
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    parlor(app).close("Parlor was stopped.", 5.0)
    events = parse_events(client.get(f"/api/replies/{reply['reply_id']}/events").data)
    assert events[-1].name == "error" and events[-1].data["partial"]["finish_reason"] == "interrupted"


def test_what_a_models_authors_advise_is_a_preset_of_that_model(client, shelf):
    load(client, shelf)
    names = [preset["id"] for preset in client.get("/api/settings").json["presets"]]
    assert "advised" not in names, "this one's authors advise nothing"
    page = Page(client, MARLOW)
    page.set(preset="advised", sampling={"top_p": 0.5})
    assert "temperature 0.8 top_p 0.5" in page.say("temperature?")[0]["text"]
    shelf.models[0].advice = {"temperature": 0.6, "top_p": 0.9, "min_p": 0.0}
    preset = client.get("/api/settings").json["presets"][-1]
    assert preset["id"] == "advised" and preset["builtin"] and preset["sampling"]["temperature"] == 0.6
    message = page.say("temperature?")[0]
    assert "temperature 0.6 top_p 0.5" in message["text"]
    assert message["sampling"]["min_p"] == 0.0
    assert client.delete("/api/presets/advised").status_code == 404


@pytest.fixture
def hub(shelf, tmp_path):
    hub = StandInHub()
    write_llama(tmp_path / "made.gguf", TINY, random_tensors(TINY))
    hub.repos["owner/Tiny"] = {"Tiny-Q4_K_M.gguf": (tmp_path / "made.gguf").read_bytes(),
                               "Tiny-Q8_0.gguf": b"GGUF" * 5000}
    with hub.running() as hub.address:
        yield hub


@pytest.fixture
def hub_client(hub, shelf, store, tmp_path):
    from webui import create_app
    from webui.routes.parlor import parlor

    downloads = Downloads(tmp_path / SECRET, lambda: 1 << 40, hub.address, done=shelf.slot.catalogue.add)
    app = create_app(shelf.slot, store, downloads=downloads)
    client = app.test_client()
    client.downloads = downloads
    yield client
    downloads.cancel()
    downloads.wait()
    parlor(app).close("the test is over", 1.0)


def test_a_model_is_got_from_a_hub_and_can_be_loaded_at_once(hub, hub_client, shelf):
    client = hub_client
    assert now(client)["download"] is None and hub.requests == []
    seen = client.post("/api/models/downloads/look", json={"source": "owner/Tiny"}).json
    assert [one["label"] for one in seen["variants"]] == ["Q8_0", "Q4_K_M"] and seen["chosen"] == "Q4_K_M"
    hub.break_after = [1000]
    assert client.post("/api/models/downloads", json={"source": "owner/Tiny:Q4_K_M"}).status_code == 202
    assert client.downloads.wait().phase == "done"
    told = now(client)["download"]
    assert told["phase"] == "done" and told["done_bytes"] == told["total_bytes"] > 0
    assert told["name"] == "Tiny-Q4_K_M"
    assert client.post(f"/api/models/{told['id']}/load", json={}).status_code == 202
    assert shelf.slot.wait().name == "Tiny-Q4_K_M"
    assert [one["name"] for one in client.get("/api/models").json["models"]].count("Tiny-Q4_K_M") == 1


def test_what_a_hub_refuses_is_a_sentence_and_one_download_goes_on_at_a_time(hub, hub_client):
    client = hub_client
    for path in ("downloads", "downloads/look"):
        refused = client.post(f"/api/models/{path}", json={"source": "../../etc"})
        assert refused.status_code == 400 and "owner/name" in refused.json["error"]["message"]
    missing = client.post("/api/models/downloads/look", json={"source": "owner/none"})
    assert missing.status_code == 502 and "The hub has no owner/none" in missing.json["error"]["message"]
    hub.go_on.clear()
    client.post("/api/models/downloads", json={"source": "owner/Tiny"})
    wait_until(lambda: now(client)["download"]["done_bytes"] > 0)
    again = client.post("/api/models/downloads", json={"source": "owner/Tiny"})
    assert again.status_code == 409 and again.json["error"]["code"] == "busy"
    assert client.post("/api/models/downloads/cancel", json={}).status_code == 202
    hub.go_on.set()
    client.downloads.wait()
    assert now(client)["download"]["phase"] == "cancelled"


def test_without_a_folder_for_them_nothing_is_downloaded(client):
    for path in ("downloads", "downloads/look"):
        assert client.post(f"/api/models/{path}", json={"source": "owner/Tiny"}).status_code == 400
    assert client.post("/api/models/downloads/cancel", json={}).status_code == 202


# ---- adapters beside the model --------------------------------------------------------------------------


def add_adapters(tmp_path):
    """Three of PEFT's folders, of which one is another model's, and a GGUF file, two of them called tales."""
    folder, products = tmp_path / SECRET, random_products({"model.layers.0.self_attn.q_proj": (64, 64)})
    for name in ("tales", "of-other", "more/tales"):
        write_peft(folder / name, products)
    write_gguf_adapter(folder / "verse.gguf", products, TINY, 4.0)


def shown_adapters(client):
    return {one["name"]: one for one in client.get("/api/models").json["adapters"]}


def test_adapters_of_the_models_folder_that_fit_are_loaded_and_unloaded(client, shelf, tmp_path):
    add_adapters(tmp_path)
    assert shown_adapters(client) == {}, "no model is loaded"
    load(client, shelf)
    shelf.models[0].adapters.append("given")  # with --lora
    assert {one["name"] for one in client.get("/api/models").json["models"]} == {"one", "two", "broken"}
    found = shown_adapters(client)
    assert list(found) == ["given", "more/tales", "tales", "verse"]
    assert found["verse"]["where"] == "verse.gguf" and found["verse"]["size_bytes"] > 0
    assert [name for name, one in found.items() if one["is_loaded"]] == ["given"]
    version = now(client)["version"]
    answer = client.post(f"/api/models/adapters/{found['verse']['id']}/load", json={})
    assert answer.status_code == 200 and answer.json["model"]["version"] > version
    assert SECRET not in answer.text
    assert shelf.models[0].adapters == ["given", "verse"] and shown_adapters(client)["verse"]["is_loaded"]
    answer = client.post("/api/models/adapters/unload", json={"name": "given"})
    assert answer.status_code == 200 and set(shown_adapters(client)) == {"tales", "more/tales", "verse"}
    answer = client.post("/api/models/adapters/unload", json={"name": "given"})
    assert answer.status_code == 400 and "no adapter 'given'" in answer.json["error"]["message"]
    assert client.post(f"/api/models/adapters/{'0' * 16}/load", json={}).status_code == 404


def test_adapters_come_back_with_their_model_and_with_no_other(client, shelf, tmp_path):
    add_adapters(tmp_path)
    load(client, shelf)
    client.post(f"/api/models/adapters/{shown_adapters(client)['verse']['id']}/load", json={})
    shelf.slot.unload(sleep=True)
    shelf.slot.wait()
    assert client.post("/api/models/adapters/unload", json={"name": "verse"}).status_code == 409
    load(client, shelf)
    assert shelf.models[-1].adapters == ["verse"]
    load(client, shelf, "two")
    assert shelf.models[-1].adapters == []
    load(client, shelf)
    assert shelf.models[-1].adapters == []
