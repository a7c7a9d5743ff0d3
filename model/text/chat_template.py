"""Conversation -> prompt text: by the model's chat template, or as a plain transcript without one.

Templates differ in what they take: some refuse a system message or ignore it, some insist on user and
assistant taking turns. Which, is tried out once at load; messages are then brought into the shape that the
template takes. Knows token texts only as strings; token ids, context sizes and replies are others' business.
"""

from __future__ import annotations

from typing import Protocol

from model.config import ModelLoadError
from model.text.errors import TemplateError
from model.text.masking import Mask
from model.text.messages import ChatMessage, Prompt
from model.text.reply_text import THINK_CLOSE, THINK_OPEN
from model.text.template_process import TemplateProcess, TemplateRefusal
from model.text.tokenizer import Tokenizer

START = "(start)"
"""What the user 'says' where a template wants a user's message first and there is none."""


class PromptFormat(Protocol):
    """What ChatTemplate and PlainFormat have in common."""

    is_template: bool

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "") -> Prompt: ...

    def close(self) -> None: ...


class ChatTemplate:
    """A model folder's own template."""

    is_template = True

    def __init__(self, source: str, where: str, tokenizer: Tokenizer,
                 process: TemplateProcess | None = None) -> None:
        """`where` names the template's file in errors. Raises ModelLoadError if it cannot be used at all."""
        self._source = source
        self._tokenizer = tokenizer
        self._process = process or TemplateProcess()
        try:
            self.takes_system, self.takes_any_order = self._try_out()
        except TemplateError as error:
            self._process.close()
            raise ModelLoadError(f"{where}: the chat template cannot be used: {error}. Correct the template, "
                                 "or remove it to chat in plain `Name: text` lines.") from error

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "") -> Prompt:
        """The prompt for the assistant's next message, which begins with `reply_prefix`.

        Raises TemplateError if the template refuses the messages or goes beyond its limits.
        """
        mask = Mask([self._source, reply_prefix, *(m.content for m in messages)], self._tokenizer)
        turns = [(m.role, mask.hide(m.content)) for m in messages]
        if reply_prefix:
            text = self._continued(turns, mask.hide(reply_prefix), mask.end_mark())
        else:
            text = self._render(turns, True)
        in_think = not reply_prefix and text.rstrip().endswith(THINK_OPEN)
        return Prompt(text, mask.hidden, in_think=in_think)

    def close(self) -> None:
        self._process.close()

    def _continued(self, turns: list[tuple[str, str]], prefix: str, end_mark: str) -> str:
        """The prompt that ends with `prefix` as the template itself writes an assistant's message."""
        try:
            text = self._render([*turns, ("assistant", prefix + end_mark)], False)
            if text.count(end_mark) == 1:
                return text[:text.index(end_mark)]
        except TemplateRefusal:
            pass  # a template that wants a user's message last
        text = self._render(turns, True)
        closing = THINK_CLOSE + "\n\n" if text.rstrip().endswith(THINK_OPEN) else ""
        return text + closing + prefix

    def _render(self, turns: list[tuple[str, str]], add_generation_prompt: bool) -> str:
        turns = turns if self.takes_system else without_system(turns)
        turns = turns if self.takes_any_order else alternating(turns)
        return self._render_as_is(turns or [("user", START)], add_generation_prompt)

    def _render_as_is(self, turns: list[tuple[str, str]], add_generation_prompt: bool = True) -> str:
        variables = {"messages": [{"role": role, "content": content} for role, content in turns],
                     "add_generation_prompt": add_generation_prompt, "tools": None, "documents": None,
                     **self._tokenizer.special_tokens}
        return self._process.render(self._source, variables)

    def _try_out(self) -> tuple[bool, bool]:
        """(takes a system message, takes messages in any order). Raises TemplateError if it takes none."""
        user, system, reply = ("user", "probe-user"), ("system", "probe-system"), ("assistant", "probe-reply")
        takes_system = self._takes([system, user])
        if not takes_system:
            self._render_as_is([user])
        return takes_system, self._takes([user, user, reply, reply, user]) and self._takes([reply, user])

    def _takes(self, turns: list[tuple[str, str]]) -> bool:
        """Whether the template renders `turns`, each of them once."""
        try:
            text = self._render_as_is(turns)
        except TemplateRefusal:
            return False
        except TemplateError as error:
            if type(error) is not TemplateError:
                raise
            return False
        return all(text.count(content) == sum(other == content for _, other in turns) for _, content in turns)


def without_system(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """System messages become part of the user's message after them."""
    found: list[tuple[str, str]] = []
    waiting = ""
    for role, content in turns:
        if role == "system":
            waiting = f"{waiting}\n\n{content}" if waiting else content
        elif waiting and role == "user":
            found.append((role, f"{waiting}\n\n{content}"))
            waiting = ""
        else:
            found += [("user", waiting)] * bool(waiting) + [(role, content)]
            waiting = ""
    return found + [("user", waiting)] * bool(waiting)


def alternating(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A user's message first, then reply and user in turn: neighbours of one role are joined."""
    found: list[tuple[str, str]] = []
    for role, content in turns:
        expects_user = not found or found[-1][0] == "system"
        if role == "assistant" and expects_user:
            found.append(("user", START))
        if found and found[-1][0] == role:
            found[-1] = (role, f"{found[-1][1]}\n\n{content}")
        else:
            found.append((role, content))
    if not found or found[-1][0] == "system":
        found.append(("user", START))
    return found


_ROLE_NAMES = {"user": "User", "assistant": "Assistant"}


class PlainFormat:
    """`Name: text` lines, for models without a chat template."""

    is_template = False
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "") -> Prompt:
        """System texts, an empty line, one line a message, and `ReplyName:` (with `reply_prefix`)."""
        if not reply_name and not any(message.name for message in messages):
            messages = [ChatMessage(m.role, m.content, _ROLE_NAMES.get(m.role, "")) for m in messages]
            reply_name, others = _ROLE_NAMES["assistant"], {_ROLE_NAMES["user"]}
        else:
            others = {m.name for m in messages if m.role != "system" and m.name} - {reply_name}
        mask = Mask([reply_name, reply_prefix, *(m.content + m.name for m in messages)], self._tokenizer)
        head = "".join(mask.hide(m.content) + "\n\n" for m in messages if m.role == "system")
        spoken = [m for m in messages if m.role != "system"]
        lines = [mask.hide(f"{m.name}: {m.content}" if m.name else m.content) for m in spoken]
        last = f"{reply_name}:" if reply_name else ""
        if reply_prefix:
            last = f"{last} {reply_prefix}" if last else reply_prefix
        text = head + "\n".join([*lines, mask.hide(last)])
        return Prompt(text, mask.hidden, add_bos=True, stop=tuple(f"\n{name}:" for name in sorted(others)))

    def close(self) -> None:
        """Nothing to end."""
