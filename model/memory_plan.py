"""What weights, cache and scratch will take, decided before anything is loaded.

A plan that does not fit is an error which names the setting that would. Knows sizes only: no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.config import EngineConfig, ModelConfig, ModelLoadError
from model.engine.kv_cache import PAGE_SIZE
from model.kernels.cache_kinds import CACHE_KINDS
from model.machine import readable_size

_RESERVE = 256 << 20
"""Left to the rest of the machine."""
_CONVERSATIONS = 8
"""Of full length, that the cache holds where there is memory; of shorter ones it holds more."""
_SHARED_CACHE = 0.25
"""Of what is free after the weights, for more than one conversation of full length."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, and what they are for."""

    weight_bytes: int
    cache_bytes: int
    scratch_bytes: int
    free_bytes: int
    max_seq_len: int
    num_pages: int

    @property
    def cache_tokens(self) -> int:
        return self.num_pages * PAGE_SIZE

    def lines(self) -> list[str]:
        """As a table for people."""
        rows = (("weights", self.weight_bytes, ""),
                ("cache", self.cache_bytes, f"{self.cache_tokens:,} tokens, {self.max_seq_len:,} a reply"),
                ("scratch", self.scratch_bytes, ""), ("free now", self.free_bytes, ""))
        return [f"{name:<9}{readable_size(size):>10}  {note}".rstrip() for name, size, note in rows]


def cache_bytes_per_token(config: ModelConfig, cache: str) -> int:
    """Keys and values of one token in all layers, the scales of quantized kinds included."""
    return 2 * config.num_layers * config.num_kv_heads * CACHE_KINDS[cache].row_bytes(config.head_dim)


def rope_bytes_per_position(config: ModelConfig) -> int:
    """Sine and cosine of one position, float32."""
    return config.head_dim * 4


def plan_memory(config: ModelConfig, engine: EngineConfig, *, weight_bytes: int, scratch_bytes: int,
                free_bytes: int) -> MemoryPlan:
    """Choose max_seq_len and the cache's size. Raises ModelLoadError if it cannot fit.

    scratch_bytes  buffers that do not grow with the context
    """
    left = free_bytes - _RESERVE - weight_bytes - scratch_bytes
    if left <= 0:
        raise ModelLoadError(f"{config.name}: the weights need {readable_size(weight_bytes)} and scratch "
                             f"memory {readable_size(scratch_bytes)}; {readable_size(free_bytes)} are free. "
                             "Use a smaller model or one with fewer bits, or close other programs.")
    page_bytes = PAGE_SIZE * cache_bytes_per_token(config, engine.cache)
    rope_bytes = rope_bytes_per_position(config)
    fitting = left // (page_bytes + PAGE_SIZE * rope_bytes) * PAGE_SIZE
    max_seq_len = _max_seq_len(config, engine, fitting, left)
    scratch_bytes += max_seq_len * rope_bytes
    left -= max_seq_len * rope_bytes
    least = -(-max_seq_len // PAGE_SIZE)
    wanted = least * _CONVERSATIONS
    affordable = int(left * _SHARED_CACHE) // page_bytes
    num_pages = max(least, min(wanted, affordable))
    return MemoryPlan(weight_bytes, num_pages * page_bytes, scratch_bytes, free_bytes, max_seq_len, num_pages)


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
    plans = []
    for share in shares:
        try:
            plans.append(plan_memory(replace(config, num_layers=share.num_layers), engine,
                                     weight_bytes=share.weight_bytes, scratch_bytes=share.scratch_bytes,
                                     free_bytes=share.free_bytes))
        except ModelLoadError as error:
            if len(shares) == 1:
                raise
            raise ModelLoadError(f"{share.device}, {share.num_layers} layers: {error}") from None
    max_seq_len = min(plan.max_seq_len for plan in plans)
    num_pages = min(plan.num_pages for plan in plans)
    page_bytes = PAGE_SIZE * cache_bytes_per_token(config, engine.cache)
    scratch = sum(share.scratch_bytes + max_seq_len * rope_bytes_per_position(config) for share in shares)
    return MemoryPlan(sum(plan.weight_bytes for plan in plans), num_pages * page_bytes, scratch,
                      sum(plan.free_bytes for plan in plans), max_seq_len, num_pages)


def _max_seq_len(config: ModelConfig, engine: EngineConfig, fitting: int, left: int) -> int:
    per_token = cache_bytes_per_token(config, engine.cache)
    if engine.max_seq_len is None:
        if fitting < PAGE_SIZE:
            raise ModelLoadError(f"{config.name}: {readable_size(left)} are left for the cache, too few "
                                 f"for {PAGE_SIZE} tokens. Use a smaller model, or close other programs.")
        return min(config.max_positions, fitting)
    wanted = engine.max_seq_len
    if wanted > config.max_positions:
        raise ModelLoadError(f"{config.name} was made for {config.max_positions:,} tokens at most; "
                             f"{wanted:,} were asked for. Use --max-seq-len {config.max_positions}.")
    if wanted > fitting:
        other = ""
        if engine.cache == "fp32" and wanted * per_token // 2 <= left:
            other = f"--cache fp16 ({readable_size(wanted * per_token // 2)}) or "
        if not other and fitting < PAGE_SIZE:
            raise ModelLoadError(f"{config.name}: {readable_size(left)} are left for the cache. Use a "
                                 "smaller model, or close other programs.")
        raise ModelLoadError(f"{wanted:,} tokens of {engine.cache} cache need "
                             f"{readable_size(wanted * per_token)}; {readable_size(left)} are free beside "
                             f"the weights. Use {other}--max-seq-len {max(fitting, PAGE_SIZE)}.")
    return wanted
