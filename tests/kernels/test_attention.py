"""The cache, kind by kind, on every instruction set: layouts, rope_write_kv and paged_attention."""

from __future__ import annotations

import math

import pytest
import torch

from model.kernels.cache_kinds import CACHE_KINDS, kind_of
from model.kernels.reference import cache as cache_reference
from model.kernels.reference import operations as reference
from tests.helpers.attention_batch import Batch, empty_caches
from tests.helpers.kernel_libraries import GPUS, LIBRARIES, ON_GPU, is_gpu, opened
from tests.helpers.strided import assert_gaps_untouched, strided
from tests.kernels.test_linear import quantized_parts

PLAIN, QUANTIZED = ("fp16", "fp32"), ("q8", "q4")
TOLERANCE = {"fp16": {"rtol": 1e-5, "atol": 3e-6}, "fp32": {"rtol": 1e-5, "atol": 3e-6},
             "q8": {"rtol": 0.0, "atol": 5e-4}, "q4": {"rtol": 0.0, "atol": 5e-2}}
"""Kernels may round queries (q4: to 8 bits) and weights (to 15 bits of a block's largest)."""


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


# ---- what the quantized kinds are --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("fp16", 2.0), ("q8", 1.0625), ("q4", 0.5625), ("fp32", 4.0)])
def test_bytes_of_a_number_by_hand(name: str, expected: float):
    for head_dim in (32, 64, 96, 128, 256):
        assert CACHE_KINDS[name].row_bytes(head_dim) == head_dim * expected
    odd = CACHE_KINDS[name].row_bytes(80)  # two groups of 32 and one of 16
    assert odd == (80 * expected if name in PLAIN else 80 * CACHE_KINDS[name].bits // 8 + 6)


def test_the_kind_of_a_cache_follows_from_its_type_and_width():
    for kind in CACHE_KINDS.values():
        assert kind_of(kind.dtype, kind.cache_shape(1, 1, 8, 80)[3], 80) is kind
    with pytest.raises(ValueError, match=r"uint8 \[..., 80\] for heads of 80; expected .*86\] \(q8\)"):
        kind_of("uint8", 80, 80)


@pytest.mark.parametrize("n", (8, 16, 64, 80, 96, 256))
def test_the_rotation_is_a_hadamard_matrix_in_blocks(n: int):
    block = {80: 16, 96: 32}.get(n, n)
    sylvester = torch.ones(1, 1)
    while len(sylvester) < block:
        sylvester = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), sylvester)
    matrix = torch.block_diag(*[sylvester / block ** 0.5] * (n // block))
    x = torch.randn(5, n)
    torch.testing.assert_close(cache_reference.hadamard(x), x @ matrix)
    torch.testing.assert_close(cache_reference.hadamard(cache_reference.hadamard(x)), x)


def test_four_bits_by_hand():
    """A scale of 1: cells of width 1 from -8 to 8, values in their middles."""
    x = torch.tensor([[-8.0, -7.5, -0.1, 0.0, 0.9, 1.0, 7.99, 8.0]])
    codes, scales = cache_reference.quantize(x, 4)
    assert scales.tolist() == [[1.0]]
    assert codes.tolist() == [[0, 0, 7, 8, 8, 9, 15, 15]]
    values = cache_reference.dequantize(codes, scales, 4)
    assert values.tolist() == [[-7.5, -7.5, -0.5, 0.5, 0.5, 1.5, 7.5, 7.5]]


def test_eight_bits_by_hand():
    x = torch.tensor([[254.0, -254.0, 1.0, 3.0, 5.1, 0.0, -0.9, 100.0]])
    codes, scales = cache_reference.quantize(x, 8)
    assert scales.tolist() == [[2.0]]
    assert codes.view(torch.int8).tolist() == [[127, -127, 0, 2, 3, 0, 0, 50]]  # halves to even
    assert torch.equal(cache_reference.dequantize(*cache_reference.quantize(torch.zeros(1, 40), 4), 4),
                       torch.zeros(1, 40))


def test_the_layout_of_a_block_by_hand():
    """head_dim 64, 8 tokens a page, q4: where the codes of token 5 and their scales are."""
    keys, values = empty_caches("q4", 1, 1, 8, 64)
    row = torch.randn(1, 1, 64)
    codes, scales = (part[0, 0] for part in cache_reference.quantize(cache_reference.hadamard(row), 4))
    for cache, are_keys in ((keys, True), (values, False)):
        cache_reference.write(cache, torch.tensor([0]), torch.tensor([5]), row, are_keys)
    key_words, value_words = keys.flatten()[:256].reshape(8, 8, 4), values.flatten()[:256].reshape(64, 4)
    for d in range(64):
        key_byte, value_byte = key_words[d // 8, 5, d % 8 // 2], value_words[d, 2]
        assert (key_byte >> 4 if d % 2 else key_byte & 15) == codes[d]
        assert value_byte >> 4 == codes[d], "the upper half of a word's third byte"
    for cache in (keys, values):
        kept = cache.flatten()[256:].view(torch.float16).reshape(2, 8)
        assert torch.equal(kept[:, 5], scales) and kept[:, :5].isnan().all() and kept[:, 6:].isnan().all()


# ---- writing -----------------------------------------------------------------------------------------------


ROPE_SHAPES = [(2, 1, 8), (4, 2, 40), (3, 3, 72), (8, 1, 128), (2, 2, 256), (1, 1, 2), (5, 1, 34),
               (3, 1, 576)]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), ROPE_SHAPES)
@pytest.mark.parametrize("kind", PLAIN)
def test_rope_write_kv_over_head_sizes(any_ops, kind, heads, kv_heads, head_dim):
    width, num_pages, page_size, max_positions = (heads + 2 * kv_heads) * head_dim, 6, 16, 300
    angles = torch.randn(max_positions, head_dim // 2) * 9
    cos, sin = angles.cos(), angles.sin()
    for tokens in (0, 1, 6, 14 if is_gpu(any_ops) else 90):
        qkv, memory = strided(tokens, width)
        ours, theirs = qkv.clone(), qkv.clone()
        shape = CACHE_KINDS[kind].cache_shape(num_pages, kv_heads, page_size, head_dim)
        caches = [torch.zeros(2, *shape, dtype=getattr(torch, CACHE_KINDS[kind].dtype)) for _ in range(2)]
        positions = torch.randint(0, max_positions, (tokens,), dtype=torch.int32)
        slots = torch.randperm(num_pages * page_size)[:tokens].clone()
        slots[::4] = -1
        reference.rope_write_kv(theirs, cos, sin, positions, slots, *caches[0], heads, kv_heads)
        any_ops.rope_write_kv(ours, cos, sin, positions, slots, *caches[1], heads, kv_heads)
        any_ops.rope_write_kv(qkv, cos, sin, positions, slots, *caches[1], heads, kv_heads)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert torch.equal(qkv, ours)
        assert_gaps_untouched(qkv, memory)
        assert torch.equal(qkv[:, heads * head_dim:], theirs[:, heads * head_dim:])
        # A key may lie between two halfs and round to the other one: one unit in the last place.
        tolerance = 1e-3 if kind == "fp16" else 1e-6
        torch.testing.assert_close(caches[1][0], caches[0][0], rtol=tolerance, atol=tolerance)
        assert torch.equal(caches[1][1], caches[0][1])


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [
    (2, 1, 8), (4, 2, 40), (3, 3, 80), (8, 1, 128), (2, 2, 256), (4, 4, 96), (8, 2, 64)])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_rope_write_kv_rotates_and_rounds(any_ops, kind, heads, kv_heads, head_dim):
    """Values are what the reference writes, bit by bit. A rotated key may differ in its last bits, so that a
    code falls on the other side of a border: a step of the grid, seldom."""
    width, num_pages, page_size, max_positions = (heads + 2 * kv_heads) * head_dim, 6, 16, 300
    angles = torch.randn(max_positions, head_dim // 2) * 9
    cos, sin = angles.cos(), angles.sin()
    for tokens in (0, 1, 6, 14 if is_gpu(any_ops) else 90):
        qkv, memory = strided(tokens, width)
        ours, theirs = qkv.clone(), qkv.clone()
        caches = [empty_caches(kind, num_pages, kv_heads, page_size, head_dim) for _ in range(2)]
        positions = torch.randint(0, max_positions, (tokens,), dtype=torch.int32)
        slots = torch.randperm(num_pages * page_size)[:tokens].clone()
        slots[::4] = -1
        reference.rope_write_kv(theirs, cos, sin, positions, slots, *caches[0], heads, kv_heads)
        any_ops.rope_write_kv(ours, cos, sin, positions, slots, *caches[1], heads, kv_heads)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
        assert torch.equal(ours[:, heads * head_dim:], qkv[:, heads * head_dim:])
        assert_gaps_untouched(qkv, memory)
        assert torch.equal(caches[1][1], caches[0][1])
        want, got = (cache_reference.read_keys(cache[0], head_dim) for cache in caches)
        assert torch.equal(want.isnan(), got.isnan()), "only what was asked for is written"
        different = (want - got).nan_to_num().abs() > 1e-3 * want.nan_to_num().abs().max()
        assert int(different.sum()) <= max(2, tokens * kv_heads * head_dim // 500)
        steps = want.nan_to_num().abs().max() / (127 if kind == "q8" else 8)
        assert float((want - got).nan_to_num().abs().max()) <= 1.01 * float(steps)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_neighbours_in_a_page_do_not_disturb_each_other(ops, kind):
    """Written one by one, in any order, or all together by five threads: the same bytes."""
    heads, kv_heads, head_dim, tokens = 2, 2, 64, 64
    ops.set_threads(5)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    cos, sin = torch.ones(1, head_dim // 2), torch.zeros(1, head_dim // 2)
    zeros, slots = torch.zeros(tokens, dtype=torch.int32), torch.randperm(tokens)
    together, one_by_one = (empty_caches(kind, 2, kv_heads, 32, head_dim) for _ in range(2))
    ops.rope_write_kv(qkv.clone(), cos, sin, zeros, slots, *together, heads, kv_heads)
    for t in range(tokens):
        ops.rope_write_kv(qkv[t:t + 1].clone(), cos, sin, zeros[:1], slots[t:t + 1], *one_by_one, heads,
                          kv_heads)
    assert all(torch.equal(a, b) for a, b in zip(together, one_by_one, strict=True))


def test_the_cache_rounds_to_half_as_torch_does(ops):
    """Values at, above and below every midpoint, subnormals, overflow and infinity."""
    halfs = torch.arange(0, 0x7C00, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    middles = (halfs[1:] + halfs[:-1]) / 2
    tiny = torch.tensor([65504.0, 65519.0, 65520.0, 1e9, math.inf, 1e-30, 0.0, 2.0 ** -25])
    values = torch.cat((halfs, middles, middles.nextafter(torch.tensor(0.0)),
                        middles.nextafter(torch.tensor(1e9)), tiny))
    values = torch.cat((values, -values))
    values = torch.nn.functional.pad(values, (0, -len(values) % 64)).reshape(-1, 64)
    tokens = len(values)
    qkv = torch.cat((torch.zeros(tokens, 128), values), dim=1)
    caches = torch.zeros(2, math.ceil(tokens / 16), 1, 16, 64, dtype=torch.float16)
    ops.rope_write_kv(qkv, torch.ones(1, 32), torch.zeros(1, 32), torch.zeros(tokens, dtype=torch.int32),
                      torch.arange(tokens), *caches, 1, 1)
    assert torch.equal(caches[1].reshape(-1, 64)[:tokens], values.half())


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_copied_pages_have_the_same_bytes(any_ops, kind):
    shape = CACHE_KINDS[kind].cache_shape(9, 2, 32, 40)
    caches = torch.randint(0, 100, (2, *shape)).to(getattr(torch, CACHE_KINDS[kind].dtype))
    expected = caches.clone()
    expected[:, [7, 0]] = expected[:, [2, 5]]
    source, target = torch.tensor([[2, 5], [7, 0]], dtype=torch.int32)
    any_ops.copy_pages(*caches, source, target)
    assert torch.equal(caches, expected)


def test_to_copy_no_pages_is_allowed(any_ops):
    caches, none = torch.randn(2, 9, 2, 4, 6), torch.zeros(0, dtype=torch.int32)
    expected = caches.clone()
    any_ops.copy_pages(*caches, none, none)
    assert torch.equal(caches, expected)


# ---- attention -------------------------------------------------------------------------------------------


MIXED = [(1, 1), (1, 32), (1, 33), (0, 0), (5, 5), (1, 31), (40, 97), (3, 600), (1, 700), (0, 64), (33, 33)]
HEADS = [(4, 4, 32), (8, 2, 64), (6, 1, 80), (2, 1, 128), (3, 3, 256), (71, 1, 64), (12, 4, 40), (2, 2, 8),
         (9, 3, 72), (4, 2, 36), (20, 1, 576)]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), HEADS)
def test_attention_over_head_sizes_and_groups(ops, heads, kv_heads, head_dim):
    batch = Batch(MIXED, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), **TOLERANCE["fp16"])


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [
    (4, 4, 16), (8, 2, 64), (4, 1, 80), (8, 1, 96), (4, 4, 128), (8, 1, 256), (6, 2, 40), (3, 1, 112),
    (71, 1, 64), (2, 2, 8), (20, 1, 576)])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_attention_to_a_rounded_cache_over_head_sizes_and_groups(ops, kind, heads, kv_heads, head_dim):
    batch = Batch(MIXED, heads=heads, kv_heads=kv_heads, head_dim=head_dim, kind=kind)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), **TOLERANCE[kind])
    # Queries of whole numbers up to 127, as 8 bits can hold them: what is left is the rounding of weights.
    batch.q.copy_(torch.randint(-126, 127, batch.q.shape) / 64.0)
    batch.q[:, 3::head_dim] = 127 / 64.0
    torch.testing.assert_close(batch.run(ops), batch.run(reference), **TOLERANCE["q8"])


