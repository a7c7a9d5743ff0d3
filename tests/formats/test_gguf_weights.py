"""GGUF files as models: the logits of a folder with the same weights, and what cannot be loaded."""


import gguf
import numpy as np
import pytest
import torch

from model import SamplingParams, load_model
from model.config import EngineConfig
from model.engine import loading
from model.engine.loading import load_engine
from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.ggml_types import ggml_type
from model.formats.gguf import GgufFile
from model.formats.gguf_parts import find_gguf
from model.formats.gguf_weights import GgufReader
from model.formats.weights import GroupMatrix
from model.kernels import load_kernels
from model.kernels.reference.linear import dequantize
from model.network.linear import pack
from tests.formats.test_gguf import BLOCK_TYPES, random_blocks
from tests.helpers.gguf_files import write_gguf
from tests.helpers.gguf_models import Type, metadata_of, write_llama
from tests.helpers.gguf_vocabularies import sentencepiece_metadata
from tests.helpers.text_samples import LLAMA_SP
from tests.helpers.tiny_models import TINY, random_tensors, write_model

IDS = [1, 5, 90, 17, 3, 3, 64]


def logits(path, **config):
    engine = load_engine(path, EngineConfig(device="cpu", threads=1, cache="fp32", exact=True, **config))
    try:
        return engine.logits(IDS)
    finally:
        engine.close()


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q5_0],
                         ids=lambda kind: kind.name)
def test_logits_are_those_of_a_folder_with_the_same_weights(kind, tmp_path):
    weights = write_llama(tmp_path / "m.gguf", TINY, random_tensors(TINY), kind)
    folder = write_model(tmp_path / "folder", tensors={name: t.contiguous() for name, t in weights.items()})
    assert error(logits(tmp_path / "m.gguf"), logits(folder)) < 1e-5


def test_a_tied_head_and_biases_are_found(tmp_path):
    config = TINY | {"tie_word_embeddings": True, "attention_bias": True}
    tensors = random_tensors(config)
    generator = torch.Generator().manual_seed(3)
    for layer in range(2):
        for name, size in (("q", 64), ("k", 32), ("v", 32), ("o", 64)):
            bias = torch.randn(size, generator=generator)
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = bias
    write_llama(tmp_path / "m.gguf", config, tensors)
    folder = write_model(tmp_path / "folder", config, tensors)
    assert error(logits(tmp_path / "m.gguf"), logits(folder)) < 1e-5


