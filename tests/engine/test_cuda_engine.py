"""The whole engine on the GPU's kernels: on a GPU (pytest --device cuda), and here on their run by the CPU.

The CPU's engine in float32 is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.config import EngineConfig
from model.devices import open_places
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.request import Request, TokenEvent
from model.network.cuda_graph import CudaGraphs
from model.network.place import Place
from tests.engine.test_stages import CallCapture
from tests.helpers.family_models import MIXTURES, write_family
from tests.helpers.kernel_libraries import ON_GPU, need_gpu
from tests.helpers.renamed_models import RENAMED, write_renamed
from tests.helpers.tiny_engine import NO_EOS, outcome, params, prompt, tokens
from tests.host_cuda.build import GPUS, cuda_on_host

TOLERANCE = 1e-2
"""Of the largest logit: activations are float16 in the products. A wrong step gives a hundred times that."""
GREEDY = params(temperature=0.0, max_new_tokens=8)

OpenPlaces = Callable[..., list[Place]]


class FewGraphs(CudaGraphs):
    """Steps of all sizes run twice at the start: for tests of many models two sizes have to do."""

    sizes = (1, 8)


@pytest.fixture(scope="module", params=["cuda", ON_GPU])
def open_gpus(request: pytest.FixtureRequest) -> OpenPlaces:
    """open_gpus(n): n places with the GPU's kernels; on one GPU they are all there, and record every size."""
    if request.param == ON_GPU:
        need_gpu(request)
        return lambda count, recorder=None: open_places(EngineConfig(device="cuda")) * count
    ops = cuda_on_host(request.getfixturevalue("host_cuda_library"), GPUS["cuda"])
    return lambda count, recorder=FewGraphs: [
        Place(ops, torch.device("cpu"), lambda: recorder(CallCapture(ops)), 1 << 30)] * count


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Engine]:
    engine = load_engine(folder, EngineConfig(device="cpu", threads=1, exact=True))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def engine(folder: Path, open_gpus: OpenPlaces) -> Iterator[Engine]:
    engine = load_engine(folder, EngineConfig(prefill_chunk=64), places=open_gpus(1, CudaGraphs))
    yield engine
    status = engine.status()
    engine.close()
    assert (status["running"], status["waiting"], status["pages_used"]) == (0, 0, 0), "a page leaked"


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def is_near_greedy(engine: Engine, token_ids: list[int], made: list[int]) -> bool:
    """Each token has, in the exact engine, a logit within the tolerance of the largest."""
    logits = engine.logits(token_ids + made[:-1], first=len(token_ids) - 1)
    best = logits.max(-1).values
    return bool((best - logits[range(len(made)), made] <= TOLERANCE * logits.abs().max()).all())


def test_logits_are_those_of_the_cpu(engine: Engine, plain: Engine, monkeypatch: pytest.MonkeyPatch):
    """Of 90 tokens 64 are a chunk, whose layers are computed together in float16."""
    ops, rows = engine._runner._transformer.stages[0].place.ops, []
    in_float16 = ops.prompt_layers

    def noted(x: torch.Tensor, layers: list[object], *arguments: object) -> None:
        rows.append((len(x), len(layers)))
        in_float16(x, layers, *arguments)

    monkeypatch.setattr(ops, "prompt_layers", noted)
    for length in (1, 33, 90):
        assert error(engine.logits(prompt(length)), plain.logits(prompt(length))) < TOLERANCE
    assert rows == [(64, 2)]


def test_greedy_tokens_are_those_of_the_cpu(engine: Engine, plain: Engine):
    made = tokens(engine, prompt(40), GREEDY)
    assert len(made) == 8 and is_near_greedy(plain, prompt(40), made)


def test_a_reply_is_the_same_alone_and_among_others(engine: Engine):
    """Three are computed as four rows, from one recording."""
    jobs = [(prompt(20 + 7 * i, seed=i), params(seed=i, max_new_tokens=6)) for i in range(3)]
    requests = [engine.submit(*job, NO_EOS) for job in jobs]
    together = [outcome(request)[0] for request in requests]
    assert together == [tokens(engine, *job) for job in jobs]


