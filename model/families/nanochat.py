"""nanochat: norms without weights, heads turned the other way round and normed after that, squared ReLU
without a gate, normed embeddings.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Spec


def from_config(fields: Fields) -> Spec:
    norm, bias = replace(rms_norm(fields), has_weight=False), fields.boolean("attention_bias")
    turned = rope(fields)
    backwards = tuple(-divisor for divisor in turned.divisors or (1.0,) * (turned.dim // 2))
    mixer = attention(fields, replace(turned, divisors=backwards), qkv_bias=bias, o_bias=bias,
                      qk_norm=HeadNorm(norm, weight="none", after_rope=True))
    layer = Layer(mixer, dense(fields, default="relu2", gated=False), norm)
    return spec(fields, [layer] * num_layers(fields), norm, embedding_norm=norm,
                logit_softcap=fields.optional_number("final_logit_softcapping", 1e-3, 1e6))


FAMILIES = (Family("nanochat", ("NanoChatForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.fc1",), down_proj="mlp.fc2")),)
