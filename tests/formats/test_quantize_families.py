"""Quantizing dense families: their layers in float against transformers, and whole runs as the engine loads
them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from model.files import ModelLoadError
from model.formats.weights import CPU
from model.network.norm_weights import load_norm
from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.calibration import tokenize_documents
from model.quantize.decoder import layer_scale, load_branches, normed
from model.quantize.gptq import GridOptions
from model.quantize.source import open_source
from model.quantize.text import load_tokenizer
from tests.helpers.family_models import write_family
from tests.helpers.gptq_description import dequantize_by_description
from tests.helpers.quantizable_models import byte_tokenizer, write_text
from tests.helpers.tiny_engine import load

DENSE = ("llama yarn", "mistral window", "ministral 3", "qwen 2 windows", "qwen 3", "gemma", "gemma 2",
         "gemma 3", "gemma 4", "phi 3", "phi 4 mini", "smollm 3", "granite", "olmo 2", "olmo 3", "glm 4",
         "cohere", "cohere 2", "exaone 4", "seed-oss", "hunyuan", "ernie 4.5", "starcoder 2", "stablelm",
         "stablelm, parallel", "nemotron", "gpt-neox", "gpt-neox, one after the other", "apertus",
         "muse glimmer", "arcee", "phi", "qwen 3 vl", "falcon 40b", "olmo", "nanochat", "gpt-j")
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


def dequantized_logits(model, before, tensors, ids, bits=None):
    """Of transformers' model with the weights that the test's own reader finds; whatever else is in the file,
    too. `bits` by module: not 4."""
    parameters = dict(model.named_parameters())
    for name in before:
        module = name.removesuffix(".weight")
        if module + ".qweight" in tensors:
            parameters[name].data = dequantize_by_description(tensors, module, bits[module] if bits else 4)
        elif name in parameters:
            parameters[name].data = tensors[name].float()
    return model(input_ids=ids, use_cache=False).logits[0]


def quantized(folder, target, text_file, **options):
    options = QuantizeOptions(GridOptions(group_size=32), calibration=text_file, samples=8, seq_len=64,
                              **options)
    quantize_folder(folder, target, options, progress=lambda line: None)
    return tensors_of(target)


def engine_logits(folder, ids):
    engine = load(folder, exact=True, cache="fp32")
    try:
        return engine.logits(ids[0].tolist())
    finally:
        engine.close()


def family_and_ids(folder, variant, text_file, **changes):
    """A model in float32, its folder with a tokenizer, and 100 tokens of the text."""
    model = write_family(folder, variant, vocab_size=300, **changes)
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    documents = tokenize_documents(text_file.read_text(encoding="utf-8"), load_tokenizer(open_source(folder)))
    return model, torch.tensor([documents[5][:100]])


@torch.no_grad()
@pytest.mark.parametrize("variant", DENSE)
def test_a_quantized_model_computes_what_its_file_holds(tmp_path, variant, text_file):
    """The engine's logits are those of transformers with the file's weights, and nearer to the float model's
    than after rounding. Whatever was no linear is as it was."""
    model, ids = family_and_ids(tmp_path / "in", variant, text_file)
    original = model(input_ids=ids, use_cache=False).logits[0]
    quantized(tmp_path / "in", tmp_path / "round", text_file, method="round")
    tensors = quantized(tmp_path / "in", tmp_path / "gptq", text_file)
    before, got = tensors_of(tmp_path / "in"), engine_logits(tmp_path / "gptq", ids)
    for name in before.keys() & tensors.keys():
        assert torch.equal(tensors[name], before[name])
    want = dequantized_logits(model, before, tensors, ids)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4
    rounded = engine_logits(tmp_path / "round", ids)
    assert float((got - original).norm()) < float((rounded - original).norm())


@torch.no_grad()
def test_the_experts_of_a_mixture_can_be_rounded(tmp_path, text_file):
    """Router and whatever else is exact stay as they are."""
    folder = tmp_path / "in"
    model = write_family(folder, "qwen 2 moe", vocab_size=300)
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    tensors, before = quantized(folder, tmp_path / "out", text_file, method="round"), tensors_of(folder)
    experts = sum(".experts." in name and name.endswith(".qweight") for name in tensors)
    config = model.config
    assert experts == 3 * config.num_experts * (config.num_hidden_layers - len(config.mlp_only_layers))
    for name in before.keys() & tensors.keys():
        assert torch.equal(tensors[name], before[name])
    ids = torch.arange(3, 103)[None]
    state = dict(model.state_dict())
    for name, parameter in state.items():
        module = name.removesuffix(".weight")
        if module + ".qweight" in tensors:
            parameter.copy_(dequantize_by_description(tensors, module, 4))
        elif name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            parts = ("gate_proj", "up_proj") if "gate_up" in name else ("down_proj",)
            for index in range(config.num_experts):
                own = [dequantize_by_description(tensors, f"{name.rpartition('.')[0]}.{index}.{part}", 4)
                       for part in parts]
                parameter[index].copy_(torch.cat(own))
    want = model(input_ids=ids, use_cache=False).logits[0]
    got = engine_logits(tmp_path / "out", ids)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


def test_experts_that_lie_in_one_tensor_are_refused(tmp_path):
    write_family(tmp_path, "qwen 3 vl moe")
    with pytest.raises(ModelLoadError, match=r"experts\.gate_up_proj.* holds all experts of a layer"):
        open_source(tmp_path, rounds=True)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["qwen 2 windows", "gemma 2", "phi 3", "gpt-neox", "cohere", "olmo 2"])
def test_a_model_with_scaled_inputs_computes_what_its_file_holds(tmp_path, variant, text_file):
    """Norms and biases in the file are others then."""
    model, ids = family_and_ids(tmp_path / "in", variant, text_file)
    original = model(input_ids=ids, use_cache=False).logits[0]
    tensors = quantized(tmp_path / "in", tmp_path / "awq", text_file, awq=True)
    got = engine_logits(tmp_path / "awq", ids)
    want = dequantized_logits(model, tensors_of(tmp_path / "in"), tensors, ids)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4
    assert float((got - original).norm() / original.norm()) < 0.5
