"""Llama models as GGUF files, from tensors by Hugging Face's names, as llama.cpp's converter writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tests.helpers.gguf_files import write_gguf

Type = gguf.GGMLQuantizationType
_MODULES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
            "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm"}


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor of Hugging Face's Llama."""
    module, _, end = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", module)
    return f"blk.{layer[1]}.{_MODULES[layer[2]]}.{end}" if layer else f"{_MODULES[module]}.{end}"


def metadata_of(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a config.json of Llama."""
    return {"general.architecture": "llama", "llama.block_count": config["num_hidden_layers"],
            "llama.context_length": config["max_position_embeddings"],
            "llama.embedding_length": config["hidden_size"],
            "llama.feed_forward_length": config["intermediate_size"],
            "llama.attention.head_count": config["num_attention_heads"],
            "llama.attention.head_count_kv": config["num_key_value_heads"],
            "llama.attention.key_length": config["head_dim"],
            "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
            "llama.rope.freq_base": config["rope_theta"], "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [f"<{index}>" for index in range(config["vocab_size"])],
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Elements i and i + head_dim / 2 of a head side by side, as LlamaModel.permute does."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def write_llama(path: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], kind: Type = Type.F32,
                **metadata: Any) -> dict[str, torch.Tensor]:
    """Write the file; matrices become `kind`. Returns what they are then, by the same names."""
    stored, read_back = {}, {}
    for name, tensor in tensors.items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        count = heads.get(name.split(".")[-2], 0)
        array = (permuted(tensor, count) if count else tensor).numpy()
        own = kind if array.ndim == 2 and array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Type.F32
        data = gguf.quantize(array, own)
        stored[gguf_name(name)] = (int(own), data)
        back = torch.from_numpy(np.array(gguf.dequantize(data, own)))
        if count:
            back = back.reshape(count, -1, 2, *back.shape[1:]).transpose(1, 2).reshape(back.shape)
        read_back[name] = back
    write_gguf(path, metadata_of(config) | metadata, stored)
    return read_back