@pytest.mark.parametrize(("kind", "page_size"), [
    *((kind, size) for kind in PLAIN for size in (1, 3, 5, 16, 32, 100, 300)),
    *((kind, size) for kind in QUANTIZED for size in (8, 16, 32, 40, 104, 304))])
def test_attention_over_page_sizes_and_cache_kinds(ops, kind, page_size):
    batch = Batch([(1, 513), (7, 256), (20, 301), (1, 1)], heads=4, kv_heads=2, head_dim=48, kind=kind,
                  page_size=page_size)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), **TOLERANCE[kind])


def test_attention_to_one_key_is_its_value(any_ops):
    batch = Batch([(1, 1)], heads=4, kv_heads=2, head_dim=16)
    page = int(batch.block_table[0, 0])
    expected = batch.v_cache[page, :, 0].float().repeat_interleave(2, dim=0).reshape(1, 64)
    assert torch.equal(batch.run(any_ops), expected)


def test_attention_with_large_scores_is_a_choice_of_one_key(any_ops):
    """Scores of +-1e5 overflow exp() without the running maximum; the maximum comes late in the sequence."""
    batch = Batch([(1, 600)], heads=2, kv_heads=1, head_dim=32, kind="fp32")
    batch.q.mul_(1e5)
    torch.testing.assert_close(batch.run(any_ops), batch.run(reference), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_attention_does_not_depend_on_neighbours_threads_or_chunks(ops, kind):
    """The same bits alone, in a batch, in chunks of any size, on one, two or five threads."""
    batch = Batch([(1, 900), (70, 620), (4, 300), (1, 40)], heads=8, kv_heads=2, head_dim=64, kind=kind)
    together = batch.run(ops)
    for threads in (1, 5, 2):
        ops.set_threads(threads)
        assert torch.equal(batch.run(ops), together)
        start = 0
        for s in range(4):
            rows = int(batch.cu_seqlens[s + 1] - batch.cu_seqlens[s])
            assert torch.equal(batch.part(s).run(ops), together[start:start + rows])
            start += rows
    for first, last in ((0, 1), (0, 69), (5, 9), (69, 70), (30, 62)):
        assert torch.equal(batch.part(1, first, last).run(ops), together[1 + first:1 + last])


@pytest.mark.parametrize(("heads", "head_dim", "page_size"), [(20, 576, 32), (4, 128, 32), (5, 48, 16),
                                                               (3, 40, 8)])
@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_keys_that_are_the_values_give_the_bits_of_values_that_are_the_keys(any_ops, kind, heads, head_dim,
                                                                            page_size):
    """One row alone, rows of prompts and decoding, across pages and splits; in q8 and q4 the same codes."""
    lengths = [(1, 1), (3, 3), (1, 70), (5, 90)] + ([] if is_gpu(any_ops) else [(1, 600), (30, 301)])
    batch = Batch(lengths, heads=heads, kv_heads=1, head_dim=head_dim, kind=kind, page_size=page_size,
                  keys_only=True)
    found, twice = batch.run(any_ops), batch.with_values()
    torch.testing.assert_close(found, batch.run(reference), **TOLERANCE[kind])
    torch.testing.assert_close(batch.run(reference), twice.run(reference), rtol=1e-5, atol=1e-6)
    if is_gpu(any_ops):  # which goes over values in another order, and over several heads at once
        torch.testing.assert_close(found, twice.run(any_ops), rtol=1e-5, atol=3e-6)
    else:
        assert torch.equal(found, twice.run(any_ops))
    for s in (0, 2, 3):
        first, last = batch.cu_seqlens[s:s + 2].tolist()
        assert torch.equal(batch.part(s).run(any_ops), found[first:last])


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_a_latent_behind_a_rotated_key_is_kept_once_with_the_same_bits(ops, kind):
    """Sizes of DeepSeek V3: 64 rotated numbers, then a latent of 512, which alone is looked at. As values of
    their own they were the key before it was rotated; the rotation for rounding leaves the two apart."""
    heads, head_dim, tokens = 4, 576, 70
    qkv = torch.randn(tokens, (heads + 2) * head_dim)
    qkv[:, -head_dim:] = qkv[:, -2 * head_dim:-head_dim]
    angles = torch.randn(tokens, 32) * 9
    slots, positions = torch.arange(tokens), torch.arange(tokens, dtype=torch.int32)
    bounds, length = torch.tensor([0, tokens], dtype=torch.int32), torch.tensor([tokens], dtype=torch.int32)
    table, found = torch.arange(3, dtype=torch.int32).view(1, 3), []
    for rows, caches in ((qkv.clone(), empty_caches(kind, 3, 1, 32, head_dim)),
                         (qkv[:, :-head_dim].clone(), [empty_caches(kind, 3, 1, 32, head_dim)[0], None])):
        ops.rope_write_kv(rows, angles.cos(), angles.sin(), positions, slots, *caches, heads, 1)
        found.append(torch.empty(tokens, heads * head_dim))
        ops.paged_attention(rows[:, :heads * head_dim], *caches, table, bounds, length, found[-1], heads, 0.1)
    twice, once = (out.view(tokens, heads, head_dim)[..., 64:] for out in found)
    assert torch.equal(twice, once)


@pytest.mark.parametrize("page_size", (1, 3, 5, 16, 100))
def test_keys_that_are_the_values_on_pages_of_any_size(ops, page_size):
    batch = Batch([(1, 113), (7, 56), (1, 1)], heads=4, kv_heads=2, head_dim=34, page_size=page_size,
                  keys_only=True)
    assert torch.equal(batch.run(ops), batch.with_values().run(ops))


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_keys_that_are_the_values_are_written_and_copied_alone(any_ops, kind):
    """The queries and keys as beside values, page by page."""
    heads, head_dim, tokens = 3, 48, 20
    with_values = torch.randn(tokens, (heads + 2) * head_dim)
    alone = with_values[:, :-head_dim].clone()
    angles = torch.randn(tokens, 4) * 9
    positions, slots = torch.arange(tokens, dtype=torch.int32), torch.randperm(32)[:tokens]
    keys, values = empty_caches(kind, 2, 1, 16, head_dim)
    only = keys.clone()
    any_ops.rope_write_kv(with_values, angles.cos(), angles.sin(), positions, slots, keys, values, heads, 1)
    any_ops.rope_write_kv(alone, angles.cos(), angles.sin(), positions, slots, only, None, heads, 1)
    assert torch.equal(alone[:, :heads * head_dim], with_values[:, :heads * head_dim])
    assert torch.equal(only.view(torch.uint8), keys.view(torch.uint8))
    source, target = torch.tensor([0], dtype=torch.int32), torch.tensor([1], dtype=torch.int32)
    any_ops.copy_pages(only, None, source, target)
    assert torch.equal(only[1].view(torch.uint8), keys[0].view(torch.uint8))


@pytest.mark.parametrize("kind", ("fp16", "q8", "q4"))
def test_attention_of_many_random_batches(ops, kind):
    generator = torch.Generator().manual_seed(7)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    for _ in range(15):
        kv_heads = number(1, 4)
        heads = kv_heads * number(1, 9)
        sequences = []
        for _ in range(number(1, 6)):
            rows = number(0, 4) if number(0, 2) else number(0, 90)
            sequences.append((rows, rows + number(0, 500)))
        batch = Batch(sequences, heads=heads, kv_heads=kv_heads, head_dim=number(4, 20) * 8, kind=kind)
        torch.testing.assert_close(batch.run(ops), batch.run(reference), **TOLERANCE[kind])


# ---- attention on a GPU, with less to do -------------------------------------------------------------------


@pytest.fixture(params=[*GPUS, ON_GPU])
def gpu(request):
    with opened(request) as one:
        yield one


# Rounded caches are widened here, so every kind has the tolerance of float16.
FEW = [(1, 1), (1, 32), (1, 33), (0, 0), (4, 97), (1, 300), (0, 64), (3, 130)]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [
    (4, 4, 32), (8, 2, 64), (3, 1, 80), (2, 1, 128), (3, 3, 256), (19, 1, 40), (2, 2, 8), (1, 1, 320),
    (9, 1, 576)])
