"""model/engine/speculation.py and its two drafters: whatever is guessed, the reply is the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from model.config import EngineConfig
from model.engine.draft_record import DraftRecord, StepCosts
from model.engine.engine import Engine
from model.engine.job import Job
from model.engine.ngram import NgramDrafter, NgramIndex
from model.engine.request import FinishedEvent, Request, SamplingParams
from model.engine.sequences import Chunk
from model.engine.speculation import Speculator
from model.files import ModelLoadError
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, shrink
from tests.helpers.tiny_models import write_model

SETTINGS = [
    params(temperature=0.0, max_new_tokens=60),
    params(temperature=0.0, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.3,
           repetition_range=20, repetition_decay=10, max_new_tokens=60),
    params(temperature=0.8, seed=3, max_new_tokens=60),
    params(temperature=1.5, seed=4, top_p=1.0, min_p=0.0, max_new_tokens=60),
    params(temperature=0.3, seed=5, repetition_penalty=1.2, min_new_tokens=30, max_new_tokens=60),
    params(temperature=0.0, max_new_tokens=2),
    params(temperature=1.2, seed=6, dry_multiplier=1.0, dry_allowed_length=1, xtc_probability=0.5,
           dynatemp_range=0.4, top_n_sigma=2.0, max_new_tokens=60),
]
EOS = frozenset({7, 20, 33})
LENGTHS = (30, 64, 100, 5, 31, 40, 50)


def always(candidates: list[tuple[float, int]], rows: int, room: int) -> list[int]:
    """In place of Speculator.choose: the whole of every guess, whatever it costs."""
    return [length for _, length in candidates]


def drafting(folder: Path, drafter: object | None = None, **changes: Any) -> Engine:
    """An engine that computes every guess."""
    engine = load(folder, **changes)
    if drafter is not None:
        engine._speculator = Speculator(drafter)
    engine._speculator.choose = always
    return engine


class Prophet:
    """Knows how each prompt will go on, and is wrong with a probability."""

    seconds_per_token = 0.0

    def __init__(self, truth: dict[tuple[int, ...], list[int]], wrong: float) -> None:
        self._truth = {prompt: [*prompt, *reply] for prompt, reply in truth.items()}
        self._wrong, self._rng = wrong, random.Random(1)

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int]:
        whole = self._truth[tuple(job.request.prompt)]
        guess = whole[len(token_ids):len(token_ids) + self._rng.randrange(limit + 1)]
        return [self._rng.randrange(96) if self._rng.random() < self._wrong else token for token in guess]

    def make(self, wanted: list[tuple[Chunk[Job], int]]) -> list[list[int]]:
        return []

    def forget(self, job: Job) -> None:
        pass


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[tuple[list[int], str]]:
    """What comes out without speculation, one after the other; EOS for every second."""
    engine = load(folder, speculation=False)
    found = []
    for index, (length, settings) in enumerate(zip(LENGTHS, SETTINGS, strict=True)):
        made, last = outcome(submit(engine, index, length, settings))
        found.append((made, last.reason))
    engine.close()
    return found


def submit(engine: Engine, index: int, length: int, settings: SamplingParams) -> Request:
    return engine.submit(prompt(length, seed=length), settings, EOS if index % 2 else NO_EOS)


def truth_of(replies: list[tuple[list[int], str]]) -> dict[tuple[int, ...], list[int]]:
    return {tuple(prompt(length, seed=length)): made
            for length, (made, _) in zip(LENGTHS, replies, strict=True)}


def together(engine: Engine) -> list[tuple[list[int], str]]:
    requests = [submit(engine, index, length, settings)
                for index, (length, settings) in enumerate(zip(LENGTHS, SETTINGS, strict=True))]
    return [(made, last.reason) for made, last in map(outcome, requests)]


# ---- the reply is the same -----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, 0.2, 1.0])
def test_right_and_wrong_guesses_give_the_same_replies_alone_and_in_a_batch(folder: Path, wrong: float,
                                                                           plain: list[Any]):
    truth = {start: [*made, 7, 7, 7] for start, made in truth_of(plain).items()}
    engine = drafting(folder, Prophet(truth, wrong))
    alone = []
    for index, (length, settings) in enumerate(zip(LENGTHS, SETTINGS, strict=True)):
        made, last = outcome(submit(engine, index, length, settings))
        alone.append((made, last.reason))
        assert last.stats.new_tokens == len(made)
        assert last.stats.accepted_tokens <= last.stats.drafted_tokens
        if wrong == 0 and len(made) > 30:
            assert last.stats.accepted_tokens > len(made) / 2
        if wrong == 1:
            assert last.stats.accepted_tokens < 5, "a random token is seldom right"
    assert alone == plain
    assert together(engine) == plain
    assert engine.status()["pages_used"] == 0
    engine.close()


def test_looking_up_gives_the_same_replies(folder: Path, plain: list[Any]):
    engine = drafting(folder)
    assert together(engine) == plain
    engine.close()


@pytest.mark.parametrize("changes", [{"cache": "q8"}, {"exact": True, "cache": "fp32"}, {"threads": 2}],
                         ids=["q8 cache", "exact", "two threads"])
def test_other_arithmetic_and_caches_do_not_mind_wrong_guesses(folder: Path, changes: dict[str, Any]):
    engine = load(folder, speculation=False, **changes)
    want = together(engine)
    engine.close()
    truth = truth_of(want)
    engine = drafting(folder, Prophet(truth, 0.3), **changes)
    assert together(engine) == want
    engine.close()


def test_what_was_guessed_wrongly_is_not_known_to_the_cache(folder: Path, plain: list[Any]):
    """The same conversations go on, from pages that wrong guesses were written to."""
    truth = truth_of(plain)
    engine = drafting(folder, Prophet(truth, 0.3))
    together(engine)
    turns = [prompt(length, seed=length) + made for length, (made, _) in zip(LENGTHS, plain, strict=True)]
    engine._speculator = None
    got = [outcome(engine.submit(turn, params(), NO_EOS)) for turn in turns]
    engine.close()
    assert all(last.stats.cached_tokens >= len(turn) - 2 for turn, (_, last) in zip(turns, got, strict=True))
    for index, (turn, (made, _)) in enumerate(zip(turns, got, strict=True)):
        fresh = load(folder, speculation=False)
        outcome(submit(fresh, index, LENGTHS[index], SETTINGS[index]))  # its cache has a reply there, too
        assert outcome(fresh.submit(turn, params(), NO_EOS))[0] == made
        fresh.close()


def test_without_pages_for_guesses_and_up_to_the_end_of_the_context_nothing_changes(folder: Path):
    want = {}
    engine = load(folder, speculation=False, max_seq_len=160)
    for seed in range(4):
        want[seed], _ = outcome(engine.submit(prompt(40, seed=seed), params(max_new_tokens=500), NO_EOS))
    engine.close()
    truth = {tuple(prompt(40, seed=seed)): made for seed, made in want.items()}
    engine = drafting(folder, Prophet(truth, 0.1), max_seq_len=160)
    shrink(engine, 6)
    requests = {seed: engine.submit(prompt(40, seed=seed), params(max_new_tokens=500), NO_EOS)
                for seed in want}
    for seed, request in requests.items():
        made, last = outcome(request)
        assert made == want[seed] and last.reason == "context" and len(made) == 160 - 40
    assert engine.status()["pages_used"] == 0
    engine.close()


def test_log_probabilities_come_with_every_token_of_a_right_guess(folder: Path, plain: list[Any]):
    truth = truth_of(plain)
    engines = load(folder, speculation=False), drafting(folder, Prophet(truth, 0.1))
    events = [[getattr(event, "logprob", None) for event in
               engine.submit(prompt(30, seed=30), SETTINGS[0], NO_EOS, logprobs=2).events()]
              for engine in engines]
    for engine in engines:
        engine.close()
    assert [one for one in events[0] if one] == [one for one in events[1] if one]


def test_with_sampling_the_tokens_are_distributed_as_without(folder: Path):
    """The second token after one prompt, 200 seeds: equal counts, since each seed gives the same token."""
    settings = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "max_new_tokens": 3}
    counts = []
    for engine in (load(folder, speculation=False), drafting(folder, Constant())):
        requests = [engine.submit(prompt(5), SamplingParams(seed=seed, **settings), NO_EOS)
                    for seed in range(200)]
        made = [outcome(request)[0] for request in requests]
        counts.append(Counter(reply[1] for reply in made))
        engine.close()
    assert counts[0] == counts[1] and len(counts[0]) > 20


class EveryThird:
    """Breaks where DRY ends a sequence."""

    reach = 1

    def flags(self, token_ids: list[int], first: int) -> list[int]:
        return [int(token_id % 3 == 0) for token_id in token_ids[first:]]


def test_breaks_within_a_guess_count_for_the_tokens_behind_it(folder: Path):
    """A greedy reply of repetitions that DRY breaks up: the guesses are its own tokens."""
    settings = params(temperature=0.0, dry_multiplier=2.0, dry_allowed_length=1, max_new_tokens=60)
    replies = []
    for breaks in (EveryThird(), None):
        engine = load(folder, speculation=False)
        made = outcome(engine.submit(prompt(30), settings, NO_EOS, breaks=breaks))[0]
        engine.close()
        engine = drafting(folder, Prophet({tuple(prompt(30)): [*made, 7, 7]}, 0.1))
        guessed, last = outcome(engine.submit(prompt(30), settings, NO_EOS, breaks=breaks))
        engine.close()
        assert guessed == made and last.stats.accepted_tokens > 20
        replies.append(made)
    assert replies[0] != replies[1]


def test_nothing_is_guessed_where_a_token_decides_how_the_next_one_is_chosen(folder: Path):
    settings = params(temperature=1.0, mirostat=2, mirostat_tau=3.0, max_new_tokens=40)
    engine = load(folder, speculation=False)
    made = outcome(engine.submit(prompt(30), settings, NO_EOS))[0]
    cut = outcome(engine.submit(prompt(30), params(temperature=1.0, top_p=1.0, min_p=0.0, max_new_tokens=40),
                                NO_EOS))[0]
    engine.close()
    engine = drafting(folder, Constant())
    again, last = outcome(engine.submit(prompt(30), settings, NO_EOS))
    engine.close()
    assert again == made != cut and last.stats.drafted_tokens == 0


class Constant(NgramDrafter):
    """Guesses the same token always."""

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int]:
        return [11] * limit


# ---- a draft model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    params(temperature=0.0, max_new_tokens=60),
    params(temperature=0.9, max_new_tokens=60, repetition_penalty=1.2, presence_penalty=0.3)],
    ids=["greedy", "sampled"])
def test_the_model_as_its_own_draft_is_always_right(folder: Path, settings: SamplingParams):
    plain = load(folder, speculation=False)
    want, _ = outcome(plain.submit(prompt(50), settings, NO_EOS))
    plain.close()
    engine = drafting(folder, draft=folder)
    made, last = outcome(engine.submit(prompt(50), settings, NO_EOS))
    assert made == want
    assert last.stats.drafted_tokens == last.stats.accepted_tokens >= 50, "same model, same random numbers"
    made, last = outcome(engine.submit(prompt(500), settings, NO_EOS))
    assert last.stats.drafted_tokens == last.stats.accepted_tokens
    assert engine._speculator.drafter._pools[0].num_used == 0
    engine.close()


def test_another_model_as_draft_changes_nothing(folder: Path, plain: list[Any], tmp_path: Path):
    small = write_model(tmp_path, num_hidden_layers=1, max_position_embeddings=128)
    engine = drafting(folder, draft=small)
    assert together(engine) == plain
    (pool,) = engine._speculator.drafter._pools
    assert pool.num_used == 0
    pool.__init__(3)  # too few for all
    assert together(engine) == plain
    assert pool.num_used == 0
    engine.close()


def test_a_draft_model_of_other_tokens_is_refused(folder: Path, tmp_path: Path):
    other = write_model(tmp_path / "other", vocab_size=100)
    with pytest.raises(ModelLoadError, match=r"100 tokens and .* has 96; they must be the very same"):
        load(folder, draft=other)
    with pytest.raises(ValueError, match="a draft model was given and speculation is off"):
        EngineConfig(draft=other, speculation=False)


# ---- what pays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "limit", "found"), [
    ([1, 2, 3, 4, 5, 1, 2, 3], 2, [4, 5]),
    ([1, 2, 3, 4, 5, 1, 2, 3], 9, [4, 5, 1, 2, 3, 4, 5, 1, 2]),
    ([1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 1, [9]),
    ([7, 7, 7, 7], 3, [7, 7, 7]),
    ([1, 2, 3, 4], 3, []), ([1, 2], 3, []),
], ids=["what followed", "round and round", "the latest", "one token", "new", "too short"])
def test_looking_up_by_hand(tokens: list[int], limit: int, found: list[int]):
    assert NgramIndex().find(tokens, limit) == found
    index = NgramIndex()
    for end in range(1, len(tokens)):
        index.find(tokens[:end], 1)
    assert index.find(tokens, limit) == found, "the same when the tokens come one by one"


SIZES = (1, 2, 3, 4, 5, 7, 9, 13, 17)
"""Rows of a step of one sequence with drafts."""


def costs(seconds: dict[int, float]) -> StepCosts:
    made = StepCosts()
    for rows, time in seconds.items():
        for each in (50.0, 20.0, time, time, time):  # the first steps of a shape are no measure
            made.note(rows, each)
    return made


@pytest.fixture
def speculator() -> Iterator[Speculator]:
    yield Speculator(NgramDrafter())


def test_where_rows_are_free_everything_is_guessed_and_where_they_cost_nothing_is(speculator: Speculator):
    speculator.costs = costs({1: 1.0, 17: 1.0})
    assert speculator.choose([(0.9, 8)], 1, 100) == [8]
    speculator.costs = costs({rows: float(rows) for rows in SIZES})
    assert speculator.choose([(0.9, 8)], 1, 100) == [0]


def test_the_cheap_number_of_rows_is_found_between_dear_ones(speculator: Speculator):
    """As the kernels of a CPU are: up to four rows take little more than one, then the steps are steep."""
    truth = dict(zip(SIZES, (33.0, 41.0, 42.0, 45.0, 81.0, 105.0, 160.0, 210.0, 260.0), strict=True))
    speculator.costs = costs({1: 33.0, 13: 210.0, 17: 260.0})
    tried = []
    for _ in range(40):
        tried.append(1 + speculator.choose([(0.9, 16)], 1, 100)[0])
        speculator.costs.note(tried[-1], truth[tried[-1]])
    assert tried[-1] == 4 and tried.count(4) > 20


def test_a_cost_measured_in_a_bad_moment_is_not_believed_for_ever(speculator: Speculator):
    speculator.costs = costs({rows: 20.0 if rows == 5 else 1.0 + 0.5 * rows for rows in SIZES})
    for _ in range(20 * 400):
        rows = 1 + speculator.choose([(0.9, 4)], 1, 100)[0]
        speculator.costs.note(rows, 1.0 if rows == 5 else 1.0 + 0.5 * rows)
    assert rows == 5


def test_one_measurement_in_a_bad_moment_is_not_enough_to_find_rows_dear():
    made = costs({1: 1.0})
    for seconds in (50.0, 20.0, 30.0):
        made.note(4, seconds)
    assert made.of(4) < 20
    made.note(4, 1.5)
    made.note(4, 1.5)
    assert made.of(4) == pytest.approx(1.5)


def test_the_longer_no_guess_pays_the_fewer_are_looked_for():
    record, looks = DraftRecord(), []
    for count in range(1, 100):
        if count >= record.next_look:
            record.look([0] * count)
            record.leave([])
            looks.append(count)
    gaps = [after - before for before, after in pairwise(looks)]
    assert gaps == [1] * 3 + [4] * 4 + [8] * 4 + [16] * (len(gaps) - 11) and len(gaps) > 12
    record.checked(1, 1, 101)
    record.look([0] * 101)
    record.leave([])
    assert record.next_look < 102, "a guess has paid"


def test_what_comes_tells_how_good_a_guess_was_that_was_not_computed():
    record = DraftRecord()
    record.look([1, 2, 3])
    record.leave([4, 5, 6, 7])
    record.look([1, 2, 3, 4, 5, 9])
    assert (record.right, record.tried) == (2, 3)
    record.leave([8])
    record.look([1, 2, 3, 4, 5, 9, 8, 0])
    assert (record.right, record.tried) == (pytest.approx(2.8), pytest.approx(3.7))


class Nothing(NgramDrafter):
    """Finds nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[int] = Counter()

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int]:
        self.asked[len(job.request.prompt)] += 1
        return []


