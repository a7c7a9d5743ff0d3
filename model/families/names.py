"""Under which names the weights of a Spec lie in a file, and what the file leaves for the loader to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Names:
    """Modules; their tensors end in .weight and .bias. The names of a layer's parts follow `layer`.

    As Hugging Face's Llama has them, where a family says nothing else.
    """

    embeddings: str = "model.embed_tokens"
    positions: str = "model.embed_positions"
    layer: str = "model.layers.{}."
    norm: str = "model.norm"
    head: str = "lm_head"

    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # or one for all
    output_gate: str | None = None                   # None: with the queries, head by head
    o_proj: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")  # or one for both, or only up
    down_proj: str = "mlp.down_proj"
    slopes: tuple[str, str] = ("mlp.act_fn.alpha_p", "mlp.act_fn.alpha_n")  # of xielu; the tensors themselves
    attention_norm: str = "input_layernorm"          # before attention, or before both branches
    mlp_norm: str = "post_attention_layernorm"       # before the mlp
    attention_out_norm: str = "post_attention_layernorm"  # after them, in families that have such
    mlp_out_norm: str = "post_feedforward_layernorm"
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    sinks: str = "self_attn.sinks"                   # the tensor itself
    latents: tuple[str, ...] = ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa")
    query_latent_norm: str = "self_attn.q_a_layernorm"
    query_up: str = "self_attn.q_b_proj"
    latent_norm: str = "self_attn.kv_a_layernorm"
    heads_up: tuple[str, ...] = ("self_attn.kv_b_proj",)  # of all heads; or of each: keys' turned, values'

    # of layers with a state; in the delta rule one name instead of two: they lie together for each key head
    state_in: tuple[str, ...] = ("mamba.in_proj",)   # all inputs in their order; in the delta rule q k v, z
    state_heads: tuple[str, ...] = ()                # beta, decay: a number each for each value head
    state_up: tuple[str, str] = ("self_attn.f_b_proj", "self_attn.g_b_proj")  # decays and gates of low rank
    state_conv: tuple[str, ...] = ("mamba.conv1d",)  # of all inputs, or of each alike many
    state_norm: str = "mamba.norm"
    state_out: str = "mamba.out_proj"
    decay: str = "mamba.A_log"                       # these three are the tensors themselves
    step_bias: str = "mamba.dt_bias"
    skip: str = "mamba.D"

    router: str = "mlp.gate"
    router_correction: str = "mlp.gate.e_score_correction_bias"  # the tensor itself
    router_norm: str = "router.scale"                # the same
    expert_scale: str = "router.per_expert_scale"    # the same
    experts_norm: str = "pre_feedforward_layernorm_2"  # of a mixture and a shared expert that are apart
    experts_out_norm: str = "post_feedforward_layernorm_2"
    shared_out_norm: str = "post_feedforward_layernorm_1"
    expert_gate_up: tuple[str, ...] = ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj")
    expert_down: str = "mlp.experts.{}.down_proj"
    """name#3: number 3 of those that lie in one tensor; name~#3: of those that lie there inputs first."""
    shared_gate_up: tuple[str, ...] = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
    shared_down: str = "mlp.shared_expert.down_proj"
    shared_gate: str = "mlp.shared_expert_gate"
    expert_latents: tuple[str, str] = ("mlp.fc1_latent_proj", "mlp.fc2_latent_proj")  # before and after them

    layer_scale: str = "layer_scalar"                # the tensor itself
    layer_inputs: str = "model.embed_tokens_per_layer"
    layer_inputs_projection: str = "model.per_layer_model_projection"
    layer_inputs_norm: str = "model.per_layer_projection_norm"
    input_gate: str = "per_layer_input_gate"         # of a layer
    input_out: str = "per_layer_projection"
    input_norm: str = "post_per_layer_input_norm"

    stream_openings: str = "model.altup_projections.{}"
    stream_closings: str = "model.altup_unembed_projections.{}"
    stream_router: str = "altup.modality_router"     # of a layer
    stream_router_norm: str = "altup.router_norm"
    stream_predict: str = "altup.prediction_coefs"
    stream_correct: str = "altup.correction_coefs"
    stream_scale: str = "altup.correct_output_scale"  # the tensor itself
    beside: tuple[str, str] = ("laurel.linear_left", "laurel.linear_right")
    beside_norm: str = "laurel.post_laurel_norm"

    alternates_gate_up: bool = False
    """Outputs of an expert's gate and up come in turn."""
    fuses_heads: bool = False
    """The queries that share a key, it and its value lie together."""
    decay_is_log: bool = True
    """The decays of heads are -exp of what is stored."""
    norm_offset: float = 0.0
    """What is to be added to the weights of norms (not their biases); those of queries and keys, too."""
    last_norm_offset: float | None = None
    """The same of the norm before the head, where it is another."""


