"""OpenAI's newer protocol, responses: items in, items out. Nothing is kept between two requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask.typing import ResponseReturnValue

from model import CallDelta, ChatMessage, ReplyDone, ToolCall, thinking_variables

from ..errors import Problem
from ..ids import new_id
from .answering import Answer, Written, WrittenCall, answered, streamed
from .asking import MOST_MESSAGES, Ask, adapter_of, begin, sampling
from .errors import openai_error
from .fields import BadField, Fields, Json, as_json, content_text, read_fields
from .openai import BEAT, ROLES, response_form
from .tools import arguments, in_namespace, is_servers, response_tools

_TOLD_BACK: Json = {"instructions": None, "max_output_tokens": None, "parallel_tool_calls": True,
                    "tool_choice": "auto", "metadata": {}, "truncation": "disabled"}
"""Fields of the request that the answer repeats, and what they are without."""
Spaces = dict[str, tuple[str, str]]
"""Functions in namespaces: as the model calls one -> (namespace, name in it)."""


def create_response() -> ResponseReturnValue:
    """A reply to a conversation, whole or as a stream of events."""
    fields = read_fields()
    (ask, spaces), streams = _read(fields), fields.flag("stream")
    begun = begin(ask)
    response = _response(fields, ask, begun.model_name)
    if streams:
        return streamed(begun, _Stream(response, spaces).write, "text/event-stream")
    written, = answered(begun)
    return response | _ended(written, _items(written, spaces))


def _read(fields: Fields) -> tuple[Ask, Spaces]:
    for name in ("previous_response_id", "conversation"):
        if fields.has(name):
            raise BadField(f"{name}: responses are not kept here; send the whole conversation.", name)
    tools, spaces = response_tools(fields)
    length = fields.whole("max_output_tokens", least=1) if fields.has("max_output_tokens") else None
    effort = fields.object("reasoning").text("effort", "")
    return Ask(messages=_messages(fields), params=sampling(fields, length, ()),
               constraint=response_form(fields.object("text").object("format")),
               variables=thinking_variables(effort or None), tools=tools,
               cut=fields.text("truncation", "disabled") == "auto", adapter=adapter_of(fields)), spaces


def _messages(fields: Fields) -> tuple[ChatMessage, ...]:
    instructions = fields.text("instructions", "")
    found = [ChatMessage("system", instructions)] if instructions else []
    if isinstance(fields.value("input"), str):
        found.append(ChatMessage("user", fields.text("input")))
        return tuple(found)
    items = fields.objects("input")
    if not 0 < len(items) <= MOST_MESSAGES:
        raise BadField(f"input has {len(items)} items; expected 1 to {MOST_MESSAGES:,}.", "input")
    thinking = ""
    for item in items:
        kind = item.text("type", "message")
        if kind == "reasoning":
            parts = item.objects("content") or item.objects("summary")
            thinking = "\n".join(part.text("text", "") for part in parts)
        elif kind == "message":
            role = item.text("role")
            if role not in ROLES:
                raise BadField(f"{item.path('role')} is {role[:40]!r}; expected one of {', '.join(ROLES)}.")
            is_reply = role == "assistant"
            found.append(ChatMessage(ROLES[role], content_text(item), thinking=thinking if is_reply else ""))
            thinking = ""
        elif kind == "function_call":
            name = in_namespace(item.text("namespace", ""), item.text("name"))
            call = ToolCall(name, arguments(item, "arguments"), item.text("call_id"))
            if not found or found[-1].role != "assistant":
                found.append(ChatMessage("assistant", "", thinking=thinking))
            found[-1], thinking = replace(found[-1], calls=(*found[-1].calls, call)), ""
        elif kind == "function_call_output":
            found.append(ChatMessage("tool", content_text(item, "output"), call_id=item.text("call_id")))
        else:
            raise BadField(f"{item.path('type')} is {kind[:40]!r}; expected message, reasoning, "
                           "function_call or function_call_output.", item.path("type"))
    return tuple(found)


def _response(fields: Fields, ask: Ask, model_name: str) -> Json:
    form = fields.object("text").object("format").all()
    asked = {name: fields.value(name, otherwise) for name, otherwise in _TOLD_BACK.items()}
    return {"id": f"resp_{new_id()}{new_id()}", "object": "response", "created_at": int(time.time()),
            "status": "in_progress", "background": False, "error": None, "incomplete_details": None,
            "model": model_name, "output": [], "previous_response_id": None, "store": False,
            "reasoning": {"effort": None, "summary": None}, "temperature": ask.params.temperature,
            "text": {"format": form or {"type": "text"}}, "top_p": ask.params.top_p,
            "usage": None, "user": None, **asked,
            "tools": [tool for tool in fields.value("tools", []) if not is_servers(tool)]}


def _ended(written: Written, items: list[Json]) -> Json:
    stats = written.stats
    assert stats is not None, "it is done"
    is_cut = written.reason in ("length", "context")
    return {"status": "incomplete" if is_cut else "completed", "output": items,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": {"input_tokens": stats.prompt_tokens,
                      "input_tokens_details": {"cached_tokens": stats.cached_tokens},
                      "output_tokens": stats.new_tokens,
                      "output_tokens_details": {"reasoning_tokens": written.thought_tokens},
                      "total_tokens": stats.prompt_tokens + stats.new_tokens}}


def _items(written: Written, spaces: Spaces) -> list[Json]:
    thought = [_reasoning(f"rs_{new_id()}", written.thinking)] if written.thoughts else []
    text = [_message(f"msg_{new_id()}", written.text)] if written.text.strip() or not written.calls else []
    return [*thought, *text, *(_call(f"fc_{new_id()}", call, spaces) for call in written.calls)]


def _reasoning(item_id: str, text: str | None, status: str = "completed") -> Json:
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def _message(item_id: str, text: str | None, status: str = "completed") -> Json:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status,
            "content": [] if text is None else [_text(text)]}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(item_id: str, call: WrittenCall, spaces: Spaces, status: str = "completed") -> Json:
    space, name = spaces.get(call.name, ("", call.name))
    return {"id": item_id, "type": "function_call", "status": status, "call_id": call.id, "name": name,
            "arguments": call.arguments if status == "completed" else "",
            **({"namespace": space} if space else {})}


class _Stream:
    """The events of one response: items that open, grow and close, one at a time."""

    def __init__(self, response: Json, spaces: Spaces) -> None:
        self._response, self._spaces = response, spaces
        self._items: list[Json] = []
        self._number = 0
        self._kind = ""     # of the open item
        self._item_id = ""
        self._parts: list[str] = []
        self._space = ""    # white space that is nothing if a call follows
        self._call = WrittenCall("")

    def write(self, answer: Answer) -> Iterator[bytes]:
        try:
            yield self._event("response.created", response=self._response)
            yield self._event("response.in_progress", response=self._response)
            for told in answer.events():
                if told is None:
                    yield BEAT
                elif isinstance(told[1], ReplyDone):
                    yield from self._done(answer.written[0])
                elif isinstance(told[1], CallDelta):
                    yield from self._more_of_call(told[1], answer.written[0])
                elif told[1].channel == "think":
                    yield from self._more("reasoning", told[1].text)
                else:
                    yield from self._more_text(told[1].text)
        except Problem as problem:
            error = openai_error(problem)[0]["error"]
            failed = {"code": "server_error", "message": error["message"]}
            yield self._event("response.failed", response=self._response | {
                "status": "failed", "error": failed, "output": self._items})

    def _more_text(self, text: str) -> Iterator[bytes]:
        text, self._space = self._space + text, ""
        if not text.strip() and self._kind != "message":
            self._space = text
        else:
            yield from self._more("message", text)

    def _more(self, kind: str, text: str) -> Iterator[bytes]:
        if self._kind != kind:
            yield from self._open(kind)
        self._parts.append(text)
        if kind == "message":
            yield self._grown("response.output_text.delta", delta=text, content_index=0, logprobs=[])
        else:
            yield self._grown("response.reasoning_text.delta", delta=text, content_index=0)

    def _more_of_call(self, event: CallDelta, written: Written) -> Iterator[bytes]:
        if event.name:
            self._space, self._call = "", written.calls[event.index]
            yield from self._open("function_call")
        else:
            yield self._grown("response.function_call_arguments.delta", delta=event.arguments)

    def _open(self, kind: str) -> Iterator[bytes]:
        yield from self._close()
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        self._kind, self._item_id, self._parts = kind, f"{prefix}_{new_id()}", []
        yield self._event("response.output_item.added", output_index=len(self._items),
                          item=self._item(None, "in_progress"))
        if kind == "message":
            yield self._grown("response.content_part.added", content_index=0, part=_text(""))

    def _close(self) -> Iterator[bytes]:
        if not self._kind:
            return
        text = "".join(self._parts)
        if self._kind == "message":
            yield self._grown("response.output_text.done", content_index=0, text=text, logprobs=[])
            yield self._grown("response.content_part.done", content_index=0, part=_text(text))
        elif self._kind == "reasoning":
            yield self._grown("response.reasoning_text.done", content_index=0, text=text)
        else:
            name = self._spaces.get(self._call.name, ("", self._call.name))[1]
            yield self._grown("response.function_call_arguments.done", name=name,
                              arguments=self._call.arguments)
        item = self._item(text, "completed")
        yield self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        self._kind = ""

    def _item(self, text: str | None, status: str) -> Json:
        if self._kind == "function_call":
            return _call(self._item_id, self._call, self._spaces, status)
        return (_message if self._kind == "message" else _reasoning)(self._item_id, text, status)

    def _done(self, written: Written) -> Iterator[bytes]:
        if not self._kind and not self._items:
            yield from self._open("message")
        yield from self._close()
        ended = self._response | _ended(written, self._items)
        yield self._event(f"response.{ended['status']}", response=ended)

    def _grown(self, kind: str, **data: Any) -> bytes:
        return self._event(kind, item_id=self._item_id, output_index=len(self._items), **data)

    def _event(self, kind: str, **data: Any) -> bytes:
        frame = as_json({"type": kind, "sequence_number": self._number, **data})
        self._number += 1
        return f"event: {kind}\ndata: {frame}\n\n".encode("utf-8", "replace")
