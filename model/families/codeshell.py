"""CodeShell: norms with a mean, biases everywhere, an mlp without a gate, shared keys; queries, keys and
values in one tensor.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.gpt2 import named
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = named(fields).with_defaults(
        num_key_value_heads=fields.raw.get("num_query_groups"), tie_word_embeddings=True)
    if fields.raw.get("position_embedding_type", "rope") != "rope":
        raise fields.error("position_embedding_type", fields.raw["position_embedding_type"], "'rope'")
    norm = Norm("layer", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    layer = Layer(attention(fields, rope(fields), qkv_bias=True, o_bias=True), dense(
        fields, "activation_function", "gelu_pytorch_tanh", gated=False, bias=True), norm)
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("codeshell", ("CodeShellForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.wte", layer="transformer.h.{}.", norm="transformer.ln_f",
    qkv=("attn.c_attn",), o_proj="attn.c_proj", gate_up=("mlp.c_fc",), down_proj="mlp.c_proj",
    attention_norm="ln_1", mlp_norm="ln_2"), Gguf(
        ("codeshell",), replace(GGUF, gate_up=("ffn_up",)),
        keys={"attention.layer_norm_epsilon": "layer_norm_epsilon"})),)
