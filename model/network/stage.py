"""Consecutive layers of a decoder on one device, with their cache and the buffers of a step.

The first stage begins with the embeddings, the last ends with the norm and the head. What is computed is the
Spec's to say, how is the kernels'; every buffer is allocated once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.spec import Attention, Dense, HeadNorm, Layer, Moe, Norm, QueryScale, Rope, Spec
from model.kernels.cache_kinds import CACHE_KINDS
from model.network.linear import Linear
from model.network.mixture import Mixture, MixtureBuffers
from model.network.place import Place
from model.network.rope_tables import RopeTables, query_scales, rope_tables
from model.network.weights import DenseWeights, LayerWeights, ModelWeights, MoeWeights, NormWeights


@dataclass(frozen=True)
class PromptRows:
    """The rows first .. last - 1 of a step are those of sequence `index`, which has `num_keys` keys then."""

    index: int
    first: int
    last: int
    num_keys: int


@dataclass(frozen=True)
class StepInput:
    """One step for S sequences with T new tokens together. Shapes as the kernels want them.

    Steps of the same T and S must be the same tensors with new contents: steps are recorded by these two.
    """

    token_ids: Tensor     # int32 [T]
    positions: Tensor     # int32 [T]: rows of rope_tables()
    slot_mapping: Tensor  # int64 [T]: page * PAGE_SIZE + offset; negative: not written
    block_table: Tensor   # int32 [S, max_pages]
    cu_seqlens: Tensor    # int32 [S + 1]
    seq_lens: Tensor      # int32 [S]
    prompts: tuple[PromptRows, ...] = ()  # the last sequences, if they have many rows: known on the host


@dataclass(frozen=True)
class Sizes:
    """What is allocated for a model besides its weights."""

    max_seq_len: int   # the largest position + 1
    max_tokens: int    # the largest T of a step
    num_pages: int
    page_size: int
    cache: str         # a key of CACHE_KINDS


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer: [num_pages, num_kv_heads, page_size, head_dim or row bytes]."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def allocate(cls, layers: Sequence[Layer], sizes: Sizes, device: torch.device) -> KVCache:
        """Not initialized: what was never written is never read, and takes no memory.

        Therefore pages of the system's usual size: a huge one for each layer's keys and values would be
        88 MiB for the first word to a 1.1B model.
        """
        kind = CACHE_KINDS[sizes.cache]
        shapes = [kind.cache_shape(sizes.num_pages, layer.attention.num_kv_heads, sizes.page_size,
                                   layer.attention.head_dim) for layer in layers]
        made = [math.prod(shape) for shape in shapes]
        memory = torch.empty(2 * sum(made), dtype=getattr(torch, kind.dtype), device=device)
        parts = [part.view(2, *shape) for part, shape in zip(memory.split([2 * n for n in made]), shapes,
                                                             strict=True)]
        return cls([part[0] for part in parts], [part[1] for part in parts])


def buffer_widths(spec: Spec) -> dict[str, int]:
    """Numbers of a token in each buffer of a step; none of those that no layer needs."""
    attentions = [layer.attention for layer in spec.layers]
    mixtures = [layer.mlp for layer in spec.layers if isinstance(layer.mlp, Moe)]
    mlps = [layer.mlp for layer in spec.layers if isinstance(layer.mlp, Dense)]
    mlps += [each for moe in mixtures for each in (moe.expert, moe.shared) if each is not None]
    widths = {"hidden": spec.hidden_size,
              "qkv": max(a.qkv_size for a in attentions),
              "attention": max(a.query_size for a in attentions),
              "inner": max(mlp.intermediate_size for mlp in mlps),
              "wide": max((mlp.up_size for mlp in mlps if not mlp.is_fused), default=0),
              "normed": spec.hidden_size * any(not _norm_is_fused(layer) for layer in spec.layers),
              "branch": spec.hidden_size * any(not _adds_directly(layer) for layer in spec.layers),
              "scores": max((moe.num_experts for moe in mixtures), default=0)}
    if mixtures:
        widths |= {"normed": spec.hidden_size, "branch": spec.hidden_size, "gathered": spec.hidden_size,
                   "given": spec.hidden_size, "gate": 1}
    if spec.norm.kind != "rms":
        widths["normed"] = spec.hidden_size
    return {name: width for name, width in widths.items() if width}


def _norm_is_fused(layer: Layer) -> bool:
    """The products read what is not normed yet, or what needs no norm."""
    return not layer.norm_before or (layer.norm.kind == "rms" and layer.parallel is None)


def _adds_directly(layer: Layer) -> bool:
    """The last product of a branch adds its result to the hidden state."""
    return not layer.norm_after and layer.residual_scale == 1


_NO_NORM = Norm("none", 0.0)


@dataclass(frozen=True)
class Rows:
    """The rows first .. last - 1 of every buffer, which stay where they are."""

    buffers: dict[str, Tensor]  # float32 [max_tokens * width]
    hidden_size: int
    first: int
    last: int

    @property
    def hidden(self) -> Tensor:
        return self.of("hidden", self.hidden_size)

    @property
    def normed(self) -> Tensor:
        """What a branch reads, where the norm before it is not the product's."""
        return self.of("normed", self.hidden_size)

    @property
    def branch(self) -> Tensor:
        """What a branch gives, where something is done to it before it is added."""
        return self.of("branch", self.hidden_size)

    def of(self, name: str, width: int) -> Tensor:
        """float32 [rows, width] of a layer that uses so much of a row; rows lie side by side."""
        if width == 0:
            return self.buffers["hidden"][:0].view(0, 0)
        return self.buffers[name][self.first * width:self.last * width].view(-1, width)


