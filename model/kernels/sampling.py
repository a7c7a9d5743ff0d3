"""One sequence's part of a sampling call: its parameters, its history and its random stream.

Made once for a request and kept; a step changes only `num_tokens`. Knows the C struct of kernels.h, not how
the engine schedules. What each parameter does exactly is written at `sample` of reference/sampling.py.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.kernels.stages import STAGES, STAGES_OF_LOGITS


class SamplingSettings(Protocol):
    """The fields of SamplingParams (model/engine/request.py) that choose a token."""

    repetition_penalty: float
    repetition_range: int
    repetition_decay: int
    presence_penalty: float
    frequency_penalty: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    top_n_sigma: float
    dynatemp_range: float
    dynatemp_exponent: float
    xtc_probability: float
    xtc_threshold: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    samplers: Sequence[str]
    min_new_tokens: int
    logit_bias: Mapping[int, float]
    banned_tokens: Sequence[int]


class SamplingStruct(ctypes.Structure):
    """struct sampling_row of kernels.h, field by field."""

    _fields_ = (
        ("history", ctypes.c_void_p),
        ("num_tokens", ctypes.c_int64),
        ("prompt_length", ctypes.c_int64),
        ("bias_ids", ctypes.c_void_p),
        ("bias_values", ctypes.c_void_p),
        ("num_biases", ctypes.c_int64),
        ("eos_ids", ctypes.c_void_p),
        ("num_eos_ids", ctypes.c_int64),
        ("min_new_tokens", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("repetition_penalty", ctypes.c_double),
        ("presence_penalty", ctypes.c_double),
        ("frequency_penalty", ctypes.c_double),
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("typical_p", ctypes.c_double),
        ("repetition_range", ctypes.c_int64),
        ("repetition_decay", ctypes.c_int64),
        ("top_k", ctypes.c_int64),
        ("allowed", ctypes.c_void_p),
        ("stages", ctypes.c_uint64),
        ("top_n_sigma", ctypes.c_double),
        ("dynatemp_range", ctypes.c_double),
        ("dynatemp_exponent", ctypes.c_double),
        ("xtc_probability", ctypes.c_double),
        ("xtc_threshold", ctypes.c_double),
        ("breaks", ctypes.c_void_p),
        ("dry_allowed_length", ctypes.c_int64),
        ("dry_penalty_last_n", ctypes.c_int64),
        ("dry_multiplier", ctypes.c_double),
        ("dry_base", ctypes.c_double),
        ("mirostat_mu", ctypes.c_double),
    )


def active_stages(settings: SamplingSettings) -> tuple[str, ...]:
    """Those of settings.samplers that do something, in their order; mirostat stands for all cuts."""
    does_something = {
        "penalties": (settings.repetition_penalty, settings.presence_penalty, settings.frequency_penalty)
                     != (1, 0, 0),
        "dry": settings.dry_multiplier > 0 and settings.dry_penalty_last_n != 0,
        "top_n_sigma": settings.top_n_sigma > 0,
        "temperature": settings.temperature != 1 or settings.dynatemp_range > 0,
        "top_k": settings.top_k > 0, "top_p": settings.top_p < 1, "min_p": settings.min_p > 0,
        "typical_p": settings.typical_p < 1, "xtc": settings.xtc_probability > 0}
    stages = tuple(name for name in settings.samplers if does_something[name])
    if not settings.mirostat:
        return stages
    return (*(name for name in stages if name in (*STAGES_OF_LOGITS, "temperature")), "mirostat")


class SamplingRow:
    """How one sequence's next token is chosen.

    history        int32 [capacity] on the CPU: prompt and reply; the first `num_tokens` entries count. The
                   row keeps the tensor, so the engine may append in place and raise `num_tokens`
    prompt_length  entries of `history` that are the prompt; the rest is the reply
    seed           0 .. 2^64 - 1; the random number is keyed by (seed, num_tokens)

    allowed        None, or int32 [(vocab_size + 31) // 32]: bit i % 32 of word i // 32 is token i, which may
                   only be chosen where it is set. The row keeps the tensor
    stages         names of STAGES: what is done, in this order
    breaks         None, or uint8 beside `history`: 1 where what DRY sees repeated ends before this token. The
                   row keeps the tensor
    mirostat_mu    the bound of surprise that mirostat has come to, in bits; it changes with each token

    Raises ValueError if a token id is negative or `history` has another dtype or layout.
    """

    def __init__(self, settings: SamplingSettings, *, history: Tensor, num_tokens: int, prompt_length: int,
                 seed: int, eos_token_ids: Collection[int] = ()) -> None:
        if history.dtype != torch.int32 or not history.is_contiguous() or history.device.type != "cpu":
            raise ValueError(f"history is {history.dtype} on {history.device}; "
                             "expected contiguous int32 on cpu")
        if not 0 <= prompt_length <= num_tokens <= history.numel():
            raise ValueError(f"prompt_length {prompt_length} and num_tokens {num_tokens} do not fit a "
                             f"history of {history.numel()}")
        self.settings, self.history = settings, history
        self._numbers = history.numpy()  # the same memory, and written sooner
        self.stages = active_stages(settings)
        self._allowed: Tensor | None = None
        self._breaks: Tensor | None = None
        self.eos_token_ids = tuple(sorted(eos_token_ids))
        biases = {**settings.logit_bias, **dict.fromkeys(settings.banned_tokens, -math.inf)}
        if min([*biases, *self.eos_token_ids, 0]) < 0:
            raise ValueError("a token id of logit_bias, banned_tokens or eos_token_ids is negative")
        self.biases = dict(sorted(biases.items()))
        self._bias_ids = torch.tensor(list(self.biases), dtype=torch.int32)
        self._bias_values = torch.tensor(list(self.biases.values()), dtype=torch.float32)
        self._eos_ids = torch.tensor(self.eos_token_ids, dtype=torch.int32)
        self.struct = SamplingStruct(
            history=history.data_ptr(), num_tokens=num_tokens, prompt_length=prompt_length,
            bias_ids=self._bias_ids.data_ptr(), bias_values=self._bias_values.data_ptr(),
            num_biases=len(self.biases),
            eos_ids=self._eos_ids.data_ptr(), num_eos_ids=len(self.eos_token_ids),
            min_new_tokens=settings.min_new_tokens, seed=seed & 0xFFFFFFFFFFFFFFFF,
            repetition_penalty=settings.repetition_penalty, presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty, temperature=settings.temperature,
            top_p=settings.top_p, min_p=settings.min_p, typical_p=settings.typical_p,
            repetition_range=settings.repetition_range, repetition_decay=settings.repetition_decay,
            top_k=settings.top_k, stages=_packed(self.stages), top_n_sigma=settings.top_n_sigma,
            dynatemp_range=settings.dynatemp_range, dynatemp_exponent=settings.dynatemp_exponent,
            xtc_probability=settings.xtc_probability, xtc_threshold=settings.xtc_threshold,
            dry_allowed_length=settings.dry_allowed_length, dry_penalty_last_n=settings.dry_penalty_last_n,
            dry_multiplier=settings.dry_multiplier, dry_base=settings.dry_base,
            mirostat_mu=2 * settings.mirostat_tau)

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence so far; the next one gets this index."""
        return self.struct.num_tokens

    @num_tokens.setter
    def num_tokens(self, value: int) -> None:
        if not self.struct.prompt_length <= value <= self.history.numel():
            raise ValueError(f"num_tokens is {value}; expected {self.struct.prompt_length} to "
                             f"{self.history.numel()}, the capacity of the history")
        self.struct.num_tokens = value

    @property
    def allowed(self) -> Tensor | None:
        """The tokens that may be chosen; None: all."""
        return self._allowed

    @allowed.setter
    def allowed(self, mask: Tensor | None) -> None:
        if mask is not None and (mask.dtype != torch.int32 or not mask.is_contiguous() or mask.dim() != 1):
            raise ValueError(f"allowed is {mask.dtype} {tuple(mask.shape)}; expected contiguous int32 [n]")
        self._allowed = mask
        self.struct.allowed = None if mask is None else mask.data_ptr()

    @property
    def breaks(self) -> Tensor | None:
        """Where repetitions end; None: nowhere."""
        return self._breaks

    @breaks.setter
    def breaks(self, flags: Tensor | None) -> None:
        if flags is not None and (flags.dtype != torch.uint8 or not flags.is_contiguous()
                                  or flags.shape != self.history.shape):
            raise ValueError(f"breaks is {flags.dtype} {tuple(flags.shape)}; expected contiguous uint8 "
                             f"{tuple(self.history.shape)}, as the history")
        self._breaks = flags
        self.struct.breaks = None if flags is None else flags.data_ptr()

    @property
    def is_learning(self) -> bool:
        """Whether how the next token is chosen depends on how surprising this one is."""
        return "mirostat" in self.stages

    @property
    def mirostat_mu(self) -> float:
        """Bits of surprise beyond which mirostat cuts."""
        return self.struct.mirostat_mu

    def learn(self, surprise: float) -> None:
        """Bring mirostat's bound nearer to what gives the surprise that is wanted.

        surprise  of the token that was chosen, in bits
        """
        self.struct.mirostat_mu -= self.settings.mirostat_eta * (surprise - self.settings.mirostat_tau)

    def at(self, num_tokens: int) -> SamplingRow:
        """A row over the same history of which `num_tokens` entries count."""
        row = object.__new__(SamplingRow)
        row.__dict__.update(self.__dict__)  # copy.copy takes five times as long
        row.struct = SamplingStruct.from_buffer_copy(self.struct)
        row.num_tokens = num_tokens
        return row

    def write(self, first: int, token_ids: Sequence[int]) -> None:
        """Put tokens into the history, from entry `first` on; they do not count yet."""
        for index, token_id in enumerate(token_ids, first):
            self._numbers[index] = token_id

    def up_to(self, num_stages: int) -> SamplingRow:
        """A row that does only the first stages: the distribution that these leave."""
        row = self.at(self.num_tokens)
        row.stages = self.stages[:num_stages]
        row.struct.stages = _packed(row.stages)
        return row

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt; penalties for presence and frequency count from here."""
        return self.struct.prompt_length

    @property
    def seed(self) -> int:
        return self.struct.seed


def _packed(stages: Sequence[str]) -> int:
    return sum(STAGES[name] << 4 * index for index, name in enumerate(stages))
