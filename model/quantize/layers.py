"""Quantize a Llama model layer by layer, each on the inputs that the layers quantized before it produce.

Per layer there are four inputs, each shared by the linears behind it: q+k+v, o, gate+up, down. As in the
paper's sequential mode an input is captured after the linears before it, also those of its own layer, hold
their quantized weights. The float model runs alongside: before a matrix is quantized it is corrected a little
towards what the float model has at the same place (Li et al., "GPTAQ", arXiv 2504.02692, is the same idea).
At any time one layer's float weights and two hidden states of every calibration token are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.spec import Spec
from model.quantize import llama
from model.quantize.calibration import Batch
from model.quantize.gptq import GridOptions, output_error, quantize_gptq, quantize_round
from model.quantize.packing import CodedMatrix, check_packable
from model.quantize.source import Source

CORRECTION_DAMPING = 0.01
"""Share of the Hessian's mean diagonal added where a correction is solved for."""

SITES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The linears that share an input are quantized as one matrix, with one Hessian."""


@dataclass
class QuantizedLayer:
    """The result for one layer: the linears by their full names, and how much their outputs changed."""

    index: int
    matrices: dict[str, CodedMatrix] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # relative error of the output, by site
    seconds: float = 0.0


def linear_shapes(spec: Spec) -> dict[str, tuple[int, int]]:
    """[out, in] of each linear of a layer; all layers are alike."""
    q, kv = spec.layers[0].attention.query_size, spec.layers[0].attention.key_size
    hidden, inner = spec.hidden_size, spec.layers[0].mlp.intermediate_size
    return {
        "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }


def check_sizes(spec: Spec, bits: int) -> None:
    """Raise ValueError before any work if a linear cannot be packed."""
    for name, (out_features, in_features) in linear_shapes(spec).items():
        try:
            check_packable(in_features, out_features, bits)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def quantize_layers_gptq(source: Source, batches: list[Batch], options: GridOptions,
                         correction: float) -> Iterator[QuantizedLayer]:
    """Yield each layer as it is done.

    batches     the calibration text
    correction  how far each matrix is led towards the float model's outputs before it is quantized, 0 to 1
    """
    spec = source.config.spec
    table = source.reader.table("model.embed_tokens.weight", spec.vocab_size, spec.hidden_size)
    hidden = [F.embedding(batch.token_ids, table).float() for batch in batches]
    target = [x.clone() for x in hidden]
    is_text = [batch.is_text for batch in batches]
    rope = llama.rope_tables(spec.layers[0].attention, max(batch.token_ids.shape[1] for batch in batches))
    for index in range(spec.num_layers):
        started = time.monotonic()
        layer = _LayerPass(source, index, options, correction)
        layer.run(hidden, target, is_text, rope)
        layer.result.seconds = time.monotonic() - started
        yield layer.result


def quantize_layers_round(source: Source, options: GridOptions) -> Iterator[QuantizedLayer]:
    """The same by rounding every weight to the nearest code; needs no text."""
    for index in range(source.config.spec.num_layers):
        started = time.monotonic()
        result = QuantizedLayer(index)
        for linear, shape in linear_shapes(source.config.spec).items():
            name = f"model.layers.{index}.{linear}"
            result.matrices[name] = quantize_round(source.reader.matrix(name, *shape).weight, options)
        result.seconds = time.monotonic() - started
        yield result


@dataclass
class _Stream:
    """One version of the layer, float or (site by site) quantized, and what flows through it, by batch."""

    weights: dict[str, Tensor]  # by site, float32 [out, in]
    hidden: list[Tensor]        # float32 [count, length, hidden_size] each; changed in place
    inputs: list[Tensor] = field(default_factory=list)  # of the present site, float32 [count, length, in]


class _LayerPass:
    """One layer's way through the calibration text."""

    def __init__(self, source: Source, index: int, options: GridOptions, share: float) -> None:
        self.layer, self.options, self.share = source.config.spec.layers[index], options, share
        self.prefix = f"model.layers.{index}."
        self.result = QuantizedLayer(index)
        self.shapes = linear_shapes(source.config.spec)
        hidden = source.config.spec.hidden_size
        self.norms = {name: source.reader.vector(f"{self.prefix}{name}.weight", hidden)
                      for name in ("input_layernorm", "post_attention_layernorm")}
        linears = {name: source.reader.matrix(self.prefix + name, *shape)
                   for name, shape in self.shapes.items()}
        self.weights = {site: torch.cat([linears[name].weight.float() for name in names])
                        for site, names in SITES.items()}
        self.biases = {site: torch.cat([torch.zeros(linears[name].n) if linears[name].bias is None
                                        else linears[name].bias for name in names])
                       for site, names in SITES.items()}

    def run(self, hidden: list[Tensor], target: list[Tensor], is_text: list[Tensor],
            rope: tuple[Tensor, Tensor]) -> None:
        """Take both hidden states, float32 [count, length, hidden_size] by batch, through the layer in place.

        hidden goes through the quantized weights, target through the float ones.
        """
        both = _Stream(dict(self.weights), hidden), _Stream(self.weights, target)
        for stream in both:
            stream.inputs = self._normed(stream, "input_layernorm")
        self._quantize("qkv", *both, is_text)
        for stream in both:
            stream.inputs = [llama.attention(x, *rope, self.layer.attention)
                             for x in self._outputs(stream, "qkv")]
        self._quantize("o", *both, is_text)
        for stream in both:
            self._add_to_hidden(stream, "o")
            stream.inputs = self._normed(stream, "post_attention_layernorm")
        self._quantize("gate_up", *both, is_text)
        for stream in both:
            stream.inputs = [llama.gated(x) for x in self._outputs(stream, "gate_up")]
        self._quantize("down", *both, is_text)
        for stream in both:
            self._add_to_hidden(stream, "down")

    def _normed(self, stream: _Stream, name: str) -> list[Tensor]:
        return [llama.rms_norm(x, self.norms[name], self.layer.norm.eps) for x in stream.hidden]

    def _outputs(self, stream: _Stream, site: str) -> Iterator[Tensor]:
        for x in stream.inputs:
            yield F.linear(x, stream.weights[site], self.biases[site])

    def _add_to_hidden(self, stream: _Stream, site: str) -> None:
        for x, output in zip(stream.hidden, self._outputs(stream, site), strict=True):
            x += output

    def _quantize(self, site: str, quantized: _Stream, original: _Stream, is_text: list[Tensor]) -> None:
        """Quantize the site's matrix; from here on the first stream has the quantized weight."""
        weight = self.weights[site]
        sums = _Sums(weight)
        for i, mask in enumerate(is_text):
            # What joins the hidden state can also make up for the difference that is there already.
            lacking = (original.hidden[i] - quantized.hidden[i])[mask] if site in ("o", "down") else None
            sums.add(quantized.inputs[i][mask], original.inputs[i][mask], lacking)
        hessian = sums.hessian / sums.count
        matrix = quantize_gptq(weight + self.share * sums.correction(), hessian, self.options)
        quantized.weights[site] = matrix.dequantize()
        self.result.errors[site] = output_error(weight, quantized.weights[site], hessian)
        first = 0
        for name in SITES[site]:
            last = first + self.shapes[name][0]
            self.result.matrices[self.prefix + name] = matrix.columns(first, last)
            first = last