def test_a_reply_without_guesses_is_looked_at_less_and_less_and_the_next_one_at_once(folder: Path):
    drafter = Nothing()
    engine = drafting(folder, drafter)
    for length in (30, 31):
        made, _ = outcome(engine.submit(prompt(length), params(max_new_tokens=100), NO_EOS))
        assert len(made) == 100
    engine.close()
    assert drafter.asked == {30: 14, 31: 14}


def test_a_guess_is_as_long_as_it_is_likely_to_be_right(speculator: Speculator):
    speculator.costs = costs({1: 1.0, 11: 3.0})
    counts = [speculator.choose([(rate, 10)], 1, 100)[0] for rate in (0.1, 0.5, 0.8, 0.97)]
    assert counts == sorted(counts) and counts[0] == 0 and 1 <= counts[1] <= 3 and counts[-1] >= 8
    assert speculator.choose([(0.97, 10)], 1, 4) == [4], "no more than there is room for"


def test_in_a_batch_the_likeliest_guesses_are_computed(speculator: Speculator):
    speculator.costs = costs({2 + count: 1.0 + 0.2 * count for count in range(11)})
    reliable, poor = speculator.choose([(0.95, 5), (0.1, 5)], 2, 100)
    assert reliable > 0 and poor == 0


def test_what_guessing_costs_counts_too(speculator: Speculator):
    speculator.costs = costs({1: 1.0, 17: 1.0})
    speculator.drafter.seconds_per_token = 1.0
    assert speculator.choose([(0.9, 8)], 1, 100) == [0]


def test_a_record_follows_what_happens_and_fades():
    record = DraftRecord()
    assert record.rate == 0.5
    for _ in range(20):
        record.note(0, 1)
    assert record.rate < 0.15
    for _ in range(200):
        record.fade()
    assert record.rate > 0.4
    for _ in range(20):
        record.note(4, 4)
    assert record.rate > 0.9


def test_costs_beside_known_ones_are_half_of_what_is_in_proportion_and_one_slow_step_counts_little():
    made = costs({1: 1.0, 5: 2.0})
    assert made.of(1) == 1.0 and made.of(3) == pytest.approx(1.25) and made.of(9) == pytest.approx(2.5)
    made.note(1, 100.0)
    assert made.of(1) < 1.3


def test_statistics_tell_how_many_guesses_were_right(folder: Path):
    engine = drafting(folder)
    start = prompt(8) * 6
    _, last = outcome(engine.submit(start, params(temperature=0.0, max_new_tokens=100), NO_EOS))
    engine.close()
    assert isinstance(last, FinishedEvent)
    assert 0 < last.stats.accepted_tokens < last.stats.drafted_tokens