class Stage:
    """The layers `layers` of a model, at one place."""

    def __init__(self, place: Place, spec: Spec, weights: ModelWeights, layers: range, sizes: Sizes) -> None:
        self.place, self.spec, self.layers = place, spec, layers
        self._layers = spec.layers[layers.start:layers.stop]
        self._weights = weights
        self._own_weights = weights.layers[layers.start:layers.stop]
        self.cache = KVCache.allocate(self._layers, sizes, place.device)
        has_long = spec.long_beyond is not None
        self._ropes: dict[Rope, RopeTables] = {}
        self._query_scales: dict[QueryScale, Tensor] = {}
        for layer in self._layers:
            rope, scale = layer.attention.rope, layer.attention.query_scale
            if rope is not None and rope not in self._ropes:
                self._ropes[rope] = rope_tables(rope, sizes.max_seq_len, place.device, has_long)
            if scale is not None and scale not in self._query_scales:
                self._query_scales[scale] = query_scales(scale, sizes.max_seq_len, place.device,
                                                                has_long)
        self._buffers = {name: torch.empty(sizes.max_tokens * width, device=place.device)
                         for name, width in buffer_widths(spec).items()}
        self._recorder = place.new_recorder()
        self._is_routed = any(isinstance(layer.mlp, Moe) for layer in self._layers)

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """See Recorder.sizes."""
        return self._recorder.sizes

    def seal(self) -> None:
        self._recorder.seal()

    def hidden(self, num_tokens: int) -> Tensor:
        """float32 [T, hidden_size]: what goes in, unless this is the first stage, and what comes out."""
        return self._rows(0, num_tokens).hidden

    def run(self, step: StepInput) -> None:
        """Compute the new tokens in these layers and put their keys and values into the cache."""
        with self.place.active():
            # experts, and how many keys a prompt has, are arguments, which a recording would keep
            if self._is_routed or (step.prompts and self.place.ops.prompts is not None):
                self._run(step)
            else:
                self._recorder.run((len(step.token_ids), len(step.seq_lens)), lambda: self._run(step))

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Norm and head, in the last stage: hidden float32 [R, hidden_size], out float32 [R, vocab_size]."""
        with self.place.active():
            self._recorder.run((len(hidden), hidden.data_ptr(), out.data_ptr()),
                               lambda: self._head(hidden, out))

    def copy_pages(self, source: Tensor, target: Tensor) -> None:
        """Copy whole pages in every layer; int32 [n] on the host, all read before any is written."""
        source, target = (pages.to(self.place.device, non_blocking=True) for pages in (source, target))
        with self.place.active():
            for keys, values in zip(self.cache.keys, self.cache.values, strict=True):
                self.place.ops.copy_pages(keys, values, source, target)

    def measure(self) -> None:
        """Have the device find out what it must measure with the weights that are here."""
        if self.place.ops.prompts is not None:
            with self.place.active():
                self.place.ops.prompts.measure_crossovers(
                    [part.weight for layer in self._own_weights for linear in layer.linears
                     for part in linear.parts])

    def _run(self, step: StepInput) -> None:
        ops, num_tokens = self.place.ops, len(step.token_ids)
        all_rows = self._rows(0, num_tokens)
        prompts = step.prompts if ops.prompts is not None else ()
        first = prompts[0].first if prompts else num_tokens
        # Rows that decode are computed as they would be without the prompts, so that these change no token.
        kinds = (((0, first), False), ((first, num_tokens), True))
        parts = [(self._rows(*rows), of_prompts) for rows, of_prompts in kinds if rows[0] < rows[1]]
        if self.layers.start == 0:
            ops.embed(self._weights.embeddings, step.token_ids, all_rows.hidden, self.spec.embedding_scale)
        for layer, weights, keys, values in zip(self._layers, self._own_weights, self.cache.keys,
                                                self.cache.values, strict=True):
            for v, of_prompts in parts:
                self._project(layer, weights, v, of_prompts)
            self._attend(step, prompts, layer.attention, weights, all_rows, keys, values)
            for v, of_prompts in parts:
                self._mix(layer, weights, v, of_prompts)

    def _project(self, layer: Layer, weights: LayerWeights, v: Rows, of_prompts: bool) -> None:
        """Hidden states to queries, keys and values."""
        qkv = v.of("qkv", layer.attention.qkv_size)
        prompts = self.place.ops.prompts
        of_prompts = of_prompts and prompts is not None and not prompts.rounds_factors
        self._multiply(layer, weights.qkv, weights.attention_norm, v, qkv, of_prompts=of_prompts)

    def _multiply(self, layer: Layer, linear: Linear, norm: NormWeights | None, v: Rows, out: Tensor,
                  epilogue: str = "store", *, of_prompts: bool) -> None:
        """The norm before a branch, and its first product. With one norm for both branches it is in place
        already where there is none."""
        if _norm_is_fused(layer):
            weight = norm.weight if norm is not None else None
            linear(v.hidden, out, weight, layer.norm.eps, epilogue, of_prompts=of_prompts)
            return
        if norm is not None:
            self._normalize(layer.norm, norm, v.hidden, v.normed)
        linear(v.normed, out, epilogue=epilogue, of_prompts=of_prompts)

    def _normalize(self, norm: Norm, weights: NormWeights, x: Tensor, out: Tensor, num_groups: int = 1,
                   add: bool = False, scale: float = 1.0) -> None:
        self.place.ops.norm_rows(x, weights.weight, weights.bias, norm.eps, norm.kind, out, num_groups, add,
                                 scale)

    def _attend(self, step: StepInput, prompts: tuple[PromptRows, ...], a: Attention, weights: LayerWeights,
                v: Rows, keys: Tensor, values: Tensor) -> None:
        ops = self.place.ops
        qkv, attended = v.of("qkv", a.qkv_size), v.of("attention", a.query_size)
        queries = qkv[:, :a.query_size]
        tables = None if a.rope is None else self._ropes[a.rope]
        if a.qk_norm is not None:
            if a.qk_norm.after_rope and tables is not None:
                ops.rotate_heads(qkv[:, :a.query_size + a.key_size], tables.cos, tables.sin, step.positions,
                                 a.num_heads + a.num_kv_heads, tables.interleaved)
                tables = None  # rope_write_kv has nothing more to turn
            self._norm_heads(a.qk_norm, weights.query_norm, queries, a.num_heads)
            self._norm_heads(a.qk_norm, weights.key_norm, qkv[:, a.query_size:a.query_size + a.key_size],
                             a.num_kv_heads)
        cos, sin, interleaved = (None, None, False) if tables is None else tables
        ops.rope_write_kv(qkv, cos, sin, step.positions, step.slot_mapping, keys, values, a.num_heads,
                          a.num_kv_heads, interleaved,
                          None if a.query_scale is None else self._query_scales[a.query_scale])
        rows, sequences = len(queries), len(step.seq_lens)
        if prompts:
            rows, sequences = prompts[0].first, prompts[0].index
        rules = (a.num_heads, a.scale, a.window, a.softcap, weights.sinks)
        if rows:
            ops.paged_attention(queries[:rows], keys, values, step.block_table[:sequences],
                                step.cu_seqlens[:sequences + 1], step.seq_lens[:sequences], attended[:rows],
                                *rules)
        for prompt in prompts:
            part = slice(prompt.first, prompt.last)
            ops.prompts.prompt_attention(queries[part], keys, values, step.block_table[prompt.index],
                                         prompt.num_keys, attended[part], *rules)

    def _norm_heads(self, norm: HeadNorm, weights: NormWeights | None, heads: Tensor, num_heads: int) -> None:
        assert weights is not None
        self._normalize(norm.norm, weights, heads, heads, num_heads if norm.span == "head" else 1)

    def _mix(self, layer: Layer, weights: LayerWeights, v: Rows, of_prompts: bool) -> None:
        """What was attended to, and the mlp, into the hidden states."""
        mlp, attended = weights.mlp, v.of("attention", layer.attention.query_size)
        if isinstance(mlp, MoeWeights):
            self._add(layer, weights.o_proj, attended, weights.attention_out_norm, v, of_prompts)
            self._route(layer, mlp, weights, v, of_prompts)
            return
        assert isinstance(layer.mlp, Dense)
        inner = v.of("inner", layer.mlp.intermediate_size)
        if layer.parallel:  # before attention changes what it reads
            self._expand(layer, layer.mlp, mlp, weights, v, of_prompts)
        self._add(layer, weights.o_proj, attended, weights.attention_out_norm, v, of_prompts)
        if not layer.parallel:
            self._expand(layer, layer.mlp, mlp, weights, v, of_prompts)
        self._add(layer, mlp.down_proj, inner, weights.mlp_out_norm, v, of_prompts)

    def _expand(self, layer: Layer, mlp: Dense, of: DenseWeights, weights: LayerWeights, v: Rows,
                of_prompts: bool) -> None:
        """Hidden states to what the mlp's last product reads."""
        inner = v.of("inner", mlp.intermediate_size)
        if mlp.is_fused:
            self._multiply(layer, of.gate_up, weights.mlp_norm, v, inner, "silu_mul", of_prompts=of_prompts)
            return
        wide = v.of("wide", mlp.up_size)
        self._multiply(layer, of.gate_up, weights.mlp_norm, v, wide, of_prompts=of_prompts)
        self.place.ops.activate(wide, inner, mlp.activation, mlp.gated)

    def _route(self, layer: Layer, mlp: MoeWeights, weights: LayerWeights, v: Rows, of_prompts: bool) -> None:
        """A mixture, which reads the normed hidden states, into these."""
        moe = layer.mlp
        assert isinstance(moe, Moe)
        if weights.mlp_norm is not None:
            self._normalize(layer.norm, weights.mlp_norm, v.hidden, v.normed)
        else:
            v.normed.copy_(v.hidden)
        hidden = self.spec.hidden_size
        buffers = MixtureBuffers(v.of("scores", moe.num_experts), v.of("gate", 1), v.of("gathered", hidden),
                                 v.of("given", hidden), v.of("inner", moe.intermediate_size).flatten(),
                                 v.of("wide", moe.wide_size).flatten())
        Mixture(self.place.ops, moe, mlp, layer.norm)(v.hidden, v.normed, v.branch, buffers, of_prompts)
        kind, after = (layer.norm, weights.mlp_out_norm) if weights.mlp_out_norm is not None else (
            _NO_NORM, NormWeights(None, None))
        self._normalize(kind, after, v.branch, v.hidden, add=True, scale=layer.residual_scale)

    def _add(self, layer: Layer, linear: Linear, x: Tensor, norm: NormWeights | None, v: Rows,
             of_prompts: bool) -> None:
        """The last product of a branch; hidden += it, or its norm, times the layer's factor."""
        if _adds_directly(layer):
            linear(x, v.hidden, epilogue="add", of_prompts=of_prompts)
            return
        linear(x, v.branch, of_prompts=of_prompts)
        kind, weights = (layer.norm, norm) if norm is not None else (_NO_NORM, NormWeights(None, None))
        self._normalize(kind, weights, v.branch, v.hidden, add=True, scale=layer.residual_scale)

    def _head(self, hidden: Tensor, out: Tensor) -> None:
        spec, norm = self.spec, self._weights.norm
        if spec.norm.kind == "rms":
            self._weights.lm_head(hidden, out, norm.weight, spec.norm.eps)
        else:
            normed = self._rows(0, len(hidden)).normed
            self._normalize(spec.norm, norm, hidden, normed)
            self._weights.lm_head(normed, out)
        if spec.logit_scale != 1 or spec.logit_softcap is not None:
            self.place.ops.cap_rows(out, spec.logit_scale, spec.logit_softcap)

    def _rows(self, first: int, last: int) -> Rows:
        return Rows(self._buffers, self.spec.hidden_size, first, last)


def buffer_bytes(spec: Spec, max_tokens: int, max_logit_rows: int) -> int:
    """What a stage and the logits of a step allocate besides weights, cache and rope tables."""
    return 4 * (max_tokens * sum(buffer_widths(spec).values()) + max_logit_rows * spec.vocab_size)
