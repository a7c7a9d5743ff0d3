"""Norms, activations, caps and rotations of rows, on every instruction set and on the GPU's kernels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.errors import KernelError
from model.kernels.operations import ACTIVATIONS, NORMS
from model.kernels.reference import operations as reference
from tests.helpers.attention_batch import Batch
from tests.helpers.kernel_libraries import LIBRARIES, is_gpu, opened
from tests.helpers.strided import assert_gaps_untouched, strided


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


def test_embeddings_are_scaled(any_ops):
    table, ids, out = torch.randn(9, 33), torch.tensor([3, 0, 8], dtype=torch.int32), torch.empty(3, 33)
    any_ops.embed(table, ids, out, 8.5)
    assert torch.equal(out, table[ids.long()] * 8.5)


def test_a_layer_norm_by_hand(any_ops):
    """-1 and 3 have the mean 1 and the deviation 2, so that they become -1 and 1."""
    out = torch.zeros(1, 2)
    any_ops.norm_rows(torch.tensor([[-1.0, 3.0]]), torch.tensor([5.0, 6.0]), torch.tensor([0.5, 0.25]), 0.0,
                      "layer", out, scale=2.0)
    assert out.tolist() == [[-9.0, 12.5]]


@pytest.mark.parametrize(("kind", "groups"), list(itertools.product(NORMS, (1, 3))))
def test_norms_over_sizes(any_ops, kind, groups):
    for size, tokens in ((1, 2), (7, 1), (24, 3), (100, 2), (257, 0), (300, 5), (2048, 1)):
        x, memory = strided(tokens, groups * size)
        x += 0.5
        for shared, has_bias, add in ((True, False, False), (False, True, True), (None, False, True)):
            count = size if shared else groups * size
            weight = None if shared is None else torch.randn(count)
            bias = torch.randn(count) if has_bias else None
            ours, out_memory = strided(tokens, groups * size)
            theirs = ours.clone()
            reference.norm_rows(x, weight, bias, 1e-3, kind, theirs, groups, add, 0.75)
            any_ops.norm_rows(x, weight, bias, 1e-3, kind, ours, groups, add, 0.75)
            torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
            assert_gaps_untouched(ours, out_memory)
        in_place = x.clone()
        any_ops.norm_rows(in_place, None, None, 1e-3, kind, in_place, groups)
        reference.norm_rows(x, None, None, 1e-3, kind, x, groups)
        torch.testing.assert_close(in_place, x, rtol=2e-5, atol=2e-5)
        assert_gaps_untouched(x, memory)


def test_a_row_of_a_norm_does_not_depend_on_the_others(any_ops):
    x, weight = torch.randn(40, 96), torch.randn(32)
    together, alone = torch.empty(40, 96), torch.empty(40, 96)
    any_ops.norm_rows(x, weight, None, 1e-5, "rms", together, 3)
    for row in range(40):
        any_ops.norm_rows(x[row:row + 1], weight, None, 1e-5, "rms", alone[row:row + 1], 3)
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("kind", "gated"), list(itertools.product(ACTIVATIONS, (False, True))))
def test_activations_over_sizes(any_ops, kind, gated):
    for size, tokens in ((1, 2), (7, 1), (24, 3), (300, 2), (5, 0)):
        x, memory = strided(tokens, size * (2 if gated else 1))
        x *= 6
        ours, out_memory = strided(tokens, size)
        theirs = ours.clone()
        reference.activate(x, theirs, kind, gated)
        any_ops.activate(x, ours, kind, gated)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert_gaps_untouched(x, memory)
        assert_gaps_untouched(ours, out_memory)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_large_numbers_are_no_nan(any_ops, kind):
    x, out = torch.tensor([[-1e4, -200.0, -0.0, 0.0, 200.0, 1e4]]), torch.empty(1, 6)
    any_ops.activate(x, out, kind, False)
    expected = {"relu2": [0.0, 0.0, 0.0, 0.0, 200.0 ** 2, 1e8], "clamped": [0.0, 0.0, 0.0, 0.0, 7.0, 7.0],
                "sigmoid": [0.0, 0.0, 0.5, 0.5, 1.0, 1.0], "none": x[0].tolist()}
    expected = torch.tensor([expected.get(kind, [0.0, 0.0, 0.0, 0.0, 200.0, 1e4])])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", ["out", "x", "gate"])
@pytest.mark.parametrize("kind", sorted({*ACTIVATIONS} - {"clamped"}))
def test_rows_are_gated(any_ops, kind, place):
    for size, tokens in ((1, 2), (7, 1), (24, 3), (300, 2), (5, 0)):
        parts = {name: strided(tokens, size)[0] for name in ("x", "gate", "out")}
        wanted = torch.empty(tokens, size)
        reference.gate_rows(parts["x"], parts["gate"], wanted, kind)
        any_ops.gate_rows(parts["x"], parts["gate"], parts[place], kind)
        torch.testing.assert_close(parts[place], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_softplus_over_sizes(any_ops, in_place):
    """Of small and large numbers, whose exponential is infinite; bounded and scaled."""
    for size, tokens in ((1, 2), (7, 1), (40, 3), (5, 0)):
        x, memory = strided(tokens, size)
        x *= 60
        for bias, scale, low, high in ((None, None, 0.0, torch.inf),
                                       (torch.randn(size), -torch.rand(size), 0.01, 9.0)):
            out = x.clone() if in_place else torch.empty(tokens, size)
            wanted = torch.empty(tokens, size)
            reference.softplus_rows(x, bias, wanted, scale, low, high)
            any_ops.softplus_rows(out if in_place else x, bias, out, scale, low, high)
            torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-7)
        assert_gaps_untouched(x, memory)


def test_gates_that_do_not_exist_are_refused(ops):
    x = torch.zeros(1, 4)
    with pytest.raises(KernelError, match="gate_rows"):
        ops.gate_rows(x, x, x, "clamped")
    with pytest.raises(KernelError, match="softplus_rows"):
        ops.softplus_rows(x, None, x, None, 2.0, 1.0)


def test_xielu_by_hand(any_ops):
    """2: 1 + 0.25 * 4; -1: -0.5 + 2 * (1 / e - 1 + 1)."""
    out = torch.empty(1, 3)
    any_ops.xielu_rows(torch.tensor([[2.0, -1.0, 0.0]]), out, 0.25, 2.0)
    torch.testing.assert_close(out, torch.tensor([[2.0, -0.5 + 2 / math.e, 0.0]]))


def test_xielu_over_sizes(any_ops):
    for size, tokens in ((1, 2), (7, 1), (300, 3), (5, 0)):
        x, memory = strided(tokens, size)
        x *= 30
        ours, out_memory = strided(tokens, size)
        theirs = ours.clone()
        reference.xielu_rows(x, theirs, 0.7, 1.3)
        any_ops.xielu_rows(x, ours, 0.7, 1.3)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert_gaps_untouched(x, memory)
        assert_gaps_untouched(ours, out_memory)


def test_what_is_cut_and_matched_and_mixed_by_hand(any_ops):
    """1 and 5 have the mean 3 and the deviation 2: 4 is taken away. 3 and 4 become as large as 6 and 8. Of
    (1, 2) and (10, 20) one sum has the shares 1 and 0.5, another -1 and 0."""
    cut, matched, out = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 4.0]]), torch.ones(1, 4)
    any_ops.cut_rows(cut, 0.5)
    any_ops.match_rows(matched, torch.tensor([[6.0, -8.0]]), 1e-5)
    shares = torch.tensor([[1.0, 0.5, -1.0, 0.0]])
    any_ops.mix_rows(torch.tensor([[1.0, 2.0, 10.0, 20.0]]), shares, out, 2, True)
    assert cut.tolist() == [[0.0, 1.0]] and matched.tolist() == [[6.0, 8.0]]
    assert out.tolist() == [[7.0, 13.0, 0.0, -1.0]]


def test_cut_matched_and_mixed_rows_over_sizes(any_ops):
    """Tiny rows are matched with eps in their mean's place."""
    for size, rows in ((1, 2), (7, 1), (96, 3), (1000, 2), (5, 0)):
        for scale in (1e-4, 20.0):
            (x, memory), (like, _) = strided(rows, size), strided(rows, size)
            x *= scale
            for name, arguments in (("cut_rows", (1.3,)), ("match_rows", (like, 1e-5))):
                theirs = x.clone()
                getattr(reference, name)(theirs, *arguments)
                getattr(any_ops, name)(x, *arguments)
                torch.testing.assert_close(x, theirs, rtol=1e-5, atol=1e-5 * scale)
            assert_gaps_untouched(x, memory)
        for inputs, outputs, add in ((1, 4, True), (4, 4, False), (3, 1, True)):
            (x, _), (shares, _) = strided(rows, inputs * size), strided(rows, outputs * inputs)
            ours, memory = strided(rows, outputs * size)
            theirs = ours.clone()
            reference.mix_rows(x, shares, theirs, size, add)
            any_ops.mix_rows(x, shares, ours, size, add)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
            assert_gaps_untouched(ours, memory)


