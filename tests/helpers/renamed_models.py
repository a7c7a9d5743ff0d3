"""Models of families that transformers has no class of: those of another family of the same layers, under the
names and with the config.json that such models are published with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers.family_models import write_family

_PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
_LATER = {"num_experts": 8, "num_shared_experts": 1, "n_group": 2, "topk_group": 1, "norm_topk_prob": True}


@dataclass(frozen=True)
class Renamed:
    """variant, changes: of family_models; config: what else config.json says, None: what it does not;
    names: patterns of what they have instead."""

    architecture: str
    variant: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


RENAMED = {
    "exaone": Renamed(
        "ExaoneForCausalLM", "llama 3", {}, {
            "num_hidden_layers": None, "rms_norm_eps": None, "hidden_act": None, "num_layers": 4,
            "layer_norm_epsilon": 1e-6, "activation_function": "silu"},
        {r"^model\.embed_tokens": "transformer.wte", r"^model\.layers": "transformer.h",
         r"^model\.norm": "transformer.ln_f", "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2",
         r"self_attn\.o_proj": "attn.attention.out_proj", "self_attn": "attn.attention",
         "gate_proj": "c_fc_0", "up_proj": "c_fc_1", "down_proj": "c_proj"}),
    "baichuan": Renamed("BaichuanForCausalLM", "llama 3", _PLAIN | {"num_key_value_heads": 4}, {
        "num_key_value_heads": None}, {r"self_attn\.qkv": "self_attn.W_pack"}),
    "internlm": Renamed("InternLMForCausalLM", "llama 3", _PLAIN | {
        "num_key_value_heads": 4, "attention_bias": True}, {"attention_bias": None, "bias": True}),
    "pangu": Renamed("PanguEmbeddedForCausalLM", "llama 3", _PLAIN | {"attention_bias": True}, {
        "attention_bias": None, "bias": True}),
    "xverse": Renamed("XverseForCausalLM", "llama 3", _PLAIN | {"num_key_value_heads": 4}, {
        "num_key_value_heads": None}),
    "orion": Renamed("OrionForCausalLM", "stablelm", {
        "use_qkv_bias": False, "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
        {"rms_norm_eps": 1e-5, "layer_norm_eps": None, "partial_rotary_factor": None}),
        "maincoder": Renamed("MaincoderForCausalLM", "hunyuan", {"rms_norm_eps": 1e-6}, {}, {
        "query_layernorm": "q_norm", "key_layernorm": "k_norm"}),
    "qwen": Renamed(
        "QWenLMHeadModel", "qwen 2 windows", {
            **_PLAIN, "num_key_value_heads": 4, "use_sliding_window": False, "sliding_window": None}, {
                "num_key_value_heads": None, "rms_norm_eps": None, "rope_parameters": None,
                "intermediate_size": 160, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 1e4,
                "seq_length": 512, "max_position_embeddings": 2048, "kv_channels": 16},
        {r"^model\.embed_tokens": "transformer.wte", r"^model\.layers": "transformer.h",
         r"^model\.norm": "transformer.ln_f", "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2",
         r"self_attn\.o_proj": "attn.c_proj", r"self_attn\.qkv": "attn.c_attn", r"mlp\.gate_proj": "mlp.w2",
         r"mlp\.up_proj": "mlp.w1", r"mlp\.down_proj": "mlp.c_proj"}),
    "open elm": Renamed(
        "OpenELMForCausalLM", "qwen 3", {"head_dim": 16, "tie_word_embeddings": True, **_PLAIN}, {
            "hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None,
            "num_key_value_heads": None, "intermediate_size": None, "max_position_embeddings": None,
            "model_dim": 64, "num_transformer_layers": 4, "num_query_heads": [4] * 4, "num_kv_heads": [2] * 4,
            "ffn_multipliers": [1.25] * 4, "ffn_dim_divisor": 8, "max_context_length": 512,
            "rope_freq_constant": 10000, "head_dim": 16},
        {r"^model\.embed_tokens": "transformer.token_embeddings", r"^model\.layers": "transformer.layers",
         r"^model\.norm": "transformer.norm", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm", r"self_attn\.o_proj": "attn.out_proj",
         r"self_attn\.qkv": "attn.qkv_proj", "self_attn": "attn", r"mlp\.gate_up": "ffn.proj_1",
         r"mlp\.down_proj": "ffn.proj_2"}),
    "code shell": Renamed(
        "CodeShellForCausalLM", "starcoder 2", {"sliding_window": None}, {
            "hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None,
            "num_key_value_heads": None, "intermediate_size": None, "max_position_embeddings": None,
            "n_embd": 64, "n_layer": 4, "n_head": 4, "num_query_groups": 2, "n_inner": 80, "n_positions": 512,
            "position_embedding_type": "rope", "norm_epsilon": None, "layer_norm_epsilon": 1e-5,
            "hidden_act": None, "activation_function": "gelu_pytorch_tanh"},
        {r"^model\.embed_tokens": "transformer.wte", r"^model\.layers": "transformer.h",
         r"^model\.norm": "transformer.ln_f", "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2",
         r"self_attn\.o_proj": "attn.c_proj", r"self_attn\.qkv": "attn.c_attn"}),
    "chat glm": Renamed(
        "ChatGLMModel", "glm", {"rms_norm_eps": 1e-5, "rope_parameters": {
            "rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.5}}, {
            "num_hidden_layers": None, "num_key_value_heads": None, "intermediate_size": None,
            "max_position_embeddings": None, "rms_norm_eps": None, "head_dim": None, "vocab_size": 90,
            "attention_bias": None, "rope_parameters": None, "num_layers": 4, "kv_channels": 16,
            "multi_query_attention": True, "multi_query_group_num": 2, "ffn_hidden_size": 80,
            "add_qkv_bias": True, "layernorm_epsilon": 1e-5, "rope_ratio": 3, "seq_length": 512,
            "padded_vocab_size": 96},
        {r"^model\.embed_tokens": "transformer.embedding.word_embeddings",
         r"^model\.layers": "transformer.encoder.layers",
         r"^model\.norm": "transformer.encoder.final_layernorm",
         "^lm_head": "transformer.output_layer", r"self_attn\.o_proj": "self_attention.dense",
         r"self_attn\.qkv": "self_attention.query_key_value", r"mlp\.gate_up_proj": "mlp.dense_h_to_4h",
         r"mlp\.down_proj": "mlp.dense_4h_to_h"}),
    "plm": Renamed("PLMForCausalLM", "youtu", {"q_lora_rank": None}, {"hidden_act": "relu2"}),
    "small thinker": Renamed(
        "SmallThinkerForCausalLM", "smollm 3", {
            **_PLAIN, "no_rope_layers": [0, 1, 1, 1], "use_sliding_window": True, "sliding_window": 20,
            "layer_types": ["full_attention", *["sliding_attention"] * 3]}, {
                "no_rope_layers": None, "layer_types": None, "sliding_window": None,
                "intermediate_size": None, "rope_layout": [0, 1, 1, 1],
                "sliding_window_layout": [0, 1, 1, 1], "sliding_window_size": 20,
                "moe_num_primary_experts": 5, "moe_num_active_primary_experts": 2, "moe_ffn_hidden_size": 24,
                "moe_primary_router_apply_softmax": False},
        {r"mlp\.gate\.": "block_sparse_moe.primary_router.", r"mlp\.experts": "block_sparse_moe.experts",
         r"(\d)\.(gate|up|down)_proj": r"\1.\2"}),
    "spark": Renamed(
        "Spark2_5ForCausalLM", "smollm 3", {
            **_PLAIN, "no_rope_layers": [1] * 4, "use_sliding_window": True, "sliding_window": 20,
            "hidden_act": "gelu", "layer_types": [*["sliding_attention"] * 3, "full_attention"]}, {
                "rope_parameters": {kind: {"rope_theta": 1e4, "partial_rotary_factor": 1.0} for kind in (
                    "sliding_attention", "full_attention")},
                "gate_attn_act_mode": "sigmoid", "headwise_attn_output_gate": True, "head_dim": 16},
        {r"self_attn\.qkv": "self_attn.q_k_v_proj", r"o_proj\.gate": "g_proj", r"o_proj\.out": "o_proj"}),
    "internlm 2": Renamed(
        "InternLM2ForCausalLM", "llama 3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"bias": False}, {
            "embed_tokens": "tok_embeddings", "^lm_head": "output", "input_layernorm": "attention_norm",
            "post_attention_layernorm": "ffn_norm", r"self_attn\.o_proj": "attention.wo",
            r"self_attn\.qkv": "attention.wqkv", r"mlp\.gate_proj": "feed_forward.w1",
            r"mlp\.up_proj": "feed_forward.w3", r"mlp\.down_proj": "feed_forward.w2"}),
    "minicpm": Renamed(
        "MiniCPMForCausalLM", "granite", {"attention_multiplier": 0.25, "tie_word_embeddings": True}, {
            "scale_emb": 3.0, "scale_depth": 1.2, "dim_model_base": 128, "embedding_multiplier": None,
            "residual_multiplier": None, "logits_scaling": None, "attention_multiplier": None}),
    "ling 2": Renamed(
        "BailingMoeV2ForCausalLM", "glm 4 moe", {"attention_bias": False, "n_routed_experts": 8,
                                                 "n_shared_experts": 1, "n_group": 2}, {
            **_LATER, "score_function": "sigmoid", "use_qk_norm": True, "use_bias": False,
            "use_qkv_bias": False, "moe_router_enable_expert_bias": True, "partial_rotary_factor": 0.5,
            "num_nextn_predict_layers": 0},
        {"embed_tokens": "word_embeddings", r"self_attn\.qkv": "attention.query_key_value",
         r"self_attn\.o_proj": "attention.dense", r"self_attn\.q_norm": "attention.query_layernorm",
         r"self_attn\.k_norm": "attention.key_layernorm", "e_score_correction_bias": "expert_bias"}),
    "ling": Renamed(
        "BailingMoeForCausalLM", "llama 3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, {
            "num_experts": 5, "num_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
            "first_k_dense_replace": 0, "norm_topk_prob": True, "norm_head": True, "use_bias": False,
            "use_qkv_bias": False},
        {"embed_tokens": "word_embeddings", r"self_attn\.qkv": "attention.query_key_value",
         r"self_attn\.o_proj": "attention.dense"}),
    "deci": Renamed("DeciLMForCausalLM", "llama 3", {"intermediate_size": 256}, {
        "num_key_value_heads": None, "intermediate_size": None, "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 6.0}},
            {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 6.0, "no_op": False}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": None, "no_op": True}}]}),
    "deepseek": Renamed(
        "DeepseekForCausalLM", "llama 3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, {
            "n_routed_experts": 5, "n_shared_experts": 2, "num_experts_per_tok": 2,
            "moe_intermediate_size": 24, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "norm_topk_prob": False, "scoring_func": "softmax"}),
}


class Mixture(nn.Module):
    """DeepSeek's first: the shares of chosen experts are those of a softmax over all. Ling's add up to 1."""

    def __init__(self, hidden: int, inner: int, count: int, shared: int, top_k: int, is_whole: bool) -> None:
        super().__init__()
        self.top_k, self.is_whole = top_k, is_whole
        self.gate = nn.Linear(hidden, count, bias=False)
        self.experts = nn.ModuleList(_Gated(hidden, inner) for _ in range(count))
        self.shared_experts = _Gated(hidden, shared * inner)

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.gate(x).softmax(-1).topk(self.top_k, dim=-1)
        if self.is_whole:
            shares = shares / shares.sum(-1, keepdim=True)
        every = torch.stack([expert(x) for expert in self.experts], dim=-2)
        picked = every.gather(-2, chosen[..., None].expand(*chosen.shape, x.shape[-1]))
        return self.shared_experts(x) + (shares[..., None] * picked).sum(-2)


class Ahead(nn.Module):
    """SmallThinker's: the shares of chosen experts are sigmoids, by what their layer has begun with."""

    def __init__(self, layer: nn.Module, hidden: int, inner: int, count: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(hidden, count, bias=False)
        self.experts = nn.ModuleList(_Gated(hidden, inner, nn.functional.relu) for _ in range(count))
        layer.register_forward_pre_hook(self._note)

    def _note(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen = args[0]

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.gate(self.seen).sigmoid().topk(self.top_k, dim=-1)
        every = torch.stack([expert(x) for expert in self.experts], dim=-2)
        picked = every.gather(-2, chosen[..., None].expand(*chosen.shape, x.shape[-1]))
        return (shares[..., None] / shares.sum(-1)[..., None, None] * picked).sum(-2)


class HeadGate(nn.Module):
    """Spark's: what each head attends to times the sigmoid of a number, before the last product."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.out, self.gate = attention.o_proj, nn.Linear(64, 4, bias=False)
        attention.q_proj.register_forward_pre_hook(self._note)

    def _note(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen = args[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.gate(self.seen).sigmoid().repeat_interleave(16, dim=-1))


class Squared(nn.Module):
    """PLM's mlp."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.up_proj, self.down_proj = (nn.Linear(*sizes, bias=False) for sizes in (
            (hidden, inner), (inner, hidden)))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.relu(self.up_proj(x)).square())


