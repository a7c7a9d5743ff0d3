"""A reply that another engine writes: its chunks as text, thoughts, calls and one clear end.

The loop's thread puts events in, one thread takes them out, any thread may cancel. However it ends, what has
come of the text is passed on first.
"""

from __future__ import annotations

import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from model.engine.request import RequestStats, SamplingParams
from model.language_model import LOGPROBS
from model.remote.background import Background
from model.remote.connection import Connection
from model.remote.problems import EngineProblem, named
from model.reply import CallDelta, ReplyDone, ReplyEvent, ReplyFailed, ScoredToken, TextDelta
from model.text.reply_text import ReplyText

_STOPPED = "stop_sequence"
"""TGI's word for the end by a stop string."""
_STOP_STRINGS = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang tell the string beside the reason; if a token ended it, a number is there."""
_ABANDONED = ("content_filter", "abort", "error")
_BURST_SECONDS = 0.05
"""What comes within these came in one go, however it was written."""
_UNKNOWN_TOKEN = 0  # other engines tell a token's text, not its number


class RemoteReply:
    """`requests` are tried in turn while the engine says that the prompt is too long for it.

    answers_as  the model that the engine is expected to name; "" where it names none
    heard       told how the reply ended: "", or a problem; and the tokens of the first request's prompt, 0 if
                they are not known
    """

    def __init__(self, connection: Connection, background: Background,
                 requests: list[tuple[Mapping[str, Any], int]], params: SamplingParams, seed: int, *,
                 continues: bool, answers_as: str, prompt_tokens: int, is_shortened: bool,
                 wants_logprobs: bool, heard: Callable[[str, int], None]) -> None:
        self.prompt_digest = ""
        self.first_index, self.prompt_tokens, self.is_shortened = requests[0][1], prompt_tokens, is_shortened
        self._connection, self._requests = connection, requests
        self._answers_as, self._wants_logprobs, self._heard = answers_as, wants_logprobs, heard
        self._params, self._seed = params, seed
        self._text = ReplyText(params.stop, "text" if continues else "start", continues)
        self._events: queue.SimpleQueue[ReplyEvent] = queue.SimpleQueue()
        self._started = time.monotonic()
        self._first: float | None = None
        self._last = self._started
        self._pieces = 0
        self._usage: Mapping[str, Any] = {}
        self._reason = ""
        self._calls: dict[int, int] = {}  # the engine's number of a call -> ours
        self._problem = ""
        self._tries = 0
        self._is_cancelled = False
        self._cancel = background.begin(self._read(), self._ended)

    def cancel(self) -> None:
        """Close the connection; events then ends with ReplyDone("cancelled")."""
        self._is_cancelled = True
        self._cancel()

    def answer_now(self) -> bool:
        """No protocol has words for that."""
        return False

    def events(self) -> Iterator[ReplyEvent]:
        """Text, thoughts, calls, and at last ReplyDone or ReplyFailed."""
        while True:
            event = self._events.get()
            yield event
            if isinstance(event, ReplyDone | ReplyFailed):
                return

    # -- in the loop's thread

    async def _read(self) -> None:
        for request, first_index in self._requests:
            self._tries += 1
            self.first_index = first_index
            try:
                await self._read_one(self._connection.stream_chat(request))
                self._problem = ""
                break
            except EngineProblem as error:
                self._problem = str(error)
                if not error.overflow or self._first is not None:
                    break

    async def _read_one(self, chunks: AsyncIterator[dict[str, Any]]) -> None:
        try:
            async for chunk in chunks:
                self._take(chunk)
                if self._text.stopped:
                    return
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
        if not self._reason:
            raise EngineProblem(f"{named(self._connection.address)} closed the connection in the middle of "
                                "the reply.")

    def _take(self, chunk: dict[str, Any]) -> None:
        model = chunk.get("model")
        if self._answers_as and isinstance(model, str) and model and model != self._answers_as:
            raise EngineProblem(f"{named(self._connection.address)} has {model[:200]} where "
                                f"{self._answers_as[:200]} was. Choose a model of it in the menu of models.")
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._take_delta(delta, choice.get("logprobs"))
        reason = choice.get("finish_reason")
        if reason in _ABANDONED:
            raise EngineProblem(f"{named(self._connection.address)} ended the reply: {reason}.")
        if isinstance(reason, str) and reason:
            stopped = any(isinstance(choice.get(name), str) for name in _STOP_STRINGS)
            self._reason = _STOPPED if stopped else reason

    def _take_delta(self, delta: dict[str, Any], logprobs: Any) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        text, calls = delta.get("content"), delta.get("tool_calls")
        if isinstance(thought, str) and thought:
            self._count()
            self._put(TextDelta(thought, "think", self._pieces))
        if isinstance(text, str) and text:
            self._count()
            self._score(logprobs)
            self._show(self._text.push(text))
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("function"), dict):
                self._count()
                self._take_call(call)

    def _take_call(self, call: dict[str, Any]) -> None:
        theirs, function = call.get("index"), call["function"]
        name, arguments = function.get("name"), function.get("arguments")
        theirs = theirs if isinstance(theirs, int) else max(self._calls, default=-1) + (1 if name else 0)
        if theirs not in self._calls:
            if not isinstance(name, str) or not name:
                raise EngineProblem(f"{named(self._connection.address)} calls a tool without its name.")
            self._calls[theirs] = len(self._calls)
            self._put(CallDelta(self._calls[theirs], name, "", self._pieces))
        if isinstance(arguments, str) and arguments:
            self._put(CallDelta(self._calls[theirs], "", arguments, self._pieces))

    def _score(self, logprobs: Any) -> None:
        if not self._wants_logprobs:
            return
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        scored = [_scored(token) for token in tokens] if isinstance(tokens, list) else []
        if not scored or None in scored:
            raise EngineProblem(f"{named(self._connection.address)} tells no {LOGPROBS} of its tokens.")
        for token in scored:
            self._put(token)

    def _count(self) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        self._pieces += 1

    def _show(self, pieces: list[tuple[str, str]]) -> None:
        for channel, text in pieces:
            self._put(TextDelta(text, channel, self._pieces))

    def _put(self, event: Any) -> None:
        self._events.put(event)

    def _ended(self, is_broken: bool) -> None:
        """The last that happens, whether the task was cancelled before its first step or came to its end."""
        problem = self._problem
        if is_broken and not self._is_cancelled:
            problem = f"Something broke while {named(self._connection.address)} was read."
        self._show(self._text.finish())
        stats = self._stats()
        is_counted = self._usage and self._tries == 1
        self._heard("" if self._is_cancelled else problem, stats.prompt_tokens if is_counted else 0)
        if problem and not self._is_cancelled:
            self._put(ReplyFailed(problem))
        else:
            self._put(ReplyDone(self._finish_reason(stats), stats, self._text.stop_string))

    def _finish_reason(self, stats: RequestStats) -> str:
        if self._text.stopped:
            return self._text.reason
        if not self._reason:
            return "cancelled"
        if self._reason == "length":
            return "length" if stats.new_tokens >= self._params.max_new_tokens else "context"
        return "stop" if self._reason == _STOPPED else "eos"

    def _stats(self) -> RequestStats:
        """By the engine's count of tokens where it tells one, and our clock."""
        first = (self._first or self._last) - self._started
        decoding = self._last - (self._first or self._last)
        details = self._usage.get("prompt_tokens_details")
        new = _whole(self._usage.get("completion_tokens")) or self._pieces
        rate = (new - 1) / decoding if decoding >= _BURST_SECONDS else 0.0
        return RequestStats(
            prompt_tokens=_whole(self._usage.get("prompt_tokens")) or self.prompt_tokens,
            cached_tokens=_whole(details.get("cached_tokens")) if isinstance(details, dict) else 0,
            new_tokens=new, seconds_to_first_token=first if self._first else 0.0, prompt_seconds=first,
            decode_seconds=decoding, tokens_per_second=rate, seed=self._seed)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0


def _scored(token: Any) -> ScoredToken | None:
    if not isinstance(token, dict) or not isinstance(token.get("token"), str) \
            or not isinstance(token.get("logprob"), int | float):
        return None
    data = token.get("bytes")
    raw = bytes(data) if isinstance(data, list) and all(
        isinstance(value, int) and 0 <= value < 256 for value in data) else token["token"].encode()
    top = [_scored(other) for other in token.get("top_logprobs") or []]
    return ScoredToken(_UNKNOWN_TOKEN, token["token"], float(token["logprob"]), raw,
                       tuple(other for other in top if other is not None))
