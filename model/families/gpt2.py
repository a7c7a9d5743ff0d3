"""GPT-2, and StarCoder 1 and SantaCoder (GPT-BigCode): learned vectors of positions instead of a rotation,
norms with a mean, biases, an mlp without a gate.

GPT-2's folders have the inputs of matrices first. Of GPT-BigCode all queries share a key and a value.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Positions, Spec


def from_config(fields: Fields) -> Spec:
    fields = named(fields).with_defaults(tie_word_embeddings=True)
    norm = Norm("layer", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    mixer = attention(fields, None, qkv_bias=True, o_bias=True)
    if not fields.boolean("scale_attn_weights", True):
        mixer = replace(mixer, scale=1.0)
    layer = Layer(mixer, dense(fields, "activation_function", "gelu_new", gated=False, bias=True), norm)
    falls = fields.boolean("scale_attn_by_inverse_layer_idx")
    layers = [layer.with_attention(scale=mixer.scale / (index + 1)) if falls else layer
              for index in range(num_layers(fields))]
    return spec(fields, layers, norm, positions=Positions())


def big_code_from_config(fields: Fields) -> Spec:
    shared = {"num_key_value_heads": 1} if fields.boolean("multi_query", True) else {}
    return from_config(fields.with_defaults(activation_function="gelu_pytorch_tanh", **shared))


def named(fields: Fields) -> Fields:
    """With the keys of later configs for those of GPT-2's."""
    hidden = fields.raw.get("n_embd", fields.raw.get("hidden_size"))
    inner = fields.raw.get("n_inner")
    if inner is None and isinstance(hidden, int):
        inner = 4 * hidden
    return fields.with_defaults(
        hidden_size=hidden, num_hidden_layers=fields.raw.get("n_layer"), intermediate_size=inner,
        num_attention_heads=fields.raw.get("n_head"),
        max_position_embeddings=fields.raw.get("n_positions", fields.raw.get("n_ctx", 1024)))


_NAMES = replace(
    HUGGING_FACE, embeddings="transformer.wte", positions="transformer.wpe", layer="transformer.h.{}.",
    norm="transformer.ln_f", qkv=("attn.c_attn",), o_proj="attn.c_proj", gate_up=("mlp.c_fc",),
    down_proj="mlp.c_proj", attention_norm="ln_1", mlp_norm="ln_2")
_GGUF_NAMES = replace(GGUF, qkv=("attn_qkv",), gate_up=("ffn_up",))
_KEYS = {"attention.layer_norm_epsilon": "layer_norm_epsilon"}
FAMILIES = (
    Family("gpt2", ("GPT2LMHeadModel",), from_config, replace(
        _NAMES, qkv=("attn.c_attn~",), o_proj="attn.c_proj~", gate_up=("mlp.c_fc~",),
        down_proj="mlp.c_proj~"), Gguf(("gpt2",), _GGUF_NAMES, keys=_KEYS)),
    Family("gpt_bigcode", ("GPTBigCodeForCausalLM",), big_code_from_config,
           replace(_NAMES, fuses_heads=True), Gguf(("starcoder",), _GGUF_NAMES, keys=_KEYS)))
