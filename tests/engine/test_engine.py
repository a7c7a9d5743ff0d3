"""model/engine/: requests on a small random model. Batched is alone, cancelled is gone, failed is said."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.devices import cuda_problem
from model.engine.engine import Engine
from model.engine.job import Job
from model.engine.loading import load_engine, synthetic_engine
from model.engine.request import (
    EngineClosed,
    FailedEvent,
    FinishedEvent,
    PromptProgress,
    Request,
    TokenEvent,
)
from model.files import ModelLoadError
from model.formats.synthetic import SHAPES
from model.machine import resident_memory
from model.network.place import Place
from tests.engine.test_network import REFERENCE_OPS
from tests.helpers.tiny_engine import (
    NO_EOS,
    load,
    outcome,
    params,
    prompt,
    shrink,
    tokens,
)
from tests.helpers.tiny_models import TINY, write_model


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


# ---- one request ---------------------------------------------------------------------------------------


def test_events_come_in_order_and_the_statistics_add_up(engine: Engine):
    events = list(engine.submit(prompt(100), params(max_new_tokens=7), NO_EOS).events())
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert events[0] == progress[0] and progress[-1] == PromptProgress(100, 100, 0)
    assert all(isinstance(event, TokenEvent) for event in events[len(progress):-1])
    last = events[-1]
    assert isinstance(last, FinishedEvent) and last.reason == "length"
    stats = last.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.new_tokens, stats.seed) == (100, 0, 7, 5)
    assert 0 < stats.prompt_seconds <= stats.seconds_to_first_token
    assert stats.tokens_per_second == pytest.approx(6 / stats.decode_seconds)


def test_greedy_tokens_are_the_largest_logits_of_the_whole_sequence(engine: Engine):
    start = prompt(40)
    made = tokens(engine, start, params(temperature=0.0))
    logits = engine.logits(start + made[:-1], first=len(start) - 1)
    chosen = logits.gather(1, torch.tensor(made)[:, None])[:, 0]
    # A whole sequence is a prompt, whose rows a device may compute in a way of its own.
    assert (logits.max(-1).values - chosen).max() <= 2e-2 * logits.abs().max()


def test_eos_ends_a_reply_and_is_not_part_of_it(engine: Engine):
    greedy = tokens(engine, prompt(10), params(temperature=0.0))
    eos = greedy[5]
    made, last = outcome(engine.submit(prompt(10), params(temperature=0.0), frozenset({eos, 95})))
    assert made == greedy[:greedy.index(eos)]
    assert isinstance(last, FinishedEvent) and last.reason == "eos"
    assert last.stats.new_tokens == len(made)


def test_a_reply_ends_where_the_context_does(folder: Path):
    engine = load(folder, max_seq_len=64)
    made, last = outcome(engine.submit(prompt(60), params(max_new_tokens=50), NO_EOS))
    engine.close()
    assert len(made) == 4 and isinstance(last, FinishedEvent) and last.reason == "context"


def test_without_a_seed_one_is_chosen_that_repeats_the_reply(engine: Engine):
    request = engine.submit(prompt(9), params(seed=None), NO_EOS)
    made, last = outcome(request)
    assert isinstance(last, FinishedEvent)
    assert tokens(engine, prompt(9), params(seed=last.stats.seed)) == made


def test_when_no_token_is_possible_the_request_fails_and_says_so(engine: Engine):
    _, last = outcome(engine.submit(prompt(5), params(banned_tokens=tuple(range(96))), NO_EOS))
    assert isinstance(last, FailedEvent) and "No token is possible" in last.message


@pytest.mark.parametrize(("token_ids", "reason"), [
    ([], "empty"), ([0] * 512, r"at most 511"), ([96], "expected 0 to 95"), ([-1], "expected 0 to 95"),
])
def test_an_impossible_prompt_is_refused_at_once(engine: Engine, token_ids: list[int], reason: str):
    with pytest.raises(ValueError, match=reason):
        engine.submit(token_ids, params(), NO_EOS)


def test_logits_from_a_position_on_are_the_end_of_all(engine: Engine):
    token_ids = prompt(200, seed=4)
    whole = engine.logits(token_ids)
    assert whole.shape == (200, 96) and whole.dtype == torch.float32
    assert torch.equal(engine.logits(token_ids, first=150), whole[150:])
    assert torch.equal(engine.logits(token_ids[:70]), whole[:70])
    for first in (-1, 200):
        with pytest.raises(ValueError, match="first is"):
            engine.logits(token_ids, first=first)


def test_a_request_has_one_reader(engine: Engine):
    request = engine.submit(prompt(3), params(), NO_EOS)
    list(request.events())
    with pytest.raises(RuntimeError, match="one reader"):
        request.events()


# ---- many requests -------------------------------------------------------------------------------------

LENGTHS = (1, 31, 32, 33, 100, 300, 7, 64)
SETTINGS = [params(seed=i, temperature=t, max_new_tokens=25, repetition_penalty=1.1)
            for i, t in enumerate((0.8, 0.0, 1.5, 1.0, 0.5, 0.8, 2.0, 0.0))]


@pytest.mark.parametrize("changes", [
    {}, {"prefill_chunk": 32}, {"exact": True, "cache": "fp32"}, {"threads": 2},
], ids=["int8", "small chunks", "exact", "two threads"])
def test_a_reply_is_the_same_alone_and_in_a_batch_of_eight(folder: Path, changes: dict[str, Any]):
    alone = []
    for length, settings in zip(LENGTHS, SETTINGS, strict=True):
        engine = load(folder, **{**changes, "prefill_chunk": 512, "threads": 1})
        alone.append(tokens(engine, prompt(length, seed=length), settings))
        engine.close()
    engine = load(folder, **changes)
    requests = [engine.submit(prompt(length, seed=length), settings, NO_EOS)
                for length, settings in zip(LENGTHS, SETTINGS, strict=True)]
    together = [outcome(request)[0] for request in requests]
    engine.close()
    assert together == alone


def test_rows_beyond_the_memory_for_logits_are_sampled_in_turn(folder: Path,
                                                               monkeypatch: pytest.MonkeyPatch):
    prompts = [prompt(12, seed=i) for i in range(30)]
    engine = load(folder)
    alone = [tokens(engine, token_ids, params(seed=i)) for i, token_ids in enumerate(prompts)]
    engine.close()
    monkeypatch.setattr("model.engine.runner.LOGIT_ROWS", 7)
    engine = load(folder)
    requests = [engine.submit(token_ids, params(seed=i), NO_EOS) for i, token_ids in enumerate(prompts)]
    together = [outcome(request)[0] for request in requests]
    engine.close()
    assert together == alone


def test_more_requests_than_run_at_once_wait_and_finish(folder: Path):
    engine = load(folder, max_running=2)
    requests = [engine.submit(prompt(20, seed=i), params(max_new_tokens=5), NO_EOS) for i in range(9)]
    assert all(len(outcome(request)[0]) == 5 for request in requests)
    engine.close()


@pytest.mark.parametrize("ways", [{}, {"exact": True, "cache": "fp32"}], ids=["int8", "exact"])
def test_prefix_reuse_saves_work_and_does_not_change_the_reply(folder: Path, ways: dict[str, Any]):
    """With one way for all rows so does a reply that has become part of a prompt; else its keys are those of
    decoding."""
    engine = load(folder, **ways)
    first = prompt(150)
    assert engine.num_cached(first) == 0
    reply = tokens(engine, first)
    assert engine.num_cached(first) == 149
    again, stats = outcome(engine.submit(first, params(), NO_EOS))
    assert again == reply and stats.stats.cached_tokens == 149
    turn = first + reply + prompt(30, seed=8)
    assert engine.num_cached(turn) == 169
    made, stats = outcome(engine.submit(turn, params(), NO_EOS))
    assert stats.stats.cached_tokens == 169, "prompt and reply but for the token that was sampled last"
    changed = [*first[:100], (first[100] + 1) % 96, *first[101:]]
    assert engine.num_cached(changed) == 100
    other, stats = outcome(engine.submit(changed, params(), NO_EOS))
    assert stats.stats.cached_tokens == 100, "three pages, and four tokens copied from the fourth"
    engine.close()
    for token_ids, got in ((turn, made), (changed, other))[0 if ways else 1:]:
        fresh = load(folder, **ways)
        assert tokens(fresh, token_ids) == got
        fresh.close()


@pytest.mark.parametrize("cache", ["fp16", "q8", "q4", "fp32"])
def test_what_was_never_written_to_the_cache_is_never_read(folder: Path, cache: str):
    """The cache is not cleared when it is allocated; here it is full of NaN."""
    engine = load(folder, cache=cache)
    want = [tokens(engine, prompt(length), params()) for length in (5, 40)]
    engine.close()
    engine = load(folder, cache=cache)
    memory = engine._runner._transformer.stages[0].cache
    for tensor in (*memory.keys, *memory.values):
        tensor.fill_(float("nan") if tensor.is_floating_point() else 255)  # 0xFFFF is a NaN of float16
    assert [tokens(engine, prompt(length), params()) for length in (5, 40)] == want
    engine.close()


def test_when_pages_run_out_replies_are_recomputed_and_stay_the_same(folder: Path):
    """Eight replies of 200 tokens in a cache that holds the longest context and no more; in half of them each
    token depends on how surprising those before it were."""
    settings = [params(seed=i, max_new_tokens=200, mirostat=i % 2 * 2, mirostat_tau=3.0, dry_multiplier=i % 4)
                for i in range(8)]
    engine = load(folder)
    shrink(engine, 16)
    alone = [tokens(engine, prompt(40, seed=i), settings[i]) for i in range(8)]
    engine.close()
    engine = load(folder)
    shrink(engine, 16)
    requests = [engine.submit(prompt(40, seed=i), settings[i], NO_EOS) for i in range(8)]
    together = [outcome(request)[0] for request in requests]
    assert engine.status()["pages_used"] == 0
    engine.close()
    assert together == alone


def test_random_load_with_cancellations_keeps_replies_and_pages(folder: Path):
    rng = random.Random(2)
    jobs = [(prompt(rng.choice([5, 60, 200, 350]), seed=rng.randrange(4)), params(seed=i, max_new_tokens=40))
            for i in range(40)]
    engine = load(folder)
    alone = [tokens(engine, token_ids, settings) for token_ids, settings in jobs]
    got: dict[int, list[int]] = {}

    def read(index: int, request: Request, stop_after: int) -> None:
        made = []
        for event in request.events():
            if isinstance(event, TokenEvent):
                made.append(event.token_id)
                if len(made) == stop_after:
                    request.cancel()
        got[index] = made

    threads = []
    for index, (token_ids, settings) in enumerate(jobs):
        stop_after = rng.choice([1, 10, 1000, 1000])
        request = engine.submit(token_ids, settings, NO_EOS)
        threads.append(threading.Thread(target=read, args=(index, request, stop_after)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert all(alone[index][:len(made)] == made for index, made in got.items())
    assert sum(len(made) == 40 for made in got.values()) >= 10
    status = engine.status()
    engine.close()
    assert (status["pages_used"], status["running"], status["waiting"]) == (0, 0, 0)


# ---- cancelling, failing, closing ----------------------------------------------------------------------


def holding_after_the_first_token(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The engine goes on once this is set: however late a test looks, the reply has not ended by then."""
    go_on, sampled, run = threading.Event(), [], engine._runner.run

    def held(batch: Any) -> Any:
        if sampled:
            go_on.wait(60)
        found = run(batch)
        sampled.extend(found)
        return found

    monkeypatch.setattr(engine._runner, "run", held)
    return go_on


