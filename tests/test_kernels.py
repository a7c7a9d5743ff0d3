"""Every operation of the CPU library, on every instruction set of this machine, against reference.py."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model.kernels import load_kernels, reference
from model.kernels.binding import KernelError, prototypes
from model.kernels.build import ISAS

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GUARD = 12345.0


@pytest.fixture(scope="module")
def all_ops():
    return load_kernels(threads=2)


@pytest.fixture(params=ISAS)
def ops(request, all_ops):
    if request.param not in all_ops.supported_isas():
        pytest.skip(f"this machine has no {request.param}")
    all_ops.force_isa(request.param)
    all_ops.set_threads(2)
    torch.manual_seed(1)
    yield all_ops
    all_ops.force_isa(None)
    all_ops.set_threads(2)


def strided(rows, columns, gap=5):
    """Random rows that lie `gap` floats apart, at an address that is a multiple of 4 only."""
    memory = torch.full((rows * (columns + gap) + 1,), GUARD)
    view = torch.as_strided(memory, (rows, columns), (columns + gap, 1), 1)
    view.copy_(torch.randn(rows, columns))
    return view, memory


def assert_gaps_untouched(view, memory):
    outside = torch.ones_like(memory, dtype=torch.bool)
    torch.as_strided(outside, view.shape, view.stride(), view.storage_offset()).fill_(False)
    assert (memory[outside] == GUARD).all()


# ---- rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "hidden"), list(itertools.product(DTYPES, (1, 7, 8, 24, 100, 2048))))
def test_embed_equals_the_table_rows_exactly(ops, dtype, hidden):
    table = torch.randn(50, hidden).to(dtype)
    for tokens in (0, 1, 3, 700):
        token_ids = torch.randint(0, 50, (tokens,), dtype=torch.int32)
        out = torch.full((tokens, hidden), GUARD)
        ops.embed(table, token_ids, out)
        assert torch.equal(out, table[token_ids.long()].float())


def test_embed_widens_every_half_precision_number(ops):
    """All 65,536 patterns of both 16-bit formats, NaN and subnormals included."""
    patterns = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        table = patterns.view(dtype).reshape(512, 128)
        out = torch.empty(512, 128)
        ops.embed(table, torch.arange(512, dtype=torch.int32), out)
        assert torch.equal(torch.nan_to_num(out, nan=1.5), torch.nan_to_num(table.float(), nan=1.5))


@pytest.mark.parametrize("n", (1, 3, 8, 15, 72, 100, 1000, 2048, 4104))
def test_rms_norm_over_odd_widths_and_strided_rows(ops, n):
    for tokens in (0, 1, 5, 33):
        x, memory = strided(tokens, n)
        out, out_memory = strided(tokens, n, gap=2)
        weight = torch.randn(n)
        expected = torch.empty(tokens, n)
        reference.rms_norm(x.double(), weight.double(), expected, 1e-5)
        ops.rms_norm(x, weight, out, 1e-5)
        torch.testing.assert_close(out, expected, rtol=2e-6, atol=1e-6)
        assert_gaps_untouched(out, out_memory)
        assert_gaps_untouched(x, memory)


def test_rms_norm_by_hand_and_in_place(ops):
    x = torch.tensor([[3.0, 4.0]])
    ops.rms_norm(x, torch.tensor([1.0, 2.0]), x, 0.0)
    torch.testing.assert_close(x, torch.tensor([[3.0, 8.0]]) / math.sqrt(12.5))


@pytest.mark.parametrize("n", (1, 5, 16, 23, 2731, 8192, 20001))
def test_silu_mul_over_odd_widths(ops, n):
    for tokens in (0, 1, 3, 40) if n < 8192 else (1, 3):
        gate_up, _ = strided(tokens, 2 * n)
        gate_up *= 8
        out, memory = strided(tokens, n)
        expected = torch.empty(tokens, n, dtype=torch.float64)
        reference.silu_mul(gate_up.double(), expected)
        ops.silu_mul(gate_up, out)
        torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6)
        assert_gaps_untouched(out, memory)


def test_silu_mul_of_extreme_gates_is_finite(ops):
    gate = torch.tensor([-1e30, -200.0, -88.0, -0.0, 0.0, 88.0, 200.0, 1e30])
    out = torch.empty(1, 8)
    ops.silu_mul(torch.cat((gate, torch.ones(8))).reshape(1, 16), out)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0, 3:], gate[3:].clamp(min=0), rtol=1e-6, atol=1e-6)
    assert (out[0, 1:3].abs() < 1e-30).all()


def test_add_over_odd_lengths(ops):
    for count in (0, 1, 7, 16, 1001, 50_000):
        x, y = torch.randn(count), torch.randn(count)
        expected = x + y
        ops.add(x, y)
        assert torch.equal(x, expected)


ROPE_SHAPES = [(2, 1, 8), (4, 2, 40), (3, 3, 72), (8, 1, 128), (2, 2, 256), (1, 1, 2), (5, 1, 34)]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), ROPE_SHAPES)
@pytest.mark.parametrize("dtype", (torch.float16, torch.float32))
def test_rope_write_kv_over_head_sizes(ops, dtype, heads, kv_heads, head_dim):
    width, num_pages, page_size, max_positions = (heads + 2 * kv_heads) * head_dim, 6, 16, 300
    angles = torch.randn(max_positions, head_dim // 2) * 9
    cos, sin = angles.cos(), angles.sin()
    for tokens in (0, 1, 6, 90):
        qkv, memory = strided(tokens, width)
        ours, theirs = qkv.clone(), qkv.clone()
        caches = [torch.zeros(2, num_pages, kv_heads, page_size, head_dim).to(dtype) for _ in range(2)]
        positions = torch.randint(0, max_positions, (tokens,), dtype=torch.int32)
        slots = torch.randperm(num_pages * page_size)[:tokens].clone()
        slots[::4] = -1
        reference.rope_write_kv(theirs, cos, sin, positions, slots, *caches[0], heads, kv_heads)
        ops.rope_write_kv(ours, cos, sin, positions, slots, *caches[1], heads, kv_heads)
        ops.rope_write_kv(qkv, cos, sin, positions, slots, *caches[1], heads, kv_heads)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert torch.equal(qkv, ours)
        assert_gaps_untouched(qkv, memory)
        assert torch.equal(qkv[:, heads * head_dim:], theirs[:, heads * head_dim:])
        # A key may lie between two halfs and round to the other one: one unit in the last place.
        tolerance = 1e-3 if dtype == torch.float16 else 1e-6
        torch.testing.assert_close(caches[1][0], caches[0][0], rtol=tolerance, atol=tolerance)
        assert torch.equal(caches[1][1], caches[0][1])


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


def test_copy_pages_copies_both_caches(ops):
    caches = torch.randn(2, 9, 2, 4, 6)
    expected = caches.clone()
    expected[:, [7, 0]] = expected[:, [2, 5]]
    ops.copy_pages(*caches, torch.tensor([2, 5], dtype=torch.int32), torch.tensor([7, 0], dtype=torch.int32))
    assert torch.equal(caches, expected)
    ops.copy_pages(*caches, torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=torch.int32))
    assert torch.equal(caches, expected)


# ---- attention -------------------------------------------------------------------------------------------


class Batch:
    """A ragged batch on scattered pages; whatever a kernel must not read holds NaN."""

    def __init__(self, sequences, *, heads, kv_heads, head_dim, page_size=32, dtype=torch.float16):
        self.heads, self.scale, self.page_size = heads, head_dim ** -0.5, page_size
        counts = [math.ceil(keys / page_size) for _, keys in sequences]
        num_pages = sum(counts) + 2
        shape = (2, num_pages, kv_heads, page_size, head_dim)
        self.k_cache, self.v_cache = torch.full(shape, math.nan).to(dtype)
        free = iter(torch.randperm(num_pages).tolist())
        self.block_table = torch.full((len(sequences), max([*counts, 1])), -1, dtype=torch.int32)
        for s, (_, keys) in enumerate(sequences):
            for i in range(counts[s]):
                page, filled = next(free), min(page_size, keys - i * page_size)
                self.block_table[s, i] = page
                columns = reference.transposed_keys(self.k_cache)[page]
                columns[:, :, :filled] = torch.randn(kv_heads, head_dim, filled).to(dtype)
                self.v_cache[page, :, :filled] = torch.randn(kv_heads, filled, head_dim).to(dtype)
        self.cu_seqlens = torch.tensor([0, *itertools.accumulate(m for m, _ in sequences)], dtype=torch.int32)
        self.seq_lens = torch.tensor([keys for _, keys in sequences], dtype=torch.int32)
        tokens = int(self.cu_seqlens[-1])
        self.qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
        self.q = self.qkv[:, :heads * head_dim]

    def part(self, s, first=0, last=None):
        """Sequence `s` alone, only its query rows first .. last, as if its later keys were not there yet."""
        rows = int(self.cu_seqlens[s + 1] - self.cu_seqlens[s])
        last = rows if last is None else last
        alone = object.__new__(Batch)
        alone.heads, alone.scale, alone.page_size = self.heads, self.scale, self.page_size
        alone.k_cache, alone.v_cache = self.k_cache, self.v_cache
        alone.block_table = self.block_table[s:s + 1]
        alone.cu_seqlens = torch.tensor([0, last - first], dtype=torch.int32)
        alone.seq_lens = self.seq_lens[s:s + 1] - (rows - last)
        start = int(self.cu_seqlens[s])
        alone.q = self.q[start + first:start + last]
        return alone

    def run(self, ops):
        out = torch.full(self.q.shape, GUARD)
        ops.paged_attention(self.q, self.k_cache, self.v_cache, self.block_table, self.cu_seqlens,
                            self.seq_lens, out, self.heads, self.scale)
        return out


MIXED = [(1, 1), (1, 32), (1, 33), (0, 0), (5, 5), (1, 31), (40, 97), (3, 600), (1, 700), (0, 64), (33, 33)]
HEADS = [(4, 4, 32), (8, 2, 64), (6, 1, 80), (2, 1, 128), (3, 3, 256), (71, 1, 64), (12, 4, 40), (2, 2, 8),
         (9, 3, 72), (4, 2, 36)]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), HEADS)
def test_attention_over_head_sizes_and_groups(ops, heads, kv_heads, head_dim):
    batch = Batch(MIXED, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("page_size", (1, 3, 5, 16, 32, 100, 300))
@pytest.mark.parametrize("dtype", (torch.float16, torch.float32))
def test_attention_over_page_sizes_and_cache_kinds(ops, page_size, dtype):
    batch = Batch([(1, 513), (7, 256), (20, 301), (1, 1)], heads=4, kv_heads=2, head_dim=48, dtype=dtype,
                  page_size=page_size)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), rtol=1e-5, atol=3e-6)


def test_attention_to_one_key_is_its_value(ops):
    batch = Batch([(1, 1)], heads=4, kv_heads=2, head_dim=16)
    page = int(batch.block_table[0, 0])
    expected = batch.v_cache[page, :, 0].float().repeat_interleave(2, dim=0).reshape(1, 64)
    assert torch.equal(batch.run(ops), expected)


def test_attention_with_large_scores_is_a_choice_of_one_key(ops):
    """Scores of +-1e5 overflow exp() without the running maximum; the maximum comes late in the sequence."""
    batch = Batch([(1, 600)], heads=2, kv_heads=1, head_dim=32, dtype=torch.float32)
    batch.q.mul_(1e5)
    torch.testing.assert_close(batch.run(ops), batch.run(reference), rtol=1e-5, atol=1e-5)


def test_attention_does_not_depend_on_neighbours_threads_or_chunks(ops):
    """The same bits alone, in a batch, in chunks of any size, on one, two or five threads."""
    batch = Batch([(1, 900), (70, 620), (4, 300), (1, 40)], heads=8, kv_heads=2, head_dim=64)
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


def test_attention_of_many_random_batches(ops):
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
        batch = Batch(sequences, heads=heads, kv_heads=kv_heads, head_dim=number(4, 20) * 8)
        torch.testing.assert_close(batch.run(ops), batch.run(reference), rtol=1e-5, atol=3e-6)


# ---- errors and control ------------------------------------------------------------------------------------


def test_indices_outside_their_tables_are_refused_and_write_nothing(ops):
    out = torch.full((2, 8), GUARD)
    for bad in (-1, 50):
        with pytest.raises(KernelError, match="embed: a token id"):
            ops.embed(torch.zeros(50, 8), torch.tensor([0, bad], dtype=torch.int32), out)
    assert (out == GUARD).all()
    batch = Batch([(1, 40)], heads=2, kv_heads=1, head_dim=16)
    batch.block_table[0, 1] = len(batch.k_cache)
    with pytest.raises(KernelError, match=r"paged_attention: .*outside its table"):
        batch.run(ops)
    batch.block_table[0, 1] = 0
    batch.seq_lens[0] = 65
    with pytest.raises(KernelError, match="paged_attention: a size"):
        batch.run(ops)
    caches, qkv, cos = torch.zeros(2, 1, 1, 4, 8), torch.zeros(1, 24), torch.ones(2, 4)
    for position, slot in ((2, 0), (-1, 0), (0, 4)):
        with pytest.raises(KernelError, match="rope_write_kv"):
            ops.rope_write_kv(qkv, cos, cos, torch.tensor([position], dtype=torch.int32),
                              torch.tensor([slot]), *caches, 1, 1)
    pages = torch.tensor([0, 1], dtype=torch.int32)
    with pytest.raises(KernelError, match="copy_pages"):
        ops.copy_pages(*caches, pages, pages)


def test_wrong_shapes_dtypes_and_strides_are_named(all_ops):
    x, weight = torch.zeros(2, 8), torch.zeros(8)
    with pytest.raises(ValueError, match=r"weight is float32 \[7\] on cpu; expected float32 \[8\]"):
        all_ops.rms_norm(x, torch.zeros(7), x, 1e-5)
    with pytest.raises(ValueError, match=r"x is float16 \[2, 8\] on cpu; expected float32"):
        all_ops.rms_norm(x.half(), weight, x, 1e-5)
    with pytest.raises(ValueError, match="out has the strides"):
        all_ops.rms_norm(x, weight, torch.zeros(8, 2).t(), 1e-5)
    with pytest.raises(ValueError, match="token_ids is int64"):
        all_ops.embed(torch.zeros(5, 8), torch.zeros(2, dtype=torch.int64), x)
    with pytest.raises(ValueError, match="gate_up is"):
        all_ops.silu_mul(torch.zeros(2, 15), x)
    with pytest.raises(ValueError, match="y is"):
        all_ops.add(x, weight)
    batch = Batch([(1, 1)], heads=3, kv_heads=2, head_dim=8)
    with pytest.raises(KernelError, match="paged_attention: a size"):
        batch.run(all_ops)


def test_only_sets_of_this_machine_can_be_forced(all_ops):
    assert all_ops.supported_isas()[0] == "plain"
    with pytest.raises(ValueError, match="this machine has no vax; supported: plain"):
        all_ops.force_isa("vax")
    all_ops.force_isa("plain")
    assert all_ops.isa == "plain"
    all_ops.force_isa(None)
    assert all_ops.isa == all_ops.supported_isas()[-1]


def test_the_thread_team_can_be_resized_and_refuses_nonsense(all_ops):
    x = torch.randn(300, 257)
    expected = x.clone()
    for count in (1, 4, 2, 7, 1, 2):
        all_ops.set_threads(count)
        assert all_ops.threads == count
        y = torch.ones_like(x)
        all_ops.add(y, x)
        assert torch.equal(y, expected + 1)
    for count in (0, -1, 257):
        with pytest.raises(KernelError, match="set_threads: a size"):
            all_ops.set_threads(count)
    assert all_ops.threads == 2


def test_two_python_threads_may_call_by_turns(all_ops):
    """The team serves one operation at a time, whoever calls."""
    def work(seed):
        values = torch.full((40_000,), float(seed))
        for _ in range(50):
            all_ops.add(values, torch.ones(40_000))
        return values

    with ThreadPoolExecutor(3) as pool:
        for seed, values in enumerate(pool.map(work, range(3))):
            assert (values == seed + 50).all()


def test_the_library_has_every_function_of_the_header(all_ops):
    assert {"embed", "paged_attention", "sample", "set_threads"} <= set(prototypes())
    for name in prototypes():
        assert all_ops.library.function(name) is not None


def test_there_are_kernels_for_cpu_only_so_far():
    with pytest.raises(ValueError, match="no kernels for the device 'tpu'; supported: cpu"):
        load_kernels("tpu")
