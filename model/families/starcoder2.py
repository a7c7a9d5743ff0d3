"""StarCoder 2: norms with a mean, biases everywhere, an mlp without a gate."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec, window_of
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=4096)
    bias = fields.boolean("use_bias", True)
    norm = Norm("layer", fields.number("norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    mixer = attention(fields, rope(fields), window=window_of(fields), qkv_bias=bias, o_bias=bias)
    layer = Layer(mixer, dense(fields, default="gelu_pytorch_tanh", gated=False, bias=bias), norm)
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("starcoder2", ("Starcoder2ForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.c_fc",), down_proj="mlp.c_proj"),
    Gguf(("starcoder2",), replace(GGUF, gate_up=("ffn_up",)), keys={
        "attention.layer_norm_epsilon": "norm_epsilon"},
        complete=lambda config: {"sliding_window": 4096})),)  # of all of them, which GGUF does not say
