"""Anthropic's protocol: messages, whole and as a stream of blocks, and counting their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask.typing import ResponseReturnValue

from model import (
    AUTO,
    PARAMETER_SPECS,
    REQUIRED,
    CallDelta,
    ChatMessage,
    Constraint,
    ReplyDone,
    Toolbox,
    ToolCall,
    thinking_variables,
)

from ..errors import Problem
from ..ids import new_id
from .answering import Answer, Written, answered, streamed
from .asking import (
    MOST_MESSAGES,
    Ask,
    adapter_of,
    begin,
    count_tokens,
    response_schema,
    sampling,
)
from .errors import anthropic_error
from .fields import BadField, Fields, Json, as_json, read_fields
from .tools import NO_TOOLS, arguments, read_tool, toolbox

CHANGING_HEADER = "x-anthropic-billing-header:"
"""A line that Claude Code writes anew in front of every request: nothing behind it would be found in the
cache."""
CHOICES = {"auto": AUTO, "any": REQUIRED, "none": NO_TOOLS}
MOST_BUDGET = PARAMETER_SPECS["thinking_budget"]["max"]
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def create_message() -> ResponseReturnValue:
    """The assistant's next message, whole or as a stream."""
    fields = read_fields()
    ask, streams = _read(fields), fields.flag("stream")
    begun = begin(ask)
    message: Json = {"id": f"msg_{new_id()}{new_id()}", "type": "message", "role": "assistant",
                     "model": begun.model_name}
    if streams:
        start = message | {"content": [], "stop_reason": None, "stop_sequence": None,
                           "usage": {"input_tokens": begun.replies[0].prompt_tokens, "output_tokens": 0}}
        return streamed(begun, _Stream(ask, start).write, "text/event-stream")
    written, = answered(begun)
    return message | {"content": _blocks(written), **_end(ask, written), "usage": _usage(written)}


def count() -> ResponseReturnValue:
    """How many tokens the prompt of such a request has."""
    fields = read_fields()
    return {"input_tokens": count_tokens(_read(fields, counts=True))}


def _read(fields: Fields, counts: bool = False) -> Ask:
    """`counts`: only the prompt is wanted."""
    length = 1 if counts and not fields.has("max_tokens") else fields.whole("max_tokens", least=1)
    wanted = fields.object("output_config")
    form = wanted.object("format") if wanted.has("format") else fields.object("output_format")
    params, thinking = sampling(fields, length, fields.texts("stop_sequences")), fields.object("thinking")
    if thinking.has("budget_tokens"):
        params = replace(params, thinking_budget=thinking.whole("budget_tokens", least=1, most=MOST_BUDGET))
    return Ask(messages=_messages(fields), params=params,
               constraint=_form(form), variables=thinking_variables(_effort(fields, wanted)),
               tools=_tools(fields), adapter=adapter_of(fields))


def _messages(fields: Fields) -> tuple[ChatMessage, ...]:
    entries = fields.objects("messages")
    if not 0 < len(entries) <= MOST_MESSAGES:
        raise BadField(f"There are {len(entries)} messages; expected 1 to {MOST_MESSAGES:,}.", "messages")
    system = _texts(fields, "system")
    found = [ChatMessage("system", system)] if system else []
    for entry in entries:
        role = entry.text("role")
        if role not in ("user", "assistant", "system"):
            raise BadField(f"{entry.path('role')} is {role[:40]!r}; expected user or assistant.")
        found += _turn(role, entry)
    return tuple(found)


def _turn(role: str, entry: Fields) -> list[ChatMessage]:
    """The results of tools in a message, each as a message, and then the rest of it."""
    if isinstance(entry.value("content", ""), str):
        return [ChatMessage(role, entry.text("content", ""))]
    texts, thoughts, calls, results = [], [], [], []
    for block in entry.objects("content"):
        kind = block.text("type")
        if kind == "thinking":
            thoughts.append(block.text("thinking", ""))
        elif kind == "tool_use":
            calls.append(ToolCall(block.text("name"), arguments(block, "input"), block.text("id")))
        elif kind == "tool_result":
            results.append(ChatMessage("tool", _texts(block, "content"), call_id=block.text("tool_use_id")))
        elif kind != "redacted_thinking":
            texts.append(_block_text(block))
    has_more = texts or thoughts or calls or not results
    rest = ChatMessage(role, "\n\n".join(texts), thinking="\n\n".join(thoughts), calls=tuple(calls))
    return [*results, *([rest] if has_more else [])]


def _texts(fields: Fields, name: str) -> str:
    """A text, or blocks of text, without the header that changes."""
    value = fields.value(name, "")
    texts = [value] if isinstance(value, str) else list(map(_block_text, fields.objects(name)))
    kept = ["\n".join(line for line in text.split("\n") if not line.startswith(CHANGING_HEADER)) for text
            in texts]
    return "\n\n".join(text for text in kept if text.strip())


