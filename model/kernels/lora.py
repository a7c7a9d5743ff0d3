"""Low-rank products beside weights: which rows of a step get which, and how they lie in memory.

The same for the CPU's library and the GPU's; reference/lora.py says what is computed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.kernels.checks import check, check_dense

MAX_RANK = 1024
"""PARLOR_LORA_RANK of kernels.h: of all segments of an adapter together."""
MAX_SEGMENTS = 4
"""PARLOR_LORA_SEGMENTS."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""In the order of PARLOR_F32, _F16 and _BF16."""
_NO_ADAPTER = -1


@dataclass(frozen=True)
class LoraSegment:
    """out[:, first:first + n] += scale * (x @ down^T) @ up^T. Segments of one `down` may share the tensor."""

    first: int
    down: Tensor  # float32, float16 or bfloat16 [rank, k]
    up: Tensor    # the same [n, rank]
    scale: float


def check_segments(adapters: Sequence[Sequence[LoraSegment]], n: int, k: int) -> None:
    """Raise ValueError unless the segments fit a weight [n, k]."""
    for segments in adapters:
        if len(segments) > MAX_SEGMENTS:
            raise ValueError(f"an adapter has {len(segments)} segments; at most {MAX_SEGMENTS} are possible")
        for segment in segments:
            rank, count = segment.down.shape[0], segment.up.shape[0]
            if segment.down.shape != (rank, k) or segment.up.shape != (count, rank) \
                    or not 0 <= segment.first <= segment.first + count <= n:
                raise ValueError(f"down is {list(segment.down.shape)} and up {list(segment.up.shape)} from "
                                 f"output {segment.first} on; expected [rank, {k}] and [n, rank] within "
                                 f"{n} outputs")
        rank = sum(down.shape[0] for down in distinct(segments))
        if rank > MAX_RANK:
            raise ValueError(f"an adapter has rank {rank:,} beside one weight; at most {MAX_RANK:,} are "
                             "possible")


def distinct(segments: Sequence[LoraSegment]) -> list[Tensor]:
    """The segments' different `down`s, in order."""
    return list({id(segment.down): segment.down for segment in segments}.values())


class SegmentStruct(ctypes.Structure):
    """Of `lora_adapter` of kernels.h."""

    _fields_ = [*((name, ctypes.c_int64) for name in ("first", "count", "first_rank", "rank", "up_start")),
                ("scale", ctypes.c_float), ("padding", ctypes.c_float)]


class AdapterStruct(ctypes.Structure):
    """`lora_adapter` of kernels.h, field by field."""

    _fields_ = [("down", ctypes.c_void_p), ("up", ctypes.c_void_p),
                *((name, ctypes.c_int64) for name in ("dtype", "rank", "num_segments")),
                ("segments", SegmentStruct * MAX_SEGMENTS)]


@dataclass(frozen=True)
class LoraWeight:
    """What `pack_lora` returns: an AdapterStruct each in `table`; the other tensors keep memory alive."""

    table: Tensor  # uint8 [num_adapters * sizeof(AdapterStruct)]
    num_adapters: int
    n: int
    k: int
    numbers: dict[int, tuple[Tensor, Tensor]]  # of each adapter that adds something

    @property
    def nbytes(self) -> int:
        return self.table.nbytes + sum(part.nbytes for parts in self.numbers.values() for part in parts)


class LoraOperations:
    """The class that inherits them has a library, a device and a stream."""

    call: Callable[..., None]

    def _place(self) -> tuple[str, Any]:
        """The device that every tensor lies on, and the stream."""
        raise NotImplementedError

    def pack_lora(self, adapters: Sequence[Sequence[LoraSegment]], n: int, k: int,
                  room: int = 0) -> LoraWeight:
        """What each adapter adds to a weight [n, k]; no segments: nothing. `room`: adapters that there may be
        with those that `put_lora` brings. Raises ValueError."""
        check_segments(adapters, n, k)
        count = max(len(adapters), room)
        table = torch.zeros(count * ctypes.sizeof(AdapterStruct), dtype=torch.uint8, device=self._place()[0])
        weight = LoraWeight(table, count, n, k, {})
        for number, segments in enumerate(adapters):
            if segments:
                self.put_lora(weight, number, segments)
        return weight

    def put_lora(self, weight: LoraWeight, number: int, segments: Sequence[LoraSegment]) -> None:
        """What the adapter of this number adds from now on; its place in memory stays. Raises ValueError."""
        check_segments([segments], weight.n, weight.k)
        struct, size = AdapterStruct(), ctypes.sizeof(AdapterStruct)
        parts = _fill(struct, segments, self._place()[0]) if segments else None
        weight.table[number * size:(number + 1) * size] = torch.frombuffer(
            bytearray(struct), dtype=torch.uint8).to(weight.table.device)
        if parts is None:
            weight.numbers.pop(number, None)
        else:
            weight.numbers[number] = parts

    def lora(self, x: Tensor, row_adapters: Tensor, weight: LoraWeight, out: Tensor,
             norm: Tensor | None = None, eps: float = 0.0) -> None:
        device, stream = self._place()
        x_stride, out_stride = (check(name, rows, (len(row_adapters), width), device=device)
                                for name, rows, width in (("x", x, weight.k), ("out", out, weight.n)))
        check_dense("row_adapters", row_adapters, (-1,), (torch.int32,), device)
        if norm is not None:
            check_dense("norm", norm, (weight.k,), device=device)
        self.call("lora", x, x_stride, norm, eps, row_adapters, weight.table, weight.num_adapters, weight.n,
                  weight.k, out, out_stride, len(x), stream)


def _fill(struct: AdapterStruct, segments: Sequence[LoraSegment], device: str) -> tuple[Tensor, Tensor]:
    """(down, up) of all segments: down one below the other, up turned, one behind the other."""
    dtypes = {part.dtype for segment in segments for part in (segment.down, segment.up)}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    downs = distinct(segments)
    starts, rank = {}, 0
    for down in downs:
        starts[id(down)] = rank
        rank += down.shape[0]
    down = torch.cat([part.to(dtype) for part in downs]).contiguous().to(device)
    up = torch.cat([segment.up.to(dtype).T.reshape(-1) for segment in segments]).to(device)
    struct.down, struct.up, struct.dtype = down.data_ptr(), up.data_ptr(), _DTYPES.index(dtype)
    struct.rank, struct.num_segments = rank, len(segments)
    up_start = 0
    for of, segment in zip(struct.segments, segments, strict=False):
        of.first, of.count, of.rank = segment.first, *segment.up.shape
        of.first_rank, of.scale, of.up_start = starts[id(segment.down)], segment.scale, up_start
        up_start += segment.up.numel()
    return down, up
