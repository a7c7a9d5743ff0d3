"""GPT-J: branches side by side behind one norm with a mean, a part of a head turned in neighbouring pairs, an
mlp without a gate; biases of the mlp and the head.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, attention, dense, head_sizes, num_layers, rope, spec
from model.families.gpt2 import named
from model.families.names import HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = named(fields)
    dim = head_sizes(fields)[2]
    fields = fields.with_defaults(partial_rotary_factor=fields.integer("rotary_dim", 2, dim, dim) / dim)
    norm = Norm("layer", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    layer = Layer(attention(fields, rope(fields, interleaved=True)), dense(
        fields, "activation_function", "gelu_new", gated=False, bias=True), norm, parallel="one norm")
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("gptj", ("GPTJForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.wte", layer="transformer.h.{}.", norm="transformer.ln_f",
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"), o_proj="attn.out_proj", gate_up=("mlp.fc_in",),
    down_proj="mlp.fc_out", attention_norm="ln_1")),)
