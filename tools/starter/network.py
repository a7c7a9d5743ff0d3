"""A small Llama in plain torch, for training only.

The same arithmetic and tensor names as transformers' LlamaForCausalLM (tied embeddings, grouped-query
attention, rotate-half RoPE), so that its state dict is saved as it stands. It knows no cache and no
generation: the project's own engine runs what this trains.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Everything quantized is a multiple of 64, the group size."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    def to_config(self, bos: int, eos: int) -> dict[str, Any]:
        """config.json as transformers 5 writes it."""
        sizes = asdict(self)
        theta = sizes.pop("rope_theta")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **sizes,
            "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": None,
            "dtype": "bfloat16",
        }


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
        )
        width = shape.hidden_size
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q = self.q_proj(x).view(rows, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = self.heads // self.kv_heads
        k = k.repeat_interleave(repeat, dim=1)
        v = v.repeat_interleave(repeat, dim=1)
        out = attend(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention. Short rows on the CPU in plain operations: the fused kernel takes thrice as long."""
    length = q.shape[2]
    if q.device.type != "cpu" or length > 640:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    future = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + future
    return torch.matmul(torch.softmax(scores, dim=-1, dtype=q.dtype), v)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on [rows, heads, length, head_dim], pairing i with i + head_dim / 2."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # Cast once here: autocast would cast for each of q, k, v and of gate, up again.
        x = x + self.self_attn(self.input_layernorm(x).to(cos.dtype), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x).to(cos.dtype))


class Decoder(nn.Module):
    """The layers between embedding and head: `model.` in the tensor names."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class StarterNetwork(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        half = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), shape.rope_theta**-half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights; what writes into the residual stream starts smaller (GPT-2's rule)."""
        small = 0.02 / (2 * self.shape.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = small if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(parameter, std=std)

    def hidden(self, token_ids: Tensor) -> Tensor:
        """[rows, length] ids, each row from position 0 -> [rows, length, hidden] after the last norm."""
        length = token_ids.shape[1]
        x = self.model.embed_tokens(token_ids)
        cos, sin = self.cos[:length], self.sin[:length]
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            cos, sin = cos.to(kind), sin.to(kind)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Logits [rows, length, vocab]."""
        return F.linear(self.hidden(token_ids), self.model.embed_tokens.weight)

    def loss(self, token_ids: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean cross-entropy of each next token; weights [rows, length] are of the predicted one.

        Only positions with a weight go through the head: padding costs nothing there.
        """
        hidden = self.hidden(token_ids[:, :-1])
        wanted = weights[:, 1:] > 0
        logits = F.linear(hidden[wanted], self.model.embed_tokens.weight)
        losses = F.cross_entropy(logits.float(), token_ids[:, 1:][wanted], reduction="none")
        weight = weights[:, 1:][wanted]
        return (losses * weight).sum() / weight.sum()
