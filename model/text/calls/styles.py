"""How families of models write calls of tools, read off a chat template's text.

A call is an opening, a head with the function's name, arguments, and a tail. Here is the table; reading.py
reads calls, grammar.py says what they must look like. Knows nothing of streams or tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_NAME = r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>[^"]+)"\s*,\s*'


@dataclass(frozen=True)
class CallStyle:
    """The way of one family.

    marks     what belongs to calls: tokens that are hidden in other replies; the first two open and close a
              call where `tail` ends with such a mark
    openings  what begins a call; the first is what is asked for where there must be one
    head      pattern of what is between that and the arguments, with the function's `name`
    tail      pattern of what ends the call after them
    body      json: an object; tags: <parameter=key> value </parameter>, or name="key"; keys:
              <arg_key>key</arg_key> and <arg_value>value</arg_value>; pairs: {key:value}, texts in `quote`;
              python: (key=value, ...), as Python's literals
    at_start  an opening counts only where the answer begins
    kept      the opening is a part of the head
    between   what leads to a further call under the same opening
    closing   what may stand after the last one; a "]" there ends a list of calls
    sections  calls stand between marks of all of them: an opening is that and the first call's own beginning
    ends      what ends the reply after a call
    form      a call, as it is told of where templates do not show tools themselves
    """

    name: str
    marks: tuple[str, ...]
    openings: tuple[str, ...]
    head: str
    tail: str
    body: Literal["json", "tags", "keys", "pairs", "python"] = "json"
    at_start: bool = False
    sections: bool = False
    kept: bool = False
    between: str = ""
    closing: str = ""
    ends: tuple[str, ...] = ()
    quote: str = ""
    short_ids: bool = False  # ids of calls have nine letters and digits
    form: str = ""
    bare: bool = False       # messages with calls have no content in templates, not even an empty one
    apart: bool = False      # nor any other: what is said before calls is a message of its own
    in_text: bool = False    # templates may show tools and no calls, which are a part of what was said then


HERMES = CallStyle("hermes", ("<tool_call>", "</tool_call>"), ("<tool_call>",), _NAME + r'"arguments"\s*:',
                   r"\s*\}\s*</tool_call>")
TAGS = CallStyle("tags", HERMES.marks, HERMES.openings, r"\s*<function=(?P<name>[^>]+)>",
                 r"\s*</function>\s*</tool_call>", body="tags")
GLM = CallStyle(  # GLM 4.5 to 4.7
    "glm", (*HERMES.marks, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"), HERMES.openings,
    r"\s*(?P<name>[^\s<]+)\s*(?=<arg_key>|</tool_call>)", r"\s*</tool_call>", body="keys")
LLAMA = CallStyle(  # Llama 3.1 to 3.3
    "llama", ("<|python_tag|>",), ('{"name"', '{ "name"', '{"type"', "<|python_tag|>"),
    r"(?:<\|python_tag\|>)?" + _NAME + r'"parameters"\s*:', r"\s*\}", at_start=True, kept=True)
MISTRAL_LIST = CallStyle(  # up to the tokenizers of version 7
    "mistral list", ("[TOOL_CALLS]",), ("[TOOL_CALLS]",), r"\s*\[?" + _NAME + r'"arguments"\s*:',
    r'\s*(?:,\s*"id"\s*:\s*"[^"]*"\s*)?\}', between=",", closing="]", short_ids=True)
MISTRAL = CallStyle(
    "mistral", ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"), ("[TOOL_CALLS]",),
    r"\s*(?P<name>[^\[\s]+)\s*(?:\[CALL_ID\][^\[]*)?\[ARGS\]", "", short_ids=True)
HARMONY = CallStyle(  # https://cookbook.openai.com/articles/openai-harmony
    "harmony", ("<|channel|>", "<|message|>", "<|constrain|>"),
    ("<|channel|>commentary to=functions.", "<|channel|>analysis to=functions.", "to=functions."),
    r"(?P<name>[^<\s]+)\s*(?:<\|channel\|>(?:commentary|analysis))?\s*(?:<\|constrain\|>)?\s*(?:json)?\s*"
    r"<\|message\|>", "", at_start=True)
SEED = CallStyle(  # Seed-OSS
    "seed", ("<seed:tool_call>", "</seed:tool_call>"), ("<seed:tool_call>",), TAGS.head,
    r"\s*</function>\s*</seed:tool_call>", body="tags")
MINIMAX = CallStyle(  # MiniMax M2
    "minimax", ("<minimax:tool_call>", "</minimax:tool_call>"), ("<minimax:tool_call>",),
    r'\s*(?:<invoke name=")?(?P<name>[^"<>\s]+)">', r"\s*</invoke>", body="tags", between='<invoke name="',
    closing="</minimax:tool_call>")
NEMOTRON = CallStyle(  # Nemotron Nano 2
    "nemotron", ("<TOOLCALL>", "</TOOLCALL>"), ("<TOOLCALL>",), r"\s*\[?" + _NAME + r'"arguments"\s*:',
    r"\s*\}", between=",", closing="]</TOOLCALL>")
COHERE = CallStyle(  # Command R7B, Command A
    "cohere", ("<|START_ACTION|>", "<|END_ACTION|>"), ("<|START_ACTION|>",),
    r'\s*\[?\s*\{\s*"tool_call_id"\s*:\s*"[^"]*"\s*,\s*"tool_name"\s*:\s*"(?P<name>[^"]+)"\s*,\s*'
    r'"parameters"\s*:', r"\s*\}", between=",", closing="]<|END_ACTION|>")
GRANITE = CallStyle(  # Granite 3.0 to 3.3; 3.1 writes "<tool_call>": https://docs.vllm.ai/en/stable/api/vllm/parser/granite
    "granite", ("<|tool_call|>",), ("<|tool_call|>", "<tool_call>"), NEMOTRON.head, r"\s*\}", between=",",
    closing="]", in_text=True)
LFM2 = CallStyle(  # LFM2, LFM2.5: https://docs.vllm.ai/en/v0.22.1/api/vllm/tool_parsers/lfm2_tool_parser
    "lfm2", ("<|tool_call_start|>", "<|tool_call_end|>"), ("<|tool_call_start|>",),
    r"\s*\[?\s*(?P<name>[^\s\[\](),=]+)\s*(?=\()", "", body="python", between=",",
    closing="]<|tool_call_end|>", in_text=True)
APERTUS = CallStyle(
    "apertus", ("<|tools_prefix|>", "<|tools_suffix|>"), ("<|tools_prefix|>",),
    r'\s*\[?\s*\{\s*"(?P<name>[^"]+)"\s*:', r"\s*\}", between=",", closing="]<|tools_suffix|>")
_KIMI = ("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>",
         "<|tool_call_end|>", "<|tool_calls_section_end|>")
KIMI = CallStyle(  # Kimi K2: https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/docs/tool_call_guidance.md
    "kimi", _KIMI, (_KIMI[0] + _KIMI[1], f"{_KIMI[0]}\n{_KIMI[1]}"),
    r"\s*(?:functions\.)?(?P<name>[^\s<:]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>",
    r"\s*<\|tool_call_end\|>", between=_KIMI[1], closing=_KIMI[4], sections=True)
GEMMA = CallStyle(  # Gemma 4
    "gemma", ("<|tool_call>", "<tool_call|>", '<|"|>', "<|tool_response>"), ("<|tool_call>",),
    r"\s*call:(?P<name>[^\{\s]+)(?=\s*\{)", r"\s*<tool_call\|>", body="pairs", ends=("<|tool_response>",),
    quote='<|"|>')
_SEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
         "<｜tool▁calls▁end｜>")
_CALLS, _CALL, _SEP, _END, _CALLS_END = _SEEK
DEEPSEEK_31 = CallStyle(  # DeepSeek V3.1: https://huggingface.co/deepseek-ai/DeepSeek-V3.1#toolcall
    "deepseek 3.1", _SEEK, (_CALLS + _CALL, f"{_CALLS}\n{_CALL}"), rf"\s*(?P<name>[^<\s]+)\s*{_SEP}",
    rf"\s*{_END}", between=_CALL, closing=_CALLS_END, bare=True, sections=True,
    form=f"{_CALLS}{_CALL}name{_SEP}arguments{_END}{_CALLS_END}")
DEEPSEEK = CallStyle(  # DeepSeek V3 and R1
    "deepseek", _SEEK, DEEPSEEK_31.openings, rf"\s*function{_SEP}(?P<name>[^\n]+)\n```(?:json)?\n",
    rf"\s*```\s*{_END}", between=_CALL, closing=_CALLS_END, bare=True, apart=True,
    sections=True,
    form=f"{_CALLS}{_CALL}function{_SEP}name\n```json\narguments\n```{_END}{_CALLS_END}")
FUNCTION_GEMMA = CallStyle(
    "function gemma", ("<start_function_call>", "<end_function_call>", "<escape>",
                       "<start_function_response>"),
    ("<start_function_call>",), GEMMA.head, r"\s*<end_function_call>", body="pairs",
    ends=("<start_function_response>",), quote="<escape>")

# What a template must contain, all of it, and what it must not -> the style. The first that fits counts.
_STYLES: tuple[tuple[tuple[str, ...], tuple[str, ...], CallStyle], ...] = (
    (("<|channel|>", "<|message|>", "functions"), (), HARMONY),
    (("<|tool_call>", "<tool_call|>"), (), GEMMA),
    (("<start_function_call>",), (), FUNCTION_GEMMA),
    (("[TOOL_CALLS]", "[ARGS]"), (), MISTRAL),
    (("[TOOL_CALLS]",), (), MISTRAL_LIST),
    ((_KIMI[0], _KIMI[2]), (), KIMI),
    (("<minimax:tool_call>", "<invoke"), (), MINIMAX),
    (("<seed:tool_call>", "<function="), (), SEED),
    (("<TOOLCALL>",), (), NEMOTRON),
    (("<|START_ACTION|>", "tool_name"), (), COHERE),
    (("<|tools_prefix|>", "<|tools_suffix|>"), (), APERTUS),
    (("<|tool_call|> followed by a JSON list",), (), GRANITE),
    (("List of tools: <|tool_list_start|>[",), (), LFM2),
    (("List of tools: [",), (), LFM2),
    ((_CALLS, _SEP, "```json"), (), DEEPSEEK),
    ((_CALLS, _SEP), (), DEEPSEEK_31),
    (("<tool_call>", "<function=", "<parameter="), (), TAGS),
    (("<tool_call>", "<arg_key>", "<arg_value>"), (), GLM),
    (("<tool_call>", "arguments"), ("<invoke name=",), HERMES),
    (("<|start_header_id|>", '"parameters"'), ("<tool_call>",), LLAMA),
)


def call_style(template: str) -> CallStyle | None:
    """The style of a model by its chat template's text; None where that has no tools, or in a way not
    known."""
    found = next((style for parts, others, style in _STYLES if all(part in template for part in parts)
                  and not any(part in template for part in others)), None)
    return found if found and (found.form or re.search(r"\btools\b", template)) else None
