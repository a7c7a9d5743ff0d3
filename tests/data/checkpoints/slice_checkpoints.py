"""Cut small slices out of whole GPTQ checkpoints; see README.md beside this file.

python -m tests.data.checkpoints.slice_checkpoints DIR, where DIR holds gptqmodel/<folder>/ and
gptqmodel/<folder>.dequant_fp32_reference.safetensors. Needs transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.tiny_models import dequantize_gptq

VOCAB = 128
SLICES = {"v1_w4g64_act_asym": "gptq_v1_w4g64_act_asym", "lmhead_w4g64": "gptq_lmhead_w4g64"}
MODULES = {"gptq_v1_w3g64": "self_attn.k_proj", "gptq_v1_w4g128_sym": "mlp.down_proj",
           "gptq_v2_w4g64_act_asym": "self_attn.v_proj"}
HERE = Path(__file__).parent


def dense_model(config: dict, tensors: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    """transformers' model in float32 with the weights that the packed tensors stand for."""
    settings = config["quantization_config"]
    version = 2 if settings.get("checkpoint_format") == "gptq_v2" else 1
    weights = {name: tensor.float() for name, tensor in tensors.items() if name.endswith(".weight")}
    for name in {name.rpartition(".")[0] for name in tensors if name.endswith(".qweight")}:
        k = tensors[name + ".g_idx"].numel()
        bits = tensors[name + ".qweight"].shape[0] * 32 // k
        weights[name + ".weight"] = torch.from_numpy(
            np.ascontiguousarray(dequantize_gptq(tensors, name, bits, version), np.float32))
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**{**plain, "dtype": "float32"})).float().eval()
    model.load_state_dict(weights, strict=True)
    return model


@torch.no_grad()
def logits(model: LlamaForCausalLM, token_ids: torch.Tensor) -> torch.Tensor:
    return model(token_ids.long()).logits


def check_whole(config: dict, tensors: dict[str, torch.Tensor], reference: Path) -> None:
    """Our way to the logits must give the tool's own reference."""
    model, expected = dense_model(config, tensors), load_file(reference)
    for length in (1, 7, 64, 100):
        want = expected[f"logits_in{length}"]
        error = (logits(model, expected[f"in{length}"]) - want).abs().max() / want.abs().max()
        assert error < 1e-5, (reference, length, float(error))


def cut(tensors: dict[str, torch.Tensor], bits_of_head: int) -> dict[str, torch.Tensor]:
    """The first layer and the first VOCAB tokens."""
    kept = {name: tensor for name, tensor in tensors.items()
            if ".layers." not in name or ".layers.0." in name}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in kept:
            kept[name] = kept[name][:VOCAB].clone()
    for part, width in (("qweight", VOCAB), ("scales", VOCAB), ("qzeros", VOCAB * bits_of_head // 32)):
        if f"lm_head.{part}" in kept:
            kept[f"lm_head.{part}"] = kept[f"lm_head.{part}"][:, :width].clone()
    return kept


def main(root: Path) -> None:
    for target, source in SLICES.items():
        folder = root / "gptqmodel" / source
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
        reference = folder.with_name(source + ".dequant_fp32_reference.safetensors")
        check_whole(config, tensors, reference)
        config |= {"num_hidden_layers": 1, "vocab_size": VOCAB}
        tensors = cut(tensors, bits_of_head=8)
        out = HERE / target
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        model = dense_model(config, tensors)
        expected = {}
        for length in (1, 7, 64):
            expected[f"in{length}"] = load_file(reference)[f"in{length}"] % VOCAB
            expected[f"logits_in{length}"] = logits(model, expected[f"in{length}"])
        save_file(expected, out / "expected.safetensors")
    modules = {}
    for source, module in MODULES.items():
        for name, tensor in load_file(root / "gptqmodel" / source / "model.safetensors").items():
            if name.startswith(f"model.layers.0.{module}."):
                modules[f"{source}.{module}.{name.rpartition('.')[2]}"] = tensor
    save_file(modules, HERE / "modules.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
