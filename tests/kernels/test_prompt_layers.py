"""Layers of prompts in float16 on a GPU's kernels: against float64, and whatever rows may hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.kernels.prompt_layers import PromptAttention, PromptLayer, PromptPart
from model.kernels.reference import operations as reference
from tests.helpers.attention_batch import empty_caches
from tests.helpers.kernel_libraries import GPUS, ON_GPU, opened
from tests.kernels.test_linear import expected, quantized_parts, relative_error

ERROR = 2e-3
"""Of two products in float16 and what is between them: its steps are 2^-11 of a number."""
EPS = 1e-5


@pytest.fixture(params=[*GPUS, ON_GPU])
def gpu(request):
    with opened(request) as one:
        yield one


def dequantized(parts):
    return expected({**parts, "bias": None}, torch.eye(parts["codes"].shape[1])).T.contiguous()


def rms(x, norm):
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * norm


@pytest.mark.parametrize(("hidden", "inner", "options"), [
    (96, 160, {}),
    (88, 44, {"group_size": 44, "zeros": "bytes", "bias": True}),  # padded groups, odd eights
    (4160, 96, {"bias": True}),                                    # more than a thread keeps of a row
    (64, 8320, {"zeros": "halves"}),
    (72, 64, {"group_size": 24, "perm": True, "bits": 8}),
])
@pytest.mark.parametrize("epilogue", ["store", "add"])
def test_an_mlp_in_float16_is_that_of_float64(gpu, hidden, inner, options, epilogue):
    options = {"group_size": 32, **options}
    random = torch.Generator().manual_seed(hidden)
    up_parts, down_parts = (quantized_parts(n, k, **{**options, "group_size": min(k, options["group_size"])})
                            for n, k in ((2 * inner, hidden), (hidden, inner)))
    gate_up, down = gpu.pack_linear(**up_parts), gpu.pack_linear(**down_parts)
    x, norm = torch.randn(66, hidden, generator=random), torch.rand(hidden, generator=random) + 0.5
    x[1] *= 1e4
    x[2] *= 1e-6
    x[3, 5] = 3e4
    wide = expected(up_parts, rms(x.double(), norm.double()))
    want = expected(down_parts, torch.nn.functional.silu(wide[:, :inner]) * wide[:, inner:])
    out = torch.randn(66, hidden, generator=random)
    want += out.double() if epilogue == "add" else 0
    for nbytes in (0, 1 << 30):
        gpu.keep_in_float16([gate_up, down], nbytes)
        got = out.clone()
        gpu.prompt_mlp(x, gate_up, torch.empty(66, inner), down, got, norm, EPS, epilogue)
        assert relative_error(got[4:], want[4:]) < ERROR
        assert all(relative_error(got[row], want[row]) < ERROR for row in range(4))


def test_no_product_leaves_float16_and_no_row_changes_another(gpu):
    """Weights that are all alike and rows of one sign: as large a product as there can be."""
    parts = quantized_parts(64, 512, 512)
    parts["codes"][:], parts["scales"][:] = 15, 2.0
    weight = gpu.pack_linear(**parts)
    x = torch.full((64, 512), 1000.0)
    x[1], x[2], x[3, 0] = 0.0, -3e30, torch.nan
    x[4] = 1e-30
    staged = gpu._sum_staged(x, None, None, weight, None, 0.0)
    product = gpu._times(staged, weight)
    got = product.values.double() * product.factors[:, None].double()
    rows = [row for row in range(64) if row != 3]
    assert product.values[rows].isfinite().all() and product.values[3].isnan().all()
    assert relative_error(got[[0, 2, 4]], expected(parts, x[[0, 2, 4]])) < ERROR
    assert (got[1] == 0).all() and torch.equal(got[0], got[5])


def test_an_infinity_is_told_by_nan_and_not_by_a_number(gpu):
    weight = gpu.pack_linear(**quantized_parts(16, 64, 32))
    x = torch.ones(64, 64)
    x[1, 7] = torch.inf
    product = gpu._times(gpu._sum_staged(x, None, None, weight, None, 0.0), weight)
    assert not product.values[1].isfinite().any() and product.values[2].isfinite().all()


class Model:
    """Two layers with random weights, and their cache of three sequences."""

    def __init__(self, gpu, head_dim=32, heads=4, kv_heads=2, interleaved=False, dense=False, **rules):
        hidden, inner, page_size, self.num_pages = 96, 64, 32, 9
        random = torch.Generator().manual_seed(head_dim)
        rules = {"window": None, "softcap": None, "sinks": None, **rules}
        angles = torch.randn(200, head_dim // 2, generator=random)
        self.layers, self.exact = [], []
        for _ in range(2):
            caches = empty_caches("fp16", self.num_pages, kv_heads, page_size, head_dim)
            parts = [quantized_parts(n, k, 32, bias=n % 3 == 0) for n, k in (
                ((heads + 2 * kv_heads) * head_dim, hidden), (hidden, heads * head_dim), (2 * inner, hidden),
                (hidden, inner))]
            for part in parts:
                part["scales"] = (part["scales"] * 0.3).half()
            qkv, out_proj, gate_up, down = [
                gpu.pack_dense(dequantized(part).half(), part["bias"]) if dense else gpu.pack_linear(**part)
                for part in parts]
            attention = PromptAttention(qkv, out_proj, angles.cos(), angles.sin(), interleaved, *caches, 1,
                                        heads, kv_heads, head_dim ** -0.5, **rules)
            norms = tuple(torch.rand(hidden, generator=random) + 0.5 for _ in range(2))
            self.layers.append(PromptLayer(attention, gate_up, down, norms, (EPS, EPS)))
            self.exact.append((parts, [cache.clone() for cache in caches]))

    def run_exactly(self, x, positions, slots, prompts):
        """In float32 by the reference of attention, linear layers in float64."""
        for layer, (parts, caches) in zip(self.layers, self.exact, strict=True):
            a = layer.attention
            norms = [norm.double() for norm in layer.norms]
            qkv = expected(parts[0], rms(x.double(), norms[0])).float()
            reference.rope_write_kv(qkv, a.cos, a.sin, positions, slots, *caches, a.num_heads,
                                    a.num_kv_heads, a.interleaved)
            queries = qkv[:, :a.num_heads * a.cos.shape[1] * 2].contiguous()
            mixed = torch.empty_like(queries)
            for prompt in prompts:
                rows = slice(prompt.first, prompt.last)
                bounds = torch.tensor([0, prompt.last - prompt.first], dtype=torch.int32)
                lengths = torch.tensor([prompt.num_keys], dtype=torch.int32)
                reference.paged_attention(queries[rows], *caches, prompt.pages[1][None], bounds, lengths,
                                          mixed[rows], a.num_heads, a.scale, a.window, a.softcap, a.sinks)
            x = x + expected(parts[1], mixed).float()
            wide = expected(parts[2], rms(x.double(), norms[1]))
            half = wide.shape[1] // 2
            inner = torch.nn.functional.silu(wide[:, :half]) * wide[:, half:]
            x = x + expected(parts[3], inner).float()
        return x


def place_of(prompts, pages):
    """positions, slots and parts of prompts, each (first key, rows, its pages)."""
    positions, slots, parts, row = [], [], [], 0
    for (start, count), own in zip(prompts, pages, strict=True):
        where = torch.arange(start, start + count)
        table = torch.tensor(own, dtype=torch.int32)
        positions.append(where.int())
        slots.append(table[where // 32].long() * 32 + where % 32)
        parts.append(PromptPart(row, row + count, start + count, [torch.tensor([]), table]))
        row += count
    return torch.cat(positions), torch.cat(slots), parts


@pytest.mark.parametrize("options", [
    {}, {"interleaved": True, "head_dim": 64}, {"kv_heads": 4, "window": 20}, {"softcap": 5.0, "dense": True},
    {"head_dim": 16, "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
], ids=lambda options: " ".join(options) or "plain")
def test_layers_in_float16_are_those_of_float64(gpu, options):
    """Two prompts side by side, the second of them in the middle of a page; then the rest of both, which find
    the beginning in the cache."""
    model = Model(gpu, **options)
    gpu.keep_in_float16([weight for layer in model.layers for weight in layer.weights], 40_000)
    pages = [[3, 0, 7], [5, 1]]
    for prompts in ([(0, 45), (0, 20)], [(45, 40), (20, 23)]):
        positions, slots, parts = place_of(prompts, pages)
        x = torch.randn(len(positions), 96)
        got = x.clone()
        gpu.prompt_layers(got, model.layers, positions, [torch.tensor([]), slots], parts)
        want = model.run_exactly(x, positions, slots, parts)
        assert relative_error(got, want.double()) < ERROR
        for layer, (_, caches) in zip(model.layers, model.exact, strict=True):
            for kept, true in zip((layer.attention.k_cache, layer.attention.v_cache), caches, strict=True):
                assert torch.equal(kept.isnan(), true.isnan())
                assert relative_error(kept.nan_to_num(0), true.nan_to_num(0).double()) < ERROR


def test_prompts_that_lie_across_pages_are_kept_where_their_slots_say(gpu):
    """Slots in any order, one without a slot, a position that no table has."""
    model = Model(gpu)
    a = replace(model.layers[0].attention, group=0)
    layer = replace(model.layers[0], attention=a)
    positions, slots = torch.arange(64).int(), torch.randperm(9 * 32)[:64]
    slots[7], positions[9] = -1, 500
    parts = [PromptPart(0, 64, 64, [torch.tensor([0, 1], dtype=torch.int32)])]
    gpu.prompt_layers(torch.randn(64, 96), [layer], positions, [slots], parts)
    for cache in (a.k_cache, a.v_cache.transpose(2, 3)):
        written = cache.permute(0, 3, 1, 2).flatten(0, 1).isfinite().all(-1).all(-1)  # of each slot
        is_key = cache is a.k_cache
        told = [slot for row, slot in enumerate(slots.tolist()) if row != 7 and not (row == 9 and is_key)]
        assert written.nonzero().flatten().tolist() == sorted(told)


def test_layers_that_a_device_does_not_take_are_told(gpu):
    layer = Model(gpu).layers[0]
    assert gpu.takes_layer(layer) and gpu.fewest_rows([layer]) == 64
    exact = gpu.pack_linear(**quantized_parts(96, 64, 32), exact=True)
    rounded = layer.attention.k_cache.view(torch.int16)
    assert not gpu.takes_layer(replace(layer, down=exact))
    assert not gpu.takes_layer(replace(layer, attention=replace(layer.attention, k_cache=rounded)))
    assert not gpu.takes_layer(replace(layer, attention=replace(layer.attention,
                                                                cos=layer.attention.cos[:, :8])))
