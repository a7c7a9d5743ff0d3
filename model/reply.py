"""A reply in the making: the engine's tokens as text, channels and one clear end.

One thread reads the events of a reply; any thread may cancel it. Knows nothing of messages or templates.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.engine.request import (
    FailedEvent,
    FinishedEvent,
    PromptProgress,
    Request,
    RequestStats,
    TokenEvent,
    TokenLogprob,
)

if TYPE_CHECKING:
    from model.engine.logprobs import PromptLogprobs
    from model.text.reply_text import ReplyText
    from model.text.thought_end import ThoughtEnd
    from model.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextDelta:
    """More text of a reply, in channel "text" or "think"; from `num_tokens_so_far` tokens."""

    text: str
    channel: str
    num_tokens_so_far: int


@dataclass(frozen=True)
class CallDelta:
    """A call of a tool, the reply's number `index` (from 0): it begins, with the function's `name`, or there
    is more of its arguments, which are JSON when all has come."""

    index: int
    name: str
    arguments: str
    num_tokens_so_far: int


@dataclass(frozen=True)
class ReplyDone:
    """The end of a reply: "eos", "stop" (and by which string), "length", "cancelled" or "context"."""

    finish_reason: str
    stats: RequestStats
    stop: str = ""


@dataclass(frozen=True)
class ReplyFailed:
    """The engine could not go on; the text sent so far stands."""

    message: str


@dataclass(frozen=True)
class ScoredToken:
    """A token and its log-probability by the model itself (TokenLogprob says what that is). `top`: the
    likeliest tokens in its place, best first. The `text` of a token that is a part of a character is U+FFFD;
    `data` has its bytes. nan: nothing stands before it, see ScoredText. `entropy`: in nats, of all tokens
    there, where it is known. `is_control`: it belongs to the model's format, such as the end of a reply."""

    token_id: int
    text: str
    logprob: float
    data: bytes
    top: tuple[ScoredToken, ...] = ()
    entropy: float | None = None
    is_control: bool = False


@dataclass(frozen=True)
class Completion:
    """A whole reply; `tokens` only where log-probabilities were asked for."""

    text: str
    finish_reason: str
    tokens: tuple[ScoredToken, ...]
    stats: RequestStats


ReplyEvent = PromptProgress | ScoredToken | TextDelta | CallDelta | ReplyDone | ReplyFailed


def digest_of(token_ids: Sequence[int]) -> str:
    """16 hex digits for these tokens in this order."""
    return hashlib.blake2b(array("i", token_ids).tobytes(), digest_size=8).hexdigest()


class Reply:
    """A reply in the making. One thread reads `events`; any thread may `cancel`."""

    def __init__(self, request: Request, tokenizer: Tokenizer, text: ReplyText, first_index: int,
                 prompt_tokens: int, is_shortened: bool = False, marks: Iterable[str] = (),
                 begun: Iterable[int] = (), thought_end: ThoughtEnd | None = None) -> None:
        """`marks`: control tokens that `text` has to see. `begun`: what the prompt ends with of the reply,
        whose last token may be the beginning of a character. `thought_end`: closes its thought."""
        self.first_index = first_index
        self.prompt_tokens = prompt_tokens + len(request.guide)
        self.prompt_digest = digest_of([*request.prompt, *([-1, *request.guide] if request.guide else ())])
        self.is_shortened = is_shortened  # of the last message the model sees the beginning and the end
        self._request = request
        self._tokenizer, self._detokenizer = tokenizer, tokenizer.detokenizer(marks)
        for token_id in begun:
            self._detokenizer.push(token_id)
        self._text = text
        self._thought_end = thought_end
        self._num_tokens = 0
        self._num_calls = 0

    def cancel(self) -> None:
        """End the reply within one step; events then ends with ReplyDone("cancelled")."""
        self._request.cancel()

    def answer_now(self) -> bool:
        """Close the thought that goes on, so that the answer begins. False if the reply is in none."""
        return self._thought_end is not None and self._thought_end.close()

    def events(self) -> Iterator[ReplyEvent]:
        """Progress, text, and at last ReplyDone or ReplyFailed. No text is lost on any way out. Where
        log-probabilities were asked for, each token comes before its text."""
        for event in self._request.events():
            if isinstance(event, TokenEvent):
                if event.logprob is not None and not self._text.stopped:
                    yield scored_token(self._tokenizer, event.logprob)
                yield from self._take(event.token_id)
            elif isinstance(event, FinishedEvent):
                yield from self._finish()
                reason = self._text.reason if self._text.stopped else event.reason
                yield ReplyDone(reason, event.stats, self._text.stop_string)
            elif isinstance(event, FailedEvent):
                yield from self._finish()
                yield ReplyFailed(event.message)
            else:
                yield event

    def _take(self, token_id: int) -> Iterator[TextDelta | CallDelta]:
        if self._text.stopped:
            return  # tokens of the step in which the stop string came
        self._num_tokens += 1
        yield from self._deltas(self._text.push(self._detokenizer.push(token_id)))
        if self._text.stopped:
            self._request.cancel(self._text.reason)

    def _finish(self) -> Iterator[TextDelta | CallDelta]:
        yield from self._deltas(self._text.push(self._detokenizer.finish()))
        yield from self._deltas(self._text.finish())

    def _deltas(self, pieces: list[tuple[str, str]]) -> Iterator[TextDelta | CallDelta]:
        for channel, text in pieces:
            if channel == "call":
                self._num_calls += 1
                yield CallDelta(self._num_calls - 1, text, "", self._num_tokens)
            elif channel == "arguments":
                yield CallDelta(self._num_calls - 1, "", text, self._num_tokens)
            else:
                yield TextDelta(text, channel, self._num_tokens)


