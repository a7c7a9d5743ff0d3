"""The small model that ships as a GGUF file, which other engines run: float32 of its 4-bit weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor

_MODULES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def write_starter(source: Path, target: Path) -> None:
    """`source` is the folder starter/."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("Parlor's starter")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, source)
    stored = {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
              for name, tensor in load_file(source / "model.safetensors").items()}
    for name, array in _tensors(stored, config):
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, source: Path) -> None:
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    pieces = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    special = {int(token) for token in settings["added_tokens_decoder"]}
    kinds = gguf.TokenType

    def kind(token: int) -> int:
        if pieces.is_unknown(token):
            return kinds.UNKNOWN
        if token in special or pieces.is_control(token):
            return kinds.CONTROL
        return kinds.BYTE if pieces.is_byte(token) else kinds.NORMAL

    tokens = range(pieces.vocab_size())
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(token) for token in tokens])
    writer.add_token_scores([pieces.get_score(token) for token in tokens])
    writer.add_token_types([kind(token) for token in tokens])
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_add_bos_token(False)  # the template writes it
    writer.add_add_space_prefix(settings["add_prefix_space"])
    writer.add_chat_template(settings["chat_template"])


def _tensors(stored: dict[str, np.ndarray], config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    yield "token_embd.weight", stored["model.embed_tokens.weight"]
    yield "output_norm.weight", stored["model.norm.weight"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for theirs, ours in _NORMS.items():
            yield f"blk.{layer}.{ours}.weight", stored[f"{prefix}.{theirs}.weight"]
        for theirs, ours in _MODULES.items():
            weight = _widened(stored, f"{prefix}.{theirs}")
            if ours in heads:  # elements i and i + head_dim / 2 side by side
                paired = weight.reshape(heads[ours], 2, -1, weight.shape[1]).swapaxes(1, 2)
                weight = paired.reshape(weight.shape)
            yield f"blk.{layer}.{ours}.weight", weight


def _widened(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    """float32 [out, in] of GPTQ's symmetric 4-bit codes: (code - 8) * scale, eight codes a word."""
    words, scales = stored[f"{name}.qweight"], stored[f"{name}.scales"]
    codes = (words[:, None, :] >> np.arange(0, 32, 4, dtype=np.int32)[None, :, None]) & 15
    codes = codes.reshape(-1, words.shape[1])
    return ((codes - 8) * np.repeat(scales, len(codes) // len(scales), axis=0)).T
