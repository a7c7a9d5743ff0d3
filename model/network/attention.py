"""Attention over the pages of the cache: one layer's, with its keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.spec import Attention, HeadNorm, QueryScale, Rope, Spec
from model.kernels.cache_kinds import CACHE_KINDS
from model.network.branch import NO_NORM, Branch, normalize
from model.network.mixer_weights import AttentionWeights
from model.network.norm_weights import NO_WEIGHTS, NormWeights
from model.network.place import Place
from model.network.rope_tables import RopeTables, query_scales, rope_tables
from model.network.step import Rows, Sizes, StepInput


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer that has some: [num_pages, num_kv_heads, page_size, head_dim or row
    bytes], and the cache group of each."""

    keys: list[Tensor]
    values: list[Tensor]
    groups: list[int]

    @classmethod
    def allocate(cls, attentions: Sequence[tuple[Attention, int]], sizes: Sizes,
                 device: torch.device) -> KVCache:
        """attentions: with the cache group of each.

        Not initialized: what was never written is never read, and takes no memory. But the first page, which
        is the BLANK one of windows.

        Therefore pages of the system's usual size: a huge one for each layer's keys and values would be
        88 MiB for the first word to a 1.1B model.
        """
        kind = CACHE_KINDS[sizes.cache]
        shapes = [kind.cache_shape(sizes.num_pages[group], attention.num_kv_heads, sizes.page_size,
                                   attention.head_dim) for attention, group in attentions]
        made = [math.prod(shape) for shape in shapes]
        memory = torch.empty(2 * sum(made), dtype=getattr(torch, kind.dtype), device=device)
        parts = [part.view(2, *shape) for part, shape in zip(memory.split([2 * n for n in made]), shapes,
                                                             strict=True)]
        for part in parts:
            part[:, 0].zero_()
        return cls([part[0] for part in parts], [part[1] for part in parts],
                   [group for _, group in attentions])


class Tables:
    """What rotates and scales by position: shared by the layers of a place that do it alike."""

    def __init__(self, place: Place, spec: Spec, sizes: Sizes) -> None:
        self._place, self._has_long = place, spec.long_beyond is not None
        self._max_seq_len = sizes.max_seq_len
        self.no_slots = torch.full((sizes.max_tokens,), -1, device=place.device)  # nothing is to be written
        self._ropes: dict[Rope, RopeTables] = {}
        self._query_scales: dict[QueryScale, Tensor] = {}

    def rope(self, rope: Rope | None) -> RopeTables | None:
        if rope is not None and rope not in self._ropes:
            self._ropes[rope] = rope_tables(rope, self._max_seq_len, self._place.device, self._has_long)
        return None if rope is None else self._ropes[rope]

    def query_scale(self, scale: QueryScale | None) -> Tensor | None:
        if scale is not None and scale not in self._query_scales:
            self._query_scales[scale] = query_scales(scale, self._max_seq_len, self._place.device,
                                                     self._has_long)
        return None if scale is None else self._query_scales[scale]


class AttentionMixer:
    """A Mixer of stage.py."""

    def __init__(self, place: Place, attention: Attention, weights: AttentionWeights, branch: Branch,
                 keys: Tensor, values: Tensor, group: int, tables: Tables) -> None:
        self._ops, self._attention, self._weights, self._branch = place.ops, attention, weights, branch
        self._keys, self._values, self._group = keys, values, group
        self._rope, self._query_scale = tables.rope(attention.rope), tables.query_scale(attention.query_scale)
        self._no_slots = tables.no_slots

    def project(self, v: Rows, of_prompts: bool) -> None:
        """Hidden states to queries, keys and values."""
        a = self._attention
        whole = v.of("qkv", a.qkv_size + a.gate_size)
        self._branch.multiply(self._weights.qkv, v, whole[:, :a.input_size], of_prompts=of_prompts,
                              precise=a.query_size + a.key_size)

    def mix(self, step: StepInput, v: Rows) -> None:
        ops, a, weights, tables = self._ops, self._attention, self._weights, self._rope
        keys, values = self._keys, self._values
        whole, attended = v.of("qkv", a.qkv_size + a.gate_size), v.of("attention", a.query_size)
        qkv = whole[:, :a.qkv_size]
        queries, own_keys, own_values = qkv.split((a.query_size, a.key_size, a.key_size), dim=1)
        has_own = a.reads_cache_of is None
        if has_own and (a.keys_as_values or a.value_norm is not None):
            source = own_keys if a.keys_as_values else own_values
            normalize(ops, a.value_norm or NO_NORM, NO_WEIGHTS, source, own_values, a.num_kv_heads)
        if a.qk_norm is not None:
            if a.qk_norm.after_rope and tables is not None:
                num_turned = a.num_heads + (a.num_kv_heads if has_own else 0)
                ops.rotate_heads(qkv[:, :num_turned * a.head_dim], tables.cos, tables.sin, step.positions,
                                 num_turned, tables.interleaved)
                tables = None  # rope_write_kv has nothing more to turn
            self._norm_heads(a.qk_norm, weights.query_norm, queries, a.num_heads)
            if has_own:
                self._norm_heads(a.qk_norm, weights.key_norm, own_keys, a.num_kv_heads)
        cos, sin, interleaved = (None, None, False) if tables is None else tables
        slots = step.slot_mappings[self._group] if has_own else self._no_slots[:len(qkv)]
        ops.rope_write_kv(qkv, cos, sin, step.positions, slots, keys, values, a.num_heads,
                          a.num_kv_heads, interleaved, self._query_scale)
        rows, sequences = len(queries), len(step.seq_lens)
        prompts = step.prompts if ops.prompts is not None else ()
        if prompts:
            rows, sequences = prompts[0].first, prompts[0].index
        rules = (a.num_heads, a.scale, a.window if a.chunk is None else -a.chunk, a.softcap, weights.sinks)
        block_table = step.block_tables[self._group]
        if rows:
            ops.paged_attention(queries[:rows], keys, values, block_table[:sequences],
                                step.cu_seqlens[:sequences + 1], step.seq_lens[:sequences], attended[:rows],
                                *rules)
        for prompt in prompts:
            part = slice(prompt.first, prompt.last)
            ops.prompts.prompt_attention(queries[part], keys, values, block_table[prompt.index],
                                         prompt.num_keys, attended[part], *rules)
        if a.output_gate:
            ops.gate_rows(attended, whole[:, a.qkv_size:], attended, "sigmoid")

    def add(self, v: Rows, of_prompts: bool) -> None:
        attended = v.of("attention", self._attention.query_size)
        self._branch.add(self._weights.out_proj, attended, v, self._attention, of_prompts=of_prompts)

    def _norm_heads(self, norm: HeadNorm, weights: NormWeights | None, heads: Tensor, num_heads: int) -> None:
        assert weights is not None
        normalize(self._ops, norm.norm, weights, heads, heads, num_heads if norm.span == "head" else 1)
