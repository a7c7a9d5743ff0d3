"""Llama Nemotron Super and Ultra, and DeciLM: Llama's layers, of which each has its own heads of keys and its
own width, and some have no attention or no mlp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, head_sizes, num_layers, rms_norm, rope, spec
from model.families.spec import Layer, Spec

_MULTIPLE = 256
"""Widths are rounded up to it."""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, intermediate_size=8)
    norm, mixer, mlp = rms_norm(fields), attention(fields, rope(fields)), dense(fields)
    return spec(fields, [Layer(replace(mixer, num_kv_heads=kv_heads) if kv_heads else None,
                               replace(mlp, intermediate_size=width) if width else None, norm)
                         for kv_heads, width in _sizes(fields)], norm)


def _sizes(fields: Fields) -> list[tuple[int, int]]:
    """(heads of keys, width of the mlp) of each layer; 0: it has none."""
    count, heads = num_layers(fields), head_sizes(fields)[0]
    if fields.raw.get("block_configs") is None:
        kv_heads, widths = (_of_layers(fields, key, count) for key in (
            "num_key_value_heads_per_layer", "intermediate_size_per_layer"))
        found = list(zip(kv_heads, widths, strict=True))
    else:
        blocks = fields.raw["block_configs"]
        if not isinstance(blocks, list) or len(blocks) != count or not all(
                isinstance(block, dict) for block in blocks):
            raise fields.error("block_configs", blocks, f"{count} objects")
        found = [_of_block(fields, replace(fields, raw=block), heads) for block in blocks]
    for kv_heads, _ in found:
        if kv_heads and heads % kv_heads:
            raise fields.error("num_key_value_heads", kv_heads, f"a divisor of {heads}")
    return found


def _of_layers(fields: Fields, key: str, count: int) -> list[int]:
    if fields.raw.get(key) is None:
        return [fields.integer(key.removesuffix("_per_layer"), 1, 1 << 20)] * count
    return [int(size) for size in fields.numbers(key, count, 0, 1 << 20)]


def _of_block(fields: Fields, block: Fields, heads: int) -> tuple[int, int]:
    mixer, mlp = block.object("attention"), block.object("ffn")
    if mixer is None or mlp is None:
        raise fields.error("block_configs", block.raw, "objects with attention and ffn")
    for part, key in ((mixer, "replace_with_linear"), (mlp, "replace_with_linear"), (mixer, "window_length"),
                      (mixer, "num_sink_tokens"), (mixer, "sparsify"), (mlp, "sparsify")):
        if part.raw.get(key):
            raise part.error(f"block_configs: {key}", part.raw[key], "none")
    shared, share = mixer.raw.get("n_heads_in_group"), mlp.raw.get("ffn_mult")
    has_none = mixer.boolean("no_op") or shared is None
    kv_heads = 0 if has_none else heads // mixer.integer("n_heads_in_group", 1, heads)
    if mlp.boolean("no_op") or share is None:
        return kv_heads, 0
    width = int(2 * mlp.number("ffn_mult", 1e-3, 1e3) * fields.integer("hidden_size", 8, 1 << 16) / 3)
    return kv_heads, -(-width // _MULTIPLE) * _MULTIPLE


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Heads and widths are lists, one for each layer."""
    found = {}
    for key in ("num_key_value_heads", "intermediate_size"):
        if isinstance(config.get(key), list):
            found[f"{key}_per_layer"] = config.pop(key)
    heads = config.get("num_attention_heads")
    if isinstance(heads, list) and heads and all(isinstance(each, int) for each in heads):
        kv_heads = found.get("num_key_value_heads_per_layer", heads)
        if any(own and not kept for own, kept in zip(heads, kv_heads, strict=False)):
            kv_heads = [-1]  # layers that are a product instead of attention: an error that shows them
        found["num_key_value_heads_per_layer"] = kv_heads
        config["num_attention_heads"] = max(heads)
    return found


FAMILIES = (Family("deci", ("DeciLMForCausalLM",), from_config, gguf=Gguf(
    ("deci",), interleaved=True, complete=_completed)),)
