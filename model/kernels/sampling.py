"""One sequence's part of a sampling call: its parameters, its history and its random stream.

Made once for a request and kept; a step changes only `num_tokens`. Knows the C struct of kernels.h, not how
the engine schedules. What each parameter does exactly is written at `reference.sample`.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor


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
    )


class SamplingRow:
    """How one sequence's next token is chosen.

    history        int32 [capacity] on the CPU: prompt and reply; the first `num_tokens` entries count. The
                   row keeps the tensor, so the engine may append in place and raise `num_tokens`
    prompt_length  entries of `history` that are the prompt; the rest is the reply
    seed           0 .. 2^64 - 1; the random number is keyed by (seed, num_tokens)

    allowed        None, or int32 [(vocab_size + 31) // 32]: bit i % 32 of word i // 32 is token i, which may
                   only be chosen where it is set. The row keeps the tensor

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
        self._allowed: Tensor | None = None
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
            top_k=settings.top_k)

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

    def at(self, num_tokens: int) -> SamplingRow:
        """A row over the same history of which `num_tokens` entries count."""
        row = copy.copy(self)
        row.struct = SamplingStruct.from_buffer_copy(self.struct)
        row.num_tokens = num_tokens
        return row

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt; penalties for presence and frequency count from here."""
        return self.struct.prompt_length

    @property
    def seed(self) -> int:
        return self.struct.seed
