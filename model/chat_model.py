"""A loaded model that is talked to in messages and text: the engine, its tokenizer and its chat template.

Web threads use it at the same time. Turns messages into token ids for the engine and its events into text.
Knows nothing of HTTP, sessions or bots.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.engine.request import SamplingParams
from model.next_token import NextTokenReading
from model.reply import (
    Completion,
    Reply,
    ReplyFailed,
    ScoredText,
    ScoredToken,
    TextDelta,
    completion,
    scored_token,
)
from model.text.calls.toolbox import Toolbox
from model.text.context import ContextFit, first_kept
from model.text.detokenizer import whole_text
from model.text.errors import PromptTooLongError, TemplateError, TokenizerError
from model.text.fitting import Fitted, Fitting
from model.text.messages import ChatMessage, Prompt, as_messages, joined
from model.text.prompt_parts import PromptView, marked, parts_of, spans_of, token_starts
from model.text.reply_text import ReplyText
from model.text.thinking import thinking_variables
from model.text.thought_end import ThoughtEnd

if TYPE_CHECKING:
    import torch

    from model.engine.engine import Engine
    from model.engine.request import Request
    from model.engine.tally import Tally
    from model.text.chat_template import PromptFormat
    from model.text.constraint import Constraint
    from model.text.forms import Form, Forms
    from model.text.tokenizer import Tokenizer

Message = ChatMessage | Mapping[str, Any]

_MAX_READERS = 64       # threads that read the replies of one `generate`; more prompts wait their turn
_MAX_REPLIES = 256      # to one prompt
_RANKING_TOKENS = 1024  # how much of a transcript is read to tell who speaks next
_MAX_BYTES_PER_TOKEN = 16  # of a line that is longer the end is enough to look at


class ChatModel:
    """What `load_model` returns."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, prompt_format: PromptFormat,
                 advice: Mapping[str, float | int] | None = None) -> None:
        """`advice`: fields of SamplingParams, as the model's authors would set them."""
        self.tokenizer = tokenizer
        self._advice = dict(advice or {})
        self._engine = engine
        self._format = prompt_format
        self._fitting = Fitting(tokenizer, prompt_format, engine.max_seq_len)
        self._forms: Forms | None = None
        self._closed = threading.Event()

    # -- talking

    def start(self, messages: Iterable[Message], params: SamplingParams | None = None, *,
              reply_name: str = "", reply_prefix: str = "", reply_thinking: str = "", shorten: bool = False,
              whole: bool = False, variables: Mapping[str, Any] | None = None, tools: Toolbox | None = None,
              logprobs: int | None = None, constraint: Constraint | None = None,
              adapter: str | None = None, reply_tokens: Sequence[bytes] = (),
              against: Iterable[Message] | None = None) -> Reply:
        """Begin the assistant's next message; `reply_prefix` is what it has written already, and
        `reply_thinking` what it has thought: a thought that goes on if nothing is written yet.

        reply_tokens what it has written behind the prefix, token by token: the cache knows them as they came,
                    and the last may be the beginning of a character. Where a token is none of this model's
                    they count as text, as far as it has whole characters
        logprobs    each token comes with its log-probability and this many of the likeliest (0 to 20)
        constraint  what the rest of the message must look like, from the end of its thought on
        shorten     where even the last message alone is too long, the model sees its beginning and its end
        whole       the model sees every message, or PromptTooLongError is raised
        variables   what the chat template is given besides the messages, such as enable_thinking
        tools       what the model may call; its calls come as CallDelta, with arguments of their schemas
        adapter     the name of a LoRA adapter that is loaded beside the model
        against     where params.guidance_scale is not 1: the system messages with which the conversation is
                    read once more, for what guidance leads away from; None: params.negative_prompt

        Raises ValueError: PromptTooLongError if even the last message does not fit, TemplateError if the
        chat template refuses the conversation; a constraint that cannot be used; an adapter that is not
        there.
        """
        params = params or SamplingParams()
        effort = params.reasoning_effort if not reply_thinking or params.reasoning_effort != "none" else ""
        variables = {**thinking_variables(effort), **(variables or {})}
        turns = as_messages(messages)
        begun = self.tokenizer.ids_of(reply_tokens)
        if begun is None:
            reply_prefix, begun = reply_prefix + whole_text(reply_tokens), []
        if begun and not reply_prefix and reply_thinking:
            raise ValueError("A reply cannot go on behind a thought and a part of its first character.")
        fitting, system = self._fitting_of(params), _system_of_guide(params, against)
        if whole:
            prompt = self._format.prompt(joined(turns), reply_name, reply_prefix, reply_thinking, variables,
                                         tools)
            fitted = Fitted(prompt, fitting.token_ids(prompt), 0, False, dict(enumerate(turns)))
        else:
            more = len(begun) + fitting.longer_by(system or (), turns)
            fitted = fitting.fitted(turns, params.max_new_tokens, reply_name, reply_prefix,
                                    reply_thinking, shorten, variables, tools, more)
        prompt, token_ids = fitted.prompt, fitted.token_ids + begun
        fitting.check_length(len(token_ids), whole, any(turn.pinned for turn in turns))
        guide = fitting.guide_ids(fitted, system, begun, reply_name, reply_prefix, reply_thinking, variables,
                                  tools)
        form = self._form(constraint, prompt, tools)
        end = None
        if prompt.at != "text" and not begun:
            budget, thought = params.thinking_budget, self.count_tokens(reply_thinking)
            left = None if budget is None else max(0, budget - thought)
            end = ThoughtEnd(prompt, self.tokenizer, left, form, tools is not None)
        request = self._submit(token_ids, params, logprobs, end or form, adapter, guide, goes_on=bool(begun))
        calls, marks = None, ()
        if prompt.calls is not None and tools is not None:
            from model.text.calls.reading import CallReader
            calls, marks = CallReader(prompt.calls, tools), prompt.calls.marks
        text = ReplyText([*params.stop, *prompt.stop], "text" if begun else prompt.at,
                         bool(reply_prefix or reply_thinking or begun), prompt.think_format, calls)
        return Reply(request, self.tokenizer, text, fitted.first_index, len(token_ids), fitted.is_shortened,
                     marks, begun, end)

    def go_on(self, text: str | Sequence[int], params: SamplingParams, *, logprobs: int | None = None,
              constraint: Constraint | None = None, adapter: str | None = None) -> Reply:
        """Begin what follows a text (or its token ids), without any template; see `complete`."""
        token_ids = self.tokenizer.encode(text, add_eos=False) if isinstance(text, str) else list(text)
        self._fitting_of(params).check_length(len(token_ids), whole=True)
        guide = self._guide_of_text(token_ids, params)
        request = self._submit(token_ids, params, logprobs, self._form(constraint), adapter, guide)
        written = ReplyText(params.stop, "text", continues=True)
        return Reply(request, self.tokenizer, written, 0, len(token_ids))

    def scored(self, text: str, top: int = 0, adapter: str | None = None) -> ScoredText:
        """Begin to tell how likely each token of a text is after those before it, with the `top` likeliest
        tokens in its place (0 to 20); nothing is written. Raises ValueError as `start` does."""
        token_ids = self.tokenizer.encode(text, add_eos=False)
        limit = self._engine.max_seq_len
        if len(token_ids) > limit:
            raise PromptTooLongError(f"The text has {len(token_ids):,} tokens; the context holds {limit:,}.")
        if not token_ids:
            raise ValueError("the text is empty; expected at least one character")
        request, scores = self._engine.begin_score(token_ids, top, adapter)
        return ScoredText(request, scores, self.tokenizer, text)

    def scored_reply(self, messages: Iterable[Message], reply: str, *, reply_name: str = "",
                     reply_thinking: str = "", top: int = 0, adapter: str | None = None,
                     variables: Mapping[str, Any] | None = None) -> ScoredText:
        """Begin to tell how likely each token of a reply to `messages` is, as `scored` does of a text; the
        first token may have a space before the reply's text. Raises as `start` does."""
        fitted = self._fitting.fitted(as_messages(messages), 1, reply_name, reply, reply_thinking, True,
                                      variables)
        token_ids = fitted.token_ids
        self._fitting.check_length(len(token_ids) - 1)
        size, first = len(reply.encode()), len(token_ids)
        while size > 0 and first > 1:
            first -= 1
            size -= len(self.tokenizer.token_bytes(token_ids[first]))
        request, scores = self._engine.begin_score(token_ids, top, adapter, first - 1)
        return ScoredText(request, scores, self.tokenizer, reply, fitted.first_index, is_whole=False)

    def next_token(self, messages: Iterable[Message], params: SamplingParams, *, reply_name: str = "",
                   reply_prefix: str = "", reply_thinking: str = "", reply_tokens: Sequence[bytes] = (),
                   adapter: str | None = None,
                   against: Iterable[Message] | None = None) -> NextTokenReading:
        """Begin to find what the next token of the reply that `start` would begin may be, with guidance if
        there is any; nothing is written. Of `params` counts what shapes the prompts and where DRY's sequences
        break. Raises as `start` does, and ValueError where `reply_tokens` are none of this model's."""
        from model.text.sequence_breaks import SequenceBreaks
        begun = self.tokenizer.ids_of(reply_tokens)
        if begun is None:
            raise ValueError("The tokens of this reply are another model's.")
        turns, fitting = as_messages(messages), self._fitting_of(params)
        system, variables = _system_of_guide(params, against), thinking_variables(params.reasoning_effort)
        fitted = fitting.fitted(turns, params.max_new_tokens, reply_name, reply_prefix, reply_thinking, True,
                                variables, more=len(begun) + fitting.longer_by(system or (), turns))
        token_ids = fitted.token_ids + begun
        fitting.check_length(len(token_ids))
        guide = fitting.guide_ids(fitted, system, begun, reply_name, reply_prefix, reply_thinking, variables)
        found = [self._engine.begin_logits(ids, len(ids) - 1, adapter) for ids in (token_ids, guide) if ids]
        breaks = SequenceBreaks(params.dry_sequence_breakers, self.tokenizer).flags(token_ids, 0)
        written = self.count_tokens(reply_thinking) + self.count_tokens(reply_prefix) + len(begun)
        return NextTokenReading(found, params.guidance_scale, self.tokenizer, fitted.first_index, written,
                                breaks, {*params.logit_bias, *params.banned_tokens})

    def prompt_tokens(self, messages: Iterable[Message], variables: Mapping[str, Any] | None = None,
                      tools: Toolbox | None = None) -> int:
        """How many tokens the prompt has in which the model sees every message. Raises as `start` does."""
        prompt = self._format.prompt(joined(as_messages(messages)), variables=variables, tools=tools)
        return len(self._fitting.token_ids(prompt))

    def fit(self, messages: Iterable[Message], max_new_tokens: int, reply_name: str = "",
            reply_prefix: str = "", shorten: bool = False,
            variables: Mapping[str, Any] | None = None) -> ContextFit:
        """Which messages the model would see. What `start` would refuse (a prompt that is too long, messages
        that the chat template refuses) is no error here; then the number of tokens may be an estimate."""
        turns = as_messages(messages)
        try:
            fitted = self._fitting.fitted(turns, max_new_tokens, reply_name, reply_prefix, "", shorten,
                                          variables)
            return ContextFit(fitted.first_index, len(fitted.token_ids), self._engine.max_seq_len,
                              fitted.is_shortened)
        except TemplateError:
            return ContextFit(0, sum(map(self._fitting.size, turns)), self._engine.max_seq_len)
        except TokenizerError:
            return ContextFit(0, sum(len(turn.content) // 4 for turn in turns), self._engine.max_seq_len)

    def inspect(self, messages: Iterable[Message], max_new_tokens: int, reply_name: str = "",
                adapter: str | None = None, variables: Mapping[str, Any] | None = None) -> PromptView:
        """What `start` (with `shorten`) would have the model read now, and what of it is in the cache.

        Nothing is read. Raises TemplateError if the chat template refuses the conversation, ValueError for an
        adapter that is not there; a prompt that is too long is shown as it is.
        """
        turns = as_messages(messages)
        fitted = self._fitting.fitted(turns, max_new_tokens, reply_name, "", "", True, variables)
        fit = ContextFit(fitted.first_index, len(fitted.token_ids), self._engine.max_seq_len,
                         fitted.is_shortened)
        bos = "".join(map(self.tokenizer.token_text, self.tokenizer.with_bos([]))) \
            if fitted.prompt.add_bos else ""
        text = bos + fitted.prompt.shown
        spans: list[tuple[int, int, int]] = []
        if with_marks := marked(fitted.seen):
            seen, marks = with_marks
            spans = spans_of(text, bos + self._format.prompt(joined(seen), reply_name,
                                                             variables=variables).shown, marks)
        starts = token_starts(text, map(self.tokenizer.token_bytes, fitted.token_ids))
        cached = self._engine.num_cached(fitted.token_ids, adapter)
        cached_chars = None if cached is None or starts is None else [*starts, len(text)][cached]
        return PromptView(parts_of(text, spans, starts, self.count_tokens), fit, cached, cached_chars)

    def stream(self, messages: Iterable[Message], params: SamplingParams | None = None) -> Iterator[str]:
        """The reply as it is written, without its thoughts. Leaving the loop early stops it."""
        reply = self.start(messages, params)
        try:
            for event in reply.events():
                if isinstance(event, ReplyFailed):
                    raise RuntimeError(event.message)
                if isinstance(event, TextDelta) and event.channel == "text":
                    yield event.text
        finally:
            reply.cancel()

    def generate(self, prompt: str | Sequence[str], max_new_tokens: int | None = None, *, n: int = 1,
                 constraint: Constraint | None = None, adapter: str | None = None, **sampling: Any) -> Any:
        """Go on with a text, without any template: str. A list is decoded as one batch: list[str].

        n         so many replies to each prompt, as a list in place of each str; see `complete`
        sampling  fields of SamplingParams. Control tokens written in a prompt count as such
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        params = _sampling_params(max_new_tokens, sampling)
        found = self._complete(prompts, params, n, None, constraint, adapter)
        texts = [[one.text for one in replies] if n > 1 else replies[0].text for replies in found]
        return texts[0] if isinstance(prompt, str) else texts

    def complete(self, prompt: str, max_new_tokens: int | None = None, *, n: int = 1,
                 logprobs: int | None = None, constraint: Constraint | None = None,
                 adapter: str | None = None, **sampling: Any) -> list[Completion]:
        """`generate` with everything that is known: `n` replies to one prompt, whose pages they share.

        Reply i has the seed `seed + i`, and is what that seed alone would give. `logprobs`, `constraint` and
        `adapter` are those of `start`.
        """
        params = _sampling_params(max_new_tokens, sampling)
        return self._complete([prompt], params, n, logprobs, constraint, adapter)[0]

    def score(self, text: str, top: int = 0) -> list[ScoredToken]:
        """How likely the model finds each token of a text after those before it.

        Log-probabilities of all tokens but the first (BOS, where the model has one), each with the `top`
        likeliest tokens in its place (0 to 20).
        """
        token_ids = self.tokenizer.encode(text, add_eos=False)
        return [scored_token(self.tokenizer, found) for found in self._engine.score(token_ids, top)]

    def rank_speakers(self, transcript: Sequence[tuple[str, str]], names: Sequence[str]) -> list[float]:
        """Log-probability of "Name:" as the beginning of the next line, for each of `names`.

        The end of the transcript is read, _RANKING_TOKENS of it, once for all names.
        """
        limit = min(_RANKING_TOKENS, self._engine.max_seq_len - 2)
        text = self._ranked_text(transcript, limit)
        head, *rows = (self.tokenizer.encode(text + end, add_bos=False, add_eos=False, control=False)
                       for end in ["", *(f"{name}:" for name in names)])
        shared = min([_common_length(head, row) for row in rows], default=0)
        step = limit // 4  # the cut moves in steps, so that what the engine has cached stays of use
        cut = -(-max(0, max(map(len, rows), default=0) - limit) // step) * step
        num_bos = len(self.tokenizer.with_bos([]))
        return [self._log_probability(self.tokenizer.with_bos(row[cut:]), max(1, shared - cut + num_bos))
                for row in rows]

    def _ranked_text(self, transcript: Sequence[tuple[str, str]], limit: int) -> str:
        """The last lines of about `limit` tokens: what is before them is neither joined nor tokenized.

        Like a prompt it is cut at the same places as it grows, so that what the engine has cached stays good.
        """
        lines = [f"{name}: {line}\n"[-limit * _MAX_BYTES_PER_TOKEN:] for name, line in transcript]
        lengths = [len(line.encode(errors="replace")) for line in lines]
        step = max(1, self._fitting.step * limit // self._engine.max_seq_len)
        first = first_kept(lambda index: self.count_tokens(lines[index]), lengths, [True] * len(lines), limit,
                           step)
        return "".join(lines[first:])

    # -- below text

    def logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """float32 [len(token_ids), vocab_size]: row i is about the token after token_ids[i]."""
        return self._engine.logits(list(token_ids))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without BOS and EOS."""
        return self.tokenizer.count(text)

    def info(self) -> dict[str, Any]:
        """What is loaded: name, architecture, quantization, sizes, device, how its authors sample."""
        return self._engine.describe() | {
            "max_seq_len": self._engine.max_seq_len, "vocab_size": self._engine.model_config.spec.vocab_size,
            "max_positions": self._engine.model_config.spec.max_positions,
            "chat_template": self._format.is_template, "thinks": self._format.thinks,
            "efforts": self._format.efforts, "advice": self._advice, "host": "", "cannot": {}}

    def check_adapter(self, path: str | Path) -> None:
        """Raise ModelLoadError, with the reason, unless this LoRA adapter fits the model."""
        self._engine.check_adapter(Path(path))

    def load_adapter(self, name: str, path: str | Path) -> None:
        """Load a LoRA adapter beside the model; replies that are being written go on. Raises ModelLoadError
        (what is wrong with it, or it does not fit), ValueError for its name, EngineClosed."""
        self._engine.load_adapter(name, Path(path))

    def unload_adapter(self, name: str) -> None:
        """Nothing may ask for it from now on; replies that have it are written to their end. Raises
        ValueError if there is none of this name."""
        self._engine.unload_adapter(name)

    def status(self) -> dict[str, Any]:
        """What the engine is doing now."""
        return self._engine.status()

    def tally(self) -> Tally:
        """What the engine has done since it was loaded."""
        return self._engine.tally()

    def close(self) -> None:
        """End the engine and what belongs to it. Safe to call twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._format.close()
            if self._forms is not None:
                self._forms.close()
            self._engine.close()

    def __enter__(self) -> ChatModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- inside

    def _complete(self, prompts: list[str], params: SamplingParams, n: int, logprobs: int | None,
                  constraint: Constraint | None, adapter: str | None) -> list[list[Completion]]:
        """`n` replies to each prompt, all at once."""
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MAX_REPLIES:
            raise ValueError(f"n is {n!r}; expected a whole number from 1 to {_MAX_REPLIES}")
        all_ids = [self.tokenizer.encode(text, add_eos=False) for text in prompts]
        for token_ids in all_ids:
            self._fitting_of(params).check_length(len(token_ids))
        replies: list[Reply] = []
        with ThreadPoolExecutor(_MAX_READERS) as pool:  # every reply has its own stop strings to watch
            try:
                for token_ids in all_ids:
                    guide = self._guide_of_text(token_ids, params)
                    for branch in params.branches(n):
                        request = self._submit(token_ids, branch, logprobs, self._form(constraint), adapter,
                                               guide)
                        text = ReplyText(params.stop, "text", continues=True)
                        replies.append(Reply(request, self.tokenizer, text, 0, len(token_ids)))
                found = list(pool.map(completion, replies))
            except BaseException:
                for reply in replies:
                    reply.cancel()
                raise
        return [found[first:first + n] for first in range(0, len(found), n)]

    def _form(self, constraint: Constraint | None, prompt: Prompt | None = None,
              tools: Toolbox | None = None) -> Form | None:
        """What the engine is to hold one reply to."""
        has_calls = tools is not None and prompt is not None and prompt.calls is not None
        if constraint is None and not has_calls:
            return None
        if self._forms is None:
            from model.text.forms import Forms
            self._forms = Forms(self.tokenizer, self._engine.model_config.spec.vocab_size)
        if has_calls:
            return self._forms.of_calls(constraint, prompt, prompt.calls, tools)
        return self._forms.of(constraint, prompt)

    def _submit(self, token_ids: list[int], params: SamplingParams, logprobs: int | None,
                form: Form | ThoughtEnd | None, adapter: str | None = None,
                guide: list[int] | None = None, *, goes_on: bool = False) -> Request:
        breaks = None
        if params.dry_multiplier > 0:
            from model.text.sequence_breaks import SequenceBreaks
            breaks = SequenceBreaks(params.dry_sequence_breakers, self.tokenizer)
        return self._engine.submit(token_ids, params, self.tokenizer.eos_ids, logprobs=logprobs,
                                   constraint=form, adapter=adapter, breaks=breaks, guide=guide,
                                   goes_on=goes_on)

    def _fitting_of(self, params: SamplingParams) -> Fitting:
        """For the longest prompts that there is room for; with guidance there are two."""
        if params.guidance_scale == 1 or self._engine.guided_seq_len >= self._engine.max_seq_len:
            return self._fitting
        return Fitting(self.tokenizer, self._format, self._engine.guided_seq_len)

    def _guide_of_text(self, token_ids: list[int], params: SamplingParams) -> list[int] | None:
        """Where no template makes a prompt of it: the negative prompt, or else the last token."""
        if params.guidance_scale == 1:
            return None
        return self.tokenizer.encode(params.negative_prompt, add_eos=False) if params.negative_prompt \
            else token_ids[-1:]

    def _log_probability(self, token_ids: list[int], start: int) -> float:
        """Sum of the log-probabilities of token_ids[start:], each after those before it."""
        logits = self._engine.logits(token_ids, first=start - 1)[:-1].double()
        chosen = logits.log_softmax(-1)[range(len(token_ids) - start), token_ids[start:]]
        return float(chosen.sum())


def _sampling_params(max_new_tokens: int | None, sampling: dict[str, Any]) -> SamplingParams:
    """SamplingParams from keywords; a list will do for a tuple."""
    unknown = sampling.keys() - SamplingParams.__dataclass_fields__.keys()
    if unknown:
        raise TypeError(f"no sampling parameter {', '.join(sorted(unknown))}; there are "
                        f"{', '.join(SamplingParams.__dataclass_fields__)}")
    params = SamplingParams(**{name: tuple(value) if isinstance(value, list) else value
                               for name, value in sampling.items()})
    return params if max_new_tokens is None else replace(params, max_new_tokens=max_new_tokens)


def _common_length(left: list[int], right: list[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _system_of_guide(params: SamplingParams, against: Iterable[Message] | None) -> list[ChatMessage] | None:
    """The system messages that guidance leads away from: `against`, or the negative prompt if there is one;
    None without guidance."""
    if params.guidance_scale == 1:
        return None
    if against is not None:
        return as_messages(against)
    return [ChatMessage("system", params.negative_prompt)] if params.negative_prompt else []
