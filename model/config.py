"""What the user chose, and how files of settings are read. What they say of a model is model_config.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.kernels.cache_kinds import CACHE_KINDS

DEVICES = ("auto", "cpu", "cuda")
MAX_ADAPTERS = 64


@dataclass(frozen=True)
class EngineConfig:
    """How the engine is to run. Raises ValueError for a value outside its range."""

    device: str = "auto"              # auto | cpu | cuda
    max_seq_len: int | None = None    # tokens of prompt and reply; None: the model's, or what memory allows
    cache: str | None = None          # fp16 | q8 | q4 | fp32: keys and values; None: fp16, fp32 if exact
    threads: int | None = None        # None: the physical cores
    prefill_chunk: int | None = None  # most prompt tokens a step; None: what suits the device
    gpu_split: Sequence[float] | None = None    # GiB of each GPU to use; None: all of the first GPU
    quantize: int | None = None       # 4 | 8: bits that plain weights are rounded to while they are loaded
    exact: bool = False               # float32 activations throughout instead of int8
    speculation: bool = True          # guess ahead by looking up what followed the same tokens before
    draft: Path | None = None         # folder of a smaller model of the same tokens that guesses instead
    adapters: Sequence[tuple[str, Path]] = ()   # LoRA adapters that requests may name: (name, folder or file)

    def __post_init__(self) -> None:
        _one_of("device", self.device, DEVICES)
        if self.cache is None:
            object.__setattr__(self, "cache", "fp32" if self.exact else "fp16")
        _one_of("cache", self.cache, tuple(CACHE_KINDS))
        for name, low, high in (("max_seq_len", 32, 1 << 24), ("threads", 1, 256),
                                ("prefill_chunk", 32, 8192)):
            if getattr(self, name) is not None:
                _in_range(name, getattr(self, name), low, high)
        if self.quantize not in (None, 4, 8) or isinstance(self.quantize, bool):
            raise ValueError(f"quantize is {self.quantize!r}; expected 4 or 8 bits, or nothing")
        if self.draft is not None and not self.speculation:
            raise ValueError("a draft model was given and speculation is off; expected one of the two")
        object.__setattr__(self, "adapters", tuple((name, Path(path)) for name, path in self.adapters))
        _check_adapters([name for name, _ in self.adapters])
        if self.gpu_split is not None:
            object.__setattr__(self, "gpu_split", tuple(self.gpu_split))
            _check_split(self.gpu_split, self.device)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected a whole number from {low:,} to {high:,}")


def check_adapter_name(name: str) -> None:
    """Raises ValueError."""
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise ValueError(f"an adapter is called {name!r}; expected 1 to 100 characters that can be read")


def _check_adapters(names: list[str]) -> None:
    if len(names) > MAX_ADAPTERS:
        raise ValueError(f"{len(names)} adapters were given; at most {MAX_ADAPTERS} are possible")
    for name in names:
        check_adapter_name(name)
        if names.count(name) > 1:
            raise ValueError(f"two adapters are called {name}; give one another name: --lora NAME=PATH")


def _check_split(gpu_split: Sequence[float], device: str) -> None:
    if device == "cpu":
        raise ValueError("gpu_split names GPUs and device is 'cpu'; expected one of the two")
    if not gpu_split or not all(0 < gib <= 4096 for gib in gpu_split):
        raise ValueError(f"gpu_split is {gpu_split!r}; expected the GiB to use of each GPU, such as 20,20")


def shown(value: Any) -> str:
    """A value from an untrusted file, short enough for an error message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
