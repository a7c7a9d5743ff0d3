"""tools.kernel_counts: reading machine code, by hand; that of the kernels is in test_build_cuda.py."""

from __future__ import annotations

import pytest

from model.formats.synthetic import synthetic_config
from tools import kernel_counts
from tools.kernel_counts import (
    GPUS,
    Loop,
    find_disassembler,
    predict,
    predict_attention,
    product_loops,
    stretches,
)

CODE = """
\t\tFunction : _ZN6parlor15multiply_kernelINS_7VariantILi4ELi1ELi0ELb1EEEEEvNS_7ProductE
        /*0000*/                   MOV R1, c[0x0][0x28] ;                /* 0x1 */
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;          /* 0x2 */
        /*0020*/                   LDG.E.EF.128 R8, desc[UR4][R2.64] ;   /* 0x3 */
        /*0030*/                   LOP3.LUT R6, R4, 0xf000f, R5, 0xea, !PT ;
        /*0040*/              @!P1 HMMA.16816.F32 R8, R4, R6, R8 ;
        /*0050*/               @P0 BRA 0x20 ;
        /*0060*/                   FFMA R3, R3, R3, R3 ;
        /*0070*/               @P2 BRA 0x10 ;
\t\tFunction : _ZN6parlor13finish_kernelEv
        /*0000*/                   EXIT ;
"""


def test_the_innermost_loop_with_products_is_counted_and_what_has_no_variant_is_left_out():
    assert list(product_loops(CODE)) == [
        Loop("multiply", 4, 8, "one zero point", True, 4, 1, 1, {"LDG.E.EF.128": 1})]


def test_stretches_end_at_branches():
    found = stretches(CODE, "multiply_kernel")
    assert [len(stretch) for stretch in found] == [5, 1, 0]
    assert [stretch.count("LDG.E") for stretch in found] == [1, 0, 0]


def test_attention_takes_the_time_of_its_bytes_or_of_its_batches():
    """Llama-2-7B: 32 heads of 128. One key: a split, and batches of 16 numbers, 8 and a part of one. 16,384:
    64 splits of 256 keys for 17 blocks a head, four rounds; the bytes take longer."""
    attention = synthetic_config("llama-2-7b").spec.attentions[0]
    one, _, many = (predict_attention(attention, GPUS[0], keys) for keys in (1, 2048, 16384))
    assert one["blocks"] == 32 and one["latency_us"] == pytest.approx((128 + 1) / 16 * 0.25)
    assert many["blocks"] == 32 * 17
    assert many["latency_us"] == pytest.approx(544 / 528 * 4 * 2 * 16 * 0.25)
    assert many["predicted_us"] == pytest.approx(16384 * 4 * 4096 / 4300e3 + 8 * 0.13 + 1)


def test_a_prediction_is_the_larger_of_reading_and_issuing_and_a_fixed_part():
    loop = Loop("multiply", 4, 8, "one zero point", True, 144, 63, 8, {})
    row = predict(loop, GPUS[0], 4096, 4096, 128)
    assert row["megabytes"] == pytest.approx(4096 * 4096 * (0.5 + 2 / 128) / 1e6)
    assert row["floor_us"] == pytest.approx(row["megabytes"] * 1e6 / 4300e9 * 1e6)
    assert row["issue_us"] == pytest.approx(128 * 64 * 144 / (132 * 4) / 1980, rel=1e-6)
    assert row["predicted_us"] == pytest.approx(row["floor_us"] + 0.13 * 3 + 1)


def test_a_missing_disassembler_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(kernel_counts.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(kernel_counts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(kernel_counts.KernelBuildError, match=r"^No cuobjdump .* pip install nvidia"):
        find_disassembler()
