"""What calls must look like, as grammars in llguidance's Lark: one for the calls of each style.

Control tokens stand in them as a NUL and the token's text as JSON; whoever knows the tokenizer puts in what
it spells them with. https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from model.text.calls.styles import KIMI, CallStyle
from model.text.calls.toolbox import Tool, Toolbox
from model.text.calls.values import is_text

_SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_LENIENT = {"lenient": True, "coerce_one_of": True}
_SPECIAL = re.compile('\0("(?:[^"\\\\]|\\\\.)*")')
_SAID_ONLY = ("description", "title", "examples", "default", "$schema", "$id", "$comment", "deprecated",
              "readOnly")
_HARMONY_HEADER = '( {channel} "commentary" )? ( " "? {constrain} "json" | " json" )? {message}'
_TAGS = {"tags": ("<parameter={}>\n", "\n</parameter>\n"), "seed": ("<parameter={}>", "</parameter>\n"),
         "minimax": ('<parameter name="{}">', "</parameter>\n")}
_KIMI_ARGUMENTS, _KIMI_END = KIMI.marks[2:4]
_DEFINITIONS = ("$defs", "definitions")
_JSON_ID = '"tool_call_id":'
ANY: dict[str, Any] = {"type": "object"}


def special(text: str) -> str:
    """A control token's place."""
    return "\0" + json.dumps(text)


def with_specials(source: str, spelt: Callable[[str], str]) -> str:
    """The grammar with `spelt(text)` in the place of each control token."""
    return _SPECIAL.sub(lambda found: spelt(json.loads(found[1])), source)


def literal(text: str) -> str:
    return json.dumps(text) if text else ""


def calls_grammar(style: CallStyle, toolbox: Toolbox, *, opened: bool,
                  answer: Mapping[str, Any] | None = None,
                  loose: frozenset[str] = frozenset()) -> str:
    """One call, from behind its opening (`opened`), or a whole reply of one call or more.

    answer  JSON schema of a reply that may stand in place of calls
    loose   names of tools whose schemas cannot be followed: any object will do
    """
    rules = _Rules(style)
    names = [rules.add("call", rules.call(tool, ANY if tool.name in loose else tool.schema, tool.strict))
             for tool in toolbox.callable_tools]
    one = rules.together(rules.add("one", " | ".join(names)), toolbox.parallel)
    start = one
    if not opened:
        opening = rules.opening()
        start = f"{opening} {one} {rules.further(one, opening) if toolbox.parallel else ''}"
        if answer is not None:
            start = f"{start} | %json {json.dumps(dict(answer))}"
    return "\n".join([f"start: {start}", *rules.lines])


def arguments_grammars(tool: Tool) -> list[str]:
    """The arguments of this tool, and each alone: what is wrong with a grammar shows at its start."""
    schema = tool.schema
    parts = [_with_definitions(inner, schema) for inner in (schema.get("properties") or {}).values()]
    return [f"start: {_json(part, tool.strict)}" for part in (schema, *parts)]


