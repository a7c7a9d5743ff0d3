"""MiniCPM: Llama's layers with scaled embeddings, branches and logits; the third attends to latents. All is
attended to, also where the fourth was trained to leave out most of a long context.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.deepseek import latent_attention, shared_rope
from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, num_layers, rms_norm, spec
from model.families.llama import uniform
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    return _scaled(fields, uniform(fields, qkv_bias=bias, o_bias=bias))


def third_from_config(fields: Fields) -> Spec:
    hidden, heads = fields.integer("hidden_size", 8, 1 << 16), fields.integer("num_attention_heads", 1, 1024)
    fields = fields.with_defaults(
        kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=hidden // heads,
        rms_norm_eps=1e-5, max_position_embeddings=32768, tie_word_embeddings=True)
    norm = rms_norm(fields)
    layer = Layer(latent_attention(fields, shared_rope(fields, interleaved=False)), dense(fields), norm)
    return _scaled(fields, spec(fields, [layer] * num_layers(fields), norm))


def _scaled(fields: Fields, spec: Spec) -> Spec:
    """With the factors of embeddings, branches and logits."""
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    depth = fields.number("scale_depth", 1e-6, 1e6, 1.0) / num_layers(fields) ** 0.5
    residual = fields.number("residual_multiplier", 1e-6, 1e6, depth)
    base = fields.number("dim_model_base", 1.0, 1 << 16, hidden)
    return replace(spec, layers=tuple(replace(layer, residual_scale=residual) for layer in spec.layers),
                   tied_head=fields.boolean("tie_word_embeddings", True),
                   embedding_scale=fields.number("scale_emb", 1e-6, 1e6, 1.0),
                   logit_scale=1 / fields.number("logits_scaling", 1e-6, 1e6, hidden / base))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Older files have not said the factors, which were those of MiniCPM 2B; the third's never do."""
    return {"scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256}


def _third_completed(config: dict[str, Any]) -> dict[str, Any]:
    whole, rotated, found = config.get("query_dim"), config.get("qk_rope_head_dim"), _completed(config)
    if isinstance(whole, int) and isinstance(rotated, int):
        found["qk_nope_head_dim"] = whole - rotated
    return found


FAMILIES = (
    Family("minicpm", ("MiniCPMForCausalLM",), from_config, gguf=Gguf(
        ("minicpm",), interleaved=True, keys={
            "embedding_scale": "scale_emb", "logit_scale": "logits_scaling"}, complete=_completed)),
    Family("minicpm3", ("MiniCPM3ForCausalLM",), third_from_config, gguf=Gguf(
        ("minicpm3",), complete=_third_completed, keys={
            "attention.key_length": "query_dim", "attention.q_lora_rank": "q_lora_rank",
            "attention.kv_lora_rank": "kv_lora_rank", "rope.dimension_count": "qk_rope_head_dim"})))
