"""OpenAI's protocol: models and chat completions; docs/api.md has the table of fields.

Streams are written as the clients want them: one id, a role first, text and reasoning never in one delta,
usage in a chunk of its own at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from model import CallDelta, ChatMessage, Constraint, ReplyDone, RequestStats, ScoredToken, thinking_variables

from ..errors import BadRequest, NotFound, Problem
from ..ids import new_id
from ..version import VERSION
from .answering import Answer, Written, answered, shown_token, streamed
from .asking import (
    MOST_MESSAGES,
    MOST_REPLIES,
    Ask,
    adapter_of,
    answering_model,
    begin,
    response_schema,
    sampling,
)
from .errors import openai_error
from .fields import BadField, Fields, Json, as_json, content_text, read_fields
from .tools import has_functions, openai_functions, openai_tools, read_call, read_function_call

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
         "function": "tool"}
REASONS = {"length": "length", "context": "length"}
BEAT = b": beat\n\n"
DONE = b"data: [DONE]\n\n"


def list_models() -> ResponseReturnValue:
    model = answering_model()
    entries = [_model(model), *(_adapter(model, name) for name in model.get("adapters", ()))] if model else []
    names = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {}
    return {"object": "list", "data": entries, "has_more": False, **names}


def read_model(name: str) -> ResponseReturnValue:
    model = answering_model()
    if model is not None and name in model.get("adapters", ()):
        return _adapter(model, name)
    if model is None or name != model["name"]:
        there_is = f"there is {model['name']!r}" if model else "none is loaded"
        raise NotFound(f"There is no model {name[:200]!r} here; {there_is}.", code="model_not_found")
    return _model(model)


def complete_chat() -> ResponseReturnValue:
    """A reply to a conversation, whole or as a stream."""
    fields = read_fields()
    ask, streams, in_functions = read_chat(fields), fields.flag("stream"), has_functions(fields)
    with_usage = fields.object("stream_options").flag("include_usage")
    begun = begin(ask)
    if streams:
        chat = _ChatStream(ask, with_usage, begun.model_name, in_functions)
        return streamed(begun, chat.write, "text/event-stream")
    written = answered(begun)
    choices = [{"index": index, "message": _message(one, in_functions),
                "logprobs": _chat_logprobs(one.tokens) if ask.logprobs is not None else None,
                "finish_reason": finish_reason(one, in_functions)} for index, one in enumerate(written)]
    return head("chat.completion", "chatcmpl", begun.model_name) | {"choices": choices,
                                                                    "usage": usage(written)}


def embed() -> ResponseReturnValue:
    read_fields()
    raise BadRequest("Embeddings need a model made for them; the one that is loaded here writes text.",
                     code="unsupported")


def read_chat(fields: Fields) -> Ask:
    """What a chat completion asks for."""
    name = "max_completion_tokens" if fields.has("max_completion_tokens") else "max_tokens"
    length = fields.whole(name, least=-1) if fields.has(name) else None
    if length == 0:
        raise BadField(f"{name} is 0; expected at least 1.", name)
    variables = thinking_variables(fields.text("reasoning_effort", "") or None)
    return Ask(messages=read_messages(fields), n=fields.whole("n", 1, least=1, most=MOST_REPLIES),
               params=sampling(fields, None if length == -1 else length, fields.texts("stop")),
               logprobs=fields.whole("top_logprobs", 0, most=20) if fields.flag("logprobs") else None,
               constraint=response_form(fields.object("response_format")),
               tools=openai_functions(fields) if has_functions(fields) else openai_tools(fields),
               variables=variables | fields.object("chat_template_kwargs").all(),
               adapter=adapter_of(fields))


def read_messages(fields: Fields) -> tuple[ChatMessage, ...]:
    messages = fields.objects("messages")
    if not 0 < len(messages) <= MOST_MESSAGES:
        raise BadField(f"There are {len(messages)} messages; expected 1 to {MOST_MESSAGES:,}.", "messages")
    return tuple(map(_read_message, messages))


def _read_message(fields: Fields) -> ChatMessage:
    role = fields.text("role")
    if role not in ROLES:
        raise BadField(f"{fields.path('role')} is {role[:40]!r}; expected one of {', '.join(ROLES)}.",
                       fields.path("role"))
    thinking, calls, call_id = "", (), ""
    if role == "assistant":
        thinking = fields.text("reasoning_content", "") or fields.text("reasoning", "")
        calls = tuple(map(read_call, fields.objects("tool_calls")))
        if fields.has("function_call"):
            calls += (read_function_call(fields.object("function_call")),)
    elif role == "tool":
        call_id = fields.text("tool_call_id", "")
    elif role == "function":
        call_id = fields.text("name")
    return ChatMessage(ROLES[role], content_text(fields), thinking=thinking, calls=calls, call_id=call_id)


def response_form(fields: Fields) -> Constraint | None:
    """response_format as what the reply must look like."""
    kind = fields.text("type", "text")
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise BadField(f"{fields.path('type')} is {kind[:40]!r}; expected text, json_object or json_schema.",
                       fields.path("type"))
    schema: Json = {"type": "object"}
    if kind == "json_schema":
        inner = fields.object("json_schema") if fields.has("json_schema") else fields
        schema = inner.object("schema").all()
    return response_schema(schema)


def finish_reason(written: Written, in_functions: bool = False) -> str:
    calls = "function_call" if in_functions else "tool_calls"
    return REASONS.get(written.reason) or (calls if written.calls else "stop")


def usage(written: list[Written], replies_to_one: int | None = None) -> Json:
    """Prompts count once, however many replies there are to each."""
    stats = [one.stats for one in written if one.stats is not None]
    prompts = stats[::replies_to_one or max(1, len(stats))]
    prompt, new = sum(one.prompt_tokens for one in prompts), sum(one.new_tokens for one in stats)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in prompts)},
            "completion_tokens_details": {"reasoning_tokens": sum(one.thought_tokens for one in written),
                                          **_guesses(stats)}}


def _guesses(stats: list[RequestStats]) -> Json:
    accepted = sum(one.accepted_tokens for one in stats)
    return {"accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": sum(one.drafted_tokens for one in stats) - accepted}


def _message(written: Written, in_functions: bool) -> Json:
    message: Json = {"role": "assistant", "content": written.text or (None if written.calls else "")}
    if written.calls and in_functions:
        call = written.calls[0]
        message["function_call"] = {"name": call.name, "arguments": call.arguments}
    elif written.calls:
        message["tool_calls"] = [{"id": call.id, "type": "function",
                                  "function": {"name": call.name, "arguments": call.arguments}}
                                 for call in written.calls]
    if written.thoughts:
        message |= {"reasoning_content": written.thinking, "reasoning": written.thinking}
    return message


def _call_delta(event: CallDelta, written: Written, in_functions: bool) -> Json:
    """The first one of a call has its id and name."""
    function = {"name": event.name, "arguments": ""} if event.name else {"arguments": event.arguments}
    if in_functions:
        return {"function_call": function}
    head = {"id": written.calls[event.index].id, "type": "function"} if event.name else {}
    return {"tool_calls": [{"index": event.index, **head, "function": function}]}


class _ChatStream:
    """The chunks of one chat completion."""

    def __init__(self, ask: Ask, with_usage: bool, model_name: str, in_functions: bool) -> None:
        self._ask, self._with_usage, self._in_functions = ask, with_usage, in_functions
        self._head = head("chat.completion.chunk", "chatcmpl", model_name)
        self._head |= {"usage": None} if with_usage else {}

    def write(self, answer: Answer) -> Iterator[bytes]:
        try:
            for index in range(self._ask.n):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            for told in answer.events():
                if told is None:
                    yield BEAT
                    continue
                index, event, tokens = told
                if isinstance(event, ReplyDone):
                    yield self._chunk(index, {}, finish_reason(answer.written[index], self._in_functions))
                elif isinstance(event, CallDelta):
                    yield self._chunk(index, _call_delta(event, answer.written[index], self._in_functions))
                elif event.channel == "think":
                    yield self._chunk(index, {"reasoning_content": event.text, "reasoning": event.text})
                else:
                    yield self._chunk(index, {"content": event.text}, tokens=tokens)
        except Problem as problem:
            yield frame(openai_error(problem)[0])
        else:
            if self._with_usage:
                yield frame(self._head | {"choices": [], "usage": usage(answer.written)})
        yield DONE

    def _chunk(self, index: int, delta: Json, reason: str | None = None,
               tokens: list[ScoredToken] | None = None) -> bytes:
        logprobs = None if self._ask.logprobs is None or not tokens else _chat_logprobs(tokens)
        return frame(self._head | {"choices": [{"index": index, "delta": delta, "logprobs": logprobs,
                                                "finish_reason": reason}]})


def _chat_logprobs(tokens: list[ScoredToken]) -> Json:
    return {"content": list(map(shown_token, tokens)), "refusal": None}


def _model(model: Json) -> Json:
    """The length of its context is known once it is loaded."""
    name = model["name"]
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "parlor", "root": name,
             "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}  # Anthropic's words
    names = ("max_model_len", "context_length", "max_context_length")
    return entry | (dict.fromkeys(names, model["max_seq_len"]) if model.get("max_seq_len") else {})


def _adapter(model: Json, name: str) -> Json:
    """As a model that is made of the one it lies beside."""
    return _model({**model, "name": name}) | {"root": model["name"], "parent": model["name"]}


def head(kind: str, prefix: str, model_name: str) -> Json:
    return {"id": f"{prefix}-{new_id()}{new_id()}", "object": kind, "created": int(time.time()),
            "model": model_name, "system_fingerprint": f"parlor-{VERSION}"}


def frame(data: Json) -> bytes:
    """One chunk of a stream."""
    return f"data: {as_json(data)}\n\n".encode("utf-8", "replace")