@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_a_gpu_attends_over_head_sizes_and_groups(gpu, kind, heads, kv_heads, head_dim):
    batch = Batch(FEW, heads=heads, kv_heads=kv_heads, head_dim=head_dim, kind=kind)
    torch.testing.assert_close(batch.run(gpu), batch.run(reference), **TOLERANCE["fp16"])


@pytest.mark.parametrize(("kind", "page_size"), [
    ("fp16", 1), ("fp32", 3), ("fp16", 16), ("fp16", 100), ("q8", 8), ("q8", 40), ("q4", 16), ("q4", 304)])
def test_a_gpu_attends_over_page_sizes(gpu, kind, page_size):
    batch = Batch([(1, 257), (3, 128), (1, 1)], heads=4, kv_heads=2, head_dim=48, kind=kind,
                  page_size=page_size)
    torch.testing.assert_close(batch.run(gpu), batch.run(reference), **TOLERANCE["fp16"])


@pytest.mark.parametrize("page_size", [32, 96])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 2, 64), (2, 2, 128), (3, 1, 64),
                                                             (4, 1, 128), (7, 1, 64), (20, 2, 128)])
def test_a_gpu_attends_to_pages_that_it_reads_by_16_bytes(gpu, heads, kv_heads, head_dim, page_size):
    """Whole runs of 32 keys, parts of one, windows and chunks that begin within one, rules of scores."""
    batch = Batch([(1, 1), (1, 40), (1, 300), (3, 130)], heads=heads, kv_heads=kv_heads, head_dim=head_dim,
                  page_size=page_size)
    sinks = torch.linspace(-1.0, 1.0, heads)
    for rules in ({}, {"window": 70}, {"window": -48}, {"softcap": 2.0, "sinks": sinks}):
        ours, theirs = batch.run(gpu, **rules), batch.run(reference, **rules)
        torch.testing.assert_close(ours, theirs, **TOLERANCE["fp16"])
    assert torch.equal(batch.part(2).run(gpu), batch.run(gpu)[2:3]), "alone it is the same to the bit"


