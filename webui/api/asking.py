"""What a program asks for, in no protocol's words, and the one place that has the model write it.

The fields that protocols have in common are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import request

from model import (
    PARAMETER_SPECS,
    ChatMessage,
    Constraint,
    EngineClosed,
    LanguageModel,
    Lease,
    LeaseGivenUp,
    NoModel,
    PromptTooLongError,
    RunningReply,
    SamplingParams,
    Toolbox,
)

from ..errors import Problem, ReaderGone
from ..routes.parlor import api
from ..server.streams import gone_test
from .fields import BadField, Fields

MOST_REPLIES = 32    # to one request
MOST_MESSAGES = 10_000
_ALIKE = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty",
          "frequency_penalty", "repetition_range", "repetition_decay", "top_n_sigma", "dynatemp_range",
          "dynatemp_exponent", "xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base",
          "dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_tau", "mirostat_eta",
          "guidance_scale")
_WITHIN_RANGE = ("temperature", "repetition_penalty", "top_k", "top_n_sigma", "xtc_threshold")
"""Beyond what is taken here they change nothing more, or nearly so."""
_NAMES_ELSEWHERE = {"typ_p": "typical_p", "typical": "typical_p"}
"""Of samplers."""


class NoEngine(Problem, status=503, code="no_model"):
    """Nothing can be written any more, or yet."""


@dataclass(frozen=True)
class Ask:
    """One request: `n` replies to a conversation, or to a text if there is one."""

    messages: tuple[ChatMessage, ...] = ()
    text: str | list[int] = ""
    scores: bool = False  # nothing is written: how likely is each token of the text?
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    logprobs: int | None = None
    constraint: Constraint | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)  # of the chat template
    tools: Toolbox | None = None
    cut: bool = False  # old messages may be left out where not all of them fit
    adapter: str | None = None  # the LoRA adapter that is to be used


class Begun:
    """Replies that are being written, and the model that writes them: it stays until `end`."""

    def __init__(self, model: LanguageModel, lease: Lease, replies: list[RunningReply]) -> None:
        self.model_name: str = model.info()["name"]
        self.replies = replies
        self._lease = lease

    def cancel(self) -> None:
        for reply in self.replies:
            reply.cancel()

    def end(self) -> None:
        """Nobody reads them any more. Safe to call twice."""
        self.cancel()
        self._lease.release()


def loaded() -> dict[str, Any] | None:
    """What is told of the model that is loaded; None if none is."""
    model = api().slot.model
    return None if model is None else model.info()


def answering_model() -> dict[str, Any] | None:
    """The model that a request now would get: `loaded`, or no more than the name of one that is asleep or on
    its way; None if there is none."""
    slot = api().slot
    name = slot.state.coming_name or slot.state.name
    return loaded() or ({"name": name} if name and slot.will_answer else None)


def adapter_of(fields: Fields) -> str | None:
    """The adapter that is asked for as a model of its name. Any other name stands for the model itself."""
    name, adapters = fields.value("model"), (loaded() or {}).get("adapters", ())
    return name if isinstance(name, str) and name in adapters else None


def begin(*asks: Ask) -> Begun:
    """The replies, which the engine writes from now on. While a model is on its way this waits for it.

    Raises BadField, NoEngine, or ReaderGone.
    """
    with leased() as (model, lease):
        begun = Begun(model, lease, [])
        try:
            for ask in asks:
                for params in ask.params.branches(ask.n):
                    begun.replies.append(_begin_one(model, ask, params))
        except BaseException:
            begun.cancel()
            raise
        return begun


def count_tokens(ask: Ask) -> int:
    """Of the prompt. Raises as `begin` does."""
    with leased() as (model, lease):
        count = model.prompt_tokens(ask.messages, ask.variables, ask.tools)
        lease.release()
    return count


@contextmanager
def leased() -> Iterator[tuple[LanguageModel, Lease]]:
    """The model; it is let go here only if something goes wrong. Tells what that is as the caller's fault or
    ours: BadField, NoEngine, ReaderGone."""
    lease, is_gone = api().slot.lease(), gone_test(request.environ)

    def look(_state: object) -> None:
        if is_gone():
            lease.give_up()

    try:
        yield lease.wait(look), lease
    except BaseException as error:
        lease.release()
        if isinstance(error, LeaseGivenUp):
            raise ReaderGone("Nobody waits for this.") from None
        if isinstance(error, EngineClosed | NoModel):
            raise NoEngine(f"{error}") from None
        if isinstance(error, PromptTooLongError):
            raise BadField(f"{error}", "messages", "context_length_exceeded") from None
        if isinstance(error, ValueError) and not isinstance(error, Problem):
            raise BadField(f"{error}") from None
        raise


def _begin_one(model: LanguageModel, ask: Ask, params: SamplingParams) -> RunningReply:
    if ask.scores:
        assert isinstance(ask.text, str)
        return model.scored(ask.text, ask.logprobs or 0, ask.adapter)
    if not ask.messages:
        return model.go_on(ask.text, params, logprobs=ask.logprobs, constraint=ask.constraint,
                           adapter=ask.adapter)
    *before, last = ask.messages
    begun = last if last.role == "assistant" else None  # it goes on with what is begun
    return model.start(before if begun else ask.messages, params, whole=not ask.cut,
                       reply_prefix=begun.content if begun else "",
                       reply_thinking=begun.thinking if begun else "", variables=ask.variables,
                       tools=ask.tools, logprobs=ask.logprobs, constraint=ask.constraint, adapter=ask.adapter)


def sampling(fields: Fields, length: int | None, stop: tuple[str, ...],
             names: Mapping[str, str] | None = None) -> SamplingParams:
    """What the fields say, elsewhere what the model's authors advise, or else the house's defaults.

    length  most tokens of a reply; None: until the context is full
    names   fields that are called otherwise: ours -> theirs
    """
    values: dict[str, Any] = dict((loaded() or {}).get("advice") or {})
    for name in _ALIKE:
        theirs = (names or {}).get(name, name)
        if fields.has(theirs):
            value, spec = fields.number(theirs), PARAMETER_SPECS[name]
            if spec["type"] == "int":
                value = max(spec["min"], int(value))  # -1 is off elsewhere
            if name == "top_n_sigma":
                value = max(0, value)  # likewise
            if name in _WITHIN_RANGE and value >= 0:
                value = min(max(value, spec["min"]), spec["max"])
            values[name] = value
    if fields.has("thinking_budget"):
        most = PARAMETER_SPECS["thinking_budget"]["max"]
        values["thinking_budget"] = fields.whole("thinking_budget", most=most)
    if fields.has("negative_prompt"):
        values["negative_prompt"] = fields.text("negative_prompt")
    if fields.has("seed"):
        values["seed"] = fields.whole("seed", least=-(1 << 63), most=(1 << 63) - 1) % (1 << 53)
    if fields.has("dry_sequence_breakers"):
        values["dry_sequence_breakers"] = fields.texts("dry_sequence_breakers")
    if fields.has("samplers"):
        values["samplers"] = tuple(_NAMES_ELSEWHERE.get(name, name) for name in fields.texts("samplers"))
    if fields.has("logit_bias"):
        values["logit_bias"] = _biases(fields)
    most = PARAMETER_SPECS["max_new_tokens"]["max"]
    values["max_new_tokens"] = most if length is None else min(length, most)
    try:
        return SamplingParams(**values, stop=stop)
    except ValueError as error:
        raise BadField(f"{error}.", f"{error}".partition(" ")[0]) from None


def response_schema(schema: Mapping[str, Any]) -> Constraint:
    """A reply that is JSON of this schema."""
    try:
        return Constraint.json_schema(schema)
    except ValueError as error:
        raise BadField(f"{error}.", "response_format") from None


def _biases(fields: Fields) -> dict[int, float]:
    biases = fields.object("logit_bias")
    if not all(re.fullmatch("[0-9]{1,9}", key) for key in biases.all()):
        raise BadField("logit_bias has a key that is not a token id.", "logit_bias")
    return {int(key): biases.number(key) for key in biases.all()}