def test_a_long_prompt_beside_it_changes_no_bit_of_a_reply(engine: Engine):
    """The prompt's rows are multiplied by torch, in the steps in which the reply is decoded. What the reply
    begins with is in the cache both times: how it came there is a matter of bits."""
    def said(request: Request, beside: Callable[[], None]) -> list[tuple[int, float]]:
        found = []
        for event in request.events():
            if isinstance(event, TokenEvent):
                assert event.logprob is not None
                found.append((event.token_id, event.logprob.logprob))
                if len(found) == 2:
                    beside()
        return found

    job, other = (prompt(20, seed=3), params(max_new_tokens=14)), []
    _, alone = (said(engine.submit(*job, NO_EOS, logprobs=0), lambda: None) for _ in range(2))
    together = said(engine.submit(*job, NO_EOS, logprobs=0),
                    lambda: other.append(engine.submit(prompt(300, seed=4), GREEDY, NO_EOS)))
    assert len(outcome(other[0])[0]) == 8
    assert together == alone


def test_a_beginning_that_is_known_is_not_computed_again(engine: Engine, plain: Engine):
    first = prompt(70, seed=5)
    tokens(engine, first, GREEDY)
    turn = [*first, 1, 2, 3]
    made, last = outcome(engine.submit(turn, GREEDY, NO_EOS))
    assert last.stats.cached_tokens >= 70
    assert is_near_greedy(plain, turn, made)


def test_a_request_that_is_cancelled_leaves_the_others_alone(engine: Engine):
    want = tokens(engine, prompt(30), params(max_new_tokens=6))
    doomed = engine.submit(prompt(30, seed=8), params(max_new_tokens=400), NO_EOS)
    next(iter(doomed.events()))
    kept = engine.submit(prompt(30), params(max_new_tokens=6), NO_EOS)
    doomed.cancel()
    assert outcome(kept)[0] == want


@pytest.mark.parametrize("cache", ["q8", "q4"])
def test_a_rounded_cache_gives_the_logits_that_it_gives_on_the_cpu(folder: Path, open_gpus: OpenPlaces,
                                                                   cache: str):
    here = load_engine(folder, EngineConfig(device="cpu", threads=1, exact=True, cache=cache))
    there = load_engine(folder, EngineConfig(cache=cache), places=open_gpus(1))
    try:
        assert error(there.logits(prompt(40)), here.logits(prompt(40))) < 5 * TOLERANCE
    finally:
        here.close()
        there.close()


def test_layers_on_two_places_give_the_same_bits(folder: Path, engine: Engine, open_gpus: OpenPlaces):
    two = load_engine(folder, EngineConfig(prefill_chunk=64), places=open_gpus(2))
    try:
        assert torch.equal(two.logits(prompt(50)), engine.logits(prompt(50)))
        assert tokens(two, prompt(30)) == tokens(engine, prompt(30))
    finally:
        two.close()


@pytest.mark.parametrize("variant", ["gemma 2", "phi 3", "hunyuan", "cohere 2", "stablelm, parallel",
                                     "olmo 3", "ministral 3", "starcoder 2", "qwen 2 moe", "lfm 2",
                                     "qwen 3.5", "kimi linear", "nemotron 3 latent", "falcon h1",
                                     "gemma 3n", "gemma 4 mixture", "deepseek 3", "apertus",
                                     "muse glimmer", "llama 4", "gpt-2", "small thinker"])
def test_families_have_the_logits_of_the_exact_cpu(tmp_path: Path, open_gpus: OpenPlaces, variant: str):
    """A prompt that is read as such, and one of so few tokens that it is read as rows that decode."""
    (write_renamed if variant in RENAMED else write_family)(tmp_path, variant)
    exact, gpu = (load_engine(tmp_path, EngineConfig(**changes), places=places) for changes, places in (
        ({"device": "cpu", "threads": 1, "exact": True}, None), ({}, open_gpus(1))))
    try:
        for length in (70, 5):
            want, got = exact.logits(prompt(length)), gpu.logits(prompt(length))
            of_rows = (got - want).abs().amax(-1) / want.abs().max()
            assert of_rows.quantile(0.9 if variant in MIXTURES else 1.0) < 2 * TOLERANCE
    finally:
        exact.close()
        gpu.close()