def test_mixing_with_shares_of_another_number_is_refused(any_ops):
    with pytest.raises(ValueError, match=r"shares .*expected .*4"):
        any_ops.mix_rows(torch.zeros(1, 6), torch.zeros(1, 3), torch.zeros(1, 6), 3)


@pytest.mark.parametrize("cap", [None, 5.0])
def test_rows_are_scaled_and_capped(any_ops, cap):
    for size in (1, 7, 96, 1000):
        x = torch.randn(3, size) * 20
        expected = x.clone()
        reference.cap_rows(expected, 0.5, cap)
        any_ops.cap_rows(x, 0.5, cap)
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=2e-6)


ROTATIONS = [(8, 8, False), (8, 8, True), (40, 20, False), (40, 20, True), (64, 16, False), (128, 96, True)]


@pytest.mark.parametrize(("head_dim", "rotary_dim", "interleaved"), ROTATIONS)
def test_heads_are_rotated_in_place(any_ops, head_dim, rotary_dim, interleaved):
    angles = torch.randn(50, rotary_dim // 2) * 9
    cos, sin = angles.cos(), angles.sin()
    for tokens in (0, 1, 9):
        ours, memory = strided(tokens, 3 * head_dim)
        theirs, positions = ours.clone(), torch.randint(0, 50, (tokens,), dtype=torch.int32)
        reference.rotate_heads(theirs, cos, sin, positions, 3, interleaved)
        any_ops.rotate_heads(ours, cos, sin, positions, 3, interleaved)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert_gaps_untouched(ours, memory)


def test_neighbours_by_hand(any_ops):
    """A quarter turn takes (1, 2) to (-2, 1); the last two of the head stay."""
    x, position = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), torch.zeros(1, dtype=torch.int32)
    any_ops.rotate_heads(x, torch.zeros(1, 2), torch.ones(1, 2), position, 1, True)
    assert x.tolist() == [[-2.0, 1.0, -4.0, 3.0, 5.0, 6.0]]


