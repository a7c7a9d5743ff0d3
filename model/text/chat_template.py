"""Conversation -> prompt text: by the model's chat template, or as a plain transcript without one.

Templates differ in what they take: some refuse a system message or ignore it, some insist on user and
assistant taking turns. Which, is tried out once at load; messages are then brought into the shape that the
template takes. Knows token texts only as strings; token ids, context sizes and replies are others' business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

from model.files import ModelLoadError
from model.text.calls.rendering import (
    apart,
    call_fields,
    call_id,
    hidden,
    in_plain_words,
    is_plain,
    told_of,
    written,
)
from model.text.calls.styles import HERMES, CallStyle, call_style
from model.text.calls.toolbox import Tool, Toolbox, ToolCall, as_text
from model.text.errors import TemplateError
from model.text.masking import Mask
from model.text.messages import ChatMessage, Prompt
from model.text.reply_text import ThinkSplitter
from model.text.template_process import TemplateProcess, TemplateRefusal
from model.text.thinking import THINK, ThinkFormat, efforts, think_format, thinks, thought_keys
from model.text.tokenizer import Tokenizer

START = "(start)"
"""What the user 'says' where a template wants a user's message first and there is none."""


class Turn(NamedTuple):
    """A message on its way into a template."""

    role: str
    content: str
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""  # of the function whose result a tool's message is

    @property
    def is_plain(self) -> bool:
        """Whether it may be joined with a neighbour."""
        return not self.calls and self.role != "tool"


