"""An engine without a model: its replies are scripts of tokens.

Reading a request's events is what drives it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import takewhile
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from model.engine.request import (
    Event,
    FailedEvent,
    FinishedEvent,
    PromptProgress,
    RequestStats,
    SamplingParams,
    TokenEvent,
)

_MASK_WORDS = 1 << 14  # for any vocabulary
Script = list[int] | Callable[[list[int]], list[int]]


class ScriptedRequest:
    """Tokens one by one while they are read; a cancelled one ends before the next."""

    def __init__(self, prompt: list[int], params: SamplingParams, eos: frozenset[int], script: list[int],
                 fails_after: int | None, gate: threading.Event | None, constraint: Any = None) -> None:
        self.constraint, self.guide = constraint, []
        self.prompt, self.params, self.eos, self.cancelled = prompt, params, eos, threading.Event()
        self._script, self._fails_after, self._gate = script, fails_after, gate

    def cancel(self, reason: str = "cancelled") -> None:
        self.cancelled.set()
        if self._gate:
            self._gate.set()

    def events(self) -> Iterator[Event]:
        if self._gate:
            self._gate.wait(20)
        sent = 0
        if not self.cancelled.is_set():
            yield PromptProgress(len(self.prompt), len(self.prompt), 0)
        reason = "length"
        script = list(self._script)
        while script:
            if self.cancelled.is_set() or sent == self.params.max_new_tokens:
                break
            token_id = self._held_to() if self.constraint is not None else None
            token_id = script.pop(0) if token_id is None else token_id
            if sent == self._fails_after:
                yield FailedEvent("the step failed")
                return
            if token_id in self.eos:
                reason = "eos"
                break
            sent += 1
            if self.constraint is not None:
                self.constraint.accept([token_id])
            yield TokenEvent(token_id)
        reason = "cancelled" if self.cancelled.is_set() else reason
        seed = 12345 if self.params.seed is None else self.params.seed
        yield FinishedEvent(reason, RequestStats(len(self.prompt), 0, sent, 0.1, 0.1, 0.1, 10.0, seed))


    def _held_to(self) -> int | None:
        """The one token that the constraint lets come next, if there is but one."""
        if self.constraint.is_free:
            return None
        mask = np.zeros(_MASK_WORDS, dtype=np.int32)
        self.constraint.fill_mask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        return int(allowed[0]) if len(allowed) == 1 else None


class ScriptedEngine:
    """The surface of Engine that ChatModel uses."""

    def __init__(self, script: Script = (), max_seq_len: int = 512, vocab_size: int = 512,
                 fails_after: int | None = None, gate: threading.Event | None = None) -> None:
        self.max_seq_len, self._vocab_size = max_seq_len, vocab_size
        self.guided_seq_len = max_seq_len
        self.requests: list[ScriptedRequest] = []
        self.scored: list[tuple[list[int], int]] = []
        self.closed = 0
        self.model_config = SimpleNamespace(spec=SimpleNamespace(vocab_size=vocab_size, max_positions=8192))
        self._script, self._fails_after, self._gate = script, fails_after, gate
        self._lock = threading.Lock()

    def submit(self, token_ids: list[int], params: SamplingParams,
               eos_token_ids: frozenset[int], logprobs: int | None = None,
               adapter: str | None = None, breaks: object = None,
               constraint: Any = None, guide: list[int] | None = None,
               goes_on: bool = False) -> ScriptedRequest:
        assert 0 < len(token_ids) < self.max_seq_len
        script = self._script(token_ids) if callable(self._script) else list(self._script)
        request = ScriptedRequest(list(token_ids), params, eos_token_ids, script, self._fails_after,
                                  self._gate, constraint)
        request.guide, request.goes_on = guide or [], goes_on
        with self._lock:
            self.requests.append(request)
        return request

    def num_cached(self, token_ids: list[int], adapter: str | None = None) -> int:
        """What was read before of the same beginning."""
        pairs = [zip(request.prompt, token_ids[:-1], strict=False) for request in self.requests]
        return max((len([*takewhile(lambda pair: pair[0] == pair[1], one)]) for one in pairs), default=0)

    def logits(self, token_ids: list[int], first: int = 0) -> torch.Tensor:
        """Row i likes token (token_ids[i] + 1) best."""
        self.scored.append((list(token_ids), first))
        rows = torch.zeros(len(token_ids), self._vocab_size)
        rows[range(len(token_ids)), [(token_id + 1) % self._vocab_size for token_id in token_ids]] = 5.0
        return rows[first:]

    def describe(self) -> dict:
        return {"name": "scripted", "device": "none"}

    def status(self) -> dict:
        return {"running": 0}

    def close(self) -> None:
        self.closed += 1
