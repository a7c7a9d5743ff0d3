"""Tools and calls on their way into a prompt: as chat templates take them, or in words where a template has
none.

Knows nothing of templates but what their messages look like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from model.text.calls.styles import CallStyle
from model.text.calls.toolbox import Tool, Toolbox, ToolCall, as_text
from model.text.messages import ChatMessage

_INTRODUCTION = """You can call functions. They are described here, one a line:
<tools>
{tools}
</tools>
To call one, write its name and its arguments as JSON, in this form:
<tool_call>
{{"name": "...", "arguments": {{...}}}}
</tool_call>"""


def hidden(value: Any, hide: Callable[[str], str]) -> Any:
    """JSON with every text in it hidden from the tokenizer's search for control tokens."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, list | tuple):
        return [hidden(entry, hide) for entry in value]
    return {hide(key): hidden(entry, hide) for key, entry in value.items()} if isinstance(value,
                                                                                          dict) else value


def call_fields(calls: tuple[ToolCall, ...], *, as_texts: bool, short_ids: bool) -> dict[str, Any]:
    """`tool_calls` of an assistant's message; `as_texts`: templates that want arguments as JSON's text."""
    return {"tool_calls": [{
        "id": call_id(call.id, short_ids), "type": "function",
        "function": {"name": call.name, "arguments": as_text(call.arguments) if as_texts else call.arguments}}
        for call in calls]}


def written(calls: tuple[ToolCall, ...], style: CallStyle) -> str:
    """Calls as the model writes them, for a template that shows tools and no calls: those of the styles that
    have such templates. Such a template's model has its calls in what it has said."""
    if style.body == "python":
        listed = [f"{call.name}({', '.join(f'{key}={_literal(it)}' for key, it in call.arguments.items())})"
                  for call in calls]
    else:
        listed = [as_text({"name": call.name, "arguments": dict(call.arguments)}) for call in calls]
    return f"{style.openings[0]}[{', '.join(listed)}{style.closing}"


def _literal(value: Any) -> str:
    """As Python writes it, texts in double quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{as_text(key)}: {_literal(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return as_text(value) if isinstance(value, str) else repr(value)


def call_id(given: str, short: bool) -> str:
    """The id that a template is shown: some take nine letters and digits only."""
    if not short or (len(given) == 9 and given.isascii() and given.isalnum()):
        return given
    return hashlib.sha256(given.encode()).hexdigest()[:9]


def is_plain(message: ChatMessage) -> bool:
    """Whether it has nothing to do with tools."""
    return not message.calls and message.role != "tool"


def in_plain_words(messages: list[ChatMessage], tools: Toolbox | None) -> list[ChatMessage]:
    """The conversation for a model whose template knows no tools: they and their calls are said in its
    messages, in the way of Hermes, which many models have learned."""
    found = [message if is_plain(message) else _said(message) for message in messages]
    if tools is None:
        return found
    told = _INTRODUCTION.format(tools="\n".join(map(_line, tools.tools)))
    if found and found[0].role == "system":
        return [replace(found[0], content=f"{found[0].content}\n\n{told}"), *found[1:]]
    return [ChatMessage("system", told), *found]


def told_of(tools: Toolbox, style: CallStyle, hide: Callable[[str], str]) -> str:
    """The tools in words, and how they are called in this style: for a template that shows them to nobody,
    though the model has learned to call. `hide` takes what may hold no control token."""
    tools_in_words = "\n\n".join(
        f"### {hide(tool.name)}\nDescription: {hide(tool.description)}\n\n"
        f"Parameters: {as_text(hidden(tool.schema, hide))}" for tool in tools.tools)
    return (f"## Tools\nYou have access to the following tools:\n\n{tools_in_words}\n\n"
            f"IMPORTANT: ALWAYS adhere to this exact format for tool use:\n{style.form}\n\n"
            "Where:\n- `name` must be an exact match to one of the available tools\n- `arguments` must be "
            "valid JSON that strictly follows the tool's Parameters Schema\n- For multiple tool calls, chain "
            "them directly without separators or spaces")


def apart(messages: list[ChatMessage]) -> list[ChatMessage]:
    """What is said before calls as a message of its own."""
    return [part for message in messages for part in (
        (replace(message, calls=()), ChatMessage(message.role, "", calls=message.calls))
        if message.calls and message.content else (message,))]


def _said(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage("user", f"<tool_response>\n{message.content}\n</tool_response>")
    calls = [f'<tool_call>\n{as_text({"name": call.name, "arguments": dict(call.arguments)})}\n</tool_call>'
             for call in message.calls]
    return replace(message, content="\n".join([*([message.content] if message.content else []), *calls]),
                   calls=())


def _line(tool: Tool) -> str:
    return as_text({"name": tool.name, "description": tool.description, "parameters": tool.schema})
