"""Layers on several devices, and steps that are recorded by size: same tokens as on one, step by step.

There is no GPU here. Two places on the CPU stand for two GPUs, and a list of the native calls, which has the
addresses of its tensors in it as a CUDA graph has, stands for the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.engine.page_pool import Table
from model.engine.sequences import Chunk, TokenSequence
from model.engine.step_tensors import StepTensors
from model.files import ModelLoadError
from model.formats.checkpoint import open_checkpoint
from model.kernels import load_kernels
from model.memory.layer_split import layers_by_share
from model.model_config import ModelConfig
from model.network.call_list import CallLists
from model.network.cuda_graph import CudaGraphs, capture_either_way
from model.network.link import direct, through_host, verified_copy
from model.network.place import Place
from model.network.step import PromptRows, Sizes, StepInput
from model.network.transformer import Transformer
from tests.engine.test_network import REFERENCE_OPS
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import NO_EOS, outcome, params, prompt, quantized_model, tokens
from tests.helpers.tiny_models import TINY, write_model

CPU = torch.device("cpu")


class CallCapture:
    """What cuda_capture does, with a list of native calls for the graph."""

    def __init__(self, ops: Any) -> None:
        self.ops, self.count, self.replays = ops, 0, 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        lists = CallLists(self.ops)
        lists._record("step", step)
        self.count += 1

        def replay() -> None:
            self.replays += 1
            lists.run("step", lambda: pytest.fail("it was not recorded"))

        return replay


def captured_places(count: int = 1) -> tuple[list[Place], CallCapture]:
    ops = load_kernels(threads=1)
    capture = CallCapture(ops)
    return [Place(ops, CPU, lambda: CudaGraphs(capture), 1 << 30) for _ in range(count)], capture


# ---- steps recorded by size ---------------------------------------------------------------------------


def test_recorded_steps_make_the_tokens_that_other_steps_make(folder: Path):
    """Alone and five at once, which are computed as eight rows; with a beginning that is in the cache."""
    places, capture = captured_places()
    engine, plain = (load_engine(folder, EngineConfig(threads=1), places=p) for p in (places, None))
    try:
        assert capture.count == 2 * 7, "the layers and the head for 1, 2, 4 ... 64 rows"
        for length in (40, 3, 100):
            assert tokens(engine, prompt(length)) == tokens(plain, prompt(length))
        before = capture.replays
        jobs = [(prompt(40, seed=i), params(seed=i, max_new_tokens=30)) for i in range(5)]
        requests = [engine.submit(*job, NO_EOS) for job in jobs]
        made = [outcome(request)[0] for request in requests]
        assert capture.replays - before >= 10
        assert made == [tokens(plain, *job) for job in jobs]
        assert torch.equal(engine.logits(prompt(70)), plain.logits(prompt(70)))
        assert engine.status()["pages_used"] == 0
    finally:
        engine.close()
        plain.close()


@pytest.mark.parametrize("variant", ["qwen 2 moe", "gpt-oss", "gemma 4 mixture"])
def test_recorded_steps_of_mixtures_choose_their_experts_anew(tmp_path: Path, variant: str):
    """Other experts in each step than in the one that was recorded; a router's norm, gates, norms apart."""
    write_family(tmp_path, variant)
    places, capture = captured_places()
    engine, plain = (load_engine(tmp_path, EngineConfig(threads=1), places=p) for p in (places, None))
    try:
        before = capture.replays
        jobs = [(prompt(9, seed=i), params(seed=i, max_new_tokens=12)) for i in range(3)]
        requests = [engine.submit(*job, NO_EOS) for job in jobs]
        made = [outcome(request)[0] for request in requests]
        assert capture.replays - before >= 10
        assert made == [tokens(plain, *job) for job in jobs]
    finally:
        engine.close()
        plain.close()


def test_after_loading_nothing_more_is_captured(folder: Path):
    places, capture = captured_places()
    engine = load_engine(folder, EngineConfig(threads=1), places=places)
    tokens(engine, prompt(300))
    engine.close()
    assert capture.count == 14


def test_a_step_that_runs_before_it_is_captured_is_warm():
    calls: list[str] = []
    graphs = CudaGraphs(lambda step: (calls.append("capture"), lambda: calls.append("replay"))[1])
    for _ in range(3):
        graphs.run("a", lambda: calls.append("step"))
    graphs.seal()
    graphs.run("a", lambda: calls.append("step"))
    graphs.run("b", lambda: calls.append("step"))
    graphs.run("b", lambda: calls.append("step"))
    assert calls == ["step", "capture", "replay", "replay", "replay", "step", "step"]


