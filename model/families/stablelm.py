"""StableLM: norms with a mean and a bias, a quarter of a head rotated; in some both branches side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.25, max_position_embeddings=4096)
    eps = fields.number("layer_norm_eps", 0.0, 0.1, 1e-5)
    norm = Norm("layer", eps, has_bias=True)
    qk_norm = HeadNorm(Norm("layer", eps), weight="own") if fields.boolean("qk_layernorm") else None
    mixer = attention(fields, rope(fields), qk_norm=qk_norm, qkv_bias=fields.boolean("use_qkv_bias"))
    layer = Layer(mixer, dense(fields), norm,
                  parallel="one norm" if fields.boolean("use_parallel_residual") else None)
    return spec(fields, [layer] * num_layers(fields), norm)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """What GGUF tells by its tensors; older files call all of them parallel."""
    return {"use_parallel_residual": not config.get("has_mlp_norm"),
            "qk_layernorm": config.get("use_qk_norm", False)}


FAMILIES = (Family("stablelm", ("StableLmForCausalLM",), from_config, replace(
    HUGGING_FACE, query_norm="self_attn.q_layernorm", key_norm="self_attn.k_layernorm"), Gguf(
        ("stablelm",), present={"has_mlp_norm": "blk.0.ffn_norm.weight",
                                "use_qkv_bias": "blk.0.attn_q.bias"}, complete=_completed)),)
