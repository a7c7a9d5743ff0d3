"""Run the kernels of every instruction set over odd shapes, in a library built with AddressSanitizer, and
compare those of emulated sets with the processor.

test_instruction_sets.py starts this with the sanitizer's library preloaded and the kernels' path as argument.
Every weight gets memory of its own that ends where the weight does, so a kernel that reads or writes beyond
it ends the process with a report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from model.kernels import load_kernels
from model.kernels.binding import load_library
from model.kernels.build.cpu import X86_ISAS
from model.kernels.cpu_kernels import CpuKernels
from tests.emulated_isa import EMULATED, can_run
from tests.kernels import (
    test_attention,
    test_float8,
    test_groups,
    test_kernels,
    test_linear,
    test_lora,
    test_prompt_attention,
    test_prompt_linear,
    test_rows,
    test_states,
)
from tests.kernels.test_instruction_sets import products


class SeparateWeights(CpuKernels):
    """Kernels whose weights do not lie side by side."""

    def _allocate(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)


def main() -> None:
    kernels = SeparateWeights(load_library(Path(sys.argv[1])))
    kernels.set_threads(2)
    for isa in X86_ISAS:
        if can_run(isa) and isa != "avx_vnni":  # AVX2's sources but for one instruction
            kernels.force_isa(isa)
            run(kernels)
    own = load_kernels(threads=2)
    for isa in EMULATED:
        if isa in own.supported_isas():
            assert all(map(torch.equal, products(own, isa), products(kernels, isa))), isa


def run(kernels: CpuKernels) -> None:
    """Tests of every kernel that go over odd shapes."""
    def check(test: Callable[..., None], *arguments: object) -> None:
        torch.manual_seed(1)  # as where the test is at home: its tolerance was measured on these numbers
        test(kernels, *arguments)

    for bits in (4, 8):
        for exact in (True, False):
            check(test_linear.test_quantized_weights_match_float64, bits, exact)
    for form in test_groups.FORMS:
        for exact in (True, False):
            check(test_groups.test_products_match_float64, form, exact)
    for form in test_float8.FORMS:
        check(test_float8.test_products_match_float64, form)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        check(test_linear.test_dense_weights_match_float64, dtype)
        check(test_kernels.test_embed_equals_the_table_rows_exactly, dtype, 7)
    for rows in (6, 20):
        check(test_linear.test_row_strides_and_adding, rows)
    for kind in ("rounded", "exact", "dense"):
        check(test_linear.test_norm_and_epilogues_equal_the_steps_one_by_one, kind, 130, 100, 32)
    if kernels.prompts is not None:
        for bits in (4, 8):
            check(test_prompt_linear.test_prompts_match_float64, bits)
            check(test_prompt_linear.test_precise_outputs_match_float64_closely, bits)
        check(test_prompt_linear.test_many_outputs_of_many_rows_are_written_where_they_belong, "add")
        for kind in ("fp16", "q8", "q4"):
            check(test_prompt_attention.test_prompts_match_the_reference, kind, 3, 3, 80)
    if kernels.isa == "amx":
        return  # the rest is AVX-512's
    for kind in ("fp16", "fp32", "q8", "q4"):
        check(test_attention.test_attention_over_page_sizes_and_cache_kinds, kind, 16)
    for has_norm in (True, False):
        check(test_lora.test_rows_get_what_their_adapters_add, has_norm)
    check(test_rows.test_cut_matched_and_mixed_rows_over_sizes)
    for kind, sizes in test_states.SHAPES:
        check(test_states.test_layers_match_float64, kind, sizes)
    for shape in ((4, 2, 40), (3, 3, 72), (5, 1, 34)):
        check(test_attention.test_rope_write_kv_over_head_sizes, "fp16", *shape)


if __name__ == "__main__":
    main()
