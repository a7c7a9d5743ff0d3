"""Hunyuan: norms of heads after the rotation; A13B with experts and a shared one in every layer."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, moe, rms_norm
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    norm = HeadNorm(rms_norm(fields, default=1e-5), after_rope=True)
    return uniform(fields.with_defaults(rms_norm_eps=1e-5),
                   qk_norm=norm if fields.boolean("use_qk_norm", True) else None, qkv_bias=bias, o_bias=bias)


def mixture_from_config(fields: Fields) -> Spec:
    chosen = fields.raw.get("moe_topk", fields.raw.get("num_experts_per_tok"))
    if isinstance(chosen, list):  # of each layer
        if len(set(map(str, chosen))) != 1:
            raise fields.error("moe_topk", chosen, "the same number for all layers")
        chosen = chosen[0]
    fields = fields.with_defaults(rms_norm_eps=1e-5)
    fields = replace(fields, raw={**fields.raw, "num_experts_per_tok": 1 if chosen is None else chosen})
    expert, spec = dense(fields), from_config(fields)
    experts = moe(fields, expert, "num_experts", {"renormalized": True}, shared=expert)
    return replace(spec, layers=tuple(replace(layer, mlp=experts) for layer in spec.layers))


_NAMES = replace(HUGGING_FACE, query_norm="self_attn.query_layernorm", key_norm="self_attn.key_layernorm")
FAMILIES = (
    Family("hunyuan_v1_dense", ("HunYuanDenseV1ForCausalLM",), from_config, _NAMES,
           Gguf(("hunyuan-dense",))),
    Family("hunyuan_v1_moe", ("HunYuanMoEV1ForCausalLM",), mixture_from_config, replace(
        _NAMES, router="mlp.gate.wg", shared_gate_up=("mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj"),
        shared_down="mlp.shared_mlp.down_proj"), Gguf(("hunyuan-moe",), keys={
            "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"})))