@pytest.mark.parametrize("kind", CACHE_KINDS)
@pytest.mark.parametrize(("rotary_dim", "interleaved", "scaled"), [
    (None, False, False), (None, False, True), (16, False, False), (64, True, True), (24, True, False)])
def test_parts_of_heads_are_rotated_and_queries_scaled(any_ops, kind, rotary_dim, interleaved, scaled):
    heads, kv_heads, head_dim, tokens = 3, 1, 64, 9
    cos = sin = None
    if rotary_dim is not None:
        angles = torch.randn(50, rotary_dim // 2) * 9
        cos, sin = angles.cos(), angles.sin()
    scales = torch.rand(50) + 0.5 if scaled else None
    ours = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    theirs, positions = ours.clone(), torch.randint(0, 50, (tokens,), dtype=torch.int32)
    made = CACHE_KINDS[kind]
    caches = [torch.zeros(2, *made.cache_shape(2, kv_heads, 16, head_dim), dtype=getattr(torch, made.dtype))
              for _ in range(2)]
    slots = torch.randperm(32)[:tokens]
    for one, qkv, cache in ((any_ops, ours, caches[0]), (reference, theirs, caches[1])):
        one.rope_write_kv(qkv, cos, sin, positions, slots, *cache, heads, kv_heads, interleaved, scales)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
    different = (caches[0].float() - caches[1].float()).abs() > 2e-3
    assert int(different.sum()) <= 2, "a number may round to its neighbour"


@pytest.mark.parametrize("kind", CACHE_KINDS)
@pytest.mark.parametrize(("window", "softcap", "sinks"), [
    (1, None, False), (5, None, False), (40, None, False), (None, 3.0, False), (None, None, True),
    (100, 2.0, True), (1000, None, False), (-1, None, False), (-40, None, True), (-512, 2.0, False)])
def test_attention_with_windows_caps_and_sinks(any_ops, kind, window, softcap, sinks):
    """Rows of prompts and decoding, across pages and splits. Long ones only where it is quick."""
    lengths = [(1, 1), (3, 3), (1, 70), (20, 90)]
    lengths += [(1, 300), (2, 45)] if is_gpu(any_ops) else [(1, 900), (9, 600), (70, 700)]
    batch = Batch(lengths, heads=4, kv_heads=2, head_dim=32, kind=kind)
    rules = {"window": window, "softcap": softcap, "sinks": torch.randn(4) * 2 if sinks else None}
    ours, theirs = batch.run(any_ops, **rules), batch.run(reference, **rules)
    tolerance = {"fp32": 2e-5, "fp16": 2e-5, "q8": 2e-3, "q4": 3e-2}[kind]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", CACHE_KINDS)
@pytest.mark.parametrize("window", [50, -90])
def test_a_row_with_a_window_does_not_depend_on_its_chunk(any_ops, kind, window):
    """The last rows of a sequence alone, or together with those before them: the same bits."""
    batch = Batch([(40, 400)], heads=2, kv_heads=1, head_dim=32, kind=kind)
    whole = batch.run(any_ops, window=window)
    for count in (1, 3, 17):
        part = torch.empty(count, 64)
        bounds = torch.tensor([0, count], dtype=torch.int32)
        any_ops.paged_attention(batch.q[-count:], batch.k_cache, batch.v_cache, batch.block_table, bounds,
                                batch.seq_lens, part, 2, batch.scale, window=window)
        assert torch.equal(part, whole[-count:])


def test_a_sink_by_hand(any_ops):
    """One key with the score 0 and a sink of 0: half of its value."""
    batch = Batch([(1, 1)], heads=1, kv_heads=1, head_dim=8, kind="fp32")
    batch.q.zero_()
    out = batch.run(any_ops, sinks=torch.zeros(1))
    plain = batch.run(any_ops)
    torch.testing.assert_close(out, plain / 2)


def test_settings_out_of_range_are_refused(ops):
    batch = Batch([(1, 1)], heads=1, kv_heads=1, head_dim=8, kind="fp32")
    with pytest.raises(KernelError, match="paged_attention"):
        batch.run(ops, softcap=-1.0)
    with pytest.raises(KernelError, match="norm_rows"):
        ops.norm_rows(torch.zeros(1, 8), None, None, -1.0, "rms", torch.zeros(1, 8))
    with pytest.raises(ValueError, match="x is float32"):
        ops.activate(torch.zeros(1, 8), torch.zeros(1, 8), "silu", True)
