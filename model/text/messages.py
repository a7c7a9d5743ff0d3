"""What a prompt is made of: the messages that come in, and the prompt that goes to the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation. `name` is used where a model has no chat template."""

    role: str
    content: str
    name: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ValueError(f"content is {type(self.content).__name__}; expected text")


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation, up to where the model goes on."""

    text: str
    hidden: Mapping[str, str] = field(default_factory=dict)  # stand-ins of a Mask
    add_bos: bool = False                                    # templates write BOS themselves
    stop: tuple[str, ...] = ()                               # what ends a reply of this format
    in_think: bool = False                                   # the prompt ends inside an open <think>


def as_messages(messages: Iterable[ChatMessage | Mapping[str, Any]]) -> list[ChatMessage]:
    """ChatMessages, from these or from {"role", "content"} dictionaries."""
    found = []
    for message in messages:
        if not isinstance(message, ChatMessage):
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise ValueError(f"a message is {message!r}; expected {{'role': ..., 'content': ...}}")
            message = ChatMessage(message["role"], message["content"], message.get("name", ""))
        found.append(message)
    return found
