"""gpt-oss's folders in MXFP4 against transformers with the numbers that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.engine.loading import load_engine
from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.weights import GroupMatrix
from tests.helpers.chosen_experts import held_to, noted_choices
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import load

NUMBERS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
EXPERT = "model.layers.{}.mlp.experts.{}"


def quantized(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(blocks, scales, the numbers that they are) of [experts, n, k]."""
    groups = weight.unflatten(-1, (-1, 32))
    exponents = (groups.abs().amax(-1) / 6).log2().ceil()
    scaled = groups / 2 ** exponents.unsqueeze(-1)
    codes = (scaled.unsqueeze(-1) - NUMBERS).abs().argmin(-1)
    blocks = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
    numbers = (NUMBERS[codes] * 2 ** exponents.unsqueeze(-1)).flatten(-2)
    return blocks, (exponents + 127).to(torch.uint8), numbers


def write_mxfp4(folder: Path) -> Any:
    """A folder in OpenAI's layout; returns the model of the same numbers."""
    model = write_family(folder, "gpt-oss", intermediate_size=32)
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    for index, layer in enumerate(model.model.layers):
        for part in ("gate_up_proj", "down_proj"):
            parameter = getattr(layer.mlp.experts, part)
            blocks, scales, numbers = quantized(parameter.data.transpose(1, 2))
            parameter.data = numbers.transpose(1, 2).contiguous()
            name = EXPERT.format(index, part)
            del tensors[name]
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


@pytest.fixture
def changed(tmp_path: Path) -> Any:
    """change(name, tensor): the folder with a tensor replaced."""
    write_mxfp4(tmp_path)

    def change(name: str, tensor: Tensor) -> Path:
        tensors = load_file(tmp_path / "model.safetensors")
        tensors[name] = tensor
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return change


def test_logits_are_those_of_the_same_numbers(tmp_path: Path):
    model = write_mxfp4(tmp_path)
    token_ids = torch.randint(0, 96, (1, 60), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = model(token_ids, use_cache=False).logits[0]
    engine = load(tmp_path, exact=True, cache="fp32", prefill_chunk=32)
    try:
        got = engine.logits(token_ids[0].tolist())
    finally:
        engine.close()
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


def test_rounded_activations_change_logits_a_little_where_the_same_experts_are_chosen(tmp_path: Path):
    """As chats compute them. Where other experts are chosen at a near tie, a row may be off by a fifth."""
    write_mxfp4(tmp_path)
    token_ids = torch.randint(0, 96, (60,), generator=torch.Generator().manual_seed(2)).tolist()
    exact, rounded = load(tmp_path, exact=True, cache="fp32"), load(tmp_path)
    try:
        with noted_choices() as choices:
            want = exact.logits(token_ids)
        with held_to(choices):
            got = rounded.logits(token_ids)
    finally:
        exact.close()
        rounded.close()
    assert 0 < float((got - want).abs().max() / want.abs().max()) < 3e-2


def test_experts_keep_the_files_bits(tmp_path: Path):
    model = write_mxfp4(tmp_path)
    config, reader = open_model(tmp_path)
    assert reader.describe() == "MXFP4"
    name = config.names.layer.format(1) + config.names.expert_down.format(3)
    matrix, info = reader.matrix(name, 64, 32), reader.matrix_info(name, 64, 32)
    assert isinstance(matrix, GroupMatrix)
    assert (info.kind, info.nbytes) == ("t4", 64 * (32 // 2 + 1 + 4))
    assert torch.equal(matrix.groups.dequantize(), model.model.layers[1].mlp.experts.down_proj.data[3].T)


def test_a_scale_that_is_no_number_is_refused(changed: Any):
    folder = changed(EXPERT.format(0, "down_proj_scales"), torch.full((5, 64, 1), 255, dtype=torch.uint8))
    with pytest.raises(ModelLoadError, match=r"down_proj_scales.* holds NaN"):
        load_engine(folder)


def test_blocks_of_another_shape_are_refused(changed: Any):
    folder = changed(EXPERT.format(2, "gate_up_proj_blocks"), torch.zeros(5, 64, 3, 16, dtype=torch.uint8))
    with pytest.raises(ModelLoadError, match=r"gate_up_proj_blocks.*\[64, 3, 16\]; expected"):
        load_engine(folder)
