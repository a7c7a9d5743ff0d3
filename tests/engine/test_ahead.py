"""model/engine/ahead.py: steps that begin before the tokens in front of them are known change no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.request import TokenEvent
from model.engine.speculation import Speculator
from model.network.cuda_graph import CudaGraphs
from model.network.place import Place
from tests.engine.test_speculation import SETTINGS, always
from tests.engine.test_stages import CallCapture
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import NO_EOS, outcome, params, prompt
from tests.host_cuda.build import GPUS, cuda_on_host

Load = Callable[..., Engine]


class FewGraphs(CudaGraphs):
    sizes = (1, 4)


class Breaks:
    """Every even token ends what is repeated."""

    reach = 0

    def flags(self, token_ids: Sequence[int], first: int) -> list[int]:
        return [int(token_id % 2 == 0) for token_id in token_ids[first:]]


@pytest.fixture(scope="module")
def load(host_cuda_library: Any) -> Load:
    """load(folder, ahead): an engine on the GPU's kernels, which the CPU runs."""
    def load(folder: Path, ahead: bool, speculation: bool = False) -> Engine:
        ops = cuda_on_host(host_cuda_library, GPUS["cuda"])
        ops.runs_ahead = ahead
        place = Place(ops, torch.device("cpu"), lambda: FewGraphs(CallCapture(ops)), 1 << 30)
        return load_engine(folder, EngineConfig(speculation=speculation, prefill_chunk=64), places=[place])
    return load


@pytest.fixture(scope="module")
def engines(folder: Path, load: Load) -> Iterator[tuple[Engine, Engine]]:
    """One that waits for each token, and one that runs ahead."""
    both = load(folder, False), load(folder, True)
    yield both
    for engine in both:
        status = engine.status()
        engine.close()
        assert (status["running"], status["waiting"], status["pages_used"]) == (0, 0, 0), "a page leaked"


def gained(engine: Engine, run: Callable[[], Any]) -> tuple[Any, int]:
    """What comes of it, and how many steps began ahead meanwhile."""
    before = engine._steps.num_ahead
    return run(), engine._steps.num_ahead - before


@pytest.mark.parametrize("index", range(len(SETTINGS)))
def test_replies_are_the_same_and_every_step_but_the_first_begins_ahead(engines: tuple[Engine, Engine],
                                                                        index: int):
    """With penalties for what was said, which count the token that the host does not know."""
    settings = SETTINGS[index]
    waiting, running = engines
    want, none = gained(waiting, lambda: outcome(waiting.submit(prompt(20), settings, NO_EOS)))
    got, ahead = gained(running, lambda: outcome(running.submit(prompt(20), settings, NO_EOS)))
    assert got[0] == want[0] and got[1].reason == want[1].reason == "length"
    assert none == 0
    # The prompt gives the first token, the step behind it begins when that is known.
    assert ahead == settings.max_new_tokens - 2


def test_a_reply_ends_where_its_last_token_says_so(engines: tuple[Engine, Engine]):
    waiting, running = engines
    said = outcome(waiting.submit(prompt(9), params(max_new_tokens=30), NO_EOS))[0]
    eos = frozenset({said[12]})
    want, got = (outcome(engine.submit(prompt(9), params(max_new_tokens=30), eos)) for engine in engines)
    assert got[0] == want[0] == said[:said.index(said[12])]
    assert got[1].reason == "eos" and running.status()["pages_used"] == 0


