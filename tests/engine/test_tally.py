"""What the engine counts: by hand, on requests whose numbers are known."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from model.engine.request import FinishedEvent, RequestStats, TokenEvent
from model.engine.tally import Histogram, Tally
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt


def test_a_value_on_a_bound_counts_below_it():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 99.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2] and histogram.total == 106.5
    other = Histogram((1.0, 2.0))
    other.add(3.0)
    other.add_all(histogram)
    assert other.counts == [2, 2, 3] and other.total == 109.5


def test_a_request_counts_by_its_own_statistics():
    tally, more = Tally(), Tally()
    stats = RequestStats(prompt_tokens=30, cached_tokens=16, new_tokens=5, seconds_to_first_token=0.5,
                         prompt_seconds=0.4, decode_seconds=2.0, tokens_per_second=2.0, seed=1)
    tally.add_request("eos", stats, waited=0.1, seconds=2.5)
    more.add_request("length", stats, waited=0.1, seconds=2.5)
    more.add_prompt(30, 16)
    tally.add_all(more)
    assert tally.finished == {"eos": 1, "length": 1}
    assert (tally.prompt_tokens, tally.cached_tokens) == (30, 16)
    assert tally.token_seconds.total == pytest.approx(2 * 0.5), "four tokens in two seconds"
    assert tally.request_seconds.total == 5.0 and tally.request_new_tokens.total == 10
    assert more.finished == {"length": 1}, "left as it was"


def test_the_engine_counts_tokens_prompts_and_ends(folder: Path):
    engine = load(folder, speculation=False)
    _, first = outcome(engine.submit(prompt(40), params(max_new_tokens=6), NO_EOS))
    _, second = outcome(engine.submit(prompt(40), params(max_new_tokens=1), NO_EOS))
    engine.logits(prompt(9, seed=1))
    stopped = engine.submit(prompt(5, seed=2), params(max_new_tokens=300), NO_EOS)
    events = stopped.events()
    while not isinstance(next(events), TokenEvent):
        pass
    stopped.cancel("stop")
    last = list(events)[-1]
    tally = engine.tally()
    engine.close()
    assert isinstance(last, FinishedEvent) and last.reason == "stop"
    assert tally.finished == {"length": 2, "stop": 1}, "what is only scored is no request"
    new = 6 + 1 + last.stats.new_tokens
    assert tally.new_tokens == new and tally.prompt_tokens == 40 + 40 + 9 + 5
    assert second.stats.cached_tokens > 0 and tally.cached_tokens == second.stats.cached_tokens
    assert sum(tally.first_token_seconds.counts) == 3 and sum(tally.between_tokens_seconds.counts) == new - 3
    assert tally.between_tokens_seconds.total == pytest.approx(tally.decode_seconds.total)
    assert tally.first_token_seconds.total == pytest.approx(
        sum(one.stats.seconds_to_first_token for one in (first, second, last)))
    assert tally.step_tokens.total >= new - 3 + tally.prompt_tokens - tally.cached_tokens


def test_a_step_that_lasts_can_be_seen_and_an_engine_without_work_is_in_none(folder: Path, monkeypatch):
    engine, go_on, begun = load(folder), threading.Event(), threading.Event()
    run = engine._runner.run

    def held(batch):
        begun.set()
        go_on.wait(60)
        return run(batch)

    monkeypatch.setattr(engine._runner, "run", held)
    assert engine.status()["seconds_in_step"] == 0.0
    request = engine.submit(prompt(5), params(max_new_tokens=2), NO_EOS)
    begun.wait(60)
    one = engine.status()["seconds_in_step"]
    time.sleep(0.01)
    assert engine.status()["seconds_in_step"] > one > 0
    go_on.set()
    outcome(request)
    while engine.status()["seconds_in_step"]:
        time.sleep(0.001)
    engine.close()
