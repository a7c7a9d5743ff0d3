"""Quantizing dense families: their layers in float against transformers, and whole runs as the engine loads
them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from model.formats.weights import CPU
from model.network.norm_weights import load_norm
from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.calibration import tokenize_documents
from model.quantize.decoder import layer_scale, load_branches, normed
from model.quantize.gptq import GridOptions
from model.quantize.run import load_tokenizer
from model.quantize.source import open_source
from tests.helpers.family_models import write_family
from tests.helpers.gptq_description import dequantize_by_description
from tests.helpers.quantizable_models import byte_tokenizer, write_text
from tests.helpers.tiny_engine import load

DENSE = ("llama yarn", "mistral window", "ministral 3", "qwen 2 windows", "qwen 3", "gemma", "gemma 2",
         "gemma 3", "gemma 4", "phi 3", "phi 4 mini", "smollm 3", "granite", "olmo 2", "olmo 3", "glm 4",
         "cohere", "cohere 2", "exaone 4", "seed-oss", "hunyuan", "ernie 4.5", "starcoder 2", "stablelm",
         "stablelm, parallel", "nemotron", "gpt-neox", "gpt-neox, one after the other", "apertus",
         "muse glimmer")
"""Variants whose layers are attention and an mlp."""


@torch.no_grad()
@pytest.mark.parametrize("variant", DENSE)
def test_hidden_states_behind_every_layer_are_those_of_transformers(tmp_path, variant):
    """Two pieces of 60 tokens, beyond every window; the last ones behind the last norm."""
    model = write_family(tmp_path, variant)
    ids = torch.randint(0, 96, (2, 60), generator=torch.Generator().manual_seed(2))
    expected = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    source = open_source(tmp_path)
    config, x = source.config, source.embedded(ids)
    for index in range(config.spec.num_layers):
        assert torch.allclose(x, expected[index], atol=1e-4 * float(expected[index].abs().max()))
        start = x
        for branch in load_branches(source.reader, config, index, 60):
            weights = {**branch.first.weights, **branch.last.weights}
            x = x + branch.adds(start if config.spec.layers[index].parallel else x, weights)
        x = x * layer_scale(source.reader, config, index)
    names, norm = config.names, config.spec.norm
    offset = names.norm_offset if names.last_norm_offset is None else names.last_norm_offset
    weights = load_norm(source.reader, names.norm, norm, x.shape[-1], replace(names, norm_offset=offset), CPU)
    assert torch.allclose(normed(x, norm, weights), expected[-1], atol=1e-4 * float(expected[-1].abs().max()))


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@torch.no_grad()
@pytest.mark.parametrize("variant", DENSE)
def test_a_quantized_model_computes_what_its_file_holds(tmp_path, variant, text_file):
    """The engine's logits are those of transformers with the weights that the test's own reader finds, and
    nearer to the float model's than after rounding. Whatever was no linear is as it was."""
    model = write_family(tmp_path / "in", variant, vocab_size=300)
    (tmp_path / "in" / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    source = open_source(tmp_path / "in")
    document = tokenize_documents(text_file.read_text(encoding="utf-8"), load_tokenizer(source))[5]
    ids = torch.tensor([document[:100]])
    original = model(input_ids=ids, use_cache=False).logits[0]
    errors = []
    for method in ("round", "gptq"):
        options = QuantizeOptions(GridOptions(group_size=32), method, text_file, samples=8, seq_len=64)
        quantize_folder(tmp_path / "in", tmp_path / method, options, progress=lambda line: None)
        engine = load(tmp_path / method, exact=True, cache="fp32")
        got = engine.logits(ids[0].tolist())
        engine.close()
        errors.append(float((got - original).norm() / original.norm()))
    before, tensors = tensors_of(tmp_path / "in"), tensors_of(tmp_path / "gptq")
    weights = {name: dequantize_by_description(tensors, name.removesuffix(".weight"), 4)
               for name in before if name.removesuffix(".weight") + ".qweight" in tensors}
    for name in before.keys() - weights.keys():
        assert torch.equal(tensors[name], before[name])
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].data = weight
    want = model(input_ids=ids, use_cache=False).logits[0]
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4
    assert errors[1] < errors[0]