@pytest.mark.parametrize("kind", ("fp16", "q4"))
def test_on_a_gpu_a_row_does_not_depend_on_its_neighbours_or_chunks(gpu, kind):
    """To the bit; 600 keys take several splits, whose blocks come in either order."""
    batch = Batch([(1, 600), (7, 300), (1, 40)], heads=4, kv_heads=2, head_dim=64, kind=kind)
    together = batch.run(gpu)
    assert torch.equal(batch.run(gpu), together), "the tickets are back"
    for s, rows in ((0, slice(0, 1)), (1, slice(1, 8)), (2, slice(8, 9))):
        assert torch.equal(batch.part(s).run(gpu), together[rows])
    assert torch.equal(batch.part(1, 2, 5).run(gpu), together[3:6])


def test_a_gpu_attends_to_more_keys_than_its_splits_have_at_first(gpu):
    """64 splits of 128 keys are 8,192; behind those a split has two blocks of keys. Of a window as well."""
    batch = Batch([(1, 8300), (1, 100)], heads=2, kv_heads=2, head_dim=8)
    for rules in ({}, {"window": 8250}):
        ours, theirs = batch.run(gpu, **rules), batch.run(reference, **rules)
        torch.testing.assert_close(ours, theirs, **TOLERANCE["fp16"])


