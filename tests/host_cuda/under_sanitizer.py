"""Run a library built with AddressSanitizer over odd shapes; the first mistake ends the process.

python -m tests.host_cuda.under_sanitizer LIBRARY [embed-outside]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from model.engine.request import SamplingParams
from model.kernels.binding import Library
from model.kernels.build.cuda import HEADERS
from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.cuda_kernels import CudaKernels
from model.kernels.routing import Routing
from model.kernels.sampling import SamplingRow
from tests.helpers.attention_batch import Batch, empty_caches
from tests.helpers.state_batch import MIXED
from tests.host_cuda.build import HostDevice, cuda_on_host
from tests.kernels.test_linear import quantized_parts
from tests.kernels.test_lora import test_rows_get_what_their_adapters_add
from tests.kernels.test_prompt_layers import (
    test_an_mlp_in_float16_is_that_of_float64,
    test_layers_in_float16_are_those_of_float64,
)
from tests.kernels.test_rows import test_cut_matched_and_mixed_rows_over_sizes
from tests.kernels.test_states import SHAPES

EVERY_STEP = SamplingParams(
    repetition_penalty=1.1, repetition_range=3, repetition_decay=2, presence_penalty=0.1,
    frequency_penalty=0.1, temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, typical_p=0.9, min_new_tokens=9,
    logit_bias={3: 1.0}, banned_tokens=(4,))


def run_all(ops: CudaKernels) -> None:
    ops.embed(torch.randn(5, 7), torch.tensor([0, 4], dtype=torch.int32), torch.empty(2, 7))
    for kind in CACHE_KINDS:
        batch = Batch([(1, 33), (3, 9), (0, 0)], heads=3, kv_heads=1, head_dim=40, page_size=8, kind=kind)
        assert batch.run(ops).isfinite().all()
        ops.gather_pages(batch.k_cache, batch.v_cache, batch.block_table[0], 33, 40)
        caches = empty_caches(kind, 2, 2, 8, 40)
        positions, slots = torch.tensor([0, 3, 1], dtype=torch.int32), torch.tensor([15, 0, -1])
        ops.rope_write_kv(torch.randn(3, 6 * 40), torch.ones(4, 20), torch.ones(4, 20), positions, slots,
                          *caches, 2, 2)
        many = torch.arange(70, dtype=torch.int32)
        ops.rope_write_kv(torch.randn(70, 6 * 40), torch.ones(70, 20), torch.ones(70, 20), many,
                          many.long() - 1, *empty_caches(kind, 9, 2, 8, 40), 2, 2)
        pages = torch.tensor([[0], [1]], dtype=torch.int32)
        ops.copy_pages(*caches, pages[0], pages[1])
    for heads, options in ((3, {"head_dim": 64, "page_size": 32}), (5, {"head_dim": 64, "page_size": 32}),
                           (3, {"head_dim": 40, "page_size": 8, "keys_only": True})):
        batch = Batch([(1, 33), (3, 9), (0, 0)], heads=heads, kv_heads=1, **options)
        assert batch.run(ops).isfinite().all()
    for options in ((33, 96, 32, 4, "bytes"), (20, 88, 44, 8, "halves", True)):
        weight = ops.pack_linear(**quantized_parts(*options))
        for m in (1, 9, 65):
            ops.prompt_linear(torch.randn(m, weight.k), weight, torch.empty(m, weight.n),
                              norm=torch.ones(weight.k))
    test_an_mlp_in_float16_is_that_of_float64(ops, 88, 44, {"group_size": 44, "bias": True}, "add")
    test_layers_in_float16_are_those_of_float64(ops, {"interleaved": True})
    for kind, shape in SHAPES:
        layer = kind(MIXED.num_rows, **shape)
        layer.run(ops, MIXED, row_slots=torch.arange(-MIXED.num_rows, 0, dtype=torch.int32))
    dense = ops.pack_dense(torch.randn(18, 33))
    ops.linear(torch.randn(5, 33), dense, torch.empty(5, 9), epilogue="silu_mul")
    run_mixtures(ops)
    for has_norm in (True, False):
        test_rows_get_what_their_adapters_add(ops, has_norm)
    test_cut_matched_and_mixed_rows_over_sizes(ops)
    history = torch.tensor([1, 2, 2, 9], dtype=torch.int32)
    rows = [SamplingRow(EVERY_STEP, history=history, num_tokens=count, prompt_length=1, seed=7,
                        eos_token_ids=(2,)) for count in (1, 4)]
    assert (ops.sample(torch.randn(2, 37), rows) >= 0).all()


def run_mixtures(ops: CudaKernels) -> None:
    """Experts of several kinds, gate and up together and apart; the last row's choice does not exist."""
    rows, top_k = 3, 2
    chosen, shares = torch.empty(rows, top_k, dtype=torch.int32), torch.empty(rows, top_k)
    ops.route(torch.randn(rows, 6), Routing(top_k, "sigmoid", num_groups=3, top_groups=2, best_of_group=2),
              torch.randn(6), torch.randn(6), chosen, shares)
    chosen %= 3
    chosen[-1, -1] = 7
    kinds = ((40, 33, 32, 4, "bytes"), (20, 33, 11, 8, "one"), (20, 33, 33, 4, "halves"),
             (33, 20, 20, 8, "halves"))
    quantized = [ops.pack_linear(**quantized_parts(*options)) for options in kinds]
    dense = [ops.pack_dense(torch.randn(*shape)) for shape in ((40, 33), (33, 20))]
    for activation in ("silu", "clamped"):
        packed = ops.pack_experts([[quantized[0]], [quantized[1], quantized[2]], [dense[0]]],
                                  [quantized[3], dense[1], quantized[3]], activation, True)
        out = torch.empty(rows, 33)
        ops.experts(torch.randn(rows, 33), packed, chosen, shares, out, gate=None)
        assert out[:2].isfinite().all() and out[2].isnan().all()


def main() -> None:
    ops = cuda_on_host(Library(Path(sys.argv[1]), HEADERS), HostDevice())
    if sys.argv[2:] == ["embed-outside"]:
        ops.embed(torch.randn(5, 7), torch.tensor([0, 6], dtype=torch.int32), torch.empty(2, 7))
    else:
        run_all(ops)
    print("finished")


if __name__ == "__main__":
    main()
