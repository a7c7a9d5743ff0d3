"""Operations on rows and what they refuse: on every instruction set, some on the GPU's kernels."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.binding import prototypes
from model.kernels.errors import KernelError
from tests.helpers.attention_batch import Batch
from tests.helpers.kernel_libraries import LIBRARIES, opened
from tests.helpers.strided import GUARD

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def all_ops():
    return load_kernels(threads=2)


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


# ---- rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "hidden"), list(itertools.product(DTYPES, (1, 7, 8, 24, 100, 2048))))
def test_embed_equals_the_table_rows_exactly(any_ops, dtype, hidden):
    table = torch.randn(50, hidden).to(dtype)
    for tokens in (0, 1, 3, 700):
        token_ids = torch.randint(0, 50, (tokens,), dtype=torch.int32)
        out = torch.full((tokens, hidden), GUARD)
        any_ops.embed(table, token_ids, out)
        assert torch.equal(out, table[token_ids.long()].float())


def test_embed_widens_every_half_precision_number(any_ops):
    """All 65,536 patterns of both 16-bit formats, NaN and subnormals included."""
    patterns = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        table = patterns.view(dtype).reshape(512, 128)
        out = torch.empty(512, 128)
        any_ops.embed(table, torch.arange(512, dtype=torch.int32), out)
        assert torch.equal(torch.nan_to_num(out, nan=1.5), torch.nan_to_num(table.float(), nan=1.5))


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
    table, token_ids, out = torch.zeros(5, 8), torch.zeros(2, dtype=torch.int32), torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"out is float32 \[2, 7\] on cpu; expected float32 \[2, 8\]"):
        all_ops.embed(table, token_ids, torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"out is float16 \[2, 8\] on cpu; expected float32"):
        all_ops.embed(table, token_ids, out.half())
    with pytest.raises(ValueError, match="out has the strides"):
        all_ops.embed(table, token_ids, torch.zeros(8, 2).t())
    with pytest.raises(ValueError, match="token_ids is int64"):
        all_ops.embed(table, token_ids.long(), out)
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
    table, token_ids = torch.randn(300, 257), torch.arange(300, dtype=torch.int32)
    for count in (1, 4, 2, 7, 1, 2):
        all_ops.set_threads(count)
        assert all_ops.threads == count
        out = torch.empty_like(table)
        all_ops.embed(table, token_ids, out)
        assert torch.equal(out, table)
    for count in (0, -1, 257):
        with pytest.raises(KernelError, match="set_threads: a size"):
            all_ops.set_threads(count)
    assert all_ops.threads == 2


def test_threads_that_come_late_change_nothing(all_ops):
    """With far more threads than cores most of them find the work taken, or the operation over."""
    table, token_ids = torch.randn(97, 33), torch.arange(97, dtype=torch.int32)
    all_ops.set_threads(48)
    try:
        for _ in range(300):
            out = torch.full_like(table, torch.nan)
            all_ops.embed(table, token_ids, out)
            assert torch.equal(out, table)
    finally:
        all_ops.set_threads(2)


def test_two_python_threads_may_call_by_turns(all_ops):
    """The team serves one operation at a time, whoever calls."""
    token_ids = torch.arange(200, dtype=torch.int32)

    def work(seed):
        table = torch.full((200, 200), float(seed))
        out = torch.empty_like(table)
        for _ in range(50):
            out.zero_()
            all_ops.embed(table, token_ids, out)
            assert torch.equal(out, table)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


def test_the_library_has_every_function_of_the_header(all_ops):
    assert {"embed", "paged_attention", "sample", "set_threads"} <= set(prototypes())
    for name in prototypes():
        assert all_ops.library.function(name) is not None


def test_there_are_kernels_for_cpu_and_cuda_only():
    with pytest.raises(ValueError, match="no kernels for the device 'tpu'; supported: cpu, cuda"):
        load_kernels("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_cuda_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"There is no GPU that torch .* can use; .* Or use --device cpu\."):
        load_kernels("cuda")
