"""LoRA adapters' files: read as PEFT and llama.cpp mean them, and what is not supported is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.files import ModelLoadError
from model.formats.adapter_files import open_adapter
from tests.helpers.adapters import Products, random_products, write_gguf_adapter, write_peft
from tests.helpers.gguf_files import write_gguf
from tests.helpers.tiny_models import TINY

QUERIES, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
SIZES = {QUERIES: (64, 64), DOWN: (64, 96)}


@pytest.fixture
def products() -> Products:
    return random_products(SIZES, rank=4)


def test_a_folder_of_peft_has_its_matrices_and_scales(tmp_path: Path, products: Products):
    file = open_adapter(write_peft(tmp_path / "a", products, lora_alpha=8))
    assert set(file.modules) == {QUERIES, DOWN} and not file.is_gguf
    for name, (down, up) in products.items():
        module = file.modules[name]
        assert (module.down_shape, module.up_shape, module.scale) == (down.shape, up.shape, 2.0)
        read = module.read()
        assert torch.equal(read[0], down) and torch.equal(read[1], up)


@pytest.mark.parametrize(("config", "scales"), [
    ({"lora_alpha": 6, "use_rslora": True}, (3.0, 3.0)),
    ({"lora_alpha": 6, "alpha_pattern": {"q_proj": 2}}, (0.5, 1.5)),
    ({"lora_alpha": 8, "r": 16, "rank_pattern": {"q_proj": 4, "layers.1.mlp.down_proj": 4}}, (2.0, 2.0)),
    ({"lora_alpha": 4, "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 8, "^mlp.down_proj": 9,
                                         "own_proj": 9}}, (2.0, 1.0)),
    ({"lora_alpha": 4, "alpha_pattern": {r"model\.layers\.1\.mlp\.down_proj$": 1}}, (1.0, 0.25))])
def test_scales_follow_alpha_rank_and_their_patterns(tmp_path: Path, products: Products,
                                                     config: dict[str, Any], scales: tuple[float, float]):
    """A pattern is a whole name, or its end behind a dot; with ^ only the whole one. Ranks are 4."""
    file = open_adapter(write_peft(tmp_path / "a", products, **config))
    assert (file.modules[QUERIES].scale, file.modules[DOWN].scale) == scales


@pytest.mark.parametrize(("config", "expected"), [
    ({"use_dora": True}, "use_dora is True: the adapter has DoRA"),
    ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]: .* merge_and_unload"),
    ({"bias": "lora_only"}, "bias is 'lora_only'; expected 'none'"),
    ({"lora_bias": True}, "lora_bias is True"),
    ({"use_qalora": True}, "use_qalora is True, which is not supported"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the model"),
    ({"alora_invocation_tokens": [1, 2]}, "activated LoRA"),
    ({"trainable_token_indices": [7]}, "embeddings of its own"),
    ({"layer_replication": [[0, 2]]}, "layers that are repeated"),
    ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "parameters that are no Linear"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'; supported: 'LORA'"),
    ({"r": 8}, r"q_proj\.lora_A\.weight has rank 4; adapter_config\.json says 8"),
    ({"lora_alpha": "much"}, "lora_alpha is 'much'; expected a number above 0"),
    ({"alpha_pattern": {"(a+)+b": 3}}, r"the expression '\(a\+\)\+b'; only names"),
    ({"rank_pattern": [4]}, r"rank_pattern is \[4\]; expected an object")])
def test_what_is_not_supported_is_refused_by_its_name(tmp_path: Path, products: Products,
                                                      config: dict[str, Any], expected: str):
    with pytest.raises(ModelLoadError, match=expected):
        open_adapter(write_peft(tmp_path / "a", products, **config))


def test_pickles_are_never_opened(tmp_path: Path, products: Products):
    folder = write_peft(tmp_path / "a", products)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelLoadError, match=r"only adapter_model\.bin, a pickle, .* writes safetensors"):
        open_adapter(folder)


@pytest.mark.parametrize(("names", "expected"), [
    (("q_proj.lora_A.weight",), r"there is .*lora_A\.weight, and no lora_B"),
    (("q_proj.lora_A.weight", "q_proj.lora_B.weight", "q_proj.lora_magnitude_vector"),
     "lora_magnitude_vector' is no part of a LoRA"),
    (("embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B"), "lora_embedding_A' is no part")])
def test_other_tensors_are_named(tmp_path: Path, products: Products, names: tuple[str, ...], expected: str):
    folder = write_peft(tmp_path / "a", products)
    save_file({f"base_model.model.{name}": torch.zeros(4, 4) for name in names},
              folder / "adapter_model.safetensors")
    with pytest.raises(ModelLoadError, match=expected):
        open_adapter(folder)


def test_what_is_no_number_is_an_error_when_it_is_read(tmp_path: Path, products: Products):
    products[QUERIES][0][1, 2] = torch.nan
    file = open_adapter(write_peft(tmp_path / "a", products))
    with pytest.raises(ModelLoadError, match=r"q_proj\.lora_A\.weight holds infinity or what is no number"):
        file.modules[QUERIES].read()


def test_a_path_without_an_adapter_says_what_is_expected(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"gone does not exist; expected a folder with adapter_config"):
        open_adapter(tmp_path / "gone")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"has no adapter_config\.json; .* It has a model"):
        open_adapter(tmp_path)


def test_a_gguf_adapter_has_its_matrices_and_scale(tmp_path: Path, products: Products):
    """Rank 4 and alpha 6; llama.cpp takes a scale of 1 where alpha is 0."""
    file = open_adapter(write_gguf_adapter(tmp_path / "a.gguf", products, TINY, 6.0))
    module = file.modules["blk.1.ffn_down"]
    assert set(file.modules) == {"blk.0.attn_q", "blk.1.ffn_down"}
    assert (file.is_gguf, file.architecture, module.scale) == (True, "llama", 1.5)
    down, up = module.read()
    assert torch.equal(down, products[DOWN][0]) and torch.equal(up, products[DOWN][1])
    file = open_adapter(write_gguf_adapter(tmp_path / "b.gguf", products, TINY, 0.0))
    assert file.modules["blk.1.ffn_down"].scale == 1.0


def test_a_gguf_adapter_of_blocks_is_what_they_mean(tmp_path: Path):
    parts = np.random.default_rng(1).standard_normal((2, 32, 32)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = {end: gguf.quantize(part, kind) for end, part in zip("ab", parts, strict=True)}
    write_gguf(tmp_path / "a.gguf", {"general.type": "adapter", "adapter.type": "lora",
                                     "general.architecture": "llama", "adapter.lora.alpha": 32.0},
               {f"blk.0.attn_v.weight.lora_{end}": (int(kind), data) for end, data in blocks.items()})
    read = open_adapter(tmp_path / "a.gguf").modules["blk.0.attn_v"].read()
    for got, data in zip(read, blocks.values(), strict=True):
        assert np.array_equal(got.numpy(), gguf.dequantize(data, kind))


@pytest.mark.parametrize(("metadata", "expected"), [
    ({"general.type": "model"}, r"general\.type is 'model'; expected 'adapter'\. Is it a model"),
    ({"adapter.type": "control_vector"}, r"adapter\.type is 'control_vector'; expected 'lora'"),
    ({"adapter.lora.alpha": math.inf}, r"adapter\.lora\.alpha is inf; expected a number"),
    ({"adapter.alora.invocation_tokens": np.array([1], dtype=np.int32)}, "activated LoRA")])
def test_what_a_gguf_file_is_else_is_named(tmp_path: Path, products: Products, metadata: dict[str, Any],
                                           expected: str):
    with pytest.raises(ModelLoadError, match=expected):
        open_adapter(write_gguf_adapter(tmp_path / "a.gguf", products, TINY, 1.0, **metadata))


def test_a_gguf_tensor_that_is_no_part_of_a_lora_is_named(tmp_path: Path):
    write_gguf(tmp_path / "a.gguf", {"general.type": "adapter", "adapter.type": "lora"},
               {"blk.0.attn_norm.weight": (0, np.ones(4, dtype=np.float32))})
    with pytest.raises(ModelLoadError, match=r"tensor 'blk\.0\.attn_norm\.weight' is no part of a LoRA"):
        open_adapter(tmp_path / "a.gguf")


def test_a_config_that_is_no_object_is_an_error(tmp_path: Path, products: Products):
    folder = write_peft(tmp_path / "a", products)
    (folder / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelLoadError, match=r"adapter_config\.json"):
        open_adapter(folder)
