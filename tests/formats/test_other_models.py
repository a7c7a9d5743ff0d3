"""Files that are no models which chat: one sentence says what they are and what would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from model.families.other_models import check_config, check_gguf
from model.families.registry import AROUND_TEXT, families
from model.files import ModelLoadError
from model.inspect import inspect_model
from model.model_config import ModelConfig
from tests.helpers.gguf_files import write_gguf

FOLDERS: dict[str, str] = {
    "BertModel": "embedding model", "XLMRobertaModel": "embedding model", "Qwen3Model": "embedding model",
    "Gemma3TextModel": "embedding model", "LlamaBidirectionalModel": "embedding model",
    "ModernBertForMaskedLM": "fills gaps", "Qwen3ForSequenceClassification": "reranker or classifier",
    "LlamaForCausalLMEagle3": "guesses tokens ahead", "Gemma4AssistantForCausalLM": "guesses tokens ahead",
    "LLaDAModelLM": "diffusion", "DreamModel": "diffusion", "RwkvForCausalLM": "Mamba 1",
    "MambaForCausalLM": "Mamba 1", "BloomForCausalLM": "ALiBi", "MptForCausalLM": "ALiBi"}
GGUFS: dict[str, tuple[dict[str, Any], str]] = {
    "bert": ({}, "embedding model"),
    "gemma-embedding": ({}, "embedding model"),
    "qwen3": ({"qwen3.pooling_type": 3}, "embedding model"),
    "qwen3, ranks": ({"qwen3.pooling_type": 4}, "reranker or classifier"),
    "clip": ({"general.type": "mmproj"}, "sees images or hears sounds, which is left out here; load the"),
    "llama": ({"general.type": "adapter"}, "LoRA adapter; load the model that it was made for"),
    "llama, measured": ({"general.type": "imatrix"}, "load the model itself"),
    "eagle3": ({}, "guesses tokens ahead for another model and is none by itself; load that one"),
    "glm4moe": ({"glm4moe.nextn_predict_layers": 1}, "guesses tokens ahead"),
    "t5": ({}, "encoder beside its decoder"),
    "dream": ({}, "diffusion"),
    "rwkv7": ({}, "RWKV"),
    "bloom": ({}, "ALiBi")}


def test_every_architecture_of_gguf_is_loaded_or_told_why_not():
    """Of those that the `gguf` package names."""
    known = {name for family in families() if family.gguf for name in family.gguf.architectures}
    for name in {*gguf.MODEL_ARCH_NAMES.values()} - known:
        with pytest.raises(ModelLoadError, match=r"^m\.gguf .{10,}[;(] ?"):
            check_gguf({"general.architecture": name}, "m.gguf")


def test_every_decoder_of_transformers_is_loaded_or_told_why_not():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    known = {name for family in families() for name in family.architectures}
    found = {name for names in NAMES.values() for name in ([names] if isinstance(names, str) else names)}
    for name in found - known - {"GotOcr2ForConditionalGeneration", *AROUND_TEXT}:
        with pytest.raises(ModelLoadError, match=rf"^config\.json: {name} .{{10,}}[;(] ?"):
            check_config({"architectures": [name], "is_encoder_decoder": False})


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_kind_is_told_for_what_it_is(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name], "model_type": "x"}))
    with pytest.raises(ModelLoadError, match=rf"^config\.json: {name} .*{FOLDERS[name]}.*$"):
        ModelConfig.from_folder(tmp_path)


def test_an_encoder_beside_a_decoder_is_told_by_its_config():
    raw = {"architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": True}
    with pytest.raises(ModelLoadError, match="WhisperForConditionalGeneration has an encoder beside"):
        ModelConfig.from_dict(raw, {}, "x")


def test_an_embedding_model_with_the_config_of_one_that_chats_is_told_by_what_lies_beside(tmp_path: Path):
    """Qwen3-Embedding: Qwen3ForCausalLM, and sentence-transformers' list of modules."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ModelLoadError, match=rf"^{tmp_path.name} makes vectors of texts .*load a model that"):
        ModelConfig.from_folder(tmp_path)


@pytest.mark.parametrize("name", GGUFS)
def test_a_gguf_file_of_another_kind_is_told_for_what_it_is(tmp_path: Path, name: str):
    keys, told = GGUFS[name]
    metadata = {"general.architecture": name.partition(",")[0], "tokenizer.ggml.tokens": ["x"], **keys}
    path = write_gguf(tmp_path / "m.gguf", metadata, {})
    problems = [problem for problem in inspect_model(path).problems if told in problem]
    assert len(problems) == 1 and problems[0].startswith("m.gguf ")


def test_a_model_that_sees_is_read_as_the_text_model_that_it_names():
    text = {"model_type": "qwen3", "vocab_size": 99, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    raw = {"architectures": ["InternVLForConditionalGeneration"], "text_config": text}
    config = ModelConfig.from_dict(raw, {}, "x")
    assert config.architecture == "qwen3" and config.is_text_part
    raw["text_config"] = text | {"model_type": "klingon"}
    with pytest.raises(ModelLoadError, match=r"model_type is 'klingon'; expected one of .* qwen, "):
        ModelConfig.from_dict(raw, {}, "x")