@pytest.mark.parametrize("kind", PLAIN)
def test_a_gpu_writes_the_keys_of_many_tokens_as_those_of_one(gpu, kind):
    """To the bit: 70 are written in runs. Some have no slot, one no position, the last run is short."""
    heads, kv_heads, head_dim, num_pages, page_size = 2, 1, 10, 3, 32
    angles = torch.randn(40, 3)
    qkv, slots = torch.randn(70, (heads + 2 * kv_heads) * head_dim), torch.randperm(96)[:70].clone()
    positions = torch.randint(0, 40, (70,), dtype=torch.int32)
    slots[[0, 17, 69]], slots[5], positions[9] = -1, 96, 40
    made = []
    for at_once in (70, 1):
        rows, caches = qkv.clone(), empty_caches(kind, num_pages, kv_heads, page_size, head_dim)
        for first in range(0, 70, at_once):
            part = slice(first, first + at_once)
            gpu.rope_write_kv(rows[part], angles.cos(), angles.sin(), positions[part], slots[part], *caches,
                              heads, kv_heads)
        made.append([rows, *caches])
    for together, alone in zip(*made, strict=True):
        assert torch.equal(together.nan_to_num(7.0), alone.nan_to_num(7.0))
    assert made[0][1].isfinite().sum() == 66 * head_dim - 6, "all that have a slot; of one 6 numbers are NaN"


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(3, 1, 64), (4, 2, 32), (2, 1, 128),
                                                            (1, 1, 256)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_gpu_rotates_and_keeps_heads_where_it_projects_them(gpu, interleaved, heads, kv_heads, head_dim):
    """To the bit what the two do one after the other. Some rows have no slot, one has no position."""
    random = torch.Generator().manual_seed(head_dim)
    num_rows, page_size, num_pages, inputs = 40, 32, 2, 160
    angles = torch.randn(50, head_dim // 2, generator=random)
    x, norm = torch.randn(num_rows, inputs, generator=random), torch.rand(inputs, generator=random)
    slots = torch.randperm(page_size * num_pages, generator=random)[:num_rows].clone()
    positions = torch.randint(0, 50, (num_rows,), dtype=torch.int32, generator=random)
    slots[[0, 17]], slots[5], positions[9] = -1, page_size * num_pages, 50
    for bits, exact in ((4, False), (8, True)):
        parts = quantized_parts((heads + 2 * kv_heads) * head_dim, inputs, 64, bits, bias=True)
        weight = gpu.pack_linear(**parts, exact=exact)
        for rows in (slice(0, 1), slice(4, 12), slice(0, 40)):
            place = angles.cos(), angles.sin(), positions[rows], slots[rows]
            made = []
            for is_fused in (False, True):
                caches = empty_caches("fp16", num_pages, kv_heads, page_size, head_dim)
                assert gpu.fuses_heads(weight, caches[0], head_dim)
                qkv = torch.zeros(rows.stop - rows.start, weight.n)
                if is_fused:
                    gpu.linear_rope_write_kv(x[rows], weight, qkv, norm, 1e-5, *place, *caches, heads,
                                             kv_heads, interleaved)
                else:
                    gpu.linear(x[rows], weight, qkv, norm, 1e-5)
                    gpu.rope_write_kv(qkv, *place, *caches, heads, kv_heads, interleaved)
                made.append([qkv[:, :heads * head_dim], *caches])
            for together, alone in zip(*made, strict=True):
                assert torch.equal(together.nan_to_num(7.0), alone.nan_to_num(7.0)), (bits, rows)


@pytest.mark.parametrize(("heads", "head_dim"), [(2, 16), (1, 64), (6, 64)])
def test_a_gpu_makes_nan_of_rows_whose_pages_there_are_not(gpu, heads, head_dim):
    batch = Batch([(1, 40), (1, 40)], heads=heads, kv_heads=1, head_dim=head_dim)
    batch.block_table[0, 1] = len(batch.k_cache)
    out = batch.run(gpu)
    assert out[0].isnan().all() and out[1].isfinite().all()
    batch.seq_lens[1] = 65
    assert batch.run(gpu).isnan().all()


def test_a_gpu_makes_nan_of_what_lies_outside_its_tables(gpu):
    caches = empty_caches("fp16", 1, 1, 8, 16)
    qkv, cos = torch.zeros(2, 48), torch.ones(2, 8)
    positions, slots = torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0, 8])
    gpu.rope_write_kv(qkv, cos, cos, positions, slots, *caches, 1, 1)
    assert qkv[0, :16].isnan().all() and caches[0].isnan().all() and (caches[1][0, 0, 0] == 0).all()
    token_ids, embedded = torch.tensor([0, 50, -1], dtype=torch.int32), torch.empty(3, 8)
    gpu.embed(torch.zeros(50, 8), token_ids, embedded)
    assert embedded[1:].isnan().all() and (embedded[0] == 0).all()


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 2, 64), (3, 3, 80), (8, 1, 128)])
@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_a_gpu_attends_to_a_prompt_by_matrix_products(gpu, kind, heads, kv_heads, head_dim):
    """In float16, whose steps are 2^-11 of a number."""
    batch = Batch([(1, 40), (21, 75)], heads=heads, kv_heads=kv_heads, head_dim=head_dim, kind=kind)
    want, out = batch.run(reference)[1:], torch.empty(21, heads * head_dim)
    gpu.prompt_attention(batch.q[1:], batch.k_cache, batch.v_cache, batch.block_table[1], 75, out, heads,
                         batch.scale)
    torch.testing.assert_close(out, want, rtol=0, atol=4e-3)
    keys, values = gpu.gather_pages(batch.k_cache, batch.v_cache, batch.block_table[1], 75, head_dim)
    pages = batch.block_table[1].long()
    for ours, theirs in ((keys, cache_reference.read_keys(batch.k_cache, head_dim)),
                         (values, cache_reference.read_values(batch.v_cache, head_dim))):
        theirs = theirs[pages].transpose(0, 1).flatten(1, 2)[:, :75]
        if ours is values and kind in QUANTIZED:
            theirs = cache_reference.hadamard(theirs)
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_a_gpu_attends_to_a_prompt_whose_keys_are_the_values(gpu, kind):
    batch = Batch([(21, 75)], heads=4, kv_heads=1, head_dim=80, kind=kind, keys_only=True)
    outs = []
    for one in (batch, batch.with_values()):
        outs.append(torch.empty(21, 320))
        gpu.prompt_attention(one.q, one.k_cache, one.v_cache, one.block_table[0], 75, outs[-1], 4, one.scale)
    assert torch.equal(*outs)
    torch.testing.assert_close(outs[0], batch.run(reference), rtol=0, atol=4e-3)