class ScoredText:
    """A text that is only scored: read like a reply, whose text it is. Its tokens come with it, when all are
    known; a first one that nothing stands before has the log-probability nan."""

    is_shortened, prompt_digest = False, ""

    def __init__(self, request: Request, scores: PromptLogprobs, tokenizer: Tokenizer, text: str,
                 first_index: int = 0, is_whole: bool = True) -> None:
        """`is_whole`: the text is the whole prompt, not only the end of one."""
        self._request, self._scores, self._tokenizer, self._text = request, scores, tokenizer, text
        self.prompt_tokens, self.first_index, self._is_whole = len(request.prompt), first_index, is_whole

    def cancel(self) -> None:
        """End within one step."""
        self._request.cancel()

    def events(self) -> Iterator[ReplyEvent]:
        """Progress, all tokens, the text, ReplyDone("length"); or an end without them."""
        for event in self._request.events():
            if isinstance(event, FinishedEvent):
                if event.reason == "length":
                    first = [TokenLogprob(self._request.prompt[0], math.nan)] * self._is_whole
                    for found in (*first, *self._scores.found):
                        yield scored_token(self._tokenizer, found)
                    yield TextDelta(self._text, "text", self.prompt_tokens)
                yield ReplyDone(event.reason, event.stats)
            elif isinstance(event, FailedEvent):
                yield ReplyFailed(event.message)
            elif isinstance(event, PromptProgress):
                yield event


def scored_token(tokenizer: Tokenizer, found: TokenLogprob) -> ScoredToken:
    """The engine's numbers with the tokens' texts."""
    def told(token_id: int, logprob: float, *top: ScoredToken, entropy: float | None = None) -> ScoredToken:
        data = tokenizer.token_bytes(token_id) if token_id < tokenizer.vocab_size else b""
        return ScoredToken(token_id, data.decode(errors="replace"), logprob, data, top, entropy,
                           token_id in tokenizer.control_ids or token_id in tokenizer.eos_ids or not data)

    return told(found.token_id, found.logprob, *(told(*other) for other in found.top), entropy=found.entropy)


def completion(reply: Reply) -> Completion:
    """All of a reply, when it is done. Raises RuntimeError if the engine failed."""
    parts, tokens = [], []
    for event in reply.events():
        if isinstance(event, ReplyFailed):
            raise RuntimeError(event.message)
        if isinstance(event, TextDelta):
            parts.append(event.text)
        if isinstance(event, ScoredToken):
            tokens.append(event)
    assert isinstance(event, ReplyDone), "events end with ReplyDone or ReplyFailed"
    return Completion("".join(parts), event.finish_reason, tuple(tokens), event.stats)
