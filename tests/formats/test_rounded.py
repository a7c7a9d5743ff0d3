"""Plain models that are rounded to 4 or 8 bits while they are loaded."""

import pytest
import torch

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.files import ModelLoadError
from model.formats.weights import DenseMatrix, RoundedMatrix
from model.inspect import inspect_model
from model.kernels import load_kernels
from model.network.opening import open_for
from tests.formats.test_gguf_weights import IDS, error
from tests.helpers.family_models import write_family
from tests.helpers.gguf_models import Type, write_llama
from tests.helpers.tiny_models import TINY, random_tensors, write_model


def logits(path, **config):
    engine = load_engine(path, EngineConfig(device="cpu", threads=1, cache="fp32", exact=True, **config))
    try:
        return engine.logits(IDS)
    finally:
        engine.close()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_are_those_of_the_rounded_weights(bits, dtype, tmp_path):
    """All projections; embeddings and norms stay as they are, and with float32 arithmetic the head, too."""
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(TINY).items()}
    round_groups = load_kernels(threads=1).round_groups
    rounded = {name: round_groups(tensor.float(), bits).dequantize() if "proj" in name else tensor.float()
               for name, tensor in tensors.items()}
    found = logits(write_model(tmp_path / "plain", TINY, tensors), quantize=bits)
    assert error(found, logits(write_model(tmp_path / "rounded", TINY, rounded))) < 1e-4


def test_gguf_files_of_floats_are_rounded_too(tmp_path):
    weights = write_llama(tmp_path / "m.gguf", TINY, random_tensors(TINY), Type.F16)
    folder = write_model(tmp_path / "folder", TINY, {name: t.contiguous() for name, t in weights.items()})
    assert error(logits(tmp_path / "m.gguf", quantize=4), logits(folder, quantize=4)) < 1e-4


def test_it_is_told_before_loading_with_the_memory_that_it_takes(tmp_path):
    folder = write_model(tmp_path / "plain", TINY, random_tensors(TINY))
    lines, config = [], EngineConfig(device="cpu", threads=1, quantize=4)
    engine = load_engine(folder, config, report=lines.append)
    try:
        assert "float weights are rounded to 4 bits while they are loaded" in lines
        assert engine.describe()["quantization"] == "float32, rounded to 4 bits"
        assert 0 <= engine.describe()["weight_bytes"] - engine.plan.weight_bytes < 20_000
    finally:
        engine.close()
    rows = [text for _, text in inspect_model(folder, config).rows]
    assert any(text.startswith("float32, rounded to 4 bits; in memory") and "q4" in text for text in rows)


def test_routers_of_mixtures_stay_as_they_are(tmp_path):
    """And so does a matrix whose rows are no whole groups of 32: the expert's down of 80 inputs."""
    write_family(tmp_path, "mixtral")
    model, reader = open_for(tmp_path, EngineConfig(device="cpu", quantize=4))
    hidden, experts = model.spec.hidden_size, model.spec.layers[0].mlp
    prefix = model.names.layer.format(0)
    assert isinstance(reader.matrix(prefix + model.names.router, experts.num_experts, hidden), DenseMatrix)
    down, size = prefix + model.names.expert_down.format(0), experts.expert.intermediate_size
    assert isinstance(reader.matrix(down, hidden, size), DenseMatrix if size % 32 else RoundedMatrix)
    up = prefix + model.names.expert_gate_up[1].format(0)
    assert isinstance(reader.matrix(up, size, hidden), RoundedMatrix)


def test_what_is_quantized_already_and_other_numbers_of_bits_are_refused(tmp_path):
    write_llama(tmp_path / "m.gguf", TINY, random_tensors(TINY), Type.Q8_0)
    with pytest.raises(ModelLoadError, match=r"the weights are GGUF Q8_0.* already; --quantize rounds float"):
        load_engine(tmp_path / "m.gguf", EngineConfig(device="cpu", quantize=4))
    for bits in (5, True, "4"):
        with pytest.raises(ValueError, match="expected 4 or 8 bits"):
            EngineConfig(quantize=bits)
