"""The kernels for 64-bit ARM, run by qemu-user: other kernels' tests, and AVX2's very bits.

No ARM has run them; what a compiler makes of them is what is tested, not how fast it is.
"""

from __future__ import annotations

import itertools
import platform

import pytest
import torch

from model.kernels.build.cpu import ARM_ISAS
from tests.arm import arm_kernels, what_is_missing
from tests.emulated_isa import kernels_with
from tests.kernels import (
    test_attention,
    test_float8,
    test_groups,
    test_kernels,
    test_linear,
    test_lora,
    test_states,
)
from tests.kernels.test_linear import ZEROS, multiply, quantized_parts

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64" or what_is_missing() is not None,
                                reason=what_is_missing() or "an ARM runs every test with its own kernels")


@pytest.fixture(params=ARM_ISAS)
def arm(request):
    """The kernels with one instruction set, on two threads."""
    kernels = arm_kernels("max")
    kernels.force_isa(request.param)
    kernels.set_threads(2)
    torch.manual_seed(1)
    return kernels


def test_what_a_processor_has_is_known_by_what_the_system_tells():
    assert arm_kernels("max").supported_isas() == ("plain", "dotprod", "i8mm")
    assert arm_kernels("neoverse-n1").supported_isas() == ("plain", "dotprod")
    assert arm_kernels("cortex-a72").supported_isas() == ("plain",)


def test_products_match_float64(arm):
    for bits in (4, 8):
        test_linear.test_quantized_weights_match_float64(arm, bits, bits == 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        test_linear.test_dense_weights_match_float64(arm, dtype)
    for form in test_float8.FORMS:
        test_float8.test_products_match_float64(arm, form)
    test_groups.test_products_match_float64(arm, "Q5_K", True)


def test_rounded_products_are_those_of_avx2_to_the_bit(arm):
    """Of 1 to 4 rows at once, of a tile of 7 and of more than one."""
    avx2 = kernels_with("avx2")
    packed = []
    for bits, zeros in itertools.product((4, 8), ZEROS):
        parts = quantized_parts(40, 350, 44, bits, zeros, perm=True, bias=True)
        packed.append(((bits, zeros), arm.pack_linear(**parts), avx2.pack_linear(**parts)))
    for form in test_groups.FORMS:
        groups = test_groups.groups_of(form, 40, 512)
        packed.append((form, arm.pack_groups(groups), avx2.pack_groups(groups)))
    for what, ours, theirs in packed:
        norm = torch.rand(ours.k)
        for m in (1, 2, 3, 4, 7, 9):
            x = torch.randn(m, ours.k)
            got = multiply(arm, ours, x, norm=norm, eps=1e-5)
            avx2.force_isa("avx2")
            want = multiply(avx2, theirs, x, norm=norm, eps=1e-5)
            avx2.force_isa(None)
            assert torch.equal(got, want), (what, m)


@pytest.mark.parametrize("kind", ["fp16", "fp32", "q8", "q4"])
def test_attention_matches_the_reference(arm, kind):
    test_attention.test_attention_over_page_sizes_and_cache_kinds(arm, kind, 16)
    if arm.isa != "plain" and kind in ("q8", "q4"):  # in registers by the number of rows
        test_attention.test_attention_does_not_depend_on_neighbours_threads_or_chunks(arm, kind)
    if arm.isa == "plain":
        test_attention.test_rope_write_kv_over_head_sizes(arm, kind, 4, 2, 40)


def test_other_kernels_match_their_references():
    kernels = arm_kernels("max")
    for dtype in (torch.float16, torch.bfloat16):
        test_kernels.test_embed_equals_the_table_rows_exactly(kernels, dtype, 7)
    for kind, sizes in test_states.SHAPES:
        test_states.test_layers_match_float64(kernels, kind, sizes)
    test_lora.test_rows_get_what_their_adapters_add(kernels, True)
