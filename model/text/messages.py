"""What a prompt is made of: the messages that come in, and the prompt that goes to the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model.text.calls.styles import CallStyle
from model.text.calls.toolbox import ToolCall
from model.text.thinking import THINK, Part, ThinkFormat

ROLES = ("system", "user", "assistant", "tool")
LEFT_OUT = "\n[...]\n"
"""What stands in a message in place of what did not fit into the context."""


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation. `name` is used where a model has no chat template; `thinking` is what
    an assistant thought before it, which the template shows to the model or not.

    follows  it is more of the turn before it: both go to the template as one message, with a line break
             between them, if the context has room for both
    pinned   it stays where those round it are left out
    calls    what an assistant called after that; call_id: the call of which a tool's message is the result
    """

    role: str
    content: str
    name: str = ""
    thinking: str = ""
    follows: bool = False
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    pinned: bool = False

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}")
        for field_name in ("content", "name", "thinking", "call_id"):
            text = getattr(self, field_name)
            if not isinstance(text, str):
                raise ValueError(f"{field_name} is {type(text).__name__}; expected text")


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation, up to where the model goes on."""

    text: str
    hidden: Mapping[str, str] = field(default_factory=dict)  # stand-ins of a Mask
    add_bos: bool = False                                    # templates write BOS themselves
    stop: tuple[str, ...] = ()                               # what ends a reply of this format
    at: Part = "start"                                       # where the reply goes on
    think_format: ThinkFormat = THINK
    calls: CallStyle | None = None                           # how calls of tools are written

    @property
    def shown(self) -> str:
        """The text, with the characters for which it has stand-ins."""
        return self.text.translate(str.maketrans(dict(self.hidden))) if self.hidden else self.text


def as_messages(messages: Iterable[ChatMessage | Mapping[str, Any]]) -> list[ChatMessage]:
    """ChatMessages, from these or from {"role", "content"} dictionaries, with "name" and the thought
    ("reasoning_content" or "thinking") if there are any."""
    found = []
    for message in messages:
        if not isinstance(message, ChatMessage):
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise ValueError(f"a message is {message!r}; expected {{'role': ..., 'content': ...}}")
            thinking = message.get("reasoning_content") or message.get("thinking") or ""
            message = ChatMessage(message["role"], message["content"], message.get("name") or "", thinking)
        found.append(message)
    return found


def joined(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """`messages` as a template gets them: those that follow are part of the turn before them."""
    turns: list[ChatMessage] = []
    for message in messages:
        if message.follows and turns and turns[-1].role == message.role:
            turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{message.content}")
        else:
            turns.append(message)
    return turns


def shortened(message: ChatMessage, length: int) -> ChatMessage:
    """`message` with about `length` characters of its content: its beginning, and half as much of its end."""
    end = length // 3
    return replace(message, content=f"{message.content[:length - end]}{LEFT_OUT}"
                                    f"{message.content[len(message.content) - end:]}")
