"""What operators ask the server: whether it lives, whether it answers, and the metrics' form."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import pytest

from model import Catalogue, ModelSlot, RequestStats, found_at
from model.config import EngineConfig
from tests.helpers.api import wait_until
from tests.helpers.fake_model import FakeModel
from tests.helpers.metrics import values
from tests.helpers.server_process import ROOT
from webui import create_api, create_app
from webui.api.errors import broken_off
from webui.errors import Problem
from webui.routes.parlor import parlor
from webui.routes.service import STUCK_SECONDS
from webui.server.guard import Guard
from webui.server.password import Password
from webui.server.programs import Programs

KEY = "0123456789abcdef"
STATS = RequestStats(prompt_tokens=30, cached_tokens=16, new_tokens=5, seconds_to_first_token=0.5,
                     prompt_seconds=0.4, decode_seconds=2.0, tokens_per_second=2.0, seed=1)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_server_whose_model_writes_is_well_and_ready(client, path):
    assert client.get(path).status_code == client.head(path).status_code == 200
    assert client.get(path).json == {"status": "ok" if path == "/healthz" else "ready"}


@pytest.mark.parametrize(("state", "said"), [
    ({"problem": "The engine has stopped after a fault in it; /a/secret/path"}, "The engine has stopped."),
    ({"seconds_in_step": STUCK_SECONDS + 1}, "The engine is stuck in a step.")])
def test_an_engine_that_is_gone_or_stuck_makes_it_neither(client, model, state, said):
    vars(model).update(state)
    for path in ("/healthz", "/readyz"):
        response = client.get(path)
        assert response.status_code == 503 and response.json["reason"] == said
    model.seconds_in_step, model.problem = STUCK_SECONDS / 2, None
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_another_machines_engine_that_failed_is_no_reason_for_a_new_start(client, model, monkeypatch):
    told = model.info() | {"host": "box:8000"}
    monkeypatch.setattr(model, "info", lambda: told)
    monkeypatch.setattr(model, "status", lambda: {"running": 0, "waiting": 0, "problem": "It is gone."})
    monkeypatch.setattr(model, "tally", lambda: None)
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert "vllm:num_requests_running{" not in client.get("/metrics").text


def test_it_is_ready_once_the_model_is_there_and_until_it_ends(store, tmp_path):
    """Alive all the while."""
    began, go_on = threading.Event(), threading.Event()

    def load(*_, **__):
        began.set()
        go_on.wait(60)
        return FakeModel()

    slot = ModelSlot(load, Catalogue([], EngineConfig()), EngineConfig())
    app = create_app(slot, store)
    client = app.test_client()

    def said():
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        assert (response.status_code == 503) == ("reason" in response.json)
        return response.json.get("reason", "")

    assert said() == "No model is loaded."
    slot.load_first(found_at(tmp_path, "here"), lambda *_: None, print)
    began.wait(60)
    assert said() == "A model is being loaded."
    go_on.set()
    assert slot.wait().phase == "ready" and said() == ""
    with slot.glance():
        slot.unload()
        wait_until(lambda: slot.state.phase == "waiting")
        assert said() == "The model is about to be changed."
    slot.wait()
    assert said() == "No model is loaded."
    parlor(app).close("the test is over", 0.1)
    assert said() == "The server is shutting down."


def test_a_model_that_is_asleep_is_ready(store, model):
    slot = ModelSlot.holding(model)
    client = create_app(slot, store).test_client()
    slot._tell(phase="asleep")
    assert client.get("/readyz").status_code == 200


def test_health_is_told_to_anybody_and_metrics_to_who_has_a_key_or_is_logged_in(store, model):
    guard = Guard("0.0.0.0", Password("correct horse", cost=16), programs=Programs([KEY]))
    client = create_app(ModelSlot.holding(model), store, guard=guard).test_client()
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 401
    for key, status in ((KEY, 200), (KEY[::-1], 401)):
        assert client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == status
    client.post("/api/login", json={"password": "correct horse"})
    assert client.get("/metrics").status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0",
                                    "text/plain; version=1.0.0"])
def test_what_was_counted_is_told_under_vllms_names(client, model, accept):
    done = model.done
    done.add_prompt(30, 16)
    for reason, seconds in (("eos", 2.5), ("stop", 2.5), ("context", 2.5), ("cancelled", 100.0)):
        done.add_request(reason, STATS, waited=0.1, seconds=seconds)
    done.finished["failed"] += 1
    done.add_token(0.5, is_first=True)
    done.add_token(0.04, is_first=False)
    model.running = 2
    response = client.get("/metrics", headers={"Accept": accept})
    assert 'vllm:prompt_tokens_total{engine="0",model_name="fake-1M"} 30.0' in response.text
    assert response.content_type.startswith("text/plain; version=0.0.4")
    found = values(response.text)
    assert found["vllm:num_requests_running",] == 2 and found["vllm:num_requests_waiting",] == 0
    assert found["vllm:kv_cache_usage_perc",] == 3 / 256
    assert found["vllm:prompt_tokens_total",] == found["vllm:prefix_cache_queries_total",] == 30
    assert found["vllm:prompt_tokens_cached_total",] == found["vllm:prefix_cache_hits_total",] == 16
    assert found["vllm:generation_tokens_total",] == 2
    assert {reason: found["vllm:request_success_total", reason] for reason in (
        "stop", "length", "abort", "error")} == {"stop": 2, "length": 1, "abort": 1, "error": 1}
    name = "vllm:e2e_request_latency_seconds"
    assert (found[f"{name}_count",], found[f"{name}_sum",]) == (4, 107.5)
    assert (found[f"{name}_bucket", "2.0"], found[f"{name}_bucket", "2.5"], found[f"{name}_bucket", "+Inf"]) \
        == (0, 3, 4)
    assert found["vllm:time_to_first_token_seconds_bucket", "0.5"] == 1
    assert found["vllm:inter_token_latency_seconds_sum",] == 0.04
    assert found["vllm:request_generation_tokens_sum",] == 20
    assert found["process_resident_memory_bytes",] > 1e6


def test_what_a_model_has_done_stays_when_it_goes(store):
    """So that no counter falls when a model is unloaded and comes again."""
    models = [FakeModel(), FakeModel()]
    slot = ModelSlot.holding(models[0])
    client = create_app(slot, store).test_client()
    models[0].done.add_prompt(30, 16)
    slot.unload()
    slot.wait()
    text = client.get("/metrics").text
    assert values(text)["vllm:prompt_tokens_total",] == 30
    assert ("vllm:num_requests_running",) not in values(text)
    slot._take(models[1], None)
    models[1].done.add_prompt(4, 0)
    assert values(client.get("/metrics").text)["vllm:prompt_tokens_total",] == 34
    assert values(client.get("/metrics").text)["vllm:prompt_tokens_total",] == 34
    slot.close()


def test_nothing_of_prometheus_is_loaded_before_somebody_asks():
    code = "import sys, app; assert not any('prometheus' in name for name in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_protocols_stand_alone_without_a_page(model):
    client = create_api(ModelSlot.holding(model)).test_client()
    assert client.get("/healthz").json == {"status": "ok"} and client.get("/readyz").status_code == 200
    body = {"messages": [{"role": "user", "content": "Hello"}], "seed": 5}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200 and answer.json["choices"][0]["message"]["content"]
    assert client.get("/").status_code == client.get("/api/sessions").status_code == 404
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403  # guarded as ever


@pytest.mark.parametrize(("path", "end"), [
    ("/v1/chat/completions", b"\n\ndata: [DONE]\n\n"), ("/v1/messages", b"\n\n"), ("/api/chat", b"\n")])
def test_a_stream_that_breaks_off_ends_in_the_words_of_its_protocol(path, end):
    said = broken_off(path, Problem("Gone."))
    event, data = re.fullmatch(rb"(?:event: (error)\n)?(?:data: )?(\{.*?\})" + re.escape(end), said).groups()
    assert (event == b"error") == (path == "/v1/messages")
    error = json.loads(data)["error"]
    assert (error if isinstance(error, str) else error["message"]) == "Gone."
