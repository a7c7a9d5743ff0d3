"""PLM: DeepSeek's attention to latents, squared ReLU without a gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.deepseek import latent_attention, shared_rope
from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, num_layers, rms_norm, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True)
    norm, turned = rms_norm(fields), shared_rope(fields, interleaved=True)
    layer = Layer(latent_attention(fields, turned), dense(fields, default="relu2", gated=False), norm)
    return spec(fields, [layer] * num_layers(fields), norm)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    whole, turned = config.get("query_dim"), config.get("qk_rope_head_dim")
    found: dict[str, Any] = {"hidden_act": "relu2"}
    if isinstance(whole, int) and isinstance(turned, int):
        found["qk_nope_head_dim"] = whole - turned
    return found


FAMILIES = (Family("plm", ("PLMForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.up_proj",)), Gguf(
        ("plm",), replace(GGUF, gate_up=("ffn_up",)), complete=_completed, keys={
            "attention.key_length": "query_dim", "attention.value_length": "v_head_dim",
            "attention.kv_lora_rank": "kv_lora_rank", "rope.dimension_count": "qk_rope_head_dim"})),)