def _block_text(block: Fields) -> str:
    """Of a text, or of a document that is one, with its title."""
    kind = block.text("type", "text")
    if kind == "document" and (source := block.object("source")).text("type", "") == "text":
        return f"{block.text('title', '')}\n\n{source.text('data')}".strip()
    if kind != "text":
        raise BadField(f"{block.path('type')} is {kind[:40]!r}; the model here reads text only.")
    return block.text("text")


def _tools(fields: Fields) -> Toolbox | None:
    tools = []
    for entry in fields.objects("tools"):
        if entry.text("type", "custom") != "custom":
            raise BadField(f"{entry.path('type')} is {entry.text('type')[:40]!r}; nothing is run on this "
                           "server: only tools of your own can be called.")
        tools.append(read_tool(entry, "input_schema"))
    choice = fields.object("tool_choice")
    kind = choice.text("type", "auto")
    if kind != "tool" and kind not in CHOICES:
        raise BadField(f"tool_choice.type is {kind[:40]!r}; expected auto, any, tool or none.")
    return toolbox(tools, choice.text("name") if kind == "tool" else CHOICES[kind],
                   not choice.flag("disable_parallel_tool_use"))


def _effort(fields: Fields, wanted: Fields) -> str:
    """Whoever does not ask for thoughts gets none, where the model can do without."""
    kind = fields.object("thinking").text("type", "disabled")
    if kind == "disabled":
        return "none"
    return wanted.text("effort", "medium")


def _form(fields: Fields) -> Constraint | None:
    if not fields.all():
        return None
    if fields.text("type") != "json_schema":
        raise BadField(f"{fields.path('type')} is {fields.text('type')[:40]!r}; expected json_schema.")
    return response_schema(fields.object("schema").all())


def _blocks(written: Written) -> list[Json]:
    thought = [{"type": "thinking", "thinking": written.thinking,
                "signature": ""}] if written.thoughts else []
    text = [{"type": "text", "text": written.text}] if written.text.strip() or not written.calls else []
    return [*thought, *text, *({"type": "tool_use", "id": call.id, "name": call.name, "input": call.parsed()}
                               for call in written.calls)]


def _end(ask: Ask, written: Written) -> Json:
    if written.reason in ("length", "context"):
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if written.stop in ask.params.stop:
        return {"stop_reason": "stop_sequence", "stop_sequence": written.stop}
    return {"stop_reason": "tool_use" if written.calls else "end_turn", "stop_sequence": None}


def _usage(written: Written) -> Json:
    stats = written.stats
    assert stats is not None, "it is done"
    return {"input_tokens": stats.prompt_tokens - stats.cached_tokens, "output_tokens": stats.new_tokens,
            "cache_read_input_tokens": stats.cached_tokens, "cache_creation_input_tokens": 0}


class _Stream:
    """The events of one message: blocks that open, grow and close, one at a time."""

    def __init__(self, ask: Ask, start: Json) -> None:
        self._ask, self._start = ask, start
        self._index = -1
        self._kind = ""     # of the open block
        self._space = ""    # white space that is nothing if a call follows

    def write(self, answer: Answer) -> Iterator[bytes]:
        try:
            yield _event("message_start", message=self._start)
            for told in answer.events():
                if told is None:
                    yield PING
                elif isinstance(told[1], ReplyDone):
                    yield from self._done(answer.written[0])
                elif isinstance(told[1], CallDelta):
                    yield from self._call(told[1], answer.written[0])
                elif told[1].channel == "think":
                    yield from self._more("thinking", {"thinking": "", "signature": ""}, "thinking_delta",
                                          "thinking", told[1].text)
                else:
                    yield from self._text(told[1].text)
        except Problem as problem:
            yield _event("error", **anthropic_error(problem)[0])

    def _text(self, text: str) -> Iterator[bytes]:
        text, self._space = self._space + text, ""
        if not text.strip() and self._kind != "text":
            self._space = text
        else:
            yield from self._more("text", {"text": ""}, "text_delta", "text", text)

    def _call(self, event: CallDelta, written: Written) -> Iterator[bytes]:
        if event.name:
            self._space = ""
            yield from self._open("tool_use", id=written.calls[event.index].id, name=event.name, input={})
        else:
            yield self._delta("input_json_delta", "partial_json", event.arguments)

    def _more(self, kind: str, empty: Json, delta: str, field: str, text: str) -> Iterator[bytes]:
        if self._kind != kind:
            yield from self._open(kind, **empty)
        yield self._delta(delta, field, text)

    def _open(self, kind: str, **content: Any) -> Iterator[bytes]:
        yield from self._close()
        self._index, self._kind = self._index + 1, kind
        yield _event("content_block_start", index=self._index, content_block={"type": kind, **content})

    def _delta(self, kind: str, field: str, text: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, field: text})

    def _close(self) -> Iterator[bytes]:
        if self._kind:
            self._kind = ""
            yield _event("content_block_stop", index=self._index)

    def _done(self, written: Written) -> Iterator[bytes]:
        if self._index < 0:  # clients expect a block
            yield from self._open("text", text="")
        yield from self._close()
        yield _event("message_delta", delta=_end(self._ask, written), usage=_usage(written))
        yield _event("message_stop")


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {as_json({'type': kind, **data})}\n\n".encode("utf-8", "replace")
