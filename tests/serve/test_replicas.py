"""Two replicas of the starter on this machine, as Ray Serve runs them, behind one address.

One cluster, which takes longer to come up than all that is asked of it: so one test, in the order in which a
replica that is killed comes last.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model import EngineAddress, Engines, ModelSlot
from tests.helpers.api import MARLOW, Page, read_some, wait_until
from tests.helpers.fake_model import FakeModel
from tests.helpers.replicas import MAX_SEQ_LEN, SECONDS, two_replicas
from webui import create_app
from webui.routes.parlor import parlor

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install -r requirements-serve.txt")

EOS = "2"  # of the starter


@pytest.fixture(scope="module")
def cluster():
    with two_replicas() as cluster:
        yield cluster


@pytest.mark.slow
def test_two_replicas_answer_as_one_and_outlive_one_of_them(cluster, store):
    the_same_seed_gives_the_same_text_on_either(cluster)
    a_second_turn_finds_the_first_one_in_the_cache(cluster)
    what_is_wrong_is_told_as_by_one_engine(cluster)
    many_at_once_spread_over_both(cluster)
    metrics_are_those_of_all(cluster)
    a_closed_connection_ends_its_reply(cluster)
    a_replica_that_is_killed_leaves_what_it_wrote_and_the_other_goes_on(cluster, store)
    replicas_come_and_go_with_the_load(cluster)


def the_same_seed_gives_the_same_text_on_either(cluster):
    """A program that names conversations has each on a replica of its own."""
    answers = [cluster.ask("Tell me of the sea.", session=name, seed=11, max_tokens=16) for name in "ab"]
    assert len({answer.replica for answer in answers}) == 2
    assert len({answer.text for answer in answers}) == 1 and answers[0].text.strip()


def a_second_turn_finds_the_first_one_in_the_cache(cluster):
    """Of four conversations in turn, none of which has an id."""
    for name in ("Ada", "Ben", "Cleo", "Dan"):
        hello = f"My name is {name}, and I have come to ask about the weather at sea, ships and lights. " * 4
        first = cluster.ask(hello, max_tokens=8)
        second = cluster.ask(hello, first.text, "And then?", max_tokens=8)
        assert second.replica == first.replica
        assert first.usage["prompt_tokens"] > 64
        cached = second.usage["prompt_tokens_details"]["cached_tokens"]
        assert cached > first.usage["prompt_tokens"] - 32  # all whole pages of it


def what_is_wrong_is_told_as_by_one_engine(cluster):
    status, _, body = cluster.post({"messages": []})
    assert status == 400 and "messages" in json.loads(body)["error"]["message"]
    status, _, body = cluster.post({"messages": [{"role": "user", "content": "x" * (5 << 20)}]})
    assert status == 413 and json.loads(body)["error"]["message"]


def many_at_once_spread_over_both(cluster):
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda n: cluster.ask(f"I am number {n}.", max_tokens=8), range(64)))
    counts = Counter(answer.replica for answer in answers)
    assert sum(counts.values()) == 64 and max(counts.values()) <= 0.6 * 64, counts
    again = [cluster.ask(f"I am number {n}.", answers[n].text, "Go on.", max_tokens=2) for n in range(6)]
    assert [answer.replica for answer in again] == [answer.replica for answer in answers[:6]]


def metrics_are_those_of_all(cluster):
    """What Prometheus reads of the front, against what each replica says of itself."""
    status, headers, body = cluster.get("/metrics", **{"accept-encoding": "gzip"})
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    told = {sample.labels["replica"]: sample.value for family in text_string_to_metric_families(body.decode())
            for sample in family.samples if sample.name == "vllm:prompt_tokens_total"}
    assert told == {one["replica"]: one["prompt_tokens"] for one in cluster.status()} and len(told) == 2
    assert body.count(b"# TYPE vllm:prompt_tokens_total") == 1


def a_closed_connection_ends_its_reply(cluster):
    """Its end is noted as that of a reply that nobody reads."""
    before = finished(cluster, "cancelled")
    connection, response = cluster.open({
        "messages": [{"role": "user", "content": "Tell me everything."}], "max_tokens": MAX_SEQ_LEN,
        "temperature": 1.5, "logit_bias": {EOS: -100}, "stream": True})
    while b'"delta":{"content":"' not in (line := response.readline()):
        assert line, "it ended before its first text"
    response.close()
    connection.close()
    wait_until(lambda: not any(one["running"] for one in cluster.status()), SECONDS)
    assert finished(cluster, "cancelled") == before + 1


def a_replica_that_is_killed_leaves_what_it_wrote_and_the_other_goes_on(cluster, store):
    """By way of Parlor's page in front of it."""
    engines = Engines([EngineAddress(cluster.url, "Cluster")])
    app = create_app(ModelSlot.holding(FakeModel(), engines), store)
    slot = parlor(app).slot
    try:
        state, = engines.look()
        slot.load(engines.offers(state)[0].id)
        assert slot.wait().problem == ""
        page = Page(app.test_client(), MARLOW)
        page.set(sampling={"max_new_tokens": 1500, "temperature": 1.5, "banned_tokens": [int(EOS)]})
        reply = page.send("POST", "/messages", text="Tell me everything.")["reply"]
        read_some(page.client, reply)
        victim, = (one for one in cluster.status() if one["running"])
        os.kill(victim["pid"], signal.SIGKILL)
        broken, = page.finish(reply)
        assert broken["text"].strip() and broken["finish_reason"] == "error"
        assert "stopped in the middle" in broken["error"]
        page.set(sampling={"max_new_tokens": 8})
        answer, = page.say("Are you still there?")
        assert answer["text"].strip() and answer["finish_reason"] != "error"
    finally:
        parlor(app).close("the test is over", 1.0)
        slot.close()


def replicas_come_and_go_with_the_load(cluster):
    """Nobody hears of it: replies go on, and a conversation stays where it began."""
    cluster.scale(1, 2, queue=2)
    wait_until(lambda: cluster.count() == 1, SECONDS)
    first = cluster.ask("My name is Ada.", max_tokens=4)
    is_over = threading.Event()

    def talk(number):
        lengths = []
        while not is_over.is_set():
            reply = cluster.ask(f"I am number {number}.", max_tokens=300, logit_bias={EOS: -100})
            lengths.append(reply.usage["completion_tokens"])
        return lengths

    with ThreadPoolExecutor(8) as threads:
        talks = [threads.submit(talk, number) for number in range(8)]
        try:
            wait_until(lambda: cluster.count() == 2, SECONDS)
            again = cluster.ask("My name is Ada.", first.text, "Who am I?", max_tokens=4)
            assert again.replica == first.replica
            newcomers = {cluster.ask(f"Hello from {n}.", max_tokens=1).replica for n in range(8)}
            assert newcomers - {first.replica}
        finally:
            is_over.set()
        assert all(length == 300 for talk in talks for length in talk.result())
    wait_until(lambda: cluster.count() == 1, SECONDS)
    assert cluster.ask("Are you still there?", max_tokens=4).text


def finished(cluster, reason):
    return sum(one["finished"].get(reason, 0) for one in cluster.status())
