"""LoRA adapters for tests, as PEFT and llama.cpp's converter write them, and what they make of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.helpers.gguf_files import write_gguf
from tests.helpers.gguf_models import gguf_name, permuted

Products = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By module: (A [rank, k], B [n, rank])."""


def random_products(sizes: Mapping[str, tuple[int, int]], rank: int = 4, seed: int = 0,
                    dtype: torch.dtype = torch.float32) -> Products:
    """Large enough to change every token. `sizes`: (outputs, inputs) by module."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / shape[1] ** 0.5).to(dtype)

    return {name: (random(rank, k), random(n, rank)) for name, (n, k) in sizes.items()}


def write_peft(folder: Path, products: Products, prefix: str = "base_model.model.", **config: Any) -> Path:
    """Rank and alpha are those of the first product unless `config` says otherwise: a scale of 1."""
    rank = len(next(iter(products.values()))[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "use_rslora": False, "use_dora": False,
        "bias": "none", "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {},
        "init_lora_weights": True, "target_modules": sorted({name.split(".")[-1] for name in products}),
        **config}))
    save_file({f"{prefix}{name}.lora_{part}.weight": tensor.contiguous()
               for name, pair in products.items() for part, tensor in zip("AB", pair, strict=True)},
              folder / "adapter_model.safetensors")
    return folder


def write_gguf_adapter(path: Path, products: Products, config: Mapping[str, Any], alpha: float,
                       **metadata: Any) -> Path:
    """Of a Llama with this config.json, in float32, with queries and keys in GGUF's order."""
    tensors = {}
    for name, (down, up) in products.items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        count = heads.get(name.split(".")[-1], 0)
        for end, tensor in (("a", down), ("b", permuted(up, count) if count else up)):
            tensors[f"{gguf_name(name + '.weight')}.lora_{end}"] = (0, tensor.float().numpy())
    return write_gguf(path, {"general.type": "adapter", "general.architecture": "llama",
                             "adapter.type": "lora", "adapter.lora.alpha": alpha, **metadata}, tensors)


def merged(tensors: Mapping[str, torch.Tensor], products: Products,
           scale: float = 1.0) -> dict[str, torch.Tensor]:
    """The model's weights with what the adapter adds to them."""
    result = dict(tensors)
    for name, (down, up) in products.items():
        result[name + ".weight"] = tensors[name + ".weight"] + scale * up.float() @ down.float()
    return result
