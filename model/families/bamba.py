"""Bamba: Mamba 2 on most layers, attention with half of a head turned on the others, an mlp in each."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.mamba import mamba2
from model.families.names import HUGGING_FACE
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.5, rms_norm_eps=1e-5, mamba_n_heads=128,
                                  mamba_d_state=256)
    norm, mlp, count = rms_norm(fields), dense(fields, bias=fields.boolean("mlp_bias")), num_layers(fields)
    bias, attends = fields.boolean("attention_bias"), fields.raw.get("attn_layer_indices") or []
    if not isinstance(attends, list) or not all(index in range(count) for index in attends):
        raise fields.error("attn_layer_indices", attends, f"numbers of layers, 0 to {count - 1}")
    mixers = {True: attention(fields, rope(fields), qkv_bias=bias, o_bias=bias) if attends else None,
              False: mamba2(fields)}
    return spec(fields, [Layer(mixers[index in attends], mlp, norm) for index in range(count)], norm)


FAMILIES = (Family("bamba", ("BambaForCausalLM",), from_config, replace(
    HUGGING_FACE, norm="model.final_layernorm", mlp_norm="pre_ff_layernorm",
    gate_up=("feed_forward.gate_proj", "feed_forward.up_proj"), down_proj="feed_forward.down_proj")),)
