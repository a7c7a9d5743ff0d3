"""Quantize a Llama model layer by layer, each on the inputs that the layers quantized before it produce.

Per layer there are four inputs, each shared by the linears behind it: q+k+v, o, gate+up, down. As in the
paper's sequential mode an input is captured after the linears before it, also those of its own layer, hold
their quantized weights. At any time one layer's float weights and the hidden states of the calibration
windows are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.quantize import llama
from model.quantize.gptq import GridOptions, output_error, quantize_gptq, quantize_round
from model.quantize.packing import QuantizedMatrix, check_packable
from model.quantize.source import LlamaConfig, TensorFolder

TOKENS_AT_ONCE = 4096
"""How many tokens go through a linear at a time; bounds the scratch memory."""

SITES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The linears that share an input are quantized as one matrix, with one Hessian."""

SiteQuantizer = Callable[[Tensor, Tensor], QuantizedMatrix]


@dataclass
class QuantizedLayer:
    """The result for one layer: the linears by their full names, and how much their outputs changed."""

    index: int
    matrices: dict[str, QuantizedMatrix] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # relative error of the output, by site
    seconds: float = 0.0


def linear_shapes(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of each linear of a layer."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }


def check_sizes(config: LlamaConfig, bits: int) -> None:
    """Raise ValueError before any work if a linear cannot be packed."""
    for name, (out_features, in_features) in linear_shapes(config).items():
        try:
            check_packable(in_features, out_features, bits)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def quantize_layers_gptq(tensors: TensorFolder, config: LlamaConfig, windows: Tensor,
                         options: GridOptions) -> Iterator[QuantizedLayer]:
    """Yield each layer as it is done. windows: int64 [count, length], token ids of the calibration text."""
    table = tensors.load("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
    hidden = F.embedding(windows, table).float()
    cos, sin = llama.rope_tables(config, windows.shape[1])
    for index in range(config.num_layers):
        started = time.monotonic()
        layer = _LayerPass(tensors, config, index, options)
        hidden = layer.run(hidden, cos, sin)
        layer.result.seconds = time.monotonic() - started
        yield layer.result


def quantize_layers_round(tensors: TensorFolder, config: LlamaConfig,
                          options: GridOptions) -> Iterator[QuantizedLayer]:
    """The same by rounding every weight to the nearest code; needs no text."""
    for index in range(config.num_layers):
        started = time.monotonic()
        result = QuantizedLayer(index)
        for name, shape in linear_shapes(config).items():
            full_name = f"model.layers.{index}.{name}"
            result.matrices[full_name] = quantize_round(tensors.load(f"{full_name}.weight", shape), options)
        result.seconds = time.monotonic() - started
        yield result


class _LayerPass:
    """One layer's way through the calibration windows; holds its float weights."""

    def __init__(self, tensors: TensorFolder, config: LlamaConfig, index: int, options: GridOptions) -> None:
        self.config, self.options = config, options
        self.prefix = f"model.layers.{index}."
        self.result = QuantizedLayer(index)
        self.norms = {name: tensors.load(f"{self.prefix}{name}.weight", (config.hidden_size,)).float()
                      for name in ("input_layernorm", "post_attention_layernorm")}
        shapes = linear_shapes(config)
        self.weights = {site: torch.cat([tensors.load(f"{self.prefix}{name}.weight", shapes[name]).float()
                                         for name in names]) for site, names in SITES.items()}
        self.biases = {site: self._bias(tensors, names, shapes) for site, names in SITES.items()}

    def _bias(self, tensors: TensorFolder, names: tuple[str, ...],
              shapes: dict[str, tuple[int, int]]) -> Tensor | None:
        full_names = [f"{self.prefix}{name}.bias" for name in names]
        if not any(name in tensors for name in full_names):
            return None
        return torch.cat([tensors.load(full, shapes[name][:1]).float() if full in tensors
                          else torch.zeros(shapes[name][0])
                          for full, name in zip(full_names, names, strict=True)])

    def run(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """hidden float32 [windows, length, hidden_size] through the layer; changed in place and returned."""
        step = max(1, TOKENS_AT_ONCE // hidden.shape[1])
        parts = hidden.split(step)
        self._quantize("qkv", (self._norm("input_layernorm", x) for x in parts))
        mixed = [llama.attention(self._linear("qkv", self._norm("input_layernorm", x)), cos, sin, self.config)
                 for x in parts]
        self._quantize("o", iter(mixed))
        for x, attended in zip(parts, mixed, strict=True):
            x += self._linear("o", attended)
        del mixed
        self._quantize("gate_up", (self._norm("post_attention_layernorm", x) for x in parts))
        self._quantize("down", (self._inner(x) for x in parts))
        for x in parts:
            x += self._linear("down", self._inner(x))
        return hidden

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return llama.rms_norm(x, self.norms[name], self.config.rms_norm_eps)

    def _linear(self, site: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[site], self.biases[site])

    def _inner(self, x: Tensor) -> Tensor:
        return llama.gated(self._linear("gate_up", self._norm("post_attention_layernorm", x)))

    def _quantize(self, site: str, inputs: Iterator[Tensor]) -> None:
        """Quantize the site's matrix on these inputs; from here on its weight is the quantized one."""
        weight = self.weights[site]
        hessian = mean_outer_product(inputs, weight.shape[1])
        matrix = quantize_gptq(weight, hessian, self.options)
        self.weights[site] = matrix.dequantize()
        self.result.errors[site] = output_error(weight, self.weights[site], hessian)
        first = 0
        for name in SITES[site]:
            last = first + linear_shapes(self.config)[name][0]
            self.result.matrices[self.prefix + name] = matrix.columns(first, last)
            first = last


def mean_outer_product(inputs: Iterator[Tensor], size: int) -> Tensor:
    """Mean of x x^T, float32 [in, in]: the Hessian of the squared output error, but for a factor of 2."""
    total, count = torch.zeros(size, size), 0
    for x in inputs:
        rows = x.reshape(-1, size)
        total.addmm_(rows.t(), rows)
        count += len(rows)
    return total / count
