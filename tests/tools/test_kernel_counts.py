"""tools.kernel_counts: reading machine code, by hand; that of the kernels is in test_build_cuda.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.formats.synthetic import synthetic_config
from model.network.modules import layer_modules
from tools import kernel_counts
from tools.kernel_counts import (
    GPUS,
    Loop,
    RowLoop,
    find_disassembler,
    predict,
    predict_attention,
    predict_prompt,
    predict_rest,
    predict_rows,
    product_loops,
    row_loops,
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


def test_the_loop_over_rows_is_the_innermost_that_adds_up_over_lanes_and_stores():
    code = CODE.replace("multiply_kernelINS_7VariantILi4ELi1ELi0ELb1EEEEEvNS_7ProductE",
                        "gated_delta_kernelILi128ELb1EEEvNS_5DeltaE").replace("HMMA.16816.F32", "SHFL.BFLY")
    assert list(row_loops(code.replace("FFMA R3", "STG.E R3"))) == [
        RowLoop("gated_delta", 128, True, 7, 1, {"LDG.E": 1, "LDG.E.EF.128": 1})]


def test_stretches_end_at_branches():
    found = stretches(CODE, "multiply_kernel")
    assert [len(stretch) for stretch in found] == [5, 1, 0]
    assert [stretch.count("LDG.E") for stretch in found] == [1, 0, 0]


def test_attention_takes_the_time_of_its_bytes_or_of_its_batches():
    """Llama-2-7B: 32 heads of 128. One key: a split, and all is on its way at once. 16,384: 64 splits of 256
    keys for 17 blocks a head, of which 528 have 64 KB on their way; at full bandwidth that takes longer."""
    attention = synthetic_config("llama-2-7b").spec.attentions[0]
    one, _, many = (predict_attention(attention, GPUS[0], keys) for keys in (1, 2048, 16384))
    assert one["blocks"] == 32 and one["latency_us"] == pytest.approx(0.25)
    assert many["blocks"] == 32 * 17
    assert many["latency_us"] == pytest.approx(16384 * 4 * 4096 / (528 * 65536) * 0.6)
    assert many["predicted_us"] == pytest.approx(16384 * 4 * 4096 / 4300e3 + 8 * 0.13 + 1)


def test_blocks_end_together_and_read_as_fast_as_what_is_on_its_way_allows():
    """688 pairs of tiles on 132 multiprocessors: 230 blocks with three each, but for two. A GPU of two takes
    six in two turns of three blocks, each of which has 8 warps with 3 steps of 1,056 bytes on their way."""
    loop = Loop("multiply", 4, 8, "one zero point", True, 144, 63, 8, {})
    row = predict(loop, GPUS[0], 22016, 4096, 128)
    assert row["blocks"] == 230 and row["reading_us"] == pytest.approx(row["floor_us"])
    row = predict(loop, replace(GPUS[0], multiprocessors=2), 192, 4096, 128)
    assert row["blocks"] == 3
    assert row["reading_us"] == pytest.approx(row["megabytes"] * 1e6 / (3 * 8 * 3 * 1056 / 0.6))


def test_a_prediction_is_the_larger_of_reading_and_issuing_and_a_fixed_part():
    loop = Loop("multiply", 4, 8, "one zero point", True, 144, 63, 8, {})
    row = predict(loop, GPUS[0], 4096, 4096, 128)
    assert row["megabytes"] == pytest.approx(4096 * 4096 * (0.5 + 2 / 128) / 1e6)
    assert row["floor_us"] == pytest.approx(row["megabytes"] * 1e6 / 4300e9 * 1e6)
    assert row["issue_us"] == pytest.approx(128 * 64 * 144 / (132 * 4) / 1980, rel=1e-6)
    assert row["predicted_us"] == pytest.approx(row["floor_us"] + 0.13 * 3 + 1)


def test_blocks_of_many_rows_have_as_many_slices_of_the_columns_as_they_have_room_for():
    """32 rows of 4,096 columns: half of them are 133 KB, and what two blocks have of an output is added up.
    192 groups of pairs for 66 blocks are three turns of 64 steps. An RTX 4090 has room for an eighth."""
    loop = Loop("multiply", 4, 32, "one zero point", True, 240, 90, 32, {})
    row = predict_rows(loop, GPUS[0], 12288, 4096, 128)
    assert row["slices_of_block"] == 4
    assert row["issue_us"] == pytest.approx(3 * 64 * 240 / 4 / 1980)
    assert row["adding_up_us"] == pytest.approx(2 * 2 * 4 * 12288 * 32 / 5500e3)
    assert row["predicted_us"] == pytest.approx(max(row["floor_us"], row["issue_us"]) + row["adding_up_us"]
                                                + 3 * 0.13 + 1)
    assert predict_rows(loop, GPUS[1], 12288, 4096, 128)["slices_of_block"] == 1
    narrow = predict_rows(replace(loop, rows=8), GPUS[0], 12288, 4096, 128)
    assert (narrow["slices_of_block"], narrow["adding_up_us"]) == (8, 0)


def test_sampling_takes_the_time_of_its_passes_and_of_float64():
    """A vocabulary of 8,192: two batches of loads a pass; on a GPU with two doubles a cycle it is these that
    take the time."""
    few, many = (predict_rest(8192, 64, replace(GPUS[0], doubles=doubles)) for doubles in (2, 64))
    passes = 5 * (2 * 0.13 + 8 * 8192 / 64 / 1980) + 20 * 0.13
    assert many["sampling_us"] == pytest.approx(passes + 4 * 8192 / 64 / 1980)
    assert few["sampling_us"] == pytest.approx(passes + 4 * 8192 / 2 / 1980)
    assert many["output_layer_us"] == pytest.approx(2 * 8192 * 64 / 4300e3 + 3 * 0.13 + 1)


def test_a_prompt_takes_the_time_of_its_products_and_of_what_is_between_them():
    """Llama-2-7B: 202 million weights a layer; 268 MB between products of 2,048 rows."""
    spec, config = synthetic_config("llama-2-7b").spec, synthetic_config("llama-2-7b")
    loop = Loop("multiply", 4, 8, "one zero point", True, 144, 63, 8, {})
    made = predict_prompt(spec, layer_modules(spec, config.names, 0), loop, GPUS[0], 2048, 128)
    numbers = 4096 * (4 * 4096 + 3 * 11008)
    assert made["products_us"] == pytest.approx(2 * 2048 * numbers / 790e6)
    assert made["megabytes_between"] == pytest.approx(2048 * (44 * 4096 + 6 * 11008) / 1e6)
    assert made["dequantizing_us"] == pytest.approx(numbers * (0.5 + 2 / 128 + 4) / 4300e3)
    whole = 32 * (made["products_us"] + made["attention_us"] + made["between_us"] + 10)
    assert made["tokens_per_second"] == pytest.approx(2048e6 / whole)
    assert made["tokens_per_second_without_copies"] < made["tokens_per_second"]


def test_a_missing_disassembler_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(kernel_counts.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(kernel_counts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(kernel_counts.KernelBuildError, match=r"^No cuobjdump .* pip install nvidia"):
        find_disassembler()
