"""MiniMax M2: a part of a head is turned, one norm over all heads of queries and one over all of keys;
experts in every layer, chosen by sigmoids that a number of each expert corrects.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, head_sizes, moe, rms_norm
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-6, num_experts_per_tok=8, head_dim=128, rope_theta=5e6)
    if fields.raw.get("rotary_dim") is not None:
        dim = head_sizes(fields)[2]
        fields = fields.with_defaults(partial_rotary_factor=fields.integer("rotary_dim", 2, dim) / dim)
    found = uniform(fields, qk_norm=HeadNorm(rms_norm(fields), span="projection"))
    experts = moe(fields, dense(fields), "num_local_experts", {"scoring": "sigmoid", "renormalized": True},
                  correction=True)
    return replace(found, layers=tuple(replace(layer, mlp=experts) for layer in found.layers))


_EXPERT = "block_sparse_moe.experts.{}."
FAMILIES = (Family("minimax_m2", ("MiniMaxM2ForCausalLM",), from_config, replace(
    HUGGING_FACE, router="block_sparse_moe.gate",
    router_correction="block_sparse_moe.e_score_correction_bias",
    expert_gate_up=(_EXPERT + "w1", _EXPERT + "w3"), expert_down=_EXPERT + "w2"), Gguf(("minimax-m2",), keys={
        "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "intermediate_size"})),)
