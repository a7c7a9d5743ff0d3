"""Granite 3: Llama's layers with multipliers of four kinds, in some with experts. Granite 4: the same with
Mamba 2 on most layers, experts beside the mlp in some, and mostly no RoPE.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, moe, num_layers
from model.families.llama import uniform
from model.families.mamba import GGUF_KEYS as MAMBA_KEYS
from model.families.mamba import layers_with_heads, mamba2
from model.families.names import HUGGING_FACE
from model.families.spec import Dense, Moe, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    scale = fields.number("attention_multiplier", 1e-6, 1e6, 1.0)
    spec = uniform(fields, scale=scale, qkv_bias=bias, o_bias=bias)
    residual = fields.number("residual_multiplier", 1e-6, 1e6, 1.0)
    return replace(spec, layers=tuple(replace(layer, residual_scale=residual) for layer in spec.layers),
                   embedding_scale=fields.number("embedding_multiplier", 1e-6, 1e6, 1.0),
                   logit_scale=1 / fields.number("logits_scaling", 1e-6, 1e6, 1.0))


def hybrid_from_config(fields: Fields) -> Spec:
    if fields.boolean("is_bamba"):
        raise fields.error("attention.scale", None, "a number, as Granite has it: llama.cpp's converter "
                           "orders heads of Bamba as if all of them were turned; load its folder")
    count = num_layers(fields)
    kinds = fields.choices("layer_types", count, ("attention", "mamba", "full_attention", "linear_attention"))
    mlp = _mlp(fields)
    raw = {key: value for key, value in fields.raw.items() if key != "layer_types"}
    spec = from_config(replace(fields, raw={**raw, "intermediate_size": 8}))
    if fields.raw.get("position_embedding_type") != "rope":
        spec = replace(spec, layers=tuple(layer.with_attention(rope=None) for layer in spec.layers))
    has_state = [kind in ("mamba", "linear_attention") for kind in kinds]
    mamba = mamba2(fields) if any(has_state) else None
    return replace(spec, layers=tuple(
        replace(layer, mlp=mlp, mixer=mamba if is_mamba else layer.mixer)
        for layer, is_mamba in zip(spec.layers, has_state, strict=True)))


def mixture_from_config(fields: Fields) -> Spec:
    """Granite 3's: experts in every layer, in some beside one of every token."""
    shared = None
    if fields.raw.get("shared_intermediate_size"):
        shared = Dense(fields.integer("shared_intermediate_size", 8, 1 << 20))
    experts = moe(fields, Dense(fields.integer("intermediate_size", 8, 1 << 20)), "num_local_experts",
                  {"scoring": "softmax of chosen"}, shared=shared)
    spec = from_config(fields)
    return replace(spec, layers=tuple(replace(layer, mlp=experts) for layer in spec.layers))


def _mlp(fields: Fields) -> Dense | Moe:
    """One of every token, and beside it experts where there are some."""
    shared = Dense(fields.integer("shared_intermediate_size", 8, 1 << 20, 1024))
    if not fields.raw.get("num_local_experts"):
        return shared
    return moe(fields, Dense(fields.integer("intermediate_size", 8, 1 << 20)), "num_local_experts",
               {"scoring": "softmax of chosen"}, shared=shared)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """GGUF tells layers by their heads, has the width of the one mlp under another key, and says whether RoPE
    was trained."""
    attends, completed = layers_with_heads(config), {"is_bamba": "attention_multiplier" not in config}
    if attends is not None:
        completed["layer_types"] = ["attention" if is_so else "mamba" for is_so in attends]
    if not config.get("num_local_experts"):
        completed["shared_intermediate_size"] = config.get("intermediate_size")
    if config.pop("rope_finetuned", True):
        completed["position_embedding_type"] = "rope"
    return completed


MIXTURE_NAMES = replace(
    HUGGING_FACE, gate_up=("shared_mlp.input_linear",), down_proj="shared_mlp.output_linear",
    shared_gate_up=("shared_mlp.input_linear",), shared_down="shared_mlp.output_linear",
    router="block_sparse_moe.router.layer", expert_gate_up=("block_sparse_moe.input_linear#{}",),
    expert_down="block_sparse_moe.output_linear#{}")
MIXTURE_KEYS = {
    "logit_scale": "logits_scaling", "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_feed_forward_length": "shared_intermediate_size"}
_HYBRID_KEYS = {"rope.scaling.finetuned": "rope_finetuned", **MIXTURE_KEYS, **MAMBA_KEYS}

def _uniform(config: dict[str, Any]) -> dict[str, Any]:
    """Granite 4 without layers of Mamba 2, whose heads are told of each layer."""
    layers_with_heads(config)
    return {}


FAMILIES = (
    Family("granite", ("GraniteForCausalLM",), from_config, gguf=Gguf(
        ("granite",), interleaved=True, keys={"logit_scale": "logits_scaling"}, complete=_uniform)),
    Family("granitemoe", ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"), mixture_from_config,
           MIXTURE_NAMES, Gguf(("granitemoe",), interleaved=True, keys=MIXTURE_KEYS, complete=_uniform)),
    Family("granitemoehybrid", ("GraniteMoeHybridForCausalLM",), hybrid_from_config, MIXTURE_NAMES,
           Gguf(("granitehybrid",), interleaved=True, keys=_HYBRID_KEYS, complete=_completed)))
