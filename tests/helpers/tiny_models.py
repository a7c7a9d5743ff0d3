"""Random Llama folders for tests, written with safetensors and json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}


def linear_sizes(config: dict[str, Any], layer: int) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every Linear of a layer, by its full name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    prefix = f"model.layers.{layer}."
    return {prefix + "self_attn.q_proj": (queries, hidden), prefix + "self_attn.k_proj": (keys, hidden),
            prefix + "self_attn.v_proj": (keys, hidden), prefix + "self_attn.o_proj": (hidden, queries),
            prefix + "mlp.gate_proj": (inner, hidden), prefix + "mlp.up_proj": (inner, hidden),
            prefix + "mlp.down_proj": (hidden, inner)}


def random_tensors(config: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32,
                   ) -> dict[str, torch.Tensor]:
    """Weights by Hugging Face's names; large enough that every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 0.0) -> torch.Tensor:
        scale = scale or 1.5 / shape[-1] ** 0.5
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    vocab, hidden = config["vocab_size"], config["hidden_size"]
    tensors = {"model.embed_tokens.weight": random(vocab, hidden, scale=1.0),
               "model.norm.weight": random(hidden, scale=0.2) + 1}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = random(vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, (n, k) in linear_sizes(config, layer).items():
            tensors[name + ".weight"] = random(n, k)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = random(hidden, scale=0.2) + 1
    return tensors


def write_model(folder: Path, config: dict[str, Any] | None = None,
                tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """A complete folder (without tokenizer) of a random model; `changes` to TINY."""
    config = {**(config or TINY), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config) if tensors is None else tensors, folder / "model.safetensors")
    return folder


# ---- GPTQ, packed bit by bit: slow and independent of model/formats -----------------------------------


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Along axis 0, lowest bits first, one continuous stream: [rows, n] -> int32 [rows * bits / 32, n]."""
    stream = ((values[:, None, :].astype(np.int64) >> np.arange(bits)[None, :, None]) & 1)
    stream = stream.reshape(-1, 32, values.shape[1])
    words = (stream << np.arange(32)[None, :, None]).sum(1).astype(np.uint32)
    return np.ascontiguousarray(words).view(np.int32)


def unpack_bits(words: np.ndarray, bits: int) -> np.ndarray:
    """The reverse of pack_bits."""
    stream = (words.view(np.uint32)[:, None, :].astype(np.int64) >> np.arange(32)[None, :, None]) & 1
    stream = stream.reshape(-1, bits, words.shape[1])
    return (stream << np.arange(bits)[None, :, None]).sum(1)


def gptq_tensors(weight_shape: tuple[int, int], *, bits: int, group_size: int, act_order: bool = False,
                 sym: bool = False, version: int = 1, seed: int = 0,
                 ) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Random GPTQ tensors of a Linear [n, k], and the float64 weight that they stand for."""
    n, k = weight_shape
    rng = np.random.default_rng(seed)
    size = k if group_size == -1 else group_size
    groups = -(-k // size)
    codes = rng.integers(0, 1 << bits, (k, n))
    zeros = np.full((groups, n), 1 << (bits - 1)) if sym else rng.integers(1, 1 << bits, (groups, n))
    scales = rng.uniform(0.5, 1.5, (groups, n)).astype(np.float16) / np.float16(2 ** bits * k ** 0.5 / 3)
    g_idx = np.arange(k) // size
    if act_order:
        g_idx = g_idx[rng.permutation(k)]
    weight = (codes - zeros[g_idx]) * scales[g_idx].astype(np.float64)
    stored = zeros - 1 if version == 1 else zeros
    tensors = {"qweight": pack_bits(codes, bits),
               "qzeros": np.ascontiguousarray(pack_bits(stored.T, bits).T),
               "scales": scales, "g_idx": g_idx.astype(np.int32)}
    return {name: torch.from_numpy(array) for name, array in tensors.items()}, weight.T


def dequantize_gptq(tensors: dict[str, torch.Tensor], name: str, bits: int, version: int = 1) -> np.ndarray:
    """float64 [n, k] of a module in a GPTQ file, bit by bit."""
    part = {key: tensors[f"{name}.{key}"].numpy() for key in ("qweight", "qzeros", "scales", "g_idx")}
    codes = unpack_bits(part["qweight"], bits)
    zeros = unpack_bits(np.ascontiguousarray(part["qzeros"].T), bits).T + (1 if version == 1 else 0)
    group = part["g_idx"]
    return ((codes - zeros[group]) * part["scales"].astype(np.float64)[group]).T
