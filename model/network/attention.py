"""Attention over the pages of the cache: one layer's, with its keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.spec import Attention, DynamicRope, HeadNorm, QueryScale, Rope, Spec
from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.prompt_layers import PromptAttention
from model.network.branch import NO_NORM, Branch, normalize
from model.network.mixer_weights import AttentionWeights
from model.network.norm_weights import NO_WEIGHTS, NormWeights
from model.network.place import Place
from model.network.rope_tables import RopeTables, query_scales, rope_tables, rotate_for
from model.network.step import Rows, Sizes, StepInput


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer that has some: [num_pages, num_kv_heads, page_size, head_dim or row
    bytes], and the cache group of each. No values where the keys are these, too."""

    keys: list[Tensor]
    values: list[Tensor | None]
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
        counts = [1 if attention.keeps_keys_only else 2 for attention, _ in attentions]
        made = [count * math.prod(shape) for count, shape in zip(counts, shapes, strict=True)]
        memory = torch.empty(sum(made), dtype=getattr(torch, kind.dtype), device=device)
        parts = [part.view(count, *shape) for part, count, shape in zip(memory.split(made), counts, shapes,
                                                                        strict=True)]
        for part in parts:
            part[:, 0].zero_()
        return cls([part[0] for part in parts], [part[1] if len(part) == 2 else None for part in parts],
                   [group for _, group in attentions])


class Tables:
    """What rotates and scales by position: shared by the layers of a place that do it alike."""

    def __init__(self, place: Place, spec: Spec, sizes: Sizes) -> None:
        self._place, self._long_length = place, 0 if spec.long_beyond is None else spec.long_beyond + 1
        self._max_seq_len = sizes.max_seq_len
        self.no_slots = torch.full((sizes.max_tokens,), -1, device=place.device)  # nothing is to be written
        self._ropes: dict[Rope, RopeTables] = {}
        self._query_scales: dict[QueryScale, Tensor] = {}

    def rope(self, rope: Rope | None) -> RopeTables | None:
        if rope is not None and rope not in self._ropes:
            self._ropes[rope] = rope_tables(rope, self._max_seq_len, self._place.device, self._long_length)
        return None if rope is None else self._ropes[rope]

    def query_scale(self, scale: QueryScale | None) -> Tensor | None:
        if scale is not None and scale not in self._query_scales:
            self._query_scales[scale] = query_scales(scale, self._max_seq_len, self._place.device,
                                                     self._long_length > 0)
        return None if scale is None else self._query_scales[scale]

    def rotate_for(self, length: int) -> None:
        """Long sequences have so many tokens from the next step on."""
        for rope, tables in self._ropes.items():
            if isinstance(rope.long, DynamicRope):
                rotate_for(length, rope, tables)


def is_plain(a: Attention) -> bool:
    """Queries and keys are rotated as they are projected, keys and values are kept, and that is all."""
    return (a.rope is not None and a.qk_norm is a.query_scale is a.value_norm is a.reads_cache_of is None
            and not (a.keys_as_values or a.keeps_keys_only or a.output_gate))


