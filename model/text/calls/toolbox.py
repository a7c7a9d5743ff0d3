"""The tools of one conversation, and calls of them. Plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AUTO, REQUIRED = "auto", "required"
MAX_TOOLS = 512
_NAME = re.compile(r"""[^\s"'<>{}\[\]]{1,200}""")


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema of an object; `strict`: a schema that
    cannot be followed to the letter is an error."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"a tool's name is {self.name!r:.300}; expected 1 to 200 characters without "
                             "white space, quotes and brackets")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"the parameters of {self.name} are no JSON schema of an object")

    @property
    def schema(self) -> dict[str, Any]:
        """`parameters`, which may say nothing, as the schema of an object."""
        return {"type": "object", "properties": {},
                **self.parameters} if self.parameters else {"type": "object"}


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant has made; `arguments` is an object. `id` is by what its result refers to
    it."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Toolbox:
    """choice    "auto", "required" (one at least is called), or the name of the one to call
    parallel  whether a reply may hold several calls

    Raises ValueError for a choice that is not there, and for two tools of one name.
    """

    tools: tuple[Tool, ...]
    choice: str = AUTO
    parallel: bool = True

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if not 0 < len(names) <= MAX_TOOLS or len(set(names)) < len(names):
            raise ValueError(f"there are {len(names)} tools; expected 1 to {MAX_TOOLS} of different names")
        if self.choice not in (AUTO, REQUIRED, *names):
            raise ValueError(f"the tool to call is {self.choice!r:.100}; there are {', '.join(names)}")

    @property
    def must_call(self) -> bool:
        return self.choice != AUTO

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Those that the reply may call."""
        if self.choice in (AUTO, REQUIRED):
            return self.tools
        return tuple(tool for tool in self.tools if tool.name == self.choice)

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)

    def as_json(self) -> list[dict[str, Any]]:
        """As chat templates expect them."""
        return [{"type": "function", "function": {"name": tool.name, "description": tool.description,
                                                  "parameters": tool.schema}} for tool in self.tools]


def as_text(value: Any) -> str:
    """JSON in one line, as templates write it."""
    return json.dumps(value, ensure_ascii=False)
