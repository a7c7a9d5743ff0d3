"""Scales of inputs: folded into norms and other weights they change nothing; rounding they make better."""

import pytest
import torch

from model.quantize.decoder import load_branches
from model.quantize.gptq import GridOptions, energy, quantize_round
from model.quantize.scaling import ScaledMatrix, candidates, find_scales, fold_before, fold_between
from model.quantize.source import open_source
from tests.helpers.family_models import write_family

FOLDED = {
    "qwen 2 windows": (True, True, True, True),        # biases
    "gemma 2": (True, True, True, True),               # norms less 1
    "phi 3": (True, True, True, True),                 # fused
    "muse glimmer": (True, True, True, True),          # a gate behind attention, norms less 1
    "gpt-neox": (True, True, True, False),             # heads side by side, two norms with a mean, no gate
    "nemotron": (True, True, True, False),
    "cohere": (False, True, False, True),              # one norm for both branches
    "olmo 2": (False, True, False, True),              # no norm before
    "gemma 4": (True, False, True, True)}              # normed values
"""Which of the inputs of q k v, o, gate up and down can be scaled."""


@torch.inference_mode()
@pytest.mark.parametrize("variant", FOLDED)
def test_what_is_folded_changes_nothing(tmp_path, variant):
    """Random scales between a quarter and four; float32 weights."""
    write_family(tmp_path, variant)
    source = open_source(tmp_path)
    config, reader = source.config, source.reader
    x = torch.randn(2, 30, 64, generator=torch.Generator().manual_seed(1))
    found = []
    for branch in load_branches(reader, config, 1, 30):
        before = branch.adds(x, {**branch.first.weights, **branch.last.weights})
        before_it = fold_before(branch, config.spec.layers[1], config.names, reader)
        for linears, fold in ((branch.first, before_it), (branch.last, fold_between(branch, reader))):
            found.append(fold is not None)
            if fold is None:
                continue
            wanted = torch.exp2(torch.rand(fold.num_scales) * 4 - 2)
            scales, changed = fold.apply(wanted)
            assert torch.allclose(scales, wanted, rtol=1e-3)
            for name, weight in linears.weights.items():
                linears.weights[name] = weight * fold.expand(scales)
            for name, tensor in changed.items():
                assert tensor.shape == reader.folder.info(name).shape
        after = branch.adds(x, {**branch.first.weights, **branch.last.weights})
        assert torch.allclose(after, before, atol=1e-4 * float(before.abs().max()))
    assert tuple(found) == FOLDED[variant]


def test_a_scaled_matrix_by_hand():
    """Two outputs of three inputs, scaled twice."""
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.bfloat16)
    scaled = ScaledMatrix.of(weight, inputs=torch.tensor([1.0, 10.0, 100.0]))
    scaled = ScaledMatrix.of(scaled, outputs=torch.tensor([2.0, 0.5]))
    assert len(scaled) == 2 and scaled.weight is weight
    assert scaled[:].tolist() == [[2.0, 40.0, 600.0], [2.0, 25.0, 300.0]]
    assert scaled[1:].tolist() == [[2.0, 25.0, 300.0]] and scaled[1:].dtype == torch.float32


@torch.inference_mode()
def test_scales_are_those_of_the_norm_as_it_is_stored(tmp_path):
    """A norm in bfloat16 cannot hold every quotient: the weights take what it does hold."""
    write_family(tmp_path, "gemma 2")
    source = open_source(tmp_path)
    branch = next(load_branches(source.reader, source.config, 0, 30))
    old = branch.before.weight.clone()
    name = branch.before_name + ".weight"
    info = source.reader.folder.tensors[name]
    source.reader.folder.tensors[name] = type(info)(torch.bfloat16, info.shape, info.offset, info.nbytes,
                                                    info.path)
    fold = fold_before(branch, source.config.spec.layers[0], source.config.names, source.reader)
    scales, changed = fold.apply(torch.full((64,), 1.37))
    assert changed[name].dtype == torch.bfloat16 and float((scales - 1.37).abs().max()) > 1e-4
    assert torch.allclose((changed[name].float() + 1) * scales, old, rtol=1e-6)


@torch.inference_mode()
def test_a_channel_of_large_inputs_is_scaled_up_and_rounding_loses_less(tmp_path):
    write_family(tmp_path, "llama yarn")
    source = open_source(tmp_path)
    branch = next(load_branches(source.reader, source.config, 0, 30))
    fold = fold_before(branch, source.config.spec.layers[0], source.config.names, source.reader)
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    x[:, [3, 40]] *= 30
    options, hessian = GridOptions(bits=3, group_size=32, search=False), x.t() @ x / 500
    bits = dict.fromkeys(branch.first.weights, 3)
    scales = find_scales(branch.first, fold, x.abs().mean(0), hessian, options, bits)
    assert float(scales[[3, 40]].min()) > 2 * float(scales.median())

    def error(s):
        return sum(energy(weight - quantize_round(weight * s, options).dequantize() / s, hessian)
                   for weight in branch.first.weights.values())

    assert error(scales) < 0.5 * error(torch.ones(64))


@torch.inference_mode()
def test_heads_that_share_values_share_scales(tmp_path):
    """Four heads on two of values: the first scale is that of heads 0 and 1."""
    write_family(tmp_path, "qwen 3")
    source = open_source(tmp_path)
    branch = next(load_branches(source.reader, source.config, 0, 30))
    fold = fold_between(branch, source.reader)
    assert fold.num_scales == 48
    expanded = fold.expand(torch.arange(48.0)).view(4, 24)
    assert expanded[:, 0].tolist() == [0, 0, 24, 24]
    first, *others = candidates(branch.last, fold, torch.rand(96) + 0.1)
    assert torch.equal(first, torch.ones(48)) and len(others) == 20
    assert all(float(scales.min()) > 0 and float(scales.max()) <= 64 for scales in others)