class AttentionMixer:
    """A Mixer of stage.py."""

    def __init__(self, place: Place, attention: Attention, weights: AttentionWeights, branch: Branch,
                 keys: Tensor, values: Tensor | None, group: int, tables: Tables) -> None:
        self._ops, self._attention, self._weights, self._branch = place.ops, attention, weights, branch
        self._keys, self._values, self._group = keys, values, group
        self._rope, self._query_scale = tables.rope(attention.rope), tables.query_scale(attention.query_scale)
        self._no_slots = tables.no_slots
        self._can_fuse = (is_plain(attention) and len(weights.qkv.parts) == 1 and place.ops.fuses_heads(
            weights.qkv.parts[0].weight, keys, attention.rope.dim))

    def of_prompts(self) -> PromptAttention | None:
        """The same for PromptOperations.prompt_layers; None where there is more to it."""
        a, weights = self._attention, self._weights
        linears = weights.qkv, weights.out_proj
        if not is_plain(a) or self._values is None or any(len(linear.parts) > 1 for linear in linears):
            return None
        assert self._rope is not None
        return PromptAttention(
            weights.qkv.parts[0].weight, weights.out_proj.parts[0].weight, self._rope.cos, self._rope.sin,
            self._rope.interleaved, self._keys, self._values, self._group, a.num_heads, a.num_kv_heads,
            a.scale, a.window if a.chunk is None else -a.chunk, a.softcap, weights.sinks)

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        """Hidden states to queries, keys and values; where that is one with `mix`, to the cache."""
        a = self._attention
        whole = v.of("qkv", a.qkv_size + a.gate_size)
        if not of_prompts and self._fuses(v):
            assert self._rope is not None and self._values is not None
            x, norm = self._branch.input(v)
            own = slice(v.first, v.last)
            self._ops.linear_rope_write_kv(
                x, self._weights.qkv.parts[0].weight, whole, norm, self._branch.eps, self._rope.cos,
                self._rope.sin, step.positions[own], step.slot_mappings[self._group][own], self._keys,
                self._values, a.num_heads, a.num_kv_heads, self._rope.interleaved)
            return
        self._branch.multiply(self._weights.qkv, v, whole[:, :a.input_size], of_prompts=of_prompts,
                              precise=a.query_size + a.key_size)

    def mix(self, step: StepInput, v: Rows) -> None:
        ops, a, weights, tables = self._ops, self._attention, self._weights, self._rope
        keys, values = self._keys, self._values
        whole, attended = v.of("qkv", a.qkv_size + a.gate_size), v.of("attention", a.query_size)
        qkv = whole[:, :a.qkv_size]
        queries, own_keys = qkv[:, :a.query_size], qkv[:, a.query_size:a.query_size + a.key_size]
        has_own = a.reads_cache_of is None
        if has_own and (a.keys_as_values or a.value_norm is not None):
            own_values = qkv[:, a.query_size + a.key_size:]
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
        rows, sequences = len(queries), len(step.seq_lens)
        prompts = step.prompts if ops.prompts is not None else ()
        if prompts:
            rows, sequences = prompts[0].first, prompts[0].index
        cos, sin, interleaved = (None, None, False) if tables is None else tables
        slots = step.slot_mappings[self._group] if has_own else self._no_slots[:len(qkv)]
        left = slice(rows if self._fuses(v) else 0, len(qkv))
        if left.start < left.stop:
            ops.rope_write_kv(qkv[left], cos, sin, step.positions[left], slots[left], keys, values,
                              a.num_heads, a.num_kv_heads, interleaved, self._query_scale)
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
        if a.output_gate is not None:
            self._gate(attended, whole[:, a.qkv_size:])

    def add(self, v: Rows, of_prompts: bool) -> None:
        attended = v.of("attention", self._attention.query_size)
        self._branch.add(self._weights.out_proj, attended, v, self._attention, of_prompts=of_prompts)

    def _gate(self, attended: Tensor, gates: Tensor) -> None:
        if self._attention.gate_function == "softplus":
            self._ops.softplus_rows(gates, None, gates)
            self._ops.gate_rows(attended, gates, attended, "none")
        else:
            self._ops.gate_rows(attended, gates, attended, "sigmoid")

    def _fuses(self, v: Rows) -> bool:
        """Whether rows that decode are rotated and kept where they are projected: no adapter adds to them."""
        return self._can_fuse and (v.adapters is None or self._weights.qkv.adapters is None)

    def _norm_heads(self, norm: HeadNorm, weights: NormWeights | None, heads: Tensor, num_heads: int) -> None:
        assert weights is not None
        normalize(self._ops, norm.norm, weights, heads, heads, num_heads if norm.span == "head" else 1)
