"""Consecutive layers of a decoder on one device, with their cache and the buffers of a step.

The first stage begins with the embeddings, the last ends with the norm and the head. Sizes come from
ModelConfig, arithmetic from the kernels; every buffer is allocated once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig, rope_inverse_frequencies
from model.kernels.cache_kinds import CACHE_KINDS
from model.network.place import Place
from model.network.weights import Layer, ModelWeights


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
    positions: Tensor     # int32 [T]
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
    def allocate(cls, config: ModelConfig, num_layers: int, sizes: Sizes, device: torch.device) -> KVCache:
        """Not initialized: what was never written is never read, and takes no memory.

        Therefore pages of the system's usual size: a huge one for each layer's keys and values would be
        88 MiB for the first word to a 1.1B model.
        """
        kind = CACHE_KINDS[sizes.cache]
        shape = kind.cache_shape(sizes.num_pages, config.num_kv_heads, sizes.page_size, config.head_dim)
        memory = torch.empty(num_layers, 2, *shape, dtype=getattr(torch, kind.dtype), device=device)
        return cls([layer[0] for layer in memory], [layer[1] for layer in memory])


@dataclass(frozen=True)
class Views:
    """T neighbouring rows of every buffer, which stay where they are."""

    hidden: Tensor     # float32 [T, hidden_size]
    qkv: Tensor        # float32 [T, (num_heads + 2 * num_kv_heads) * head_dim]
    queries: Tensor    # the first num_heads * head_dim columns of qkv
    attention: Tensor  # float32 [T, num_heads * head_dim]
    inner: Tensor      # float32 [T, intermediate_size]


class Stage:
    """The layers `layers` of a model, at one place."""

    def __init__(self, place: Place, config: ModelConfig, weights: ModelWeights, layers: range,
                 sizes: Sizes) -> None:
        self.place, self.config, self.layers = place, config, layers
        self.cache = KVCache.allocate(config, len(layers), sizes, place.device)
        self._weights = weights
        self._cos, self._sin = (table.to(place.device) for table in rope_tables(config, sizes.max_seq_len))
        self._scale = config.head_dim ** -0.5
        self._query_size = config.num_heads * config.head_dim
        qkv_size = self._query_size + 2 * config.num_kv_heads * config.head_dim
        widths = (config.hidden_size, qkv_size, self._query_size, config.intermediate_size)
        self._buffers = [torch.empty(sizes.max_tokens, width, device=place.device) for width in widths]
        self._recorder = place.new_recorder()

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """See Recorder.sizes."""
        return self._recorder.sizes

    def seal(self) -> None:
        self._recorder.seal()

    def hidden(self, num_tokens: int) -> Tensor:
        """float32 [T, hidden_size]: what goes in, unless this is the first stage, and what comes out."""
        return self._buffers[0][:num_tokens]

    def run(self, step: StepInput) -> None:
        """Compute the new tokens in these layers and put their keys and values into the cache."""
        with self.place.active():
            if step.prompts and self.place.ops.prompts is not None:
                self._layers(step)  # how many keys a prompt has is an argument, which a recording would keep
            else:
                self._recorder.run((len(step.token_ids), len(step.seq_lens)), lambda: self._layers(step))

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Norm and head, in the last stage: hidden float32 [R, hidden_size], out float32 [R, vocab_size]."""
        def compute() -> None:
            self._weights.lm_head(hidden, out, self._weights.norm, self.config.rms_norm_eps)

        with self.place.active():
            self._recorder.run((len(hidden), hidden.data_ptr(), out.data_ptr()), compute)

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
                    [part.weight for layer in self._own_layers for linear in layer.linears
                     for part in linear.parts])

    @property
    def _own_layers(self) -> list[Layer]:
        return self._weights.layers[self.layers.start:self.layers.stop]

    def _layers(self, step: StepInput) -> None:
        eps = self.config.rms_norm_eps
        num_tokens = len(step.token_ids)
        all_rows = self._views(0, num_tokens)
        prompts = step.prompts if self.place.ops.prompts is not None else ()
        first = prompts[0].first if prompts else num_tokens
        # Rows that decode are computed as they would be without the prompts, so that these change no token.
        kinds = (((0, first), False), ((first, num_tokens), True))
        parts = [(self._views(*rows), of_prompts) for rows, of_prompts in kinds if rows[0] < rows[1]]
        if self.layers.start == 0:
            self.place.ops.embed(self._weights.embeddings, step.token_ids, all_rows.hidden)
        for layer, keys, values in zip(self._own_layers, self.cache.keys, self.cache.values, strict=True):
            for v, of_prompts in parts:
                layer.qkv(v.hidden, v.qkv, layer.input_norm, eps, of_prompts=of_prompts)
            self._attend(step, prompts, all_rows, keys, values)
            for v, of_prompts in parts:
                layer.o_proj(v.attention, v.hidden, epilogue="add", of_prompts=of_prompts)
                layer.gate_up(v.hidden, v.inner, layer.post_norm, eps, "silu_mul", of_prompts=of_prompts)
                layer.down_proj(v.inner, v.hidden, epilogue="add", of_prompts=of_prompts)

    def _attend(self, step: StepInput, prompts: tuple[PromptRows, ...], v: Views, keys: Tensor,
                values: Tensor) -> None:
        ops, config = self.place.ops, self.config
        ops.rope_write_kv(v.qkv, self._cos, self._sin, step.positions, step.slot_mapping, keys, values,
                          config.num_heads, config.num_kv_heads)
        rows, sequences = len(v.queries), len(step.seq_lens)
        if prompts:
            rows, sequences = prompts[0].first, prompts[0].index
        if rows:
            ops.paged_attention(v.queries[:rows], keys, values, step.block_table[:sequences],
                                step.cu_seqlens[:sequences + 1], step.seq_lens[:sequences],
                                v.attention[:rows], config.num_heads, self._scale)
        for prompt in prompts:
            part = slice(prompt.first, prompt.last)
            ops.prompts.prompt_attention(v.queries[part], keys, values, step.block_table[prompt.index],
                                 prompt.num_keys, v.attention[part], config.num_heads, self._scale)

    def _views(self, first: int, last: int) -> Views:
        hidden, qkv, attention, inner = (b[first:last] for b in self._buffers)
        return Views(hidden, qkv, qkv[:, :self._query_size], attention, inner)


def rope_tables(config: ModelConfig, max_seq_len: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [max_seq_len, head_dim // 2]; angles in float32, as transformers computes them."""
    frequencies = torch.tensor(rope_inverse_frequencies(config.rope, config.head_dim), dtype=torch.float32)
    angles = torch.outer(torch.arange(max_seq_len, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def buffer_bytes(config: ModelConfig, max_tokens: int, max_logit_rows: int) -> int:
    """What a stage and the logits of a step allocate besides weights, cache and rope_tables."""
    query_size = config.num_heads * config.head_dim
    qkv_size = query_size + 2 * config.num_kv_heads * config.head_dim
    row = config.hidden_size + qkv_size + query_size + config.intermediate_size
    return 4 * (max_tokens * row + max_logit_rows * config.vocab_size)
