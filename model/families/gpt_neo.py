"""GPT-Neo, TinyStories among them: learned vectors of positions, scores as they are, windows on every other
layer.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, attention, dense, max_positions, num_layers, spec
from model.families.names import HUGGING_FACE
from model.families.spec import Layer, Norm, Positions, Spec


def from_config(fields: Fields) -> Spec:
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    fields = fields.with_defaults(
        num_hidden_layers=fields.raw.get("num_layers"), num_attention_heads=fields.raw.get("num_heads"),
        intermediate_size=4 * hidden, tie_word_embeddings=True)
    norm = Norm("layer", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    mlp = dense(fields, "activation_function", "gelu_new", gated=False, bias=True)
    window = fields.integer("window_size", 1, 1 << 24, 256)
    seen = {True: window if window < max_positions(fields) else None, False: None}
    layers = [Layer(attention(fields, None, scale=1.0, o_bias=True, window=seen[is_near]), mlp, norm)
              for is_near in _are_near(fields)]
    return spec(fields, layers, norm, positions=Positions())


def _are_near(fields: Fields) -> list[bool]:
    """By attention_layers, or by attention_types: ((kinds, how often), ...)."""
    count, types = num_layers(fields), fields.raw.get("attention_types")
    if fields.raw.get("attention_layers") is None and isinstance(types, list) and all(
            isinstance(part, list) and len(part) == 2 and isinstance(part[0], list)
            and isinstance(part[1], int) and 0 < part[1] <= count for part in types):
        fields = fields.with_defaults(
            attention_layers=[kind for kinds, times in types for kind in kinds * times])
    return [kind == "local" for kind in fields.choices("attention_layers", count, ("global", "local"))]


FAMILIES = (Family("gpt_neo", ("GPTNeoForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.wte", positions="transformer.wpe", layer="transformer.h.{}.",
    norm="transformer.ln_f", qkv=tuple(f"attn.attention.{kind}_proj" for kind in "qkv"),
    o_proj="attn.attention.out_proj", gate_up=("mlp.c_fc",), down_proj="mlp.c_proj", attention_norm="ln_1",
    mlp_norm="ln_2")),)
