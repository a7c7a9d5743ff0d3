"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from model.quantize.gptq import GridOptions


@dataclass(frozen=True)
class QuantizeOptions:
    """How a run is made. The grid's options are those of the file; the rest is the way there."""

    grid: GridOptions = field(default_factory=GridOptions)
    method: str = "gptq"             # or "round"
    calibration: Path | None = None  # None: the source's calibration.txt, else Parlor's own texts
    samples: int = 64                # times seq_len: how many tokens of it are read
    seq_len: int = 512               # tokens of a document that are read in one piece
    correction: float = 0.5          # share of the earlier layers' errors that is made good
    awq: bool = False                # scale inputs, where the scales can be folded in
    target_bytes: int | None = None  # of all tensors: linears get different bits, by measured error
    bits_per_weight: float | None = None  # the same, of what is quantized, scales and zero points included
    threads: int | None = None
    shard_bytes: int = 4_000_000_000
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("gptq", "round"):
            raise ValueError(f"method is {self.method!r}; expected 'gptq' or 'round'")
        ranges = (("samples", 1, 1 << 20), ("seq_len", 16, 1 << 20), ("shard_bytes", 1 << 16, 1 << 45))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if not 0 <= self.correction <= 1:
            raise ValueError(f"correction is {self.correction}; expected a share from 0 to 1")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ValueError(f"threads is {self.threads}; expected 1 to 1024")
        if self.target_bytes is not None and self.bits_per_weight is not None:
            raise ValueError("both a size and bits per weight are given; expected one of them")
        if self.bits_per_weight is not None and not 2 <= self.bits_per_weight <= 10:
            raise ValueError(f"bits_per_weight is {self.bits_per_weight}; expected 2 to 10")
        if self.method == "round" and self.grid.act_order:
            raise ValueError("act-order is an order of GPTQ's error propagation; rounding has none")

    @property
    def has_mixed_bits(self) -> bool:
        return self.target_bytes is not None or self.bits_per_weight is not None

    @property
    def needs_text(self) -> bool:
        return self.method == "gptq" or self.awq or self.has_mixed_bits
