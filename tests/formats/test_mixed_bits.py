"""Choosing bits by measured error: the choice by hand and against all others, whole runs, the report."""

import itertools
import json
import random
import re

import pytest
import torch

from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.__main__ import main
from model.quantize.bits import Choice, choose_bits, lower_hull
from model.quantize.gptq import GridOptions, quantize_round
from model.quantize.packing import is_packable, packed_bytes
from model.quantize.report import ReportedLayer, draw
from tests.formats.test_quantize_families import (
    dequantized_logits,
    engine_logits,
    family_and_ids,
    tensors_of,
)
from tests.helpers.quantizable_models import write_text


def test_the_choice_by_hand():
    """a saves 6 for the first 10 bytes, b 3; then a 1 and b 2."""
    a = [Choice(2, 10, 8.0), Choice(3, 20, 2.0), Choice(4, 30, 1.0)]
    b = [Choice(2, 10, 6.0), Choice(3, 20, 3.0), Choice(4, 30, 1.0)]

    def bits(size):
        return [choice.bits for choice in choose_bits({"a": a, "b": b}, size).values()]
    assert [bits(size) for size in (20, 30, 40, 50, 60, 99)] == [
        [2, 2], [3, 2], [3, 3], [3, 4], [4, 4], [4, 4]]
    with pytest.raises(ValueError, match="take 20 bytes at least; there are 19"):
        bits(19)


def test_choices_that_are_not_worth_their_bytes_are_left_out():
    worse, bent = Choice(3, 20, 9.0), Choice(4, 30, 7.5)
    assert lower_hull([Choice(2, 10, 8.0), worse, bent, Choice(8, 50, 1.0)]) == [
        Choice(2, 10, 8.0), Choice(8, 50, 1.0)]


def test_the_choice_is_as_good_as_any_that_is_smaller_by_one_step():
    """Against all 3^6 combinations, for random convex curves."""
    rng = random.Random(1)
    choices = {}
    for name in "abcdef":
        size, error = rng.randint(5, 20), rng.uniform(1, 10)
        choices[name] = [Choice(bits, size * bits, error * share)
                         for bits, share in ((2, 1.0), (3, 0.3), (4, 0.1))]
    step = max(own[1].nbytes - own[0].nbytes for own in choices.values())
    smallest = sum(own[0].nbytes for own in choices.values())
    for size in range(smallest + step, 2 * smallest, 7):
        chosen = choose_bits(choices, size).values()
        best = min(sum(c.error for c in all_of) for all_of in itertools.product(*choices.values())
                   if sum(c.nbytes for c in all_of) <= size - step)
        assert sum(c.nbytes for c in chosen) <= size
        assert sum(c.error for c in chosen) <= best + 1e-9


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_size_of_a_packed_matrix_is_foreseen(bits):
    matrix = quantize_round(torch.randn(32, 96), GridOptions(bits=bits, group_size=64))
    assert sum(tensor.nbytes for tensor in matrix.packed().values()) == packed_bytes(96, 32, bits, 2)
    assert is_packable(96, 32, bits) and is_packable(88, 32, bits) == (bits in (4, 8))


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@torch.no_grad()
@pytest.mark.parametrize("variant", ["phi 3", "gemma 2", "cohere"])
def test_a_model_of_mixed_bits_computes_what_its_file_holds(tmp_path, variant, text_file):
    """It has the size that was asked for, is loaded, and says which linears differ from most."""
    folder = tmp_path / "in"
    model, ids = family_and_ids(folder, variant, text_file, intermediate_size=96)
    options = QuantizeOptions(GridOptions(group_size=32), calibration=text_file, samples=8, seq_len=64,
                              bits_per_weight=4.5)
    lines = []
    quantize_folder(folder, tmp_path / "out", options, progress=lines.append)
    before, tensors = tensors_of(folder), tensors_of(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    bits = {}
    for name in before:
        module = name.removesuffix(".weight")
        if f"{module}.qweight" in tensors:
            bits[module] = 32 * tensors[f"{module}.qweight"].shape[0] // before[name].shape[1]
    assert len(set(bits.values())) > 1
    for module, own in bits.items():
        overrides = [value for pattern, value in config["dynamic"].items()
                     if re.match(pattern.removeprefix("+:"), module)]
        assert (overrides[0]["bits"] if overrides else config["bits"]) == own
    taken = sum(tensor.nbytes for name, tensor in tensors.items() if name not in before)
    weights = sum(before[f"{module}.weight"].numel() for module in bits)
    assert 4.2 < 8 * taken / weights <= 4.5
    assert any("bits a weight" in line and "bits of linears" in line for line in lines)
    got = engine_logits(tmp_path / "out", ids)
    want = dequantized_logits(model, before, tensors, ids, bits)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


@torch.no_grad()
def test_measured_bits_lose_less_than_the_same_everywhere(tmp_path, text_file):
    """A model whose last two layers hardly matter, against 3 bits for all, in the same size."""
    folder = tmp_path / "in"
    model, ids = family_and_ids(folder, "llama yarn", text_file, intermediate_size=96)
    for name, parameter in model.named_parameters():
        if re.search(r"layers\.[23]\..*(o_proj|down_proj)", name):
            parameter.data *= 0.02
    model.save_pretrained(folder, max_shard_size="60KB")
    original = model(input_ids=ids, use_cache=False).logits[0]
    tensors = tensors_of(folder)

    def error_and_bits(name, **options):
        quantize_folder(folder, tmp_path / name, QuantizeOptions(
            calibration=text_file, samples=8, seq_len=64, **options), progress=lambda line: None)
        found = tensors_of(tmp_path / name)
        taken = sum(tensor.nbytes for part, tensor in found.items() if part not in tensors)
        weights = sum(tensor.numel() for part, tensor in tensors.items() if part not in found)
        return float((engine_logits(tmp_path / name, ids) - original).norm()), 8 * taken / weights

    three, bits = error_and_bits("three", grid=GridOptions(3, 32))
    mixed, taken = error_and_bits("mixed", grid=GridOptions(4, 32), bits_per_weight=bits)
    assert taken <= bits and mixed < 0.7 * three


def test_a_size_that_cannot_be_is_named(tmp_path, text_file, capsys):
    family_and_ids(tmp_path / "in", "llama yarn", text_file)
    command = [str(tmp_path / "in"), str(tmp_path / "out"), "--calibration", str(text_file), "--samples", "2",
               "--seq-len", "32", "--group-size", "32"]
    assert main([*command, "--target-size", "0.00001"]) == 1
    assert "what is not quantized takes 0.00 GB alone" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"bits_per_weight is 1\.5; expected 2 to 10"):
        QuantizeOptions(bits_per_weight=1.5)
    with pytest.raises(ValueError, match="expected one of them"):
        QuantizeOptions(bits_per_weight=4, target_bytes=1000)