class _Sums:
    """What is summed over the calibration tokens for a matrix W [out, in]; x: the quantized model's input."""

    def __init__(self, weight: Tensor) -> None:
        out_features, in_features = weight.shape
        self.weight = weight
        self.hessian = torch.zeros(in_features, in_features)     # of x x^T
        self.difference = torch.zeros(in_features, in_features)  # of x (input in the float model - x)^T
        self.lacking = torch.zeros(in_features, out_features)    # of x (further output to be added)^T
        self.count = 0

    def add(self, x: Tensor, wanted: Tensor, lacking: Tensor | None) -> None:
        """x and wanted (the float model's input) [tokens, in]; lacking [tokens, out]"""
        self.hessian.addmm_(x.t(), x)
        self.difference.addmm_(x.t(), wanted - x)
        if lacking is not None:
            self.lacking.addmm_(x.t(), lacking)
        self.count += len(x)

    def correction(self) -> Tensor:
        """The change of W that would come nearest to the float model's outputs. float32 [out, in]"""
        damped = self.hessian.double()
        diagonal = damped.diagonal()
        diagonal += CORRECTION_DAMPING * float(diagonal.mean()) + 1e-30
        missing = self.lacking + self.difference @ self.weight.t()
        solution, _ = torch.linalg.solve_ex(damped, missing.double())  # a NaN is reported by quantize_gptq
        return solution.t().float()
