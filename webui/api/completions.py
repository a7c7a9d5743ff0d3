"""OpenAI's completions: what follows a text, or each of several, and how likely the texts themselves are.

With `echo` a choice begins with its prompt; with log-probabilities besides, the prompt is scored by a request
of its own in front of the others, which read it from the cache.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask.typing import ResponseReturnValue

from model import CallDelta, ReplyDone, ScoredToken, TextDelta

from ..errors import Problem
from .answering import Answer, Told, Written, answered, streamed
from .asking import MOST_REPLIES, Ask, adapter_of, begin, sampling
from .errors import openai_error
from .fields import BadField, Fields, Json, read_fields
from .openai import BEAT, DONE, finish_reason, frame, head, response_form, usage


def complete_text() -> ResponseReturnValue:
    """What follows a text, or each of several."""
    fields = read_fields()
    asks, echoes, streams = _read(fields), fields.flag("echo"), fields.flag("stream")
    with_usage = fields.object("stream_options").flag("include_usage")
    is_written = fields.value("max_tokens") != 0
    scored = [replace(ask, scores=True, n=1) for ask in asks
              if echoes and (asks[0].logprobs is not None or not is_written)]
    begun = begin(*scored, *(asks if is_written else ()))
    texts = _Texts(asks, echoes, len(scored), is_written)
    if streams:
        return streamed(begun, _Stream(texts, with_usage, begun.model_name).write, "text/event-stream")
    written = answered(begun)
    return head("text_completion", "cmpl", begun.model_name) | {
        "choices": [texts.choice(written, index) for index in range(texts.number)],
        "usage": texts.usage(written)}


class _Texts:
    """Which choice is made of which replies: first come those that only score a prompt."""

    def __init__(self, asks: list[Ask], echoes: bool, num_scored: int, is_written: bool) -> None:
        self.asks, self.echoes, self.num_scored, self.is_written = asks, echoes, num_scored, is_written
        self.number = len(asks) * asks[0].n
        self.wants_logprobs = asks[0].logprobs is not None

    def prompt(self, index: int) -> str:
        """What choice `index` begins with."""
        text = self.asks[index // self.asks[0].n].text
        return text if self.echoes and isinstance(text, str) else ""

    def choices(self, scored: int) -> range:
        """Those that begin with the prompt number `scored`."""
        n = self.asks[0].n
        return range(scored * n, scored * n + n)

    def choice(self, written: list[Written], index: int) -> Json:
        prompt, tokens = self.prompt(index), []
        logprobs = _Logprobs(len(prompt))
        if self.num_scored:
            tokens = written[index // self.asks[0].n].tokens
            logprobs = _of_prompt(prompt, tokens)
        one = written[self.num_scored + index] if self.is_written else Written(reason="length")
        return {"index": index, "text": prompt + one.text, "finish_reason": finish_reason(one),
                "logprobs": logprobs.of([*tokens, *one.tokens]) if self.wants_logprobs else None}

    def usage(self, written: list[Written]) -> Json:
        return usage(written[self.num_scored:], self.asks[0].n) if self.is_written else usage(written, 1)


class _Stream:
    """The chunks of completions. What follows a prompt waits until the prompt has been told."""

    def __init__(self, texts: _Texts, with_usage: bool, model_name: str) -> None:
        self._texts, self._with_usage = texts, with_usage
        self._head = head("text_completion", "cmpl", model_name) | ({"usage": None} if with_usage else {})
        self._logprobs = [_Logprobs(0) for _ in range(texts.number)]
        self._waiting: dict[int, list[Told]] = {index: [] for index in range(texts.number)
                                                if texts.num_scored}

    def write(self, answer: Answer) -> Iterator[bytes]:
        try:
            if self._texts.echoes and not self._texts.num_scored:
                for index in range(self._texts.number):
                    yield self._chunk(index, self._texts.prompt(index))
                    self._logprobs[index] = _Logprobs(len(self._texts.prompt(index)))
            for told in answer.events():
                if told is None:
                    yield BEAT
                elif told[0] < self._texts.num_scored:
                    yield from self._begin(told, answer)
                elif told[0] - self._texts.num_scored in self._waiting:
                    self._waiting[told[0] - self._texts.num_scored].append(told)
                else:
                    yield self._more(told, answer)
        except Problem as problem:
            yield frame(openai_error(problem)[0])
        else:
            if self._with_usage:
                yield frame(self._head | {"choices": [], "usage": self._texts.usage(answer.written)})
        yield DONE

    def _begin(self, told: Told, answer: Answer) -> Iterator[bytes]:
        """The prompt of some choices is known, with what has come of them meanwhile."""
        scored, event, tokens = told
        if not isinstance(event, TextDelta):
            return
        for index in self._texts.choices(scored):
            self._logprobs[index] = _of_prompt(event.text, tokens)
            yield self._chunk(index, event.text, tokens=tokens)
            for waiting in self._waiting.pop(index):
                yield self._more(waiting, answer)
            if not self._texts.is_written:
                yield self._chunk(index, "", "length")

    def _more(self, told: Told, answer: Answer) -> bytes:
        reply, event, tokens = told
        index = reply - self._texts.num_scored
        assert not isinstance(event, CallDelta), "there are no tools"
        if isinstance(event, ReplyDone):
            return self._chunk(index, "", finish_reason(answer.written[reply]))
        return self._chunk(index, event.text, tokens=tokens)

    def _chunk(self, index: int, text: str, reason: str | None = None,
               tokens: list[ScoredToken] | None = None) -> bytes:
        logprobs = self._logprobs[index].of(tokens) if self._texts.wants_logprobs and tokens else None
        return frame(self._head | {"choices": [{"index": index, "text": text, "logprobs": logprobs,
                                                "finish_reason": reason}]})


class _Logprobs:
    """The log-probabilities of one choice as completions have them: lists side by side. `start`: characters
    in front of the first token."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # tokens may be parts of a character

    def of(self, tokens: list[ScoredToken]) -> Json:
        offsets = []
        for token in tokens:
            offsets.append(max(0, self._at))
            self._at += len(self._decoder.decode(token.data))
        known = [not math.isnan(token.logprob) for token in tokens]
        tops = [{other.text: other.logprob for other in token.top} for token in tokens]
        return {"tokens": [token.text for token in tokens],
                "token_logprobs": [token.logprob if told else None for token, told in
                                   zip(tokens, known, strict=True)],
                "top_logprobs": [top if told else None for top, told in zip(tops, known, strict=True)],
                "text_offset": offsets}