def test_cancelling_frees_the_pages_before_the_next_step(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    go_on = holding_after_the_first_token(engine, monkeypatch)
    request = engine.submit(prompt(300), params(max_new_tokens=200), NO_EOS)
    events = request.events()
    while not isinstance(next(events), TokenEvent):
        pass
    assert engine.status()["pages_used"] >= 10
    request.cancel()
    go_on.set()
    rest = list(events)
    assert isinstance(rest[-1], FinishedEvent) and rest[-1].reason == "cancelled"
    assert engine.status()["pages_used"] == 0, "freed before the last event was sent"
    assert len(rest) < 190
    request.cancel()  # a second time, and after the end, it does nothing


def test_a_waiting_request_can_be_cancelled(folder: Path, monkeypatch: pytest.MonkeyPatch):
    engine = load(folder, max_running=1)
    go_on = holding_after_the_first_token(engine, monkeypatch)
    running = engine.submit(prompt(10), params(max_new_tokens=400), NO_EOS)
    waiting = engine.submit(prompt(10), params(), NO_EOS)
    waiting.cancel()
    go_on.set()
    assert outcome(waiting)[1].reason == "cancelled"
    running.cancel()
    outcome(running)
    engine.close()


class FailingOnce:
    """The reference operations, of which one raises when told to."""

    def __init__(self) -> None:
        self.fails = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(REFERENCE_OPS, name)

    def embed(self, *arguments: Any) -> None:
        if self.fails.is_set():
            self.fails.clear()
            raise RuntimeError("the kernel is out of order")
        REFERENCE_OPS.embed(*arguments)


def test_a_step_that_fails_ends_its_requests_and_the_next_works(folder: Path):
    ops = FailingOnce()
    engine = load_engine(folder, EngineConfig(), places=[Place.on_host(ops, 1 << 30)])
    engine._scheduler.max_running = 2
    want = tokens(engine, prompt(50), params(max_new_tokens=5))
    running = [engine.submit(prompt(40, seed=i), params(max_new_tokens=400), NO_EOS) for i in (1, 2)]
    waiting = engine.submit(prompt(50), params(max_new_tokens=5), NO_EOS)
    iterators = [request.events() for request in running]
    for events in iterators:
        while not isinstance(next(events), TokenEvent):
            pass
    ops.fails.set()
    for events in iterators:
        last = list(events)[-1]
        assert isinstance(last, FailedEvent) and "RuntimeError: the kernel is out of order" in last.message
    assert outcome(waiting)[0] == want, "it was not in that step"
    ops.fails.set()
    with pytest.raises(RuntimeError, match="out of order"):
        engine.logits(prompt(30, seed=9))
    assert tokens(engine, prompt(50), params(max_new_tokens=5)) == want
    assert engine.status()["pages_used"] == 0
    engine.close()


def test_who_was_to_begin_in_a_step_that_failed_gets_the_reply_of_a_fresh_engine(
        folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Forty go on within a page that another has filled. The step that was to copy it for all of them has
    rows for some, and fails before it copies anything."""
    engine, fresh = load(folder, prefill_chunk=32), load(folder, prefill_chunk=32)
    beginning, settings = prompt(40), params(max_new_tokens=3)
    prompts = [[*beginning, *prompt(12, seed=i)] for i in range(1, 41)]
    tokens(engine, beginning, settings)
    steps, run = iter(range(1 << 20)), engine._runner.run
    entered, submitted = threading.Event(), threading.Event()

    def failing(batch: Any) -> Any:
        number = next(steps)
        if number == 0:
            entered.set()
            submitted.wait(60)
        if number == 1:
            raise RuntimeError("broken")
        return run(batch)

    monkeypatch.setattr(engine._runner, "run", failing)
    other = engine.submit(prompt(5, seed=50), params(max_new_tokens=1), NO_EOS)
    assert entered.wait(60)
    requests = [engine.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
    submitted.set()
    outcome(other)
    ends = [outcome(request) for request in requests]
    failed = [isinstance(end, FailedEvent) for _, end in ends]
    assert 0 < sum(failed) < 40
    again = [token_ids for token_ids, has_failed in zip(prompts, failed, strict=True) if has_failed][:2]
    got = [made for (made, _), has_failed in zip(ends, failed, strict=True) if not has_failed]
    asked = [token_ids for token_ids, has_failed in zip(prompts, failed, strict=True) if not has_failed]
    got += [tokens(engine, token_ids, settings) for token_ids in again]
    assert got == [tokens(fresh, token_ids, settings) for token_ids in [*asked, *again]]
    assert engine.status()["pages_used"] == 0
    engine.close()
    fresh.close()


class Breaks:
    """A constraint that allows everything and cannot go on after some tokens."""

    is_free = False

    is_complete = False

    def __init__(self, tokens_left: int, in_mask: bool) -> None:
        self.tokens_left, self.in_mask = tokens_left, in_mask

    def fill_mask(self, mask: Any) -> None:
        mask[:] = -1
        if self.in_mask and self.tokens_left == 0:
            raise ValueError("the constraint is out of order")

    def accept(self, token_ids: list[int]) -> None:
        if self.tokens_left == 0:
            raise ValueError("the constraint is out of order")
        self.tokens_left -= 1

    def take_back(self, count: int) -> None:
        self.tokens_left += count

    def count_possible(self, token_ids: list[int]) -> int:
        return min(self.tokens_left, len(token_ids))


@pytest.mark.parametrize("in_mask", [False, True])
def test_a_constraint_that_cannot_go_on_fails_its_own_request_only(engine: Engine, in_mask: bool):
    want = tokens(engine, prompt(20))
    neighbour = engine.submit(prompt(20), params(), NO_EOS)
    made, last = outcome(engine.submit(prompt(20), params(), NO_EOS, constraint=Breaks(4, in_mask)))
    assert made == want[:4]
    assert isinstance(last, FailedEvent) and "out of order" in last.message
    assert outcome(neighbour)[0] == want


class Panic(BaseException):
    """What a library written in Rust raises when it gives up."""


def raises(error: BaseException) -> Any:
    def call(*_args: Any, **_named: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("error", [RuntimeError("broken"), Panic("broken")], ids=["error", "panic"])
@pytest.mark.parametrize("where", ["Job.sampling_rows", "Job.append", "Job.report_prompt", "Job.finish"])
def test_what_breaks_in_one_request_ends_that_one_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch,
                                                        where: str, error: BaseException):
    want = tokens(engine, prompt(30), params())
    name = where.partition(".")[2]
    sound = getattr(Job, name)

    def broken(self: Job, *arguments: Any) -> Any:
        if self.request is victim:
            raise error
        return sound(self, *arguments)

    victim = None
    monkeypatch.setattr(Job, name, broken)
    other = engine.submit(prompt(30), params(), NO_EOS)
    victim = engine.submit(prompt(30, seed=1), params(), NO_EOS)
    assert "broken" in outcome(victim)[1].message
    assert outcome(other)[0] == want
    assert tokens(engine, prompt(30), params()) == want and engine.status()["problem"] is None


@pytest.mark.parametrize("error", [RuntimeError("broken"), Panic("broken")], ids=["error", "panic"])
def test_a_request_that_cannot_be_taken_in_is_answered(engine: Engine, monkeypatch: pytest.MonkeyPatch,
                                                       error: BaseException):
    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler, "add", raises(error))
        assert "broken" in outcome(engine.submit(prompt(5), params(), NO_EOS))[1].message
    assert len(tokens(engine, prompt(5), params())) == 20


def test_a_panic_in_a_step_ends_its_requests_and_the_engine_goes_on(engine: Engine,
                                                                    monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "run", raises(Panic("broken")))
        requests = [engine.submit(prompt(5, seed=i), params(), NO_EOS) for i in range(3)]
        assert all("broken" in outcome(request)[1].message for request in requests)
        with pytest.raises(RuntimeError, match="broken"):
            engine.logits(prompt(5))
    assert len(tokens(engine, prompt(5), params())) == 20


def test_an_engine_whose_books_are_in_disorder_answers_everybody_and_says_that_it_is_gone(
        folder: Path, monkeypatch: pytest.MonkeyPatch):
    engine = load(folder, max_running=2)
    requests = [engine.submit(prompt(5, seed=i), params(max_new_tokens=400), NO_EOS) for i in range(5)]
    next(events := requests[0].events())
    monkeypatch.setattr(engine._scheduler, "discard", raises(KeyError("a page")))
    monkeypatch.setattr(engine._runner, "run", raises(RuntimeError("broken")))
    assert isinstance(list(events)[-1], FailedEvent)
    assert all(isinstance(outcome(request)[1], FailedEvent) for request in requests[1:])
    wait_until(lambda: not engine._thread.is_alive())
    assert "Parlor is started again" in engine.status()["problem"]
    with pytest.raises(EngineClosed, match="started again"):
        engine.submit(prompt(5), params(), NO_EOS)
    engine.close()


def test_closing_fails_what_runs_and_refuses_what_comes(folder: Path):
    engine = load(folder, max_running=1)
    requests = [engine.submit(prompt(10), params(max_new_tokens=400), NO_EOS) for _ in range(3)]
    next(events := requests[0].events())
    engine.close()
    engine.close()
    assert isinstance(list(events)[-1], FailedEvent)
    assert all(isinstance(outcome(request)[1], FailedEvent) for request in requests[1:])
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit([1], params(), NO_EOS)


def test_an_idle_engine_sleeps(engine: Engine):
    tokens(engine, prompt(5))
    thread_time = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - thread_time < 0.1


def test_starting_and_stopping_leaves_no_thread_behind(folder: Path):
    before = threading.active_count()
    for _ in range(5):
        engine = load(folder)
        tokens(engine, prompt(5), params(max_new_tokens=2))
        engine.close()
    wait_until(lambda: threading.active_count() <= before)


def test_describe_says_what_is_loaded(engine: Engine):
    said = engine.describe()
    assert said["quantization"] == "4-bit GPTQ g32"
    assert said["num_parameters"] == engine.model_config.spec.num_parameters
    assert said["cache_tokens"] == 8 * 512 and said["cache_bytes"] == 8 * 512 * 2 * 2 * 32 * 2
    assert 0 < said["weight_bytes"] < 4 * said["num_parameters"]
    assert said["device"] == "cpu" and said["threads"] >= 1
    assert engine.status()["memory_bytes"] > 10 << 20


def test_loading_tells_how_far_it_is(folder: Path):
    heard: list[float] = []
    engine = load_engine(folder, EngineConfig(threads=1), lambda line, share: heard.append(share))
    engine.close()
    assert heard[-1] == 1.0 and heard == sorted(heard)


def test_loading_holds_one_matrix_at_a_time_besides_the_model(tmp_path: Path):
    """40 MB of float32: the peak is far from twice that, though the file is read and packed."""
    config = {**TINY, "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 2048,
              "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    write_model(tmp_path, config)
    weights = (tmp_path / "model.safetensors").stat().st_size
    before, seen = resident_memory(), []
    engine = load_engine(tmp_path, EngineConfig(threads=1), lambda *_: seen.append(resident_memory()))
    weight_bytes = engine.describe()["weight_bytes"]
    engine.close()
    assert weight_bytes == pytest.approx(weights, rel=0.05)
    assert max(seen) - before < 1.6 * weights


def test_a_synthetic_model_runs_and_is_as_large_as_planned(monkeypatch: pytest.MonkeyPatch):
    small = {"num_hidden_layers": 1, "vocab_size": 500, "hidden_size": 256, "intermediate_size": 704}
    monkeypatch.setitem(SHAPES, "small", {**SHAPES["tinyllama-1.1b"], **small})
    engine = synthetic_engine("small", EngineConfig(threads=1, max_seq_len=256))
    made = tokens(engine, prompt(40), params(max_new_tokens=5))
    engine.close()
    assert len(made) == 5
    assert engine.describe()["weight_bytes"] == pytest.approx(engine.plan.weight_bytes, rel=0.05)
    with pytest.raises(ModelLoadError, match="expected one of tinyllama"):
        synthetic_engine("gpt-5")


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU here")
def test_cuda_is_refused_rather_than_replaced(folder: Path):
    with pytest.raises(ModelLoadError, match="--device cpu"):
        load_engine(folder, EngineConfig(device="cuda"))
    with pytest.raises(ModelLoadError, match="--device cpu"):
        load_engine(folder, EngineConfig(gpu_split=(8, 8)))
