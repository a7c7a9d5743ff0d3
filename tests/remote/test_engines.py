"""Other engines: their addresses, their lists, and what is sent to them and what never is."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from model import ChatMessage, ModelSlot
from model.catalogue.listing import Catalogue
from model.config import EngineConfig
from model.remote.address import BadAddress, EngineAddress, parse_engine, parse_header
from model.remote.engines import MAX_ENGINES, Engines
from model.remote.problems import EngineProblem
from model.slot.state import LeaseGivenUp, NoModel
from tests.helpers.api import wait_until
from tests.helpers.fake_model import FakeModel
from tests.helpers.stand_in_engine import STALL, StandInEngine

HELLO = [ChatMessage("user", "Hello")]


def no_progress(what, share):
    pass


@pytest.mark.parametrize(("given", "url", "name"), [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
    ("http://box:8000/v1/", "http://box:8000/v1", "box:8000"),
    ("gpu=https://Box.example/v1/chat/completions", "https://box.example/v1", "gpu"),
    ("My box=http://[::1]:80/openai/v1", "http://[::1]:80/openai/v1", "My box")])
def test_an_address_is_taken_as_people_write_it(given, url, name):
    address = parse_engine(given)
    assert (address.url, address.name) == (url, name)
    assert address.id == EngineAddress(url, "another", "key").id


@pytest.mark.parametrize("given", [
    "", "box:8000", "ftp://box/v1", "file:///etc/passwd", "http://", "http://me:secret@box/v1", "http://box/v1?key=secret",
    "http://box/v1#x", "http://box:99999/v1", "http://bo x/v1", "http://[::1/v1", "javascript://box/%0aalert(1)",
    "http://box\\@elsewhere/v1", "http://" + "x" * 2000])
def test_what_is_no_address_of_an_engine_is_refused_without_repeating_it(given):
    with pytest.raises(BadAddress) as refused:
        parse_engine(given)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("made", [
    lambda: EngineAddress("http://box/v1", key="a\nHost: elsewhere"),
    lambda: EngineAddress("http://box/v1", headers={"X-A": "1\r\nX-B: 2"}),
    lambda: EngineAddress("http://box/v1", headers={"Host": "elsewhere"}),
    lambda: EngineAddress("http://box/v1", headers={"X A": "1"}),
    lambda: EngineAddress("http://box/v1", headers={f"X-{n}": "1" for n in range(17)}),
    lambda: EngineAddress("http://box/v1", name="x" * 61),
    lambda: parse_header("no colon")])
def test_keys_and_headers_hold_nothing_that_breaks_out_of_them(made):
    with pytest.raises(BadAddress):
        made()


def test_keys_are_in_no_repr_and_are_struck_out_of_what_an_engine_says():
    address = EngineAddress("http://box/v1", "Box", "sk-secret", {"X-Team": "team-secret"})
    assert "secret" not in repr(address)
    assert address.without_secrets("no: sk-secret, team-secret") == "no: •••, •••"


def test_the_list_of_models_is_read_when_somebody_looks_and_not_before(engine, engines):
    assert engines.known()[0].is_read is False and engine.requests == []
    engine.models.append({"id": "large"})
    state, = engines.look()
    assert [offer.name for offer in engines.offers(state)] == ["small (Box)", "large (Box)"]
    assert engines.offer(engines.offers(state)[1].id).model == "large"
    assert [path for path, _, _ in engine.requests] == ["/v1/models"]


def test_an_engine_that_does_not_answer_is_listed_with_the_reason_and_hides_no_other(engine, engines):
    nobody = StandInEngine()
    with nobody.running():
        pass
    engines.add(EngineAddress(nobody.url, "Nobody"))
    found, missed = engines.look()
    assert found.models and found.problem == ""
    assert missed.is_read and missed.models == () and "cannot be reached" in missed.problem
    engine.models.clear()
    assert "has no model" in engines.look()[0].problem


def test_engines_of_the_start_stay_and_others_come_and_go(engine, engines):
    fixed, = engines.known()
    with pytest.raises(BadAddress, match="was started"):
        engines.remove(fixed.address.id)
    with pytest.raises(BadAddress, match="was started"):
        engines.add(EngineAddress(engine.url, "Again"))
    other = EngineAddress("http://box:1/v1", "Other")
    version = engines.version
    engines.add(other)
    engines.add(EngineAddress("http://box:1/v1", "Renamed"))
    assert [state.address.name for state in engines.known()] == ["Box", "Renamed"]
    engines.remove(other.id)
    assert engines.version == version + 3
    with pytest.raises(KeyError):
        engines.remove(other.id)
    with pytest.raises(NoModel, match="not known here any more"):
        engines.offer_of(other.id, "small")
    for number in range(MAX_ENGINES - 1):
        engines.add(EngineAddress(f"http://box:{number + 1}/v1"))
    with pytest.raises(BadAddress, match="already"):
        engines.add(EngineAddress("http://one-more/v1"))


def test_key_and_headers_go_to_the_engine_and_nothing_of_the_environment_does(engine, monkeypatch):
    for name, value in {
            "OPENAI_API_KEY": "env-key", "OPENAI_ORG_ID": "env-org", "OPENAI_PROJECT_ID": "env-project",
            "OPENAI_CUSTOM_HEADERS": "X-Env: env-header", "OPENAI_BASE_URL": "http://nowhere/v1",
            "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    engine.key = "sk-right"
    engines = Engines([EngineAddress(engine.url, "Box", "sk-right", {"X-Team": "red"})])
    state, = engines.look()
    model = engines.open(engines.offers(state)[0], no_progress)
    list(model.start(HELLO).events())
    for _path, headers, _body in engine.requests:
        assert headers["authorization"] == "Bearer sk-right" and headers["x-team"] == "red"
        assert "env" not in str(headers) and "x-stainless-os" not in headers
    engines.close()


def test_a_wrong_key_is_told_but_never_repeated(engine, caplog):
    caplog.set_level(logging.DEBUG)
    engine.key = "sk-right"
    engines = Engines([EngineAddress(engine.url, "Box", "sk-wrong-one", {"X-Team": "team-secret"})])
    state, = engines.look()
    assert "refuses the key: Incorrect API key provided: •••" in state.problem
    assert "sk-wrong-one" not in caplog.text and "team-secret" not in caplog.text
    engines.close()


def test_no_redirect_takes_key_or_text_to_another_host(engine):
    with StandInEngine("small").running() as elsewhere:
        engines = Engines([EngineAddress(engine.url, "Box", "sk-right", {"X-Team": "red"})])
        model = engines.open(engines.offer_of(engines.known()[0].address.id, "small"), no_progress)
        engine.statuses = [(308, "", {"Location": f"{elsewhere.url}/chat/completions"})]
        last = list(model.start(HELLO).events())[-1]
        assert elsewhere.host in last.message and "Give that address" in last.message
        assert elsewhere.requests == []
        engines.close()


def test_a_model_that_the_engine_has_no_more_is_told_with_those_it_has(engines, engine):
    offer = engines.offer_of(engines.known()[0].address.id, "gone")
    with pytest.raises(EngineProblem, match="has no model gone any more; it has small"):
        engines.open(offer, no_progress)


def test_a_model_is_asked_once_and_again_after_it_failed(engines, engine):
    offer = engines.offer_of(engines.known()[0].address.id, "small")
    model = engines.open(offer, no_progress)
    asked = len(engine.requests)
    assert engines.open(offer, no_progress) is model and len(engine.requests) == asked
    engine.statuses = [(400, "no", {})]
    list(model.start(HELLO).events())
    wait_until(lambda: engines.opened(offer) is None)
    assert engines.open(offer, no_progress) is not model


def test_waiting_for_an_engine_can_be_given_up(engines, engine):
    engine.answers_as = "small"
    engine.pieces = lambda body: [STALL]
    lease = engines.lease(engines.known()[0].address.id, "small")

    def told(state):
        assert state.coming_name == "small (Box)" and engine.host in state.what
        lease.give_up()

    with pytest.raises(LeaseGivenUp):
        lease.wait(told)


def slot_of(engines, model):
    def load(*_arguments, **_options):
        raise AssertionError("nothing of this machine is loaded")

    engine = EngineConfig(device="cpu", threads=1)
    slot = ModelSlot(load, Catalogue([], engine), engine, engines=engines, idle_seconds=0.01)
    slot._take(model, None)
    return slot


def test_a_model_of_an_engine_takes_the_place_of_the_one_that_is_loaded(engines, engine):
    local = FakeModel()
    slot = slot_of(engines, local)
    state, = engines.look()
    slot.load(engines.offers(state)[0].id)
    there = slot.wait()
    assert (there.phase, there.name, local.closed) == ("ready", "small (Box)", True)
    assert slot.model.info()["host"] == engine.host
    with slot.glance() as model:
        assert list(model.start(HELLO).events())[-1].finish_reason == "eos"
    assert slot.state.phase == "ready"  # it takes no memory that idleness could give back
    slot.close()


def test_an_engine_that_is_dead_leaves_the_loaded_model_in_its_place(engines, engine):
    local = FakeModel()
    slot = slot_of(engines, local)
    state, = engines.look()
    engine.statuses = [(500, '{"error": {"message": "no memory"}}', {})] * 9
    slot.load(engines.offers(state)[0].id)
    there = slot.wait()
    assert there.phase == "ready" and slot.model is local and not local.closed
    assert "small (Box) was not loaded" in there.problem and "no memory" in there.problem
    slot.close()


def test_asking_an_engine_can_be_cancelled_like_any_loading(engines, engine):
    slot = slot_of(engines, FakeModel())
    state, = engines.look()
    engine.pieces = lambda body: [STALL]
    slot.load(engines.offers(state)[0].id)
    wait_until(lambda: any(path.endswith("completions") for path, _, _ in engine.requests))
    slot.cancel()
    assert slot.wait().problem == "Loading was cancelled."
    assert engine.closed.wait(1.0)
    slot.close()


def test_without_an_engine_neither_the_library_nor_its_loop_is_imported():
    script = ("import sys, model; engines = model.Engines(); engines.begin_look(); engines.close(); "
              "print(sorted({name.partition('.')[0] for name in sys.modules} "
              "& {'openai', 'httpx', 'httpx2', 'asyncio'}))")
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_without_the_library_it_is_said_how_to_get_it(engines, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "requirements-web.txt" in engines.look()[0].problem
    with pytest.raises(EngineProblem, match="not installed"):
        engines.open(engines.offer_of(engines.known()[0].address.id, "small"), no_progress)