class PromptFormat(Protocol):
    """What ChatTemplate and PlainFormat have in common."""

    is_template: bool
    thinks: bool              # whether thoughts are known to it
    efforts: tuple[str, ...]  # see thinking.efforts

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "",
               reply_thinking: str = "", variables: Mapping[str, Any] | None = None,
               tools: Toolbox | None = None) -> Prompt: ...

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
        self._format = think_format(source)
        self._thought_keys = thought_keys(source)
        self.thinks, self.efforts = thinks(source), efforts(source)
        self._takes_texts = self._short_ids = self._bare = False  # of calls; _native_style finds out
        self._shows_tools = True
        self._writes: CallStyle | None = None  # in which calls are written into what was said
        try:
            self.takes_system, self.takes_later_system, self.takes_any_order = self._try_out()
        except TemplateError as error:
            self._process.close()
            raise ModelLoadError(f"{where}: the chat template cannot be used: {error}. Correct the template, "
                                 "or remove it to chat in plain `Name: text` lines.") from error

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "",
               reply_thinking: str = "", variables: Mapping[str, Any] | None = None,
               tools: Toolbox | None = None) -> Prompt:
        """The prompt for the assistant's next message, which begins with `reply_prefix`.

        `reply_thinking` is what it has thought so far. Without a prefix, it goes on thinking. `variables` are
        the template's own, such as enable_thinking.

        Raises TemplateError if the template refuses the messages or goes beyond its limits.
        """
        split = [_with_thought_apart(message, self._format) for message in messages]
        style, given = None, dict(variables or {})
        if tools is not None or not all(map(is_plain, messages)):
            style = self._native_style
            split = in_plain_words(split, tools) if style is None else apart(split) if style.apart else split
        mask = Mask([self._source, reply_prefix, reply_thinking, as_text(tools.as_json() if tools else []),
                     *(m.content + m.thinking + as_text([call.arguments for call in m.calls])
                       for m in split)], self._tokenizer)
        turns = _turns(split, mask.hide)
        if style and tools and self._shows_tools:
            given["tools"] = hidden(tools.as_json(), mask.hide)
        elif style and tools:
            told = told_of(tools, style, mask.hide)
            turns = with_one_system([*turns[:_num_system(turns)], Turn("system", told),
                                     *turns[_num_system(turns):]])
        style = (style or HERMES) if tools else None
        render = partial(self._render, variables=given)
        if reply_thinking:
            text = self._after_thought(render(turns, True), mask.hide(reply_thinking),
                                       mask.hide(reply_prefix))
        elif reply_prefix:
            text = self._continued(render, turns, mask.hide(reply_prefix), mask.end_mark())
        else:
            text = render(turns, True)
            is_open, is_answered = self._format.is_open(text), self._format.is_answered(text)
            return Prompt(text, mask.hidden, at="think" if is_open else "text" if is_answered else "start",
                          think_format=self._format, calls=style)
        return Prompt(text, mask.hidden, at="text" if reply_prefix else "think", think_format=self._format,
                      calls=style)

    def close(self) -> None:
        self._process.close()

    def _after_thought(self, text: str, thinking: str, prefix: str) -> str:
        """The prompt `text`, then `thinking`, or the answer's beginning after it, as the model would have
        written them."""
        text += ("" if self._format.is_open(text) else self._format.opens[0]) + thinking
        return text + self._format.closing + prefix if prefix else text

    def _continued(self, render: Callable[[list[Turn], bool], str], turns: list[Turn], prefix: str,
                   end_mark: str) -> str:
        """The prompt that ends with `prefix` as the template itself writes an assistant's message."""
        try:
            text = render([*turns, Turn("assistant", prefix + end_mark)], False)
            if text.count(end_mark) == 1:
                return text[:text.index(end_mark)]
        except TemplateRefusal:
            pass  # a template that wants a user's message last
        text = render(turns, True)
        return text + (self._format.closing if self._format.is_open(text) else "") + prefix

    def _render(self, turns: list[Turn], add_generation_prompt: bool,
                variables: Mapping[str, Any] | None = None) -> str:
        if not self.takes_system:
            turns = without_system(turns)
        elif not self.takes_later_system:
            turns = with_one_system(turns)
        turns = turns if self.takes_any_order else alternating(turns)
        return self._render_as_is(turns or [Turn("user", START)], add_generation_prompt, variables)

    def _render_as_is(self, turns: list[Turn], add_generation_prompt: bool = True,
                      variables: Mapping[str, Any] | None = None) -> str:
        return self._process.render(self._source, {
            "tools": None, "documents": None, **(variables or {}), **self._tokenizer.special_tokens,
            "messages": [self._as_message(turn) for turn in turns],
            "add_generation_prompt": add_generation_prompt})

    def _as_message(self, turn: Turn) -> dict[str, Any]:
        """As the template expects it: an old thought where it looks for one."""
        thought = dict.fromkeys(self._thought_keys, turn.thinking) if turn.thinking else {}
        content = None if self._bare and turn.calls and not turn.content else turn.content
        message = {"role": turn.role, "content": content} | thought
        if turn.calls and self._writes:
            message["content"] = turn.content + written(turn.calls, self._writes)
        elif turn.calls:
            message |= call_fields(turn.calls, as_texts=self._takes_texts, short_ids=self._short_ids)
        if turn.role == "tool":
            message |= {"tool_call_id": call_id(turn.call_id, self._short_ids), "name": turn.name}
        return message

    @cached_property
    def _native_style(self) -> CallStyle | None:
        """How the model writes calls, if its template takes tools, calls and their results; tried out."""
        style = call_style(self._source)
        if style is None:
            return None
        self._short_ids, self._bare = style.short_ids, style.bare
        tools = Toolbox((Tool("probe_tool", "probe-description", PROBE_SCHEMA),))
        call = ToolCall("probe_tool", {"probe_key": "probe-value"}, "probecall")
        turns = [Turn("user", "probe-user"), Turn("assistant", "", calls=(call,)),
                 Turn("tool", "probe-result", call_id=call.id, name=call.name)]
        in_text = style.in_text and "tool_calls" not in self._source
        attempts = [(False, style)] if in_text else [(False, None), (True, None)]
        for self._takes_texts, self._writes in attempts:
            try:
                text = self._render_as_is(turns, variables={"tools": tools.as_json()})
            except TemplateError:
                continue
            self._shows_tools = "probe-description" in text
            if (self._shows_tools or style.form) and all(word in text for word in (
                    "probe-user", "probe-value", "probe-result")):
                return style
        return None

    def _try_out(self) -> tuple[bool, bool, bool]:
        """(takes a system message, and more of them later, takes messages in any order). Raises TemplateError
        if it takes none."""
        user, reply = Turn("user", "probe-user"), Turn("assistant", "probe-reply")
        first, second, later = (Turn("system", f"probe-{word}") for word in ("first", "second", "later"))
        takes_system = self._takes([first, user])
        if not takes_system:
            self._render_as_is([user])
        takes_later = takes_system and self._takes([first, second, user, reply, later, user])
        return takes_system, takes_later, (self._takes([user, user, reply, reply, user])
                                           and self._takes([reply, user]))

    def _takes(self, turns: list[Turn]) -> bool:
        """Whether the template renders `turns`, each of them once and in this order."""
        try:
            text = self._render_as_is(turns)
        except TemplateRefusal:
            return False
        except TemplateError as error:
            if type(error) is not TemplateError:
                raise
            return False
        found = re.findall("|".join({re.escape(turn.content) for turn in turns}), text)
        return found == [turn.content for turn in turns]


def _with_thought_apart(message: ChatMessage, think_format: ThinkFormat) -> ChatMessage:
    """An assistant's message whose thought is in its text, as some programs send it back, in two parts."""
    if message.role != "assistant" or message.thinking:
        return message
    splitter, channels = ThinkSplitter("start", think_format), {"think": "", "text": ""}
    for channel, text in splitter.push(message.content) + splitter.finish():
        channels[channel] += text
    if not channels["think"]:
        return message
    return replace(message, content=channels["text"].lstrip(), thinking=channels["think"])


