"""How families of models set their thoughts apart from their answers, read off a chat template's text.

A reply is thoughts and an answer in one stream. Each family marks them in its own way; here is the table.
Knows nothing of streams or tokens: reply_text.py takes replies apart, chat_template.py writes thoughts into
prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, AnyStr, Literal

Part = Literal["start", "think", "text"]
"""Where a reply goes on: at its start, inside a thought, or in the answer."""


@dataclass(frozen=True)
class ThinkFormat:
    """The marks of one family; none of them is shown."""

    name: str
    opens: tuple[str, ...]          # each begins a thought; the first is what a prompt writes
    close: str
    answers: tuple[str, ...] = ()   # what may stand before an answer; the first is what a prompt writes
    ends: tuple[str, ...] = ()      # what ends an answer that such a mark, or a thought's end, began
    between: tuple[str, ...] = ()   # what may stand before any of these
    always: bool = False            # every answer begins with a mark

    @property
    def marks(self) -> tuple[str, ...]:
        return (*self.opens, self.close, *self.answers, *self.ends, *self.between)

    @property
    def closing(self) -> str:
        """From the end of a thought to the first word of the answer, in a prompt."""
        space = "\n\n" if self.opens[0].endswith("\n") and not self.answers else ""
        return self.close + space + "".join(self.between[:1]) + "".join(self.answers[:1])

    def is_open(self, prompt: str) -> bool:
        """Whether `prompt` ends inside a thought, with nothing of it written."""
        return prompt.rstrip().endswith(tuple(mark.rstrip() for mark in self.opens))

    def mark_before_answer(self, at: str) -> str:
        """What must come in a reply before its answer does; "" where the answer comes at once. `at`: where
        the prompt ends, "start", "think" or "text"."""
        if at == "text" or (at == "start" and not self.always):
            return ""
        return self.answers[0] if self.always else self.close

    def is_answered(self, prompt: str) -> bool:
        """Whether `prompt` ends where an answer begins."""
        return bool(self.answers) and prompt.rstrip().endswith(tuple(mark.rstrip() for mark in self.answers))


def first_mark(begun: AnyStr, opens: tuple[AnyStr, ...], answers: tuple[AnyStr, ...],
               between: tuple[AnyStr, ...]) -> tuple[Part, AnyStr] | None:
    """How a reply goes on that is at its start, or behind a thought, by a format's marks: the part behind the
    mark that `begun` starts with, and that mark; of an answer that begins without one "text" and an empty
    one. None if more is needed to tell."""
    marks = (*opens, *answers, *between)
    mark = max((mark for mark in marks if begun.startswith(mark)), key=len, default=begun[:0])
    if not mark:
        return None if any(mark.startswith(begun) for mark in marks) else ("text", mark)
    return "think" if mark in opens else "text" if mark in answers else "start", mark


THINK = ThinkFormat("think", ("<think>\n", "<think>"), "</think>")

# Harmony: https://cookbook.openai.com/articles/openai-harmony
_CHANNELS = ThinkFormat(
    "channels", ("<|channel|>analysis<|message|>", "<|channel|>commentary<|message|>"), "<|end|>",
    ("<|channel|>final<|message|>",), ("<|end|>", "<|return|>", "<|start|>", "<|call|>"),
    ("<|start|>assistant",), always=True)

# What a template must contain, all of it -> the format. The first that fits counts.
_FORMATS: tuple[tuple[tuple[str, ...], ThinkFormat], ...] = (
    (("<|channel|>", "<|message|>"), _CHANNELS),                                               # gpt-oss
    (("<|channel>", "<channel|>"), ThinkFormat(                                                # Gemma 4
        "channel", ("<|channel>thought\n", "<|channel>thought"), "<channel|>")),
    (("<|open|>", "<|close|>", "<|sep|>"), ThinkFormat(                                        # Kimi K3
        "xtml", ("<|open|>think<|sep|>",), "<|close|>think<|sep|>", ("<|open|>response<|sep|>",),
        ("<|close|>response<|sep|>",), always=True)),
    (("<|begin|>", "<|think|>", "<|content|>"), ThinkFormat(                                   # Solar Open
        "begin", ("<|think|>",), "<|end|>", ("<|content|>",), ("<|end|>",), ("<|begin|>assistant",),
        always=True)),
    (("[THINK]",), ThinkFormat("[THINK]", ("[THINK]",), "[/THINK]")),                          # Mistral
    (("<seed:think>",), ThinkFormat("seed", ("<seed:think>\n", "<seed:think>"), "</seed:think>")),
    (("<|START_THINKING|>",), ThinkFormat(                                                     # Cohere
        "cohere", ("<|START_THINKING|>",), "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|START_TEXT|>"),
        ("<|END_RESPONSE|>", "<|END_TEXT|>"))),
    (("<|begin_of_thought|>",), ThinkFormat(                                                   # OpenThinker
        "begin_of_thought", ("<|begin_of_thought|>\n", "<|begin_of_thought|>"), "<|end_of_thought|>",
        ("<|begin_of_solution|>",), ("<|end_of_solution|>",))),
    (("<|inner_prefix|>",), ThinkFormat(                                                       # Apertus
        "inner", ("<|inner_prefix|>",), "<|inner_suffix|>")),
    (("◁think▷",), ThinkFormat("kimi", ("◁think▷",), "◁/think▷")),                             # Kimi VL
    (("<reasoning>",), ThinkFormat(                                                            # Reka
        "reasoning", ("<reasoning>\n", "<reasoning>"), "</reasoning>", ("<answer>",), ("</answer>",))),
    (("[BEGIN FINAL RESPONSE]",), ThinkFormat(                                                 # Apriel
        "apriel", ("Here are my reasoning steps:\n", "Here are my reasoning steps:"),
        "[BEGIN FINAL RESPONSE]", ends=("[END FINAL RESPONSE]",))),
    (("Here is my thought process:", "Here is my response:"), ThinkFormat(                     # Granite 3.2
        "process", ("Here is my thought process:\n", "Here is my thought process:"),
        "Here is my response:")),
    (("<thought>",), ThinkFormat("thought", ("<thought>\n", "<thought>"), "</thought>")),      # EXAONE Deep
    (("<think>", "<answer>"), ThinkFormat(                                                     # Hunyuan
        "think-answer", ("<think>\n", "<think>"), "</think>", ("<answer>\n", "<answer>"),
        ("</answer>",))),
    (("<think>", "<response>"), ThinkFormat(                                                   # Granite
        "think-response", ("<think>\n", "<think>"), "</think>", ("<response>\n", "<response>"),
        ("</response>",))),
)


def think_format(template: str | None) -> ThinkFormat:
    """The format of a model by its chat template's text; <think>, the commonest, where it does not tell."""
    text = template or ""
    return next((found for parts, found in _FORMATS if all(part in text for part in parts)), THINK)