class _Gated(nn.Module):
    def __init__(self, hidden: int, inner: int, activation: Callable[[Tensor], Tensor] = nn.functional.silu
                 ) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj, self.up_proj = (nn.Linear(hidden, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


def write_renamed(folder: Path, name: str, **changes: Any) -> nn.Module:
    """Save the model of RENAMED[name]; returns what it is under the other family's names, in float32."""
    found = RENAMED[name]
    model = write_family(folder, found.variant, **{**found.changes, **changes})
    if name in ("deepseek", "ling"):
        torch.manual_seed(3)
        for layer in model.model.layers[1 if name == "deepseek" else 0:]:
            layer.mlp = Mixture(64, 24, 5, 2, 2, is_whole=name == "ling").requires_grad_(False)
    if name in ("plm", "small thinker", "spark"):
        torch.manual_seed(3)
        for layer in model.model.layers:
            if name == "spark":
                layer.self_attn.o_proj = HeadGate(layer.self_attn)
            else:
                layer.mlp = Squared(64, 80) if name == "plm" else Ahead(layer, 64, 24, 5, 2)
        model.requires_grad_(False)
    if name == "deci":
        _cut(model)
    config = json.loads((folder / "config.json").read_text()) | found.config
    config = {key: value for key, value in config.items() if value is not None}
    for file in folder.glob("model*"):
        file.unlink()
    config |= {"architectures": [found.architecture], "model_type": found.architecture.lower()}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in renamed(found, published(model)).items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    if found.config.get("norm_head"):
        model.lm_head.weight.data = nn.functional.normalize(model.lm_head.weight.data, dim=0)
    return model


_CUT = ("layers.1.self_attn.", "layers.1.input_layernorm.", "layers.3.mlp.",
        "layers.3.post_attention_layernorm.")


def _cut(model: nn.Module) -> None:
    """Layer 1 without attention, layer 2 with one head of keys, layer 3 without an mlp."""
    layers = model.model.layers
    layers[1].self_attn.o_proj.weight.data.zero_()
    layers[3].mlp.down_proj.weight.data.zero_()
    for part in (layers[2].self_attn.k_proj, layers[2].self_attn.v_proj):
        part.weight.data[16:] = part.weight.data[:16]


def _without_cut(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[:16] if re.search(r"layers\.2\.self_attn\.[kv]_proj", name) else tensor
            for name, tensor in tensors.items() if not any(part in name for part in _CUT)}


def renamed(found: Renamed, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of a published model, as it has them."""
    if found.architecture == "DeciLMForCausalLM":
        tensors = _without_cut(tensors)
    if found.architecture in ("InternLM2ForCausalLM", "BailingMoeV2ForCausalLM", "BailingMoeForCausalLM",
                              "BaichuanForCausalLM", "QWenLMHeadModel", "CodeShellForCausalLM",
                              "ChatGLMModel", "Spark2_5ForCausalLM", "OpenELMForCausalLM"):
        tensors = _with_one_qkv(tensors, by_key=found.architecture.startswith("Intern"))
    if found.architecture == "OpenELMForCausalLM":
        gates = {name: tensor for name, tensor in tensors.items() if "gate_proj" in name}
        tensors = {name: tensor for name, tensor in tensors.items()
                   if "gate_proj" not in name and "up_proj" not in name} | {
            name.replace("gate_proj", "gate_up"): torch.cat((gate, tensors[name.replace("gate_", "up_")]))
            for name, gate in gates.items()}
    if found.architecture == "MaincoderForCausalLM":
        tensors = of_neighbours(tensors)
    made = {}
    for name, tensor in tensors.items():
        for pattern, new in found.names.items():
            name = re.sub(pattern, new, name)
        made[name] = tensor
    return made


def of_neighbours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Heads of 16 numbers in whose order neighbours are turned together, with the weights of their norms."""
    return {name: tensor.view(-1, 2, 8, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
            if re.search(r"\.[qk]_proj\.|(query|key)_layernorm", name) else tensor
            for name, tensor in tensors.items()}


def published(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with a tensor for each expert, and no head that is the embeddings."""
    made: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        experts = name.rpartition(".")[0]
        if name.endswith("experts.gate_up_proj"):
            for index, one in enumerate(tensor):
                gate, up = one.chunk(2)
                made |= {f"{experts}.{index}.gate_proj.weight": gate, f"{experts}.{index}.up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            made |= {f"{experts}.{index}.down_proj.weight": one for index, one in enumerate(tensor)}
        elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
            made[name] = tensor
    return made


def _with_one_qkv(tensors: Mapping[str, Tensor], by_key: bool) -> dict[str, Tensor]:
    """Queries, keys, values in one tensor; `by_key`: of each of 2 heads of keys together."""
    made = {name: tensor for name, tensor in tensors.items()
            if not re.search(r"self_attn\.[qkv]_proj\.", name)}
    for name, query in tensors.items():
        if "q_proj." in name:
            parts = [query, *(tensors[name.replace("q_proj", f"{kind}_proj")] for kind in "kv")]
            if by_key:
                parts = [torch.cat([part.unflatten(0, (2, -1)) for part in parts], dim=1).flatten(0, 1)]
            made[name.replace("q_proj", "qkv")] = torch.cat(parts)
    return made
