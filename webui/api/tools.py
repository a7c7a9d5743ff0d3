"""Tools as programs name them, as what the model takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from model import AUTO, REQUIRED, Tool, Toolbox, ToolCall

from .fields import BadField, Fields, Json

NO_TOOLS = "none"
SERVERS_TOOLS = ("web_search", "file_search", "code_interpreter", "image_generation", "mcp",
                 "computer_use_preview", "tool_search")
"""What begins with one of these in a responses request is run by OpenAI's servers."""


def read_tool(fields: Fields, schema: str = "parameters") -> Tool:
    """A function with its name, description and JSON schema."""
    try:
        return Tool(fields.text("name"), fields.text("description", ""), fields.object(schema).all(),
                    fields.flag("strict"))
    except ValueError as error:
        raise BadField(f"{error}.", fields.path("name")) from None


def toolbox(tools: list[Tool], choice: str, parallel: bool) -> Toolbox | None:
    """None where there is nothing to call. `choice`: auto, none, required, or a function's name."""
    if not tools or choice == NO_TOOLS:
        if not tools and choice not in (AUTO, NO_TOOLS):
            raise BadField("tool_choice wants a call, and there are no tools.", "tool_choice")
        return None
    try:
        return Toolbox(tuple(tools), choice, parallel)
    except ValueError as error:
        raise BadField(f"{error}.", "tools") from None


def openai_tools(fields: Fields) -> Toolbox | None:
    """`tools`, `tool_choice` and `parallel_tool_calls` of OpenAI's protocols: a function stands in
    "function", or, in the newer ones, beside its type."""
    tools = [_function(entry) for entry in fields.objects("tools")]
    return toolbox(tools, _choice(fields), fields.flag("parallel_tool_calls", True))


def response_tools(fields: Fields) -> tuple[Toolbox | None, dict[str, tuple[str, str]]]:
    """Those of a responses request, where functions may lie in namespaces: the model calls NAMESPACE__NAME.

    The second value is name -> (namespace, name in it). Tools that OpenAI's servers would run are left out,
    as if the model never chose them; the answer repeats the others.
    """
    tools, spaces = [], {}
    for entry in fields.objects("tools"):
        if entry.text("type", "function") == "namespace":
            space = entry.text("name")
            for tool in map(_function, entry.objects("tools")):
                tools.append(replace(tool, name=in_namespace(space, tool.name)))
                spaces[tools[-1].name] = space, tool.name
        elif not is_servers(entry.all()):
            tools.append(_function(entry))
    return toolbox(tools, _choice(fields), fields.flag("parallel_tool_calls", True)), spaces


def is_servers(tool: Json) -> bool:
    """Whether it is one of those that OpenAI's servers run."""
    return str(tool.get("type")).startswith(SERVERS_TOOLS)


def in_namespace(space: str, name: str) -> str:
    """As the model knows it."""
    return f"{space}__{name}" if space else name


def _function(entry: Fields) -> Tool:
    kind = entry.text("type", "function")
    if kind != "function":
        raise BadField(f"{entry.path('type')} is {kind[:40]!r}; only functions can be called here.",
                       entry.path("type"))
    return read_tool(entry.object("function") if entry.has("function") else entry)


def openai_functions(fields: Fields) -> Toolbox | None:
    """`functions` and `function_call`, as OpenAI's chat had them before tools: one call a reply."""
    value = fields.value("function_call", AUTO)
    choice = value if value in (AUTO, NO_TOOLS) else fields.object("function_call").text("name")
    return toolbox(list(map(read_tool, fields.objects("functions"))), choice, parallel=False)


def has_functions(fields: Fields) -> bool:
    """Whether a request speaks of functions. Raises BadField if it has tools as well."""
    found = fields.has("functions") or fields.has("function_call")
    if found and fields.has("tools"):
        raise BadField("functions stand beside tools; expected one of them.", "functions")
    return found


def _choice(fields: Fields) -> str:
    value = fields.value("tool_choice", AUTO)
    if value in (AUTO, REQUIRED, NO_TOOLS):
        return value
    chosen = fields.object("tool_choice")
    if chosen.text("type") != "function":
        raise BadField("tool_choice.type is not function.", "tool_choice.type")
    return (chosen.object("function") if chosen.has("function") else chosen).text("name")


def read_call(fields: Fields) -> ToolCall:
    """One of an assistant's earlier calls, as OpenAI's chat has it."""
    function = fields.object("function")
    return ToolCall(function.text("name"), arguments(function, "arguments"), fields.text("id", ""))


def read_function_call(fields: Fields) -> ToolCall:
    """The one call of an assistant's earlier message; its result refers to it by the function's name."""
    name = fields.text("name")
    return ToolCall(name, arguments(fields, "arguments"), name)


def arguments(fields: Fields, name: str) -> Json:
    """An object, or its text; nothing is an empty one."""
    value: Any = fields.value(name, {})
    try:
        value = json.loads(value or "{}") if isinstance(value, str) else value
    except ValueError:
        raise BadField(f"{fields.path(name)} is no JSON.", fields.path(name)) from None
    if not isinstance(value, dict):
        raise BadField(f"{fields.path(name)} is no JSON object.", fields.path(name))
    return value