def test_sequences_that_come_and_go_change_no_token_of_the_others(engines: tuple[Engine, Engine]):
    """Of different lengths, one begins later, and one is cancelled on its way."""
    jobs = [(prompt(12 + 3 * i, seed=i), params(seed=i, max_new_tokens=8 + 6 * i)) for i in range(3)]
    found = []
    for engine in engines:
        doomed = engine.submit(prompt(30, seed=8), params(max_new_tokens=100), NO_EOS)
        requests = [engine.submit(*job, NO_EOS) for job in jobs]
        events = requests[2].events()
        first = [next(event.token_id for event in events if isinstance(event, TokenEvent))]
        late = engine.submit(prompt(40, seed=9), params(seed=9, max_new_tokens=9), NO_EOS)
        first += [next(event.token_id for event in events if isinstance(event, TokenEvent)) for _ in range(4)]
        doomed.cancel()
        first += [event.token_id for event in events if isinstance(event, TokenEvent)]
        found.append([outcome(request)[0] for request in (*requests[:2], late)] + [first])
    assert found[0] == found[1]
    assert [len(tokens) for tokens in found[1]] == [8, 14, 9, 20]


def test_nothing_begins_ahead_where_the_host_must_know_the_token(engines: tuple[Engine, Engine]):
    _, running = engines
    for settings, options in ((params(mirostat=2, max_new_tokens=6), {}),
                              (params(max_new_tokens=6), {"logprobs": 1}),
                              (params(max_new_tokens=6, dry_multiplier=1.0), {"breaks": Breaks()}),
                              (params(max_new_tokens=6, guidance_scale=1.5), {"guide": prompt(7, seed=2)})):
        (tokens, last), ahead = gained(running, lambda settings=settings, options=options: outcome(
            running.submit(prompt(11), settings, NO_EOS, **options)))
        assert len(tokens) == 6 and ahead == 0, (settings, last)


def test_a_step_that_fails_ends_what_was_in_it_and_the_next_request_is_served(
        engines: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch):
    _, running = engines
    begin, calls = running._runner.begin, iter(range(1 << 20))

    def failing(*arguments: Any) -> Any:
        if next(calls) == 5:
            raise RuntimeError("broken")
        return begin(*arguments)

    want = outcome(running.submit(prompt(15), params(), NO_EOS))[0]
    monkeypatch.setattr(running._runner, "begin", failing)
    tokens, last = outcome(running.submit(prompt(15), params(), NO_EOS))
    assert len(tokens) < 20 and "broken" in last.message
    assert outcome(running.submit(prompt(15), params(), NO_EOS))[0] == want


def test_guesses_are_made_where_they_pay_and_steps_begin_ahead_where_not(
        folder: Path, load: Load, engines: tuple[Engine, Engine]):
    job = prompt(30), params(temperature=0.0, max_new_tokens=120)
    want = outcome(engines[0].submit(*job, NO_EOS))[0]
    for choose in (always, lambda candidates, rows, room: [0] * len(candidates)):
        guessing = load(folder, True, speculation=True)
        assert isinstance(guessing._speculator, Speculator)
        guessing._speculator.choose = choose
        try:
            (made, last), ahead = gained(guessing, lambda: outcome(guessing.submit(*job, NO_EOS)))  # noqa: B023
            assert made == want
            assert (last.stats.drafted_tokens > 0) == (choose is always)
            assert 0 < ahead <= 118 and (ahead == 118) == (choose is not always)
        finally:
            guessing.close()


@pytest.mark.parametrize("variant", ["gemma 2", "phi 3"])
def test_windows_and_prompts_that_become_long_change_no_token(tmp_path: Path, load: Load, variant: str):
    write_family(tmp_path, variant)
    found = []
    for ahead in (False, True):
        engine = load(tmp_path, ahead)
        try:
            found.append(outcome(engine.submit(prompt(20), params(max_new_tokens=60), NO_EOS))[0])
            assert (engine._steps.num_ahead > 50) == ahead
        finally:
            engine.close()
    assert found[0] == found[1]


def test_a_model_with_states_waits_for_each_token(tmp_path: Path, load: Load):
    """A step for nothing would have changed what the next turn goes on from."""
    write_family(tmp_path, "lfm 2")
    engine = load(tmp_path, True)
    try:
        assert len(outcome(engine.submit(prompt(9), params(max_new_tokens=5), NO_EOS))[0]) == 5
        assert engine._steps.num_ahead == 0
    finally:
        engine.close()
