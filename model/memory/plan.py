"""What weights, cache and scratch will take, decided before anything is loaded.

A plan that does not fit is an error which names the setting that would. But of weights on a CPU a part may
stay on disk (packed_copy.py), which is told with what it costs. Knows sizes only: no tensors.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import EngineConfig
from model.families.spec import Spec, StateMixer, own_caches
from model.files import ModelLoadError
from model.kernels.cache_kinds import CACHE_KINDS
from model.machine import readable_size
from model.memory.cache_parts import CachePart, cache_parts, most_tokens
from model.model_config import ModelConfig
from model.network.rope_tables import table_bytes
from model.sizes import MAX_RUNNING, PAGE_SIZE, pages_for

_RESERVE = 256 << 20
"""Left to the rest of the machine."""
_CONVERSATIONS = 8
"""Of full length, that the cache holds where there is memory; of shorter ones it holds more."""
_SHARED_CACHE = 0.25
"""Of what is free after the weights, for more than one conversation of full length."""
_SHARED_COPIES = 0.5
"""Of what is free after all else, for copies of weights: another model may be loaded later."""
_LEAST_SLOTS, _MOST_SLOTS = 4, 320
"""Of states: one that runs with a guess, and snapshots; and for all that run with as many again for a few."""
_GGUF_BITS = (("Q8_0", 8.5), ("Q6_K", 6.6), ("Q5_K_M", 5.8), ("Q4_K_M", 5.0), ("Q3_K_M", 4.1), ("Q2_K", 3.5))
"""Bits a weight of the types that people take, as the kernels keep them, embeddings and head among them."""
_PLAIN_BITS = 15.5
"""A model that takes more for each number has float weights."""
_DISK_SPEED = 1e9
"""Bytes a second of a disk, for telling what it means to read from it."""
_PASSING = 256 << 20
"""Bytes of memory for weights that are read from disk, while they are used."""
_LEAST_CONTEXT = 1024
"""Tokens without which a model is of no use."""
_SPLIT_KEYS = 256
"""kSplitKeys of cpu/attention/tile.h: keys whose sums wait for the merge in scratch memory."""
_SPLIT_EXTRA = 17
"""Numbers beside the head_dim sums: the maximum, and the weight in 16 lanes at most."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, and what they are for."""

    weight_bytes: int
    caches: tuple[CachePart, ...]  # by how far back layers look
    scratch_bytes: int
    free_bytes: int
    max_seq_len: int
    cache: str = "fp16"
    max_positions: int = 0  # what the model was made for
    state_bytes: int = 0
    num_slots: int = 0      # states of conversations that run, and snapshots of others
    disk_bytes: int = 0     # of the weights, that stay on disk and are read from there for each token
    copy_bytes: int = 0     # of weights that are kept in float16 as well, for prompts on a GPU

    @property
    def cache_tokens(self) -> int:
        """Of layers that see everything; where there are none, of those that keep most."""
        return most_tokens(self.caches)

    @property
    def cache_bytes(self) -> int:
        return sum(part.nbytes for part in self.caches)

    @property
    def total_bytes(self) -> int:
        return (self.kept_bytes + self.cache_bytes + self.state_bytes + self.scratch_bytes
                + self.copy_bytes)

    @property
    def kept_bytes(self) -> int:
        """Of the weights, in memory."""
        return self.weight_bytes - self.disk_bytes

    @property
    def warning(self) -> str:
        """What weights that stay on disk mean, in sentences; "" where they fit."""
        if not self.disk_bytes:
            return ""
        whole, on_disk = readable_size(self.weight_bytes), readable_size(self.disk_bytes)
        return (f"Of the weights ({whole}) {on_disk} do not fit into memory; these are read from disk for "
                f"each token, which takes up to {self.disk_bytes / _DISK_SPEED:,.1f} s if it reads 1 GB/s. A "
                f"packed copy of all of them takes {whole} of disk.")

    @property
    def _told_parts(self) -> list[CachePart]:
        """Where all layers see everything there is nothing to tell."""
        own = [part for part in self.caches if part.num_layers]
        return own if any(part.reach is not None for part in own) else []

    @property
    def cache_by_layers(self) -> str:
        """What of the cache is whose, as a sentence; "" where there is nothing to tell."""
        return ", ".join(f"{readable_size(part.nbytes)} of {part.description}" for part in self._told_parts)

    def lines(self) -> list[str]:
        """As a table for people."""
        context = f"{self.max_seq_len:,} a reply"
        if self.max_seq_len < self.max_positions:
            context += f" of the model's {self.max_positions:,}"
        rows = (("weights", self.kept_bytes, f"and {readable_size(self.disk_bytes)} on disk"
                 if self.disk_bytes else ""),
                ("cache", self.cache_bytes, f"{self.cache}, {self.cache_tokens:,} tokens, {context}"),
                *(("", part.nbytes, part.description) for part in self._told_parts),
                *([("states", self.state_bytes, f"fp32, {self.num_slots:,} of conversations and snapshots")]
                  if self.num_slots else []),
                *([("copies", self.copy_bytes, "of weights in float16, for prompts")]
                  if self.copy_bytes else []),
                ("scratch", self.scratch_bytes, "buffers of a step, logits, rope tables"),
                ("together", self.total_bytes, f"of {readable_size(self.free_bytes)} that are free"))
        return [f"{name:<9}{readable_size(size):>10}  {note}".rstrip() for name, size, note in rows]


