"""GPT-NeoX and Pythia: branches side by side with a norm each, biases, a part of a head is turned; queries,
keys and values of a head lie together.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        partial_rotary_factor=fields.number("rotary_pct", 0.0, 1.0, 0.25),
        rope_theta=fields.number("rotary_emb_base", 1.0, 1e12, 1e4))
    norm = Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    bias = fields.boolean("attention_bias", True)
    mlp = dense(fields, default="gelu", gated=False, bias=True)
    parallel = "two norms" if fields.boolean("use_parallel_residual", True) else None
    layer = Layer(attention(fields, rope(fields), qkv_bias=bias, o_bias=bias), mlp, norm, parallel=parallel)
    return spec(fields, [layer] * num_layers(fields), norm)


_NAMES = replace(
    HUGGING_FACE, embeddings="gpt_neox.embed_in", layer="gpt_neox.layers.{}.",
    norm="gpt_neox.final_layer_norm", head="embed_out", qkv=("attention.query_key_value",), fuses_heads=True,
    o_proj="attention.dense", gate_up=("mlp.dense_h_to_4h",), down_proj="mlp.dense_4h_to_h")
FAMILIES = (Family("gpt_neox", ("GPTNeoXForCausalLM",), from_config, _NAMES, Gguf(
    ("gptneox",), replace(GGUF, qkv=("attn_qkv",), gate_up=("ffn_up",)),
    keys={"use_parallel_residual": "use_parallel_residual"})),)