def test_weights_that_take_more_memory_than_in_the_file_are_told(tmp_path):
    """FP8 in blocks of 8 x 8 becomes float16; GGUF's blocks of 8 bits stay as they are."""
    tensors = random_tensors(TINY)
    lines = {}
    for name in ("fp8", "gguf"):
        lines[name] = []
        path = tmp_path / "m.gguf"
        if name == "gguf":
            write_llama(path, TINY, tensors, Type.Q8_0)
        else:
            path = write_model(tmp_path / "fp8", tensors={
                key: t.to(torch.float8_e4m3fn) if "proj" in key else t for key, t in tensors.items()
            } | {key + "_scale_inv": torch.ones(-(-len(t) // 8), -(-t.shape[1] // 8))
                 for key, t in tensors.items() if "proj" in key},
                quantization_config={"quant_method": "fp8", "weight_block_size": [8, 8]})
        load_engine(path, EngineConfig(device="cpu", threads=1), report=lines[name].append).close()
    assert any(line.startswith("the weights take 1.") for line in lines["fp8"])
    assert not any("times their size" in line for line in lines["gguf"])


def test_weights_that_are_read_by_a_few_rows_leave_torch_one_thread(tmp_path, monkeypatch):
    """Its threads would wait for each other most of the time."""
    monkeypatch.setattr(loading, "_SMALL_MODEL", 0)
    monkeypatch.setattr(loading, "physical_cores", lambda: 3)
    write_llama(tmp_path / "m.gguf", TINY, random_tensors(TINY), Type.Q8_0)
    folder = write_model(tmp_path / "folder", TINY, random_tensors(TINY))
    found, load = [], loading.Transformer.load

    def told(*arguments, **options):
        found.append(torch.get_num_threads())
        return load(*arguments, **options)

    monkeypatch.setattr(loading.Transformer, "load", told)
    for path, quantize in ((tmp_path / "m.gguf", None), (folder, 4), (folder, None)):
        load_engine(path, EngineConfig(device="cpu", threads=1, quantize=quantize)).close()
    assert found == [1, 1, 3]


def test_a_tied_head_of_blocks_is_one_weight_with_the_embeddings(tmp_path):
    config = TINY | {"tie_word_embeddings": True}
    weights = write_llama(tmp_path / "m.gguf", config, random_tensors(config), Type.Q8_0)
    folder = write_model(tmp_path / "folder", config, {name: t.contiguous() for name, t in weights.items()})
    assert error(logits(tmp_path / "m.gguf"), logits(folder)) < 1e-5
    model = load_engine(tmp_path / "m.gguf", EngineConfig(device="cpu", threads=1))
    try:
        found = model.describe()
        assert found["weight_bytes"] == found["step_bytes"]
        assert 0 <= found["weight_bytes"] - model.plan.weight_bytes < 20_000  # lists of the groups' places
    finally:
        model.close()


def test_rope_factors_divide_the_frequencies(tmp_path):
    tensors = random_tensors(TINY)
    scaled = dict(TINY, rope_scaling={"type": "linear", "factor": 4.0})
    folder = write_model(tmp_path / "folder", scaled, tensors)
    path = tmp_path / "m.gguf"
    write_llama(path, TINY, tensors)
    plain = GgufFile(path)
    write_gguf(path, plain.metadata, {
        **{name: (0, t.type.dequantize(t.read()).view(t.shape).numpy()) for name, t in plain.tensors.items()},
        "rope_freqs.weight": (0, np.full(16, 4, np.float32))})
    assert error(logits(path), logits(folder)) < 1e-5


@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=lambda kind: kind.name)
def test_every_type_can_be_widened_to_codes_of_4_or_8_bits(kind):
    """Up to float16 rounding of scales and minimums; a group whose scale is 0 has its minimum everywhere."""
    raw = torch.from_numpy(random_blocks(kind, 16, 512, seed=1))
    if kind.name == "Q4_K":
        raw[0, 4:8] = 0  # scales of the first four groups
    groups = ggml_type(int(kind)).groups(raw)
    codes, scales, zeros, bits = groups.widened()
    assert bits in (4, 8) and int(codes.max()) < 1 << bits
    assert error(dequantize(codes, scales, zeros, groups.size), groups.dequantize()) < 2e-3


@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=lambda kind: kind.name)
def test_what_a_matrix_will_take_is_known_from_the_header(kind, tmp_path):
    raw = random_blocks(kind, 64, 512)
    path = write_gguf(tmp_path / "m.gguf", {}, {"m.weight": (int(kind), raw)})
    reader = GgufReader(GgufFile(path))
    matrix = reader.matrix("m", 64, 512)
    assert isinstance(matrix, GroupMatrix) and reader.is_quantized("m")
    info, packed = reader.matrix_info("m", 64, 512), load_kernels(threads=1).pack_groups(matrix.groups)
    assert info.kind == packed.kind
    assert 0 <= packed.nbytes - info.nbytes < 2048  # a list of the groups' places
    assert 0.99 < info.nbytes / raw.nbytes < 1.2
    codes, scales, _, bits = matrix.groups.widened()  # what a device without such kernels makes of it
    padded = codes.numel() * max(32, matrix.groups.size) // matrix.groups.size
    assert (info.widened.kind, info.widened.nbytes) == (f"q{bits}", padded * bits // 8 + 4 * scales.numel())
    assert reader.table("m.weight", 64, 512).dtype == torch.float16
    assert reader.describe() == f"GGUF {kind.name}"


def test_what_cannot_be_loaded_is_told_by_tensor_and_key(tmp_path):
    path = tmp_path / "m.gguf"
    weights = random_tensors(TINY)
    write_llama(path, TINY, weights)
    good = GgufFile(path)
    said = r"m\.gguf: general\.architecture is 'nobodys'; expected .*llama"
    with pytest.raises(ModelLoadError, match=said):
        open_model(write_gguf(tmp_path / "other.gguf", {"general.architecture": "nobodys"}, {}).rename(path))
    grid = {"m.weight": (16, np.zeros((4, 66), np.uint8))}
    reader = GgufReader(GgufFile(write_gguf(path, {}, grid)))
    with pytest.raises(ModelLoadError, match=r"tensor m\.weight has type IQ2_XXS; supported: F32, F16"):
        reader.matrix_info("m", 4, 256)
    reader = GgufReader(good)
    with pytest.raises(ModelLoadError, match=r"tensor output_norm\.weight is \[64\]; expected \[32\]"):
        reader.vector("output_norm.weight", 32)
    for key, value, message in (("llama.embedding_length", "big", "hidden_size is 'big'"),
                                ("llama.expert_count", 8, "num_experts_per_tok is None"),
                                ("llama.rope.scaling.type", "sinc", "rope_type is 'sinc'"),
                                ("llama.attention.head_count_kv", 3, "num_key_value_heads is 3")):
        write_gguf(path, metadata_of(TINY) | {key: value}, {})
        with pytest.raises(ModelLoadError, match=message):
            open_model(path)


@pytest.mark.parametrize(("kind", "at"), [(0, 0), (8, 0), (12, 2), (14, 208)])
def test_weights_that_are_no_numbers_are_told_by_their_tensor(kind, at, tmp_path):
    """F32, and a float16 scale, min_step and step."""
    raw = random_blocks(gguf.GGMLQuantizationType(kind), 4, 512) if kind else np.zeros((4, 512), np.float32)
    raw.view(np.uint8)[1, at:at + 4] = (0, 0x7C, 0xC0, 0x7F)  # infinity in float16, NaN in float32
    reader = GgufReader(GgufFile(write_gguf(tmp_path / "m.gguf", {}, {"m.weight": (kind, raw)})))
    with pytest.raises(ModelLoadError, match=r"tensor m\.weight holds infinity or what is no number"):
        pack(load_kernels(threads=1), [reader.matrix("m", 4, 512)], False)


def test_a_folder_with_one_model_is_that_model_and_several_are_asked_about(tmp_path):
    assert find_gguf(tmp_path) is None and find_gguf(tmp_path / "none") is None
    (tmp_path / "mmproj-x.gguf").touch()
    for part in (1, 2):
        (tmp_path / f"a-0000{part}-of-00002.gguf").touch()
    assert find_gguf(tmp_path).name == "a-00001-of-00002.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelLoadError, match=r"2 models; give one of them .*a-00001-of-00002\.gguf, b\.gguf"):
        find_gguf(tmp_path)
    assert find_gguf(tmp_path / "b.gguf") == tmp_path / "b.gguf"
    (tmp_path / "config.json").touch()
    assert find_gguf(tmp_path) is None


def test_types_may_be_mixed_within_a_layer(tmp_path):
    """As in a Q4_K_M: what cannot be one kernel call is several."""
    tensors = random_tensors(TINY)
    path = tmp_path / "m.gguf"
    back = write_llama(path, TINY, tensors, Type.Q4_0)
    mixed = write_llama(tmp_path / "q8.gguf", TINY, tensors, Type.Q8_0)
    kept = GgufFile(path)
    other = GgufFile(tmp_path / "q8.gguf")
    chosen = {name: (other if "attn_v" in name or "ffn_up" in name else kept).tensor(name)
              for name in kept.tensors}
    numbers = {t.name: int(t) for t in gguf.GGML_QUANT_SIZES}
    write_gguf(tmp_path / "mixed.gguf", kept.metadata, {
        name: (numbers[t.type.name], t.read().numpy() if t.type.unpack else
               t.type.dequantize(t.read()).view(t.shape).numpy()) for name, t in chosen.items()})
    expected = {name: (mixed if "v_proj" in name or "up_proj" in name else back)[name].contiguous()
                for name in back}
    folder = write_model(tmp_path / "folder", tensors=expected)
    assert error(logits(tmp_path / "mixed.gguf"), logits(folder)) < 1e-5


def test_a_file_is_chatted_with_and_its_template_and_tokenizer_are_used(tmp_path):
    vocabulary = sentencepiece_metadata(LLAMA_SP)
    config = TINY | {"vocab_size": len(vocabulary["tokenizer.ggml.tokens"])}
    path = tmp_path / "m.gguf"
    template = {"tokenizer.chat_template": "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"}
    write_llama(path, config, random_tensors(config), Type.Q8_0, **vocabulary, **template)
    with load_model(tmp_path, device="cpu", threads=1) as model:
        assert model.info()["quantization"] == "GGUF Q8_0"
        assert model.info()["chat_template"] and model.info()["name"] == "m"
        params = SamplingParams(max_new_tokens=4, temperature=0.0)
        reply = model.start([{"role": "user", "content": "Hello"}], params)
        assert list(reply.events())[-1].stats.new_tokens <= 4
        assert model.generate("Hello", 4, temperature=0.0) == model.generate("Hello", 4, temperature=0.0)
