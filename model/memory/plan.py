"""What weights, cache and scratch will take, decided before anything is loaded.

A plan that does not fit is an error which names the setting that would. Knows sizes only: no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.config import EngineConfig
from model.families.spec import Spec, own_caches
from model.files import ModelLoadError
from model.kernels.cache_kinds import CACHE_KINDS
from model.machine import readable_size
from model.model_config import ModelConfig
from model.network.rope_tables import table_bytes
from model.sizes import MAX_RUNNING, PAGE_SIZE

_RESERVE = 256 << 20
"""Left to the rest of the machine."""
_CONVERSATIONS = 8
"""Of full length, that the cache holds where there is memory; of shorter ones it holds more."""
_SHARED_CACHE = 0.25
"""Of what is free after the weights, for more than one conversation of full length."""
_LEAST_SLOTS, _MOST_SLOTS = 4, 320
"""Of states: one that runs with a guess, and snapshots; and for all that run with as many again for a few."""
_GGUF_BITS = (("Q8_0", 8.5), ("Q6_K", 6.6), ("Q5_K_M", 5.8), ("Q4_K_M", 5.0), ("Q3_K_M", 4.1), ("Q2_K", 3.5))
"""Bits a weight of the types that people take, as the kernels keep them, embeddings and head among them."""
_PLAIN_BITS = 15.5
"""A model that takes more for each number has float weights."""
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
    cache_bytes: int
    scratch_bytes: int
    free_bytes: int
    max_seq_len: int
    num_pages: int
    cache: str = "fp16"
    max_positions: int = 0  # what the model was made for
    state_bytes: int = 0
    num_slots: int = 0      # states of conversations that run, and snapshots of others

    @property
    def cache_tokens(self) -> int:
        return self.num_pages * PAGE_SIZE

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.state_bytes + self.scratch_bytes

    def lines(self) -> list[str]:
        """As a table for people."""
        context = f"{self.max_seq_len:,} a reply"
        if self.max_seq_len < self.max_positions:
            context += f" of the model's {self.max_positions:,}"
        rows = (("weights", self.weight_bytes, ""),
                ("cache", self.cache_bytes, f"{self.cache}, {self.cache_tokens:,} tokens, {context}"),
                *([("states", self.state_bytes, f"fp32, {self.num_slots:,} of conversations and snapshots")]
                  if self.num_slots else []),
                ("scratch", self.scratch_bytes, "buffers of a step, logits, rope tables"),
                ("together", self.total_bytes, f"of {readable_size(self.free_bytes)} that are free"))
        return [f"{name:<9}{readable_size(size):>10}  {note}".rstrip() for name, size, note in rows]


def cache_bytes_per_token(spec: Spec, cache: str) -> int:
    """Keys and values of one token in all layers, the scales of quantized kinds included."""
    kind = CACHE_KINDS[cache]
    return sum(2 * a.num_kv_heads * kind.row_bytes(a.head_dim) for a in own_caches(spec.layers))


def state_bytes(spec: Spec) -> int:
    """Of one sequence, in all layers that keep a state, float32."""
    return sum(4 * math.prod(shape) for mixer in spec.states for shape in mixer.state_shapes)


def _num_slots(spec: Spec, left: int) -> int:
    """States that there is memory for, of `left` bytes."""
    each = state_bytes(spec)
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
                free_bytes: int) -> MemoryPlan:
    """Choose max_seq_len and the cache's size. Raises ModelLoadError if it cannot fit.

    scratch_bytes  buffers that do not grow with the context
    """
    left = free_bytes - _RESERVE - weight_bytes - scratch_bytes
    if left <= 0:
        raise ModelLoadError(f"{config.name}: the weights need {readable_size(weight_bytes)} and scratch "
                             f"memory {readable_size(scratch_bytes)}; {readable_size(free_bytes)} are free. "
                             f"{_fitting_weights(config, weight_bytes, left + weight_bytes)}")
    num_slots = _num_slots(config.spec, left)
    states = num_slots * state_bytes(config.spec)
    left -= states
    fitting = _fitting_tokens(config, engine.cache, left)
    max_seq_len = _max_seq_len(config, engine, fitting, left)
    page_bytes = PAGE_SIZE * cache_bytes_per_token(config.spec, engine.cache)
    least = -(-max_seq_len // PAGE_SIZE)
    rope_bytes = max_seq_len * rope_bytes_per_position(config.spec)
    num_pages = least * _CONVERSATIONS
    if page_bytes:
        affordable = int((left - rope_bytes) * _SHARED_CACHE) // page_bytes
        num_pages = max(least, min(num_pages, affordable))
    scratch_bytes += rope_bytes + attention_bytes(config.spec, num_pages * PAGE_SIZE)
    return MemoryPlan(weight_bytes, num_pages * page_bytes, scratch_bytes, free_bytes, max_seq_len, num_pages,
                      engine.cache, config.spec.max_positions, states, num_slots)


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


def _fitting_tokens(config: ModelConfig, cache: str, left: int) -> int:
    """The longest context of this kind in `left` bytes, in whole pages; each token's share of scratch memory
    counts."""
    per_token = (cache_bytes_per_token(config.spec, cache) + rope_bytes_per_position(config.spec)
                 + -(-_split_bytes(config.spec) // _SPLIT_KEYS))
    left -= attention_bytes(config.spec, 0)
    if not per_token:  # layers that keep states alone
        return config.spec.max_positions if left > 0 else 0
    return max(0, left // (PAGE_SIZE * per_token)) * PAGE_SIZE


@dataclass(frozen=True)
class Share:
    """What of a model lies on one device."""

    device: str
    num_layers: int
    weight_bytes: int
    scratch_bytes: int
    free_bytes: int


def plan_shares(config: ModelConfig, engine: EngineConfig, shares: Sequence[Share]) -> MemoryPlan:
    """As plan_memory, for a model whose layers are spread: what the fullest device allows."""
    plans, start = [], 0
    for share in shares:
        layers = config.spec.layers[start:start + share.num_layers]
        start += share.num_layers
        try:
            plans.append(plan_memory(replace(config, spec=replace(config.spec, layers=layers)), engine,
                                     weight_bytes=share.weight_bytes, scratch_bytes=share.scratch_bytes,
                                     free_bytes=share.free_bytes))
        except ModelLoadError as error:
            if len(shares) == 1:
                raise
            raise ModelLoadError(f"{share.device}, {share.num_layers} layers: {error}") from None
    max_seq_len = min(plan.max_seq_len for plan in plans)
    num_pages = min(plan.num_pages for plan in plans)
    num_slots = min((plan.num_slots for plan in plans if plan.num_slots), default=0)
    page_bytes = PAGE_SIZE * cache_bytes_per_token(config.spec, engine.cache)
    scratch = sum(share.scratch_bytes + max_seq_len * rope_bytes_per_position(config.spec)
                  + attention_bytes(config.spec, num_pages * PAGE_SIZE) for share in shares)
    return MemoryPlan(sum(plan.weight_bytes for plan in plans), num_pages * page_bytes, scratch,
                      sum(plan.free_bytes for plan in plans), max_seq_len, num_pages, engine.cache,
                      config.spec.max_positions, num_slots * state_bytes(config.spec), num_slots)


def _max_seq_len(config: ModelConfig, engine: EngineConfig, fitting: int, left: int) -> int:
    wanted = config.spec.max_positions if engine.max_seq_len is None else engine.max_seq_len
    if wanted > config.spec.max_positions:
        raise ModelLoadError(f"{config.name} was made for {config.spec.max_positions:,} tokens at most; "
                             f"{wanted:,} were asked for. Use --max-seq-len {config.spec.max_positions}.")
    if wanted <= fitting:
        return wanted
    if engine.max_seq_len is None and fitting >= PAGE_SIZE:
        return fitting
    settings = [f"--cache {kind} ({readable_size(wanted * cache_bytes_per_token(config.spec, kind))})"
                for kind in _smaller_kinds(config, engine.cache)
                if _fitting_tokens(config, kind, left) >= wanted][:1]
    if fitting >= PAGE_SIZE:
        settings.append(f"--max-seq-len {fitting}")
    advice = f"Use {' or '.join(settings)}." if settings else "Use a smaller model, or close other programs."
    needed = readable_size(wanted * cache_bytes_per_token(config.spec, engine.cache))
    raise ModelLoadError(f"{wanted:,} tokens of {engine.cache} cache need {needed}; {readable_size(left)} "
                         f"are free beside the weights. {advice}")


def _smaller_kinds(config: ModelConfig, cache: str) -> list[str]:
    """Kinds that take less, the most exact one first."""
    own = cache_bytes_per_token(config.spec, cache)
    smaller = [kind for kind in CACHE_KINDS if cache_bytes_per_token(config.spec, kind) < own]
    return sorted(smaller, key=lambda kind: -cache_bytes_per_token(config.spec, kind))
