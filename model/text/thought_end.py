"""The end of a thought: where its tokens are used up, or somebody wants the answer now, it is closed as the
model's template closes it, and the answer begins.

A TokenConstraint of the engine: the closing is what may come next, so that all that was read and thought
stays where it is in the cache. Knows prompts and tokenizers; nothing of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model.text.thinking import Part, first_mark

if TYPE_CHECKING:
    from model.text.forms import Form
    from model.text.messages import Prompt
    from model.text.tokenizer import Tokenizer

_MAX_PARTS = 3  # tokens for which the closing waits while a character is not whole


@dataclass(frozen=True)
class _Moment:
    """How far a reply has come. `tail`: the last bytes of this part; `count`: tokens of thoughts; `closing`:
    what must come next, one token after the other; `waits`: tokens since the closing was due."""

    part: Part
    tail: bytes = b""
    count: int = 0
    closing: tuple[int, ...] = ()
    waits: int = 0


class ThoughtEnd:
    """For one reply. The engine's thread uses it; any thread may call `close`."""

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer, budget: int | None, inner: Form | None = None,
                 calls: bool = False) -> None:
        """
        budget  tokens after which a thought is closed; None: none
        inner   what else the reply is held to
        calls   it may call tools: what comes after the thought is left to the model
        """
        self._format, self._tokenizer, self._budget, self._inner = \
            prompt.think_format, tokenizer, budget, inner
        self._closing = self._format.closing
        if calls or (inner is not None and not self._format.always):
            self._closing = self._format.close  # with which what `inner` knows begins
        self._opens, self._passed, self._answers = (
            tuple(mark.encode() for mark in marks)
            for marks in (self._format.opens, self._format.between, self._format.answers))
        self._keep = max(map(len, (*self._opens, *self._passed, *self._answers, self._format.close.encode())))
        self._wanted = False
        self._now = self._due(_Moment(prompt.at))
        self._before: list[_Moment] = []

    def close(self) -> bool:
        """The thought ends with the next token. False if there is none that goes on."""
        self._wanted = self._now.part == "think"
        return self._wanted

    @property
    def is_free(self) -> bool:
        return self._inner is None and not self._now.closing

    def fill_mask(self, mask: Any) -> None:
        if self._now.closing:
            token_id = self._now.closing[0]
            words = mask.view("uint32")
            words.fill(0)
            words[token_id // 32] = 1 << token_id % 32
        elif self._inner is not None:
            self._inner.fill_mask(mask)
        else:
            mask.fill(-1)

    def accept(self, token_ids: Sequence[int]) -> None:
        if self._inner is not None:
            self._inner.accept(token_ids)
        for token_id in token_ids:
            self._step(token_id)

    def take_back(self, count: int) -> None:
        if self._inner is not None:
            self._inner.take_back(count)
        self._step_back(count)

    def count_possible(self, token_ids: Sequence[int]) -> int:
        """Behind none of them a closing is due: what comes after each is free, as long as `inner` lets it."""
        count = 0
        while count < len(token_ids) and not self._now.closing:
            self._step(token_ids[count])
            count += 1
        is_due = bool(self._now.closing)
        self._step_back(count)
        count = max(0, count - is_due)
        return count if self._inner is None else self._inner.count_possible(token_ids[:count])

    @property
    def is_complete(self) -> bool:
        return self._inner is not None and self._inner.is_complete

    def _step(self, token_id: int) -> None:
        self._before.append(self._now)
        if self._now.part != "text":
            self._now = self._after(self._now, token_id)

    def _step_back(self, count: int) -> None:
        if count:
            self._now = self._before[-count]
            del self._before[-count:]

    def _after(self, now: _Moment, token_id: int) -> _Moment:
        if now.closing and token_id == now.closing[0]:
            rest = now.closing[1:]
            return replace(now, closing=rest) if rest else _Moment("text")
        data = self._tokenizer.token_bytes(token_id) if token_id < self._tokenizer.vocab_size else b""
        moment = replace(now, tail=now.tail + data, closing=(),
                         count=now.count + (now.part == "think"))
        while (further := self._further(moment)) != moment:
            moment = further
        return self._due(moment)

    def _further(self, now: _Moment) -> _Moment:
        """Past one mark, if there is one."""
        if now.part == "think":
            _, closed, rest = now.tail.partition(self._format.close.encode())
            if closed:
                return _Moment("start", rest, now.count)
            return replace(now, tail=now.tail[-self._keep:])
        if now.part == "text":
            return replace(now, tail=b"")
        begun = now.tail.lstrip()
        found = first_mark(begun, self._opens, self._answers, self._passed)
        if found is None:
            return now
        part, mark = found
        return _Moment(part, begun[len(mark):], now.count)

    def _due(self, now: _Moment) -> _Moment:
        """With the closing, if it is time; half a character waits for its other half."""
        if now.part != "think" or not (
                self._wanted or (self._budget is not None and now.count >= self._budget)):
            return now
        if now.waits < _MAX_PARTS and _is_cut(now.tail):
            return replace(now, waits=now.waits + 1)
        own_line = self._format.opens[0].endswith("\n") and not now.tail.endswith(b"\n")
        closing = self._tokenizer.encode_within("\n" * own_line + self._closing, control=True)
        return replace(now, closing=tuple(closing))


def _is_cut(data: bytes) -> bool:
    """Whether it ends within a character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False
