"""EXAONE 3, 3.5 and Deep: Llama's layers under names of their own."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    return uniform(fields.with_defaults(
        num_hidden_layers=fields.raw.get("num_layers"), hidden_act=fields.raw.get("activation_function"),
        rms_norm_eps=fields.raw.get("layer_norm_epsilon", 1e-5)))


FAMILIES = (Family("exaone", ("ExaoneForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.wte", layer="transformer.h.{}.", norm="transformer.ln_f",
    qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    o_proj="attn.attention.out_proj", gate_up=("mlp.c_fc_0", "mlp.c_fc_1"), down_proj="mlp.c_proj",
    attention_norm="ln_1", mlp_norm="ln_2"), Gguf(
        ("exaone",), keys={"attention.layer_norm_epsilon": "layer_norm_epsilon"})),)