def _num_system(turns: list[Turn]) -> int:
    """How many of the first ones are the system's."""
    return next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))


def with_one_system(turns: list[Turn]) -> list[Turn]:
    """All system messages as one, at the start."""
    texts = [turn.content for turn in turns if turn.role == "system"]
    head = [Turn("system", "\n\n".join(texts))] if texts else []
    return head + [turn for turn in turns if turn.role != "system"]


def without_system(turns: list[Turn]) -> list[Turn]:
    """System messages become part of the user's message after them."""
    found: list[Turn] = []
    waiting = ""
    for turn in turns:
        if turn.role == "system":
            waiting = f"{waiting}\n\n{turn.content}" if waiting else turn.content
        elif waiting and turn.role == "user":
            found.append(Turn("user", f"{waiting}\n\n{turn.content}"))
            waiting = ""
        else:
            found += [Turn("user", waiting)] * bool(waiting) + [turn]
            waiting = ""
    return found + [Turn("user", waiting)] * bool(waiting)


def alternating(turns: list[Turn]) -> list[Turn]:
    """A user's message first, then reply and user in turn: neighbours of one role are joined."""
    found: list[Turn] = []
    for turn in turns:
        expects_user = not found or found[-1].role == "system"
        if turn.role == "assistant" and expects_user:
            found.append(Turn("user", START))
        if found and found[-1].role == turn.role and found[-1].is_plain and turn.is_plain:
            joined = f"{found[-1].content}\n\n{turn.content}"
            found[-1] = Turn(turn.role, joined, turn.thinking or found[-1].thinking)
        else:
            found.append(turn)
    if not found or found[-1].role == "system":
        found.append(Turn("user", START))
    return found


PROBE_SCHEMA = {"type": "object", "properties": {"probe_key": {"type": "string", "description": "a word"}},
                "required": ["probe_key"]}


def _turns(messages: list[ChatMessage], hide: Callable[[str], str]) -> list[Turn]:
    """The messages with nothing in them that could be a control token."""
    names = {call.id: call.name for message in messages for call in message.calls}
    turns = []
    for m in messages:
        calls = tuple(ToolCall(hide(call.name), hidden(dict(call.arguments), hide), hide(call.id))
                      for call in m.calls)
        turns.append(Turn(m.role, hide(m.content), hide(m.thinking), calls, hide(m.call_id),
                          hide(names.get(m.call_id, m.name))))
    return turns


_ROLE_NAMES = {"user": "User", "assistant": "Assistant"}


class PlainFormat:
    """`Name: text` lines, for models without a chat template."""

    is_template = thinks = False
    efforts: tuple[str, ...] = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: list[ChatMessage], reply_name: str = "", reply_prefix: str = "",
               reply_thinking: str = "", variables: Mapping[str, Any] | None = None,
               tools: Toolbox | None = None) -> Prompt:
        """System texts, an empty line, one line a message, and `ReplyName:` (with `reply_prefix`).

        A thought is not a part of such lines; one that was begun (`reply_thinking`) goes on where it stood.
        """
        style = HERMES if tools is not None else None
        if style or not all(map(is_plain, messages)):
            messages = in_plain_words(messages, tools)
        if not reply_name and not any(message.name for message in messages):
            messages = [ChatMessage(m.role, m.content, _ROLE_NAMES.get(m.role, "")) for m in messages]
            reply_name, others = _ROLE_NAMES["assistant"], {_ROLE_NAMES["user"]}
        else:
            others = {m.name for m in messages if m.role != "system" and m.name} - {reply_name}
        mask = Mask([reply_name, reply_prefix, reply_thinking, *(m.content + m.name for m in messages)],
                    self._tokenizer)
        head = "".join(mask.hide(m.content) + "\n\n" for m in messages if m.role == "system")
        spoken = [m for m in messages if m.role != "system"]
        lines = [mask.hide(f"{m.name}: {m.content}" if m.name else m.content) for m in spoken]
        last = f"{reply_name}:" if reply_name else ""
        if reply_prefix:
            last = f"{last} {reply_prefix}" if last else reply_prefix
        text = head + "\n".join([*lines, mask.hide(last)])
        in_thought = bool(reply_thinking) and not reply_prefix
        if in_thought:
            text += (" " if last else "") + THINK.opens[0] + mask.hide(reply_thinking)
        return Prompt(text, mask.hidden, add_bos=True, stop=tuple(f"\n{name}:" for name in sorted(others)),
                      at="think" if in_thought else "text" if reply_prefix else "start", calls=style)

    def close(self) -> None:
        """Nothing to end."""