def cache_bytes_per_token(spec: Spec, cache: str) -> int:
    """Keys and values of one token in all layers, the scales of quantized kinds included."""
    kind = CACHE_KINDS[cache]
    return sum(a.kept_heads * kind.row_bytes(a.head_dim) for a in own_caches(spec.layers))


def state_bytes(spec: Spec, layers: range | None = None) -> int:
    """Of one sequence, in those of these layers (or of all) that keep a state, float32."""
    own = spec.layers if layers is None else spec.layers[layers.start:layers.stop]
    return sum(4 * math.prod(shape) for layer in own for mixer in layer.mixers
               if isinstance(mixer, StateMixer) for shape in mixer.state_shapes)


def _num_slots(spec: Spec, layers: range, left: int) -> int:
    """States that there is memory for, of `left` bytes."""
    each = state_bytes(spec, layers)
    return max(_LEAST_SLOTS, min(_MOST_SLOTS, int(left * _SHARED_CACHE) // each)) if each else 0


def rope_bytes_per_position(spec: Spec) -> int:
    """Sines and cosines of one position, and factors of queries, float32."""
    return table_bytes({a.rope for a in spec.attentions if a.rope},
                       {a.query_scale for a in spec.attentions if a.query_scale},
                       spec.long_beyond is not None)


def attention_bytes(spec: Spec, cache_tokens: int) -> int:
    """What attention keeps of a step's splits until they are merged: one of each _SPLIT_KEYS keys, and a rest
    of each sequence. See cpu/attention/tile.h."""
    return (cache_tokens // _SPLIT_KEYS + MAX_RUNNING) * _split_bytes(spec)


def _split_bytes(spec: Spec) -> int:
    """float32 sums of every query head, in the layer that has most."""
    return max((4 * a.num_heads * (a.head_dim + _SPLIT_EXTRA) for a in spec.attentions), default=0)


def plan_memory(config: ModelConfig, engine: EngineConfig, *, weight_bytes: int, scratch_bytes: int,
                free_bytes: int, layers: range | None = None, has_disk: bool = False,
                float16_bytes: int = 0) -> MemoryPlan:
    """Choose max_seq_len and the cache's size. Raises ModelLoadError if it cannot fit.

    scratch_bytes  buffers that do not grow with the context
    layers         of the model that lie there; None: all
    has_disk       weights that do not fit may stay on disk; the cache then holds one conversation, in a share
                   of the memory unless a longer one is asked for
    float16_bytes  of copies of the weights that prompts can use; they get a share of what is left at last
    """
    layers = range(config.spec.num_layers) if layers is None else layers
    left = free_bytes - _RESERVE - weight_bytes - scratch_bytes
    room = free_bytes - _RESERVE - scratch_bytes - _PASSING
    is_on_disk = left <= 0 < room and has_disk
    if is_on_disk:
        left = room if engine.max_seq_len else int(room * _SHARED_CACHE)
    if left <= 0:
        raise ModelLoadError(f"{config.name}: the weights need {readable_size(weight_bytes)} and scratch "
                             f"memory {readable_size(scratch_bytes)}; {readable_size(free_bytes)} are free. "
                             f"{_fitting_weights(config, weight_bytes, left + weight_bytes)}")
    num_slots = _num_slots(config.spec, layers, left)
    states = num_slots * state_bytes(config.spec, layers)
    left -= states
    parts = cache_parts(config.spec, engine.cache, layers)
    fitting = _fitting_tokens(config, parts, left)
    max_seq_len = _max_seq_len(config, engine, layers, fitting, left)
    rope_bytes = max_seq_len * rope_bytes_per_position(config.spec)
    least = sum(part.of_conversation(max_seq_len).nbytes for part in parts)
    shared = 0 if is_on_disk else int((left - rope_bytes) * _SHARED_CACHE)
    budget = min(max(least, shared), least * _CONVERSATIONS)
    share = (budget, least) if least else (_CONVERSATIONS, 1)
    caches = tuple(part.of_conversation(max_seq_len).times(*share) for part in parts)
    further = rope_bytes + attention_bytes(config.spec, most_tokens(caches))
    kept = max(0, room - states - sum(part.nbytes for part in caches) - further)
    disk_bytes = max(0, weight_bytes - kept) if is_on_disk else 0
    scratch_bytes += further
    unused = max(0, left - sum(part.nbytes for part in caches) - further)
    copy_bytes = min(float16_bytes, int(unused * _SHARED_COPIES))
    return MemoryPlan(weight_bytes, caches, scratch_bytes, free_bytes, max_seq_len, engine.cache,
                      config.spec.max_positions, states, num_slots, disk_bytes, copy_bytes)


def _fitting_weights(config: ModelConfig, weight_bytes: int, left: int) -> str:
    """What to do about weights that need more than the `left` bytes there are for them and the cache."""
    numbers = config.spec.num_parameters
    left -= _LEAST_CONTEXT * cache_bytes_per_token(config.spec, "q8")
    fitting = [f"a GGUF file of it in {name} ({readable_size(int(numbers * bits / 8))})"
               for name, bits in _GGUF_BITS if numbers * bits <= 8 * left]
    is_plain = weight_bytes * 8 >= numbers * _PLAIN_BITS
    rounded = [f"--quantize {bits}" for bits in (8, 4) if is_plain and numbers * (bits + 1) <= 8 * left]
    settings = rounded[:1] + fitting[:1]
    if not settings:
        return "Use a smaller model, or close other programs."
    return f"Use {' or '.join(settings)}, or a smaller model, or close other programs."


def _fitting_tokens(config: ModelConfig, parts: Sequence[CachePart], left: int) -> int:
    """The longest context in `left` bytes, in whole pages; each token's share of scratch memory counts."""
    spec = config.spec
    beside = rope_bytes_per_position(spec) + -(-_split_bytes(spec) // _SPLIT_KEYS)

    def needed(num_pages: int) -> int:
        tokens = num_pages * PAGE_SIZE
        return (sum(part.of_conversation(tokens).nbytes for part in parts) + tokens * beside
                + attention_bytes(spec, 0))

    return max(0, bisect_right(range(pages_for(spec.max_positions) + 1), left, key=needed) - 1) * PAGE_SIZE


@dataclass(frozen=True)
class Share:
    """What of a model lies on one device."""

    device: str
    num_layers: int
    weight_bytes: int
    scratch_bytes: int
    free_bytes: int
    float16_bytes: int = 0


def plan_shares(config: ModelConfig, engine: EngineConfig, shares: Sequence[Share],
                has_disk: bool = False) -> MemoryPlan:
    """As plan_memory, for a model whose layers are spread: what the fullest device allows."""
    plans, start = [], 0
    for share in shares:
        layers = range(start, start + share.num_layers)
        start += share.num_layers
        try:
            plans.append(plan_memory(config, engine, weight_bytes=share.weight_bytes, layers=layers,
                                     scratch_bytes=share.scratch_bytes, free_bytes=share.free_bytes,
                                     has_disk=has_disk, float16_bytes=share.float16_bytes))
        except ModelLoadError as error:
            if len(shares) == 1:
                raise
            raise ModelLoadError(f"{share.device}, {share.num_layers} layers: {error}") from None
    max_seq_len = min(plan.max_seq_len for plan in plans)
    num_slots = min((plan.num_slots for plan in plans if plan.num_slots), default=0)
    caches = tuple(part.with_pages(min(each.num_pages for each in same)) for part, *same in zip(
        cache_parts(config.spec, engine.cache), *(plan.caches for plan in plans), strict=True))
    scratch = sum(share.scratch_bytes + max_seq_len * rope_bytes_per_position(config.spec)
                  + attention_bytes(config.spec, most_tokens(caches)) for share in shares)
    return MemoryPlan(sum(plan.weight_bytes for plan in plans), caches, scratch,
                      sum(plan.free_bytes for plan in plans), max_seq_len, engine.cache,
                      config.spec.max_positions, num_slots * state_bytes(config.spec), num_slots,
                      sum(plan.disk_bytes for plan in plans),
                      len(plans) * min(plan.copy_bytes for plan in plans))


def _max_seq_len(config: ModelConfig, engine: EngineConfig, layers: range, fitting: int,
                 left: int) -> int:
    wanted = config.spec.max_positions if engine.max_seq_len is None else engine.max_seq_len
    if wanted > config.spec.max_positions:
        raise ModelLoadError(f"{config.name} was made for {config.spec.max_positions:,} tokens at most; "
                             f"{wanted:,} were asked for. Use --max-seq-len {config.spec.max_positions}.")
    if wanted <= fitting:
        return wanted
    if engine.max_seq_len is None and fitting >= PAGE_SIZE:
        return fitting
    sizes = {kind: _conversation_bytes(config, kind, layers, wanted) for kind in CACHE_KINDS}
    smaller = sorted((kind for kind in sizes if sizes[kind] < sizes[engine.cache]),
                     key=lambda kind: -sizes[kind])  # the most exact one first
    settings = [f"--cache {kind} ({readable_size(sizes[kind])})" for kind in smaller
                if _fitting_tokens(config, cache_parts(config.spec, kind, layers), left) >= wanted][:1]
    if fitting >= PAGE_SIZE:
        settings.append(f"--max-seq-len {fitting}")
    advice = f"Use {' or '.join(settings)}." if settings else "Use a smaller model, or close other programs."
    raise ModelLoadError(f"{wanted:,} tokens of {engine.cache} cache need "
                         f"{readable_size(sizes[engine.cache])}; {readable_size(left)} "
                         f"are free beside the weights. {advice}")


def _conversation_bytes(config: ModelConfig, cache: str, layers: range, num_tokens: int) -> int:
    return sum(part.of_conversation(num_tokens).nbytes for part in cache_parts(config.spec, cache, layers))
