"""Baichuan 7B, 1 and 2: Llama's layers with queries, keys and values in one tensor; the head of the second is
normed. Those of 13B tell positions by ALiBi.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, num_layers
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Spec

_LAYERS_OF_13B = 40
_VOCAB_OF_SECOND = 125696


def from_config(fields: Fields) -> Spec:
    if num_layers(fields) == _LAYERS_OF_13B:
        raise fields.error("num_hidden_layers", _LAYERS_OF_13B, "32, as Baichuan 7B has: that of 13B tells "
                           "positions by ALiBi, which is not supported")
    is_second = fields.raw.get("vocab_size") == _VOCAB_OF_SECOND
    is_normed = fields.boolean("normed_head", is_second)
    return replace(uniform(fields), head_norm="rows" if is_normed else None)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The head is taken as it is in the file, as llama.cpp does."""
    return {"normed_head": False}


FAMILIES = (Family("baichuan", ("BaichuanForCausalLM", "BaiChuanForCausalLM"), from_config, replace(
    HUGGING_FACE, qkv=("self_attn.W_pack",)), Gguf(("baichuan",), interleaved=True, complete=_completed)),)