class PickyCapture:
    """Of a driver that refuses launches which depend on each other, and is of no use once it has."""

    def __init__(self, ops: SimpleNamespace) -> None:
        self.ops, self.has_failed = ops, False

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        if self.ops.is_dependent or self.has_failed:
            self.has_failed = True
            raise RuntimeError("invalid resource handle")
        return step


def test_where_dependent_launches_cannot_be_captured_kernels_wait(caplog: pytest.LogCaptureFixture):
    ops = SimpleNamespace(is_dependent=True)
    graphs, calls = CudaGraphs(capture_either_way(ops, lambda: PickyCapture(ops))), []
    for _ in range(2):
        graphs.run("a", lambda: calls.append("step"))
    assert not ops.is_dependent and calls == ["step", "step"]
    assert [record.getMessage() for record in caplog.records] == [
        "A step could not be captured with kernels that start before the one in front has ended "
        "(invalid resource handle); from now on they wait for it."]

    def fails(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        capture_either_way(ops, lambda: fails)(lambda: None)


def filled(steps: StepTensors, *chunks: tuple[list[int], list[int], int, int]) -> StepInput:
    """chunks: (token ids, pages, start, count)."""
    made = []
    for token_ids, pages, start, count in chunks:
        sequence = TokenSequence(None, token_ids, len(token_ids), 0, tables=[Table(pages)])
        made.append(Chunk(sequence, start, count))
    (step,) = steps.fill(made)
    return step


def test_a_recorded_step_by_hand():
    """Two tokens of one sequence and one of another, as four sequences; the last is padding."""
    steps = StepTensors(16, 4, 128, [CPU], (1, 2, 4, 8))
    step = filled(steps, (list(range(50, 90)), [3, 5], 31, 2), ([7] * 10, [2], 9, 1))
    assert step.token_ids.tolist() == [81, 82, 7, 0]
    assert step.positions.tolist() == [31, 32, 9, 0]
    assert step.slot_mappings[0].tolist() == [3 * 32 + 31, 5 * 32, 2 * 32 + 9, -1]
    assert step.cu_seqlens.tolist() == [0, 1, 2, 3, 4]
    assert step.seq_lens.tolist() == [32, 33, 10, 1]
    (table,) = step.block_tables
    assert table[:, 0].tolist() == [3, 3, 2, 0] and table[:2, 1].tolist() == [5, 5]


def test_a_long_chunk_keeps_its_own_shape():
    steps = StepTensors(64, 4, 128, [CPU], (1, 2, 4, 8, 16, 32))
    step = filled(steps, (list(range(40)), [3, 5], 0, 20), ([7] * 10, [2], 9, 1))
    assert step.token_ids.tolist() == [*range(20), 7]
    assert step.cu_seqlens.tolist() == [0, 20, 21] and step.seq_lens.tolist() == [20, 10]
    assert step.slot_mappings[0].tolist() == [*range(96, 116), 73]


def test_the_rows_of_prompts_are_known_on_the_host():
    """The short chunk before them is not one, nor is a long one that others follow."""
    steps = StepTensors(64, 4, 128, [CPU])
    long, short = (list(range(40)), [3, 5], 10, 20), ([7] * 10, [2], 9, 1)
    assert filled(steps, short, long).prompts == (PromptRows(1, 1, 21, 30),)
    assert filled(steps, long, long).prompts == (PromptRows(0, 0, 20, 30), PromptRows(1, 20, 40, 30))
    assert filled(steps, long, short).prompts == filled(steps, short).prompts == ()


def test_prompts_come_last_and_long_drafts_are_none():
    """A draft of twelve is checked as its tokens would be decoded."""
    steps = StepTensors(64, 4, 128, [CPU])
    tables = [Table([3, 5])]
    long, short, drafted = (Chunk(TokenSequence(None, [7] * 40, 40, 0, tables=tables), start, count, draft)
                            for start, count, draft in ((10, 20, []), (9, 1, []), (9, 1, [7] * 12)))
    ordered = steps.in_order([long, short, drafted])
    assert ordered == [short, drafted, long]
    (step,) = steps.fill(ordered)
    assert step.prompts == (PromptRows(2, 14, 34, 30),)
    (step,) = steps.fill([short, drafted])
    assert step.prompts == () and step.cu_seqlens.tolist() == [0, 1, 14]


def test_every_row_of_a_prompt_is_one_where_the_device_has_no_least_number():
    """The last token of a prompt whose beginning was in the cache, but not the first of the reply."""
    steps = StepTensors(64, 4, 128, [CPU], least_prompt_rows=1)
    tables = [Table([3, 5])]
    last, first = (Chunk(TokenSequence(None, [7] * 40, 20, 0, tables=tables), start, 1) for start in (19, 20))
    assert steps.in_order([last, first]) == [first, last]
    (step,) = steps.fill([first, last])
    assert step.prompts == (PromptRows(1, 1, 2, 20),)


class PromptOps:
    """The reference with an attention of its own for prompts, as the GPU has it."""

    def __init__(self) -> None:
        self.num_attended, self.least_rows, self.whole_layers = 0, 9, None

    def prompt_linear(self, *arguments: Any) -> None:
        REFERENCE_OPS.linear(*arguments[:-1])  # all outputs are precise

    def prompt_mlp(self, x: torch.Tensor, gate_up: Any, inner: torch.Tensor, down: Any, out: torch.Tensor,
                   *options: Any) -> None:
        *norm, epilogue = options
        REFERENCE_OPS.linear(x, gate_up, inner, *norm, "silu_mul")
        REFERENCE_OPS.linear(inner, down, out, epilogue=epilogue)

    def __getattr__(self, name: str) -> Any:
        return getattr(REFERENCE_OPS, name)

    @property
    def prompts(self) -> PromptOps:
        return self

    def measure_crossovers(self, weights: list[Any]) -> None:
        pass

    def keep_in_float16(self, weights: list[Any], nbytes: int) -> None:
        pass

    def prompt_attention(self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor,
                         pages: torch.Tensor, num_keys: int, out: torch.Tensor, num_heads: int,
                         scale: float, *rules: Any) -> None:
        self.num_attended += 1
        bounds, length = (torch.tensor(values, dtype=torch.int32) for values in ([0, len(q)], [num_keys]))
        REFERENCE_OPS.paged_attention(q, k_cache, v_cache, pages[None], bounds, length, out, num_heads, scale,
                                      *rules)


def test_prompts_take_an_attention_of_their_own_where_there_is_one(folder: Path):
    ops = PromptOps()
    places = [Place(ops, CPU, lambda: CudaGraphs(lambda step: step), 1 << 30)]
    engine, plain = (load_engine(folder, EngineConfig(threads=1), places=made)
                     for made in (places, [Place.on_host(REFERENCE_OPS, 1 << 30)]))
    try:
        running = engine.submit(prompt(9, seed=3), params(max_new_tokens=12), NO_EOS)
        assert tokens(engine, prompt(40), params(max_new_tokens=3)) == \
            tokens(plain, prompt(40), params(max_new_tokens=3))
        assert outcome(running)[0] == tokens(plain, prompt(9, seed=3), params(max_new_tokens=12))
        assert ops.num_attended >= 4, "two layers, two prompts"
    finally:
        engine.close()
        plain.close()


# ---- several devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_captured", [False, True])
def test_layers_on_two_devices_give_the_same_bits(tmp_path: Path, is_captured: bool):
    folder = write_model(tmp_path, num_hidden_layers=5, tie_word_embeddings=True)
    places, _ = captured_places(2)
    if not is_captured:
        places = [Place.on_host(load_kernels(threads=1), 1 << 30) for _ in range(2)]
    one = load_engine(folder, EngineConfig(threads=1))
    two = load_engine(folder, EngineConfig(threads=1), places=places)
    try:
        assert [len(stage.layers) for stage in two._runner._transformer.stages] == [2, 3]
        for length in (40, 100):
            assert tokens(two, prompt(length)) == tokens(one, prompt(length))
        assert torch.equal(two.logits(prompt(90)), one.logits(prompt(90)))
        turn = [*prompt(60), 1, 2, 3]  # its beginning is in the cache of both; a part of a page is copied
        stats = outcome(two.submit(turn, params(), NO_EOS))[1].stats
        assert stats.cached_tokens == 60
        assert tokens(two, turn) == tokens(one, turn)
        assert two.plan.cache_bytes == one.plan.cache_bytes
        assert two.describe()["device"] == "cpu + cpu"
    finally:
        one.close()
        two.close()


class PlacementOps:
    """Operations that compute nothing and say where the tensors lie that they are given."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.prompts, self.whole_layers, self.library, self.least_rows = self, self, None, 9

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*arguments: Any, **named: Any) -> Any:
            given = [part for a in (*arguments, *named.values())
                     for part in (a if isinstance(a, list) else [a])]
            tensors = [a for a in given if isinstance(a, torch.Tensor)]
            self.seen.setdefault(name, set()).update(t.device.type for t in tensors)
            if not name.startswith("pack_"):
                return None
            packed: Any = tensors[0]
            packed.n = len(packed)  # as a PackedWeight has
            return packed
        return note


def test_every_tensor_of_a_model_lies_on_its_device(tmp_path: Path):
    """`meta` is a device without memory: whatever was left on the CPU would show."""
    folder = quantized_model(tmp_path)
    config = ModelConfig.from_folder(folder)
    ops, meta = PlacementOps(), torch.device("meta")
    place = Place(ops, meta, lambda: CallLists(ops), 1 << 30)
    model = Transformer.load([place], [2], open_checkpoint(folder, config), config,
                             Sizes(64, 16, (4,), 32, "q8"), exact=False)
    steps = StepTensors(16, 4, 64, [meta])
    chunks = [Chunk(TokenSequence(None, [5] * 9, 9, 0, tables=[Table([1])]), 9 - count, count)
              for count in (1, 9)]
    hidden = model.forward(steps.fill(chunks))
    model.logits(hidden, torch.empty(10, config.spec.vocab_size, device=meta))
    model.copy_pages(*torch.zeros(2, 1, dtype=torch.int32))
    assert ops.seen.keys() == {"pack_linear", "measure_crossovers", "keep_in_float16", "takes_layer",
                               "embed", "linear", "prompt_linear",
                               "prompt_mlp", "fuses_heads", "rope_write_kv", "paged_attention",
                               "prompt_attention", "copy_pages"}
    ops.seen.pop("takes_layer")  # is given no tensors, but what holds them
    assert all(where == {"meta"} for where in ops.seen.values()), ops.seen
    assert hidden.device == meta


def test_a_copy_that_changes_what_it_carries_is_replaced(caplog: pytest.LogCaptureFixture):
    def faulty(source: torch.Tensor, target: torch.Tensor) -> None:
        target.copy_(source)
        target[-1, -1] += 1

    with caplog.at_level(logging.WARNING):
        assert verified_copy(CPU, CPU, (7, 5), faulty) is through_host
    assert "arrive changed" in caplog.text
    source, target = torch.randn(7, 5), torch.zeros(7, 5)
    through_host(source, target)
    assert torch.equal(source, target)


def test_a_copy_that_is_only_late_is_noticed_too():
    """The first tries leave what they should have written for the next one to write."""
    waiting: list[Callable[[], Any]] = []

    def late(source: torch.Tensor, target: torch.Tensor) -> None:
        if waiting:
            waiting.pop()()
        sent = source.clone()
        waiting.append(lambda: target.copy_(sent))

    assert verified_copy(CPU, CPU, (4, 4), late) is through_host
    assert verified_copy(CPU, CPU, (4, 4)) is direct


# ---- which layers where -------------------------------------------------------------------------------


@pytest.mark.parametrize(("shares", "layers", "want"), [
    ((20, 20), 32, [16, 16]), ((24, 12), 30, [20, 10]), ((1, 1, 1), 4, [1, 2, 1]), ((100, 1), 8, [7, 1]),
    ((1,), 5, [5])])
def test_layers_are_spread_in_proportion(shares: tuple[float, ...], layers: int, want: list[int]):
    assert layers_by_share(shares, layers) == want


def test_embeddings_and_head_count_where_they_lie():
    assert layers_by_share((10, 10), 8, first_bytes=4, layer_bytes=1, last_bytes=0) == [2, 6]
    assert layers_by_share((10, 10), 8, first_bytes=0, layer_bytes=1, last_bytes=4) == [6, 2]


def test_more_devices_than_layers_are_refused(tmp_path: Path):
    folder = write_model(tmp_path, TINY)
    with pytest.raises(ModelLoadError, match="3 GPUs for 2 layers"):
        load_engine(folder, EngineConfig(threads=1), places=captured_places(3)[0])


def test_the_fullest_device_decides_and_is_named(tmp_path: Path):
    folder = write_model(tmp_path, max_position_embeddings=4096)
    ops = load_kernels(threads=1)
    places = [Place.on_host(ops, size << 20) for size in (400, 257)]
    with pytest.raises(ModelLoadError, match=r"cpu, 1 layers: .*free"):
        load_engine(folder, EngineConfig(threads=1, prefill_chunk=8192), places=places)