def _of_prompt(prompt: str, tokens: list[ScoredToken]) -> _Logprobs:
    """From the beginning of a prompt on; some models' first token has a space that the prompt has not."""
    size = sum(len(token.data) for token in tokens)
    return _Logprobs(min(0, len(prompt.encode("utf-8", "replace")) - size))


def _read(fields: Fields) -> list[Ask]:
    """What a completion asks for: one Ask for each prompt."""
    if fields.has("suffix") and fields.text("suffix"):
        raise BadField("suffix is not supported: the model here writes on, not in between.", "suffix")
    echoes, length = fields.flag("echo"), fields.whole("max_tokens", 16, least=-1)
    if length == 0 and not echoes:
        raise BadField("max_tokens is 0; expected at least 1, or echo.", "max_tokens")
    prompts = _prompts(fields.value("prompt"))
    asked = Ask(params=sampling(fields, None if length == -1 else max(length, 1), fields.texts("stop")),
                n=fields.whole("n", 1, least=1, most=MOST_REPLIES),
                logprobs=fields.whole("logprobs", most=20) if fields.has("logprobs") else None,
                constraint=response_form(fields.object("response_format")), adapter=adapter_of(fields))
    if not 0 < len(prompts) * asked.n <= MOST_REPLIES:
        raise BadField(f"prompt and n ask for {len(prompts) * asked.n} replies; expected 1 to "
                       f"{MOST_REPLIES}.", "prompt")
    if echoes and not all(isinstance(prompt, str) for prompt in prompts):
        raise BadField("echo needs a prompt of text.", "echo")
    return [replace(asked, text=prompt) for prompt in prompts]


def _prompts(value: Any) -> list[str | list[int]]:
    """A text, token ids, or a list of either."""
    if isinstance(value, str) or (value and _are_tokens(value)):
        return [value]
    if isinstance(value, list) and all(isinstance(one, str) or _are_tokens(one) for one in value):
        return value
    raise BadField("prompt is neither a text nor a list of texts.", "prompt")


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool)
                                           for one in value)
