"""Quantize a Llama model layer by layer, each on the inputs that the layers quantized before it produce.

Per layer there are four inputs, each shared by the linears behind it: q+k+v, o, gate+up, down. As in the
paper's sequential mode an input is captured after the linears before it, also those of its own layer, hold
their quantized weights. The float model runs alongside: before a matrix is quantized it is corrected a little
towards what the float model has at the same place (Li et al., "GPTAQ", arXiv 2504.02692, is the same idea).
At any time one layer's float weights and two sets of hidden states of the calibration windows are in memory.
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

CORRECTION_DAMPING = 0.01
"""Share of the Hessian's mean diagonal added where a correction is solved for."""

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
                         options: GridOptions, correction: float) -> Iterator[QuantizedLayer]:
    """Yield each layer as it is done.

    windows     int64 [count, length], token ids of the calibration text
    correction  how far each matrix is led towards the float model's outputs before it is quantized, 0 to 1
    """
    table = tensors.load("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
    hidden = F.embedding(windows, table).float()
    target = hidden.clone()
    cos, sin = llama.rope_tables(config, windows.shape[1])
    for index in range(config.num_layers):
        started = time.monotonic()
        layer = _LayerPass(tensors, config, index, options, correction)
        layer.run(hidden, target, (cos, sin))
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


@dataclass
class _Stream:
    """One version of the layer, float or (site by site) quantized, and its hidden states in parts."""

    weights: dict[str, Tensor]  # by site, float32 [out, in]
    parts: tuple[Tensor, ...]   # float32 [windows, length, hidden_size] each; changed in place


class _LayerPass:
    """One layer's way through the calibration windows."""

    def __init__(self, tensors: TensorFolder, config: LlamaConfig, index: int, options: GridOptions,
                 correction: float) -> None:
        self.config, self.options, self.correction = config, options, correction
        self.prefix = f"model.layers.{index}."
        self.result = QuantizedLayer(index)
        self.shapes = linear_shapes(config)
        self.norms = {name: tensors.load(f"{self.prefix}{name}.weight", (config.hidden_size,)).float()
                      for name in ("input_layernorm", "post_attention_layernorm")}
        self.weights = {site: torch.cat([self._load(tensors, name, "weight") for name in names])
                        for site, names in SITES.items()}
        self.biases = {site: torch.cat([self._load(tensors, name, "bias") for name in names])
                       for site, names in SITES.items()}

    def _load(self, tensors: TensorFolder, linear: str, kind: str) -> Tensor:
        """float32; a bias that is not there is zero."""
        name, shape = f"{self.prefix}{linear}.{kind}", self.shapes[linear]
        if kind == "bias":
            return tensors.load(name, shape[:1]).float() if name in tensors else torch.zeros(shape[0])
        return tensors.load(name, shape).float()

    def run(self, hidden: Tensor, target: Tensor, rope: tuple[Tensor, Tensor]) -> None:
        """Take both hidden states, float32 [windows, length, hidden_size], through the layer in place.

        hidden goes through the quantized weights, target through the float ones.
        """
        step = max(1, TOKENS_AT_ONCE // hidden.shape[1])
        quantized = _Stream(dict(self.weights), hidden.split(step))
        original = _Stream(self.weights, target.split(step))
        both = (quantized, original)

        self._quantize("qkv", both, lambda stream, x: self._norm("input_layernorm", x))
        mixed = {id(x): self._attention(stream, x, rope) for stream in both for x in stream.parts}
        self._quantize("o", both, lambda stream, x: mixed[id(x)], adds_to_hidden=True)
        for stream in both:
            for x in stream.parts:
                x += self._linear(stream, "o", mixed.pop(id(x)))
        self._quantize("gate_up", both, lambda stream, x: self._norm("post_attention_layernorm", x))
        self._quantize("down", both, self._inner, adds_to_hidden=True)
        for stream in both:
            for x in stream.parts:
                x += self._linear(stream, "down", self._inner(stream, x))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return llama.rms_norm(x, self.norms[name], self.config.rms_norm_eps)

    def _linear(self, stream: _Stream, site: str, x: Tensor) -> Tensor:
        return F.linear(x, stream.weights[site], self.biases[site])

    def _attention(self, stream: _Stream, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        qkv = self._linear(stream, "qkv", self._norm("input_layernorm", x))
        return llama.attention(qkv, *rope, self.config)

    def _inner(self, stream: _Stream, x: Tensor) -> Tensor:
        return llama.gated(self._linear(stream, "gate_up", self._norm("post_attention_layernorm", x)))

    def _quantize(self, site: str, both: tuple[_Stream, _Stream], inputs: Callable[[_Stream, Tensor], Tensor],
                  adds_to_hidden: bool = False) -> None:
        """Quantize the site's matrix; from here on the first stream has the quantized weight.

        adds_to_hidden: the output joins the hidden state, so it can make up for the difference there, too.
        """
        quantized, original = both
        weight = self.weights[site]
        sums = _Sums(weight)
        for x, wanted in zip(quantized.parts, original.parts, strict=True):
            sums.add(inputs(quantized, x), inputs(original, wanted), wanted - x if adds_to_hidden else None)
        hessian = sums.hessian / sums.count
        matrix = quantize_gptq(weight + self.correction * sums.correction(), hessian, self.options)
        quantized.weights[site] = matrix.dequantize()
        self.result.errors[site] = output_error(weight, quantized.weights[site], hessian)
        first = 0
        for name in SITES[site]:
            last = first + self.shapes[name][0]
            self.result.matrices[self.prefix + name] = matrix.columns(first, last)
            first = last


class _Sums:
    """What is summed over the calibration tokens for one matrix W [out, in]."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.hessian = torch.zeros(weight.shape[1], weight.shape[1])  # of x x^T
        self.missing = torch.zeros(weight.shape[1], weight.shape[0])  # of x times what the output lacks
        self.count = 0

    def add(self, x: Tensor, wanted: Tensor, lacking: Tensor | None) -> None:
        """x: inputs in the quantized model; wanted: in the float one; lacking: further output to be added."""
        out_features, in_features = self.weight.shape
        x, wanted = x.reshape(-1, in_features), wanted.reshape(-1, in_features)
        difference = F.linear(wanted - x, self.weight)
        if lacking is not None:
            difference += lacking.reshape(-1, out_features)
        self.hessian.addmm_(x.t(), x)
        self.missing.addmm_(x.t(), difference)
        self.count += len(x)

    def correction(self) -> Tensor:
        """The change of W that would come nearest to the float model's outputs. float32 [out, in]"""
        damped = self.hessian.clone()
        diagonal = damped.diagonal()
        diagonal += CORRECTION_DAMPING * float(diagonal.mean()) + 1e-30
        return torch.linalg.solve(damped.double(), self.missing.double()).t().float()