_CODE = re.compile(r"\{[%{](.*?)[%}]\}", re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


def thinks(template: str | None) -> bool:
    """Whether the template knows thoughts."""
    text = template or ""
    return think_format(text) is not THINK or THINK.close in text


def efforts(template: str | None) -> tuple[str, ...]:
    """Of none, low, medium and high, what the template can tell the model: by the variables that it reads."""
    code = " ".join(_QUOTED.sub("", found) for found in _CODE.findall(template or ""))
    read = {name for name in ("enable_thinking", "thinking", "reasoning_effort")
            if re.search(rf"(?<![.\w]){name}\b(?!\s*=[^=])", code)}
    return ("none",) * bool(read - {"reasoning_effort"}) + (
        ("low", "medium", "high") if "reasoning_effort" in read else ())


def thinking_variables(effort: str | None) -> dict[str, Any]:
    """What templates are told of how much a model is to think; None or "": as they please."""
    if not effort:
        return {}
    enabled = effort != "none"
    told = {"enable_thinking": enabled, "thinking": enabled}
    return told | {"reasoning_effort": effort} if enabled else told


def thought_keys(template: str) -> tuple[str, ...]:
    """The fields of a message in which a template looks for the thought before it.

    () where it looks in none: then old thoughts are left out. The templates that find them in the content
    take them out of it.
    """
    return tuple(key for key in ("reasoning_content", "reasoning", "thinking")
                 if re.search(rf"""[.'"]{key}\b""", template))
