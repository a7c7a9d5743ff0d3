"""Ollama's protocol: chat and generate as lines of JSON, and what there is to choose from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from model import (
    CallDelta,
    ChatMessage,
    Constraint,
    ReplyDone,
    SamplingParams,
    ScoredToken,
    ToolCall,
    thinking_variables,
)

from ..errors import BadRequest, NotFound, Problem
from .answering import Answer, Written, answered, shown_token, streamed
from .asking import (
    MOST_MESSAGES,
    Ask,
    Begun,
    adapter_of,
    answering_model,
    begin,
    loaded,
    response_schema,
    sampling,
)
from .errors import ollama_error
from .fields import BadField, Fields, Json, as_json, read_fields
from .tools import arguments, openai_tools

SPOKEN_VERSION = "0.14.0"
"""Of Ollama, whose protocol this is: clients ask for it to know what they may send. Codex wants 0.13.4."""
ROLES = ("system", "user", "assistant", "tool")
EFFORTS = ("low", "medium", "high", "max")
OPTIONS = {"repetition_penalty": "repeat_penalty", "repetition_range": "repeat_last_n"}
NANOSECONDS = 1_000_000_000
NEVER = "2318-01-01T00:00:00Z"
"""When the model is unloaded; Ollama's clients call what is more than 20 years away "Forever"."""


def version() -> ResponseReturnValue:
    return {"version": SPOKEN_VERSION}


def list_models() -> ResponseReturnValue:
    model = answering_model()
    return {"models": [_model(model)] if model else []}


def list_running() -> ResponseReturnValue:
    model = loaded()
    more = {"expires_at": NEVER, "size_vram": 0}
    return {"models": [_model(model) | more | {"context_length": model["max_seq_len"] or 0}] if model else []}


def show() -> ResponseReturnValue:
    fields, model = read_fields(), loaded()
    name = fields.text("model", fields.text("name", ""))
    if model is None or name.removesuffix(":latest") != model["name"]:
        raise NotFound(f"model '{name[:200]}' not found")
    kind = model["architecture"].lower() or "other"
    return {"modelfile": "", "parameters": "", "template": "", "license": "",
            "details": _details(model), "modified_at": _model(model)["modified_at"],
            "model_info": {"general.architecture": kind, "general.basename": model["name"],
                           "general.parameter_count": model["num_parameters"],
                           f"{kind}.context_length": model["max_seq_len"] or 0},
            "capabilities": ["completion", "tools", *(["thinking"] if model.get("thinks") else [])]}


def chat() -> ResponseReturnValue:
    """A reply to a conversation; a stream unless that is not wanted."""
    fields = read_fields()
    messages = tuple(map(_message, fields.objects("messages")))
    if len(messages) > MOST_MESSAGES:
        raise BadField(f"There are {len(messages)} messages; expected up to {MOST_MESSAGES:,}.", "messages")
    return _answer(fields, _ask(fields, messages), "message")


def generate() -> ResponseReturnValue:
    """A reply to one prompt; with `raw` what follows a text."""
    fields = read_fields()
    if fields.text("suffix", "") or fields.value("images"):
        raise BadField("suffix and images are not supported: the model here reads text and writes on.")
    prompt, system = fields.text("prompt", ""), fields.text("system", "")
    if fields.flag("raw") and prompt:
        return _answer(fields, Ask(text=prompt, params=_sampling(fields), constraint=_form(fields),
                                   logprobs=_logprobs(fields), adapter=adapter_of(fields)),
                       "response")
    messages = [ChatMessage("system", system)] if system and prompt else []
    messages += [ChatMessage("user", prompt)] if prompt else []
    return _answer(fields, _ask(fields, tuple(messages)), "response")


def refuse() -> ResponseReturnValue:
    """What would fetch, make or delete models."""
    request.get_data()  # one that is too large is refused for that
    raise BadRequest("Models are not fetched, made or deleted by this protocol here: whatever name a request "
                     "has, the model that is loaded answers.")


def embed() -> ResponseReturnValue:
    read_fields()
    raise BadRequest("Embeddings need a model made for them; the one that is loaded here writes text.")


def _answer(fields: Fields, ask: Ask, name: str) -> ResponseReturnValue:
    """`name`: where the text stands in a line, "message" or "response"."""
    fields.text("model")  # must be there; which it is matters where adapters are loaded
    streams = fields.flag("stream", True)
    if not ask.messages and not ask.text:
        line = _line(str((loaded() or {}).get("name", "")), name, "")
        return line | {"done": True, "done_reason": "load"}
    started = time.monotonic()
    begun = begin(ask)
    if streams:
        return streamed(begun, _Stream(begun, name, started).write, "application/x-ndjson")
    written, = answered(begun)
    return (_line(begun.model_name, name, written.text, written.thinking, _calls(written), written.tokens)
            | _end(written, started))