class _Rules:
    """The rules of one grammar."""

    def __init__(self, style: CallStyle) -> None:
        self.lines: list[str] = ["TEXT: /(.|\\n)*/", r"SINGLE: /'([^'\\\n]|\\.)*'/"]
        self._style = style
        self._any_value = ""

    def add(self, name: str, body: str, suffix: str = "") -> str:
        """The name of a new rule."""
        name = f"{name}_{len(self.lines)}"
        self.lines.append(f"{name}{f'[suffix={json.dumps(suffix)}]' if suffix else ''}: {body}")
        return name

    def together(self, one: str, is_several: bool) -> str:
        """`one`, or with what stands round all calls where they have such."""
        style = self._style
        if style.sections:
            more = f'( {literal(chr(10))}? {special(style.between)} {one} )*' if is_several else ""
            return f"{one} {more} {special(style.closing)}"
        if style.closing.startswith("]"):  # all calls stand in one list
            more = f'( "," " "? {one} )*' if is_several else ""
            end = special(style.closing[1:]) if style.closing != "]" else ""
            return f'" "? "[" " "? {one} {more} "]" {end}'
        if style.closing:
            more = f"{one}*" if is_several else ""
            return f"{literal(chr(10))} {one} {more} {special(style.closing)}"
        return one

    def opening(self) -> str:
        """What a reply begins with that must call."""
        name = self._style.name
        if name == "llama":
            return ""
        if name == "harmony":
            start, channel, message = special("<|start|>"), special("<|channel|>"), special("<|message|>")
            thought = self.add("thought", f'{channel} "analysis" {message} TEXT {special("<|end|>")} {start} '
                                          '"assistant"')
            return f'{thought}? {channel} "commentary to=functions."'
        if self._style.sections:
            return f"{special(self._style.marks[0])} {special(self._style.marks[1])}"
        return special(self._style.openings[0])

    def further(self, one: str, opening: str) -> str:
        name = self._style.name
        if name in ("llama", "harmony") or self._style.closing:
            return ""
        return f"( {literal(chr(10)) if self._style.body != 'pairs' else ''} {opening} {one} )*"

    def call(self, tool: Tool, schema: Mapping[str, Any], strict: bool) -> str:
        """A call of this tool, from behind its opening."""
        name, space = self._style.name, '" "?'
        if name == "minimax":
            return (f"{literal(f'<invoke name={json.dumps(tool.name, ensure_ascii=False)}>{chr(10)}')} "
                    f"{self._tags(schema)} {literal(f'</invoke>{chr(10)}')}")
        if self._style.body == "tags":
            return (f"{literal(f'{chr(10)}<function={tool.name}>{chr(10)}')} {self._tags(schema)} "
                    f"{literal(f'</function>{chr(10)}')} {special(self._style.marks[1])}")
        if self._style.body == "keys":
            return f'{literal(tool.name)} "\\n"? {self._keys(schema)} {special("</tool_call>")}'
        if self._style.body == "pairs":
            end = special(self._style.marks[1])
            return f"{literal(f'call:{tool.name}')} {self._object(schema)} {end}"
        if self._style.body == "python":
            return f'{literal(f"{tool.name}(")} {self._keywords(schema)}'
        value = _json(schema, strict)
        quoted = json.dumps(tool.name, ensure_ascii=False)
        if name == "kimi":
            return (f'{literal(f"functions.{tool.name}:")} /[0-9]{{1,3}}/ {special(_KIMI_ARGUMENTS)} {value} '
                    f"{special(_KIMI_END)}")
        if self._style.sections:
            separator, end = special("<｜tool▁sep｜>"), special("<｜tool▁call▁end｜>")
            if name == "deepseek 3.1":
                return f"{literal(tool.name)} {separator} {value} {end}"
            head, tail = literal(f"{tool.name}\n```json\n"), literal("\n```")
            return f'"function" {separator} {head} {value} {tail} {end}'
        if name == "mistral":
            return f"{literal(tool.name)} {special('[ARGS]')} {value}"
        if name == "harmony":
            header = _HARMONY_HEADER.format(channel=special("<|channel|>"), message=special("<|message|>"),
                                            constrain=special("<|constrain|>"))
            return f"{literal(tool.name)} {header} {value}"
        if name == "apertus":
            return f"{literal('{' + quoted + ':')} {space} {value} \"}}\""
        key = '"parameters":' if name in ("llama", "cohere") else '"arguments":'
        says = "name"
        before = '"{"'
        if name == "cohere":
            says = "tool_name"
            before = f'"{{" {literal(_JSON_ID)} {space} /"[0-9]{{1,3}}"/ "," {space}'
        head = (f"{before} {literal(f'{json.dumps(says)}:')} {space} {literal(quoted + ',')} {space} "
                f"{literal(key)} {space}")
        if name == "hermes":
            return f'"\\n"? {head} {value} "}}" "\\n"? {special("</tool_call>")}'
        call_id = '( ", \\"id\\": \\"" /[a-zA-Z0-9]{9}/ "\\"" )?' if name == "mistral list" else ""
        return f'{head} {value} {call_id} "}}"'

    def _tags(self, schema: Mapping[str, Any]) -> str:
        """The parameters in the schema's order; those that are not required may be left out."""
        required, parts = schema.get("required") or [], []
        begin, end = _TAGS[self._style.name]
        for key, inner in (schema.get("properties") or {}).items():
            if is_text(inner) and "enum" not in (inner or {}):
                value = self.add("text", "/(.|\\n)*/", suffix=end)
            elif is_text(inner):
                value = f"( {' | '.join(map(literal, inner['enum']))} ) {literal(end)}"
            else:
                value = f"{_json(_with_definitions(inner, schema), False)} {literal(end)}"
            rule = self.add("parameter", f"{literal(begin.format(key))} {value}")
            parts.append(rule if key in required else f"{rule}?")
        return " ".join(parts)

    def _keys(self, schema: Mapping[str, Any]) -> str:
        """As _tags, with marks round keys and values."""
        required, parts = schema.get("required") or [], []
        for key, inner in (schema.get("properties") or {}).items():
            if is_text(inner) and "enum" not in (inner or {}):
                value = "TEXT"
            elif is_text(inner):
                value = f"( {' | '.join(map(literal, inner['enum']))} )"
            else:
                value = _json(_with_definitions(inner, schema), False)
            name = f'{special("<arg_key>")} {literal(key)} {special("</arg_key>")} "\\n"?'
            rule = self.add("argument", f'{name} {special("<arg_value>")} {value} {special("</arg_value>")} '
                                        '"\\n"?')
            parts.append(rule if key in required else f"{rule}?")
        return " ".join(parts)

    def _object(self, schema: Any) -> str:
        """`{key:value,...}`, keys in the order of the alphabet, as the templates write them."""
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not properties:
            any_object, _ = self._anything()
            return any_object
        required = set(schema.get("required") or [])
        rest, rest_first = '"}"', '"}"'
        for key in sorted(properties,
                          reverse=True):  # from the last on: what may follow without and with a comma
            pair = f"{literal(f'{key}:')} {self._pair_value(properties[key])}"
            first = self.add("first", f"{pair} {rest}" + ("" if key in required else f" | {rest_first}"))
            later = self.add("later", f'"," {pair} {rest}' + ("" if key in required else f" | {rest}"))
            rest_first, rest = first, later
        return f'"{{" {rest_first}'

    def _pair_value(self, schema: Any) -> str:
        if not isinstance(schema, Mapping):
            return self._anything()[1]
        kind = schema.get("type")
        if isinstance(schema.get("enum"), list):
            return f"( {' | '.join(map(self._constant, schema['enum']))} )"
        if kind == "string":
            return self._text()
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            value = self._pair_value(schema.get("items"))
            return self.add("list", f'"[" ( {value} ( "," {value} )* )? "]"')
        if kind in ("integer", "number", "boolean", "null"):
            return _json({key: value for key, value in schema.items() if key not in _SAID_ONLY}, False)
        return self._anything()[1]

    def _keywords(self, schema: Mapping[str, Any]) -> str:
        """`key=value, ...)`, keys in the schema's order."""
        properties, required = schema.get("properties") or {}, schema.get("required") or []
        if "properties" not in schema:
            pair = self.add("pair", f'/[A-Za-z_][A-Za-z0-9_]*/ "=" {self._python({})}')
            return f'( {pair} ( "," " "? {pair} )* )? ")"'
        rest = rest_first = '")"'
        for key, inner in reversed(properties.items()):
            pair = f"{literal(f'{key}=')} {self._python(_with_definitions(inner, schema))}"
            first = self.add("first", f"{pair} {rest}" + ("" if key in required else f" | {rest_first}"))
            later = self.add("later", f'"," " "? {pair} {rest}' + ("" if key in required else f" | {rest}"))
            rest_first, rest = first, later
        return rest_first

    def _python(self, schema: Mapping[str, Any]) -> str:
        """A value as JSON, or as Python has it where no more than its type is asked for."""
        kind, others = schema.get("type"), schema.keys() - {"type", "items", *_SAID_ONLY, *_DEFINITIONS}
        value = _json(schema, False)
        if others or not isinstance(schema.get("items", {}), Mapping):
            return value
        if kind == "string":
            return f"( {value} | SINGLE )"
        if kind in ("boolean", "null"):
            words = '"True" | "False"' if kind == "boolean" else '"None"'
            return f"( {value} | {words} )"
        if kind == "array" and "items" in schema:
            own = self._python(_with_definitions(schema["items"], schema))
            return self.add("list", f'"[" ( {own} ( "," " "? {own} )* )? "]"')
        return value

    def _constant(self, value: Any) -> str:
        quote = special(self._style.quote)
        return f"{quote} {literal(value)} {quote}" if isinstance(value, str) else literal(json.dumps(value))

    def _text(self) -> str:
        quote = special(self._style.quote)
        return f"{quote} TEXT {quote}"

    def _anything(self) -> tuple[str, str]:
        """(any object, any value)."""
        if not self._any_value:
            number = _json({"type": ["number", "boolean", "null"]}, False)
            self.lines += [
                f"any_value: {self._text()} | {number} | any_object | any_list",
                'any_object: "{" ( any_pair ( "," any_pair )* )? "}"',
                "any_pair: KEY \":\" any_value",
                'any_list: "[" ( any_value ( "," any_value )* )? "]"', "KEY: /[A-Za-z_][A-Za-z0-9_-]*/"]
            self._any_value = "any_value"
        return "any_object", "any_value"


def _json(schema: Mapping[str, Any], strict: bool) -> str:
    options = _SEPARATORS if strict else _SEPARATORS | _LENIENT
    return f"%json {json.dumps({**_without_words(schema), 'x-guidance': options})}"


def _without_words(schema: Any, is_names: bool = False) -> Any:
    """The schema without what is only said in it; `is_names`: its keys are names of fields."""
    if isinstance(schema, list):
        return [_without_words(entry) for entry in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {key: value if key in ("enum", "const", "required") and not is_names else _without_words(
                value, not is_names and key in ("properties", "patternProperties", "$defs", "definitions"))
            for key, value in schema.items() if is_names or key not in _SAID_ONLY}


def _with_definitions(inner: Any, outer: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a schema that may refer to the whole one's definitions."""
    shared = {key: outer[key] for key in _DEFINITIONS if key in outer}
    return {**shared, **inner} if isinstance(inner, Mapping) else dict(shared)