def test_the_report_has_a_bar_for_each_layer_and_a_cell_for_each_linear(tmp_path):
    from matplotlib.image import imread

    layers = [ReportedLayer({"q": 4, "down": 8}, {"q": 0.1, "down": 0.02}),
              ReportedLayer({"q": 2, "down": 3}, {"q": 0.3, "down": 0.04})]
    assert layers[0].error == pytest.approx((0.0104 / 2) ** 0.5)
    draw("a model", layers).save(tmp_path / "report.png")
    pixels = (imread(tmp_path / "report.png")[..., :3] * 255).round().astype(int)
    colors = {tuple(color) for color in pixels.reshape(-1, 3)}
    assert {(214, 96, 77), (244, 165, 130), (146, 197, 222), (67, 147, 195)} <= colors
    heights = [int((pixels[:, x] == 60).all(-1).sum()) for x in (56 + 20, 56 + 48 + 24)]
    assert heights[1] >= 160 and 0.2 < heights[0] / heights[1] < 0.5


def test_a_run_leaves_its_report(tmp_path, text_file):
    family_and_ids(tmp_path / "in", "qwen 3", text_file)
    options = QuantizeOptions(GridOptions(group_size=32), calibration=text_file, samples=2, seq_len=32)
    quantize_folder(tmp_path / "in", tmp_path / "out", options, progress=lambda line: None)
    report = json.loads((tmp_path / "out" / "quantize_report.json").read_text(encoding="utf-8"))
    assert report["bits"] == 4 and len(report["layers"]) == 4
    assert list(report["layers"][0]["errors"]) == ["q", "k", "v", "o", "gate", "up", "down"]
    assert (tmp_path / "out" / "quantize_report.png").read_bytes().startswith(b"\x89PNG")