def _ask(fields: Fields, messages: tuple[ChatMessage, ...]) -> Ask:
    think = fields.value("think")
    if not (think is None or isinstance(think, bool) or think in EFFORTS):
        raise BadField(f"think is neither true or false nor one of {', '.join(EFFORTS)}.", "think")
    effort = think if isinstance(think, str) else {True: "medium", False: "none", None: None}[think]
    return Ask(messages=messages, params=_sampling(fields), constraint=_form(fields),
               variables=thinking_variables(effort), tools=openai_tools(fields), logprobs=_logprobs(fields),
               cut=fields.flag("truncate", True), adapter=adapter_of(fields))


def _logprobs(fields: Fields) -> int | None:
    return fields.whole("top_logprobs", 0, most=20) if fields.flag("logprobs") else None


def _message(fields: Fields) -> ChatMessage:
    role = fields.text("role").lower()
    if role not in ROLES:
        raise BadField(f"{fields.path('role')} is {role[:40]!r}; expected one of {', '.join(ROLES)}.")
    if fields.value("images"):
        raise BadField(f"{fields.path('images')}: the model here reads text only.")
    calls = tuple(ToolCall(call.object("function").text("name"),
                           arguments(call.object("function"), "arguments"),
                           call.text("id", "")) for call in fields.objects("tool_calls"))
    return ChatMessage(role, fields.text("content", ""),
                       fields.text("tool_name", "") if role == "tool" else "",
                       fields.text("thinking", ""), calls=calls, call_id=fields.text("tool_call_id", ""))


def _sampling(fields: Fields) -> SamplingParams:
    options = fields.object("options")
    length = options.whole("num_predict", -1, least=-2)
    return sampling(options, length if length > 0 else None, options.texts("stop"), OPTIONS)


def _form(fields: Fields) -> Constraint | None:
    """`format`: "json", or a JSON schema."""
    value = fields.value("format")
    if value in (None, ""):
        return None
    if value == "json":
        return response_schema({"type": "object"})
    return response_schema(fields.object("format").all())


class _Stream:
    """The lines of one reply. Calls come whole, as the protocol has them."""

    def __init__(self, begun: Begun, name: str, started: float) -> None:
        self._model, self._name, self._started = begun.model_name, name, started
        self._told = 0  # calls that are told

    def write(self, answer: Answer) -> Iterator[bytes]:
        written = answer.written[0]
        try:
            for told in answer.events():
                if told is None:
                    yield self._line("")
                    continue
                _, event, tokens = told
                if isinstance(event, CallDelta):
                    if event.name:
                        yield from self._whole_calls(written, event.index)
                elif isinstance(event, ReplyDone):
                    yield from self._whole_calls(written, len(written.calls))
                    yield _encoded(_line(self._model, self._name, "") | _end(written, self._started))
                elif event.channel == "think":
                    yield self._line("", event.text)
                else:
                    yield self._line(event.text, tokens=tokens)
        except Problem as problem:
            yield _encoded(ollama_error(problem)[0])

    def _whole_calls(self, written: Written, count: int) -> Iterator[bytes]:
        calls, self._told = _calls(written)[self._told:count], count
        if calls:
            yield self._line("", calls=calls)

    def _line(self, text: str, thinking: str = "", calls: list[Json] | None = None,
              tokens: list[ScoredToken] | None = None) -> bytes:
        return _encoded(_line(self._model, self._name, text, thinking, calls, tokens))


def _line(model: str, name: str, text: str, thinking: str = "", calls: list[Json] | None = None,
          tokens: list[ScoredToken] | None = None) -> Json:
    line: Json = {"model": model, "created_at": _now(), "done": False}
    if tokens:
        line["logprobs"] = list(map(shown_token, tokens))
    more: Json = ({"thinking": thinking} if thinking else {}) | ({"tool_calls": calls} if calls else {})
    if name == "message":
        return line | {"message": {"role": "assistant", "content": text, **more}}
    return line | {"response": text, **more}


def _calls(written: Written) -> list[Json]:
    return [{"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.parsed()}}
            for index, call in enumerate(written.calls)]


def _end(written: Written, started: float) -> Json:
    stats = written.stats
    assert stats is not None, "it is done"
    return {"done": True, "done_reason": "length" if written.reason in ("length", "context") else "stop",
            "total_duration": int((time.monotonic() - started) * NANOSECONDS), "load_duration": 0,
            "prompt_eval_count": stats.prompt_tokens,
            "prompt_eval_duration": int(stats.prompt_seconds * NANOSECONDS),
            "eval_count": stats.new_tokens, "eval_duration": int(stats.decode_seconds * NANOSECONDS)}


def _model(model: Json) -> Json:
    return {"name": model["name"], "model": model["name"], "modified_at": "1970-01-01T00:00:00Z",
            "size": model.get("weight_bytes", 0), "details": _details(model),
            "digest": sha256(model["name"].encode()).hexdigest()}  # Ollama's own client shows a part of it


def _details(model: Json) -> Json:
    family = model.get("architecture", "").lower()
    return {"parent_model": "", "format": "parlor", "family": family, "families": [family],
            "parameter_size": f"{model.get('num_parameters', 0) / 1e9:.2f}B",
            "quantization_level": model.get("quantization", "")}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def _encoded(line: Any) -> bytes:
    return (as_json(line) + "\n").encode("utf-8", "replace")