HUGGING_FACE = Names()
GGUF = Names(
    embeddings="token_embd", positions="position_embd", layer="blk.{}.", norm="output_norm", head="output",
    qkv=("attn_q", "attn_k", "attn_v"), o_proj="attn_output", gate_up=("ffn_gate", "ffn_up"),
    down_proj="ffn_down", attention_norm="attn_norm", mlp_norm="ffn_norm",
    attention_out_norm="post_attention_norm", mlp_out_norm="post_ffw_norm",
    state_in=("ssm_in",), state_up=("ssm_f_b", "ssm_g_b"),
    state_conv=("ssm_conv1d",), state_norm="ssm_norm", state_out="ssm_out",
    decay="ssm_a", step_bias="ssm_dt.bias", skip="ssm_d", decay_is_log=False,
    query_norm="attn_q_norm", key_norm="attn_k_norm", sinks="attn_sinks.weight",
    latents=("attn_q_a", "attn_kv_a_mqa"), query_latent_norm="attn_q_a_norm", query_up="attn_q_b",
    latent_norm="attn_kv_a_norm", heads_up=("attn_k_b#{}", "attn_v_b#{}"),
    router="ffn_gate_inp", router_correction="exp_probs_b.bias", router_norm="ffn_gate_inp.scale",
    expert_scale="ffn_down_exps.scale", experts_norm="pre_ffw_norm_2", experts_out_norm="post_ffw_norm_2",
    shared_out_norm="post_ffw_norm_1", expert_gate_up=("ffn_gate_exps#{}", "ffn_up_exps#{}"),
    expert_down="ffn_down_exps#{}",
    shared_gate_up=("ffn_gate_shexp", "ffn_up_shexp"), shared_down="ffn_down_shexp",
    shared_gate="ffn_gate_inp_shexp", expert_latents=("ffn_latent_down", "ffn_latent_up"),
    layer_scale="layer_output_scale.weight", layer_inputs="per_layer_token_embd",
    layer_inputs_projection="per_layer_model_proj", layer_inputs_norm="per_layer_proj_norm",
    input_gate="inp_gate", input_out="proj", input_norm="post_norm",
    stream_openings="altup_proj#{}", stream_closings="altup_unembd_proj#{}", stream_router="altup_router",
    stream_router_norm="altup_router_norm", stream_predict="altup_predict_coef",
    stream_correct="altup_correct_coef", stream_scale="altup_correct_scale.weight",
    beside=("laurel_l", "laurel_r"), beside_norm="laurel_post_norm")

_PREFIXES = (("", ""), ("model.", "model.language_model."), ("", "language_model."),
             ("model.", "language_model."), ("model.", "model.text_model."), ("model.", ""),
             ("transformer.", ""))
"""What stands before the names of a text model, and what does when it is a part of a larger one."""


_OUTSIDE_LAYERS = ("embeddings", "positions", "layer", "norm", "layer_inputs", "layer_inputs_projection",
                   "layer_inputs_norm", "stream_openings", "stream_closings")


def variants(names: Names) -> Iterator[Names]:
    """The names with each prefix that files are known to have; first those of a text model alone."""
    for old, new in _PREFIXES:
        yield replace(names, **{field: new + getattr(names, field).removeprefix(old)
                                for field in _OUTSIDE_LAYERS if getattr(names, field).startswith(old)},
                      head=new + names.head)


def located(names: Names, has: Callable[[str], bool]) -> Names:
    """The names with the prefix that the file has; unchanged if it has none of those that are known. Those of
    older GGUF files, or of what lies in one tensor there, where it is so.

    has  whether the file has a tensor of this name
    """
    for moved in variants(names):
        if has(moved.embeddings + ".weight"):
            head = moved.head if has(moved.head + ".weight") else names.head
            return _of_two_norms(_of_transformers(_of_other_gguf(replace(moved, head=head), has), has), has)
    return names


def _of_transformers(names: Names, has: Callable[[str], bool]) -> Names:
    """What transformers 5 saves of Kimi Linear has its dense mlps where the experts of other layers are."""
    dense = ("block_sparse_moe.gate_proj", "block_sparse_moe.up_proj")
    if has(names.layer.format(0) + dense[0] + ".weight"):
        names = replace(names, gate_up=dense, down_proj="block_sparse_moe.down_proj")
    return names


def _of_two_norms(names: Names, has: Callable[[str], bool]) -> Names:
    """Falcon 40B has a norm for each branch, under names that Falcon 7B has not."""
    for attention, mlp in (("ln_attn", "ln_mlp"), ("attn_norm_2", "attn_norm")):
        if has(names.layer.format(0) + attention + ".weight"):
            names = replace(names, attention_norm=attention, mlp_norm=mlp)
    return names


def _of_other_gguf(names: Names, has: Callable[[str], bool]) -> Names:
    """Experts had a tensor each until April 2024; what heads make of latents was one until April 2025. The
    converter joins queries, keys and values, and gate and up of experts, where it is asked to."""
    first = names.layer.format(0)
    if has(first + "ffn_gate.0.weight"):
        names = replace(names, expert_gate_up=("ffn_gate.{}", "ffn_up.{}"), expert_down="ffn_down.{}")
    if has(first + "attn_kv_b.weight"):
        names = replace(names, heads_up=("attn_kv_b",))
    if names.qkv == GGUF.qkv and "attn_qkv" not in names.state_in and _has_in_any_layer(
            names, has, "attn_qkv.weight"):
        names = replace(names, qkv=("attn_qkv",))
    if names.expert_gate_up == GGUF.expert_gate_up and _has_in_any_layer(
            names, has, "ffn_gate_up_exps.weight"):
        names = replace(names, expert_gate_up=("ffn_gate_up_exps#{}",))
    return names


def _has_in_any_layer(names: Names, has: Callable[[str], bool], name: str) -> bool:
    """The first ones may be of another kind than those behind them."""
    return any(has(names.layer.format(index) + name) for index in range(16))
