"""Arguments of calls that are not written as JSON: from a family's own way to JSON values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PARAMETER = re.compile(r'<parameter(?:=| name=")([^>"]+)"?>\n?(.*?)\n?</parameter>', re.DOTALL)
_KEY_AND_VALUE = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_PLAIN = re.compile(r"[^,:{}\[\]]+")
_WORDS = {"None": None, "True": True, "False": False}
_SINGLE_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ESCAPED, _ESCAPES = re.compile(r"\\(.)", re.DOTALL), {"n": "\n", "t": "\t", "r": "\r"}


def from_tags(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """`<parameter=key>value</parameter>`, or `name="key"`, one after the other. A value is text unless its
    schema says otherwise."""
    return _typed(_PARAMETER.findall(text), schema)


def from_keys(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """`<arg_key>key</arg_key><arg_value>value</arg_value>` one after the other, likewise."""
    return _typed(_KEY_AND_VALUE.findall(text), schema)


def _typed(found: list[tuple[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    return {key.strip(): _value(value, properties.get(key.strip())) for key, value in found}


def is_text(schema: Any) -> bool:
    """Whether a value of this schema is a text, and nothing else."""
    if not isinstance(schema, Mapping):
        return True
    if "enum" in schema:
        return all(isinstance(choice, str) for choice in schema["enum"])
    return schema.get("type") == "string"


def _value(text: str, schema: Any) -> Any:
    if is_text(schema):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def from_pairs(text: str, quote: str) -> Any:
    """`{key:value,...}` with texts between `quote`s; lists and objects within. Raises ValueError."""
    value, rest = _read(text.strip(), quote)
    if rest.strip():
        raise ValueError(f"something stands after the arguments: {rest[:40]!r}")
    return value


def from_python(text: str) -> dict[str, Any]:
    """`(key=value, ...)`, values as Python or JSON has them. Raises ValueError."""
    rest, found = text.strip()[1:-1].strip(), {}
    while rest:
        key, equals, rest = rest.partition("=")
        if not equals:
            raise ValueError(f"no value for {key[:40]!r}")
        found[key.strip()], rest = _read(rest.lstrip(), "'")
        rest = rest.lstrip()
        if rest and not rest.startswith(","):
            raise ValueError(f"neither a comma nor an end at {rest[:40]!r}")
        rest = rest[1:].lstrip()
    return found


def _read(text: str, quote: str) -> tuple[Any, str]:
    """(the value at the start of `text`, what follows it)."""
    if quote == "'" and (single := _SINGLE_QUOTED.match(text)):
        return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), single[1]), text[single.end():]
    if text.startswith(quote):
        inner, closed, rest = text[len(quote):].partition(quote)
        if not closed:
            raise ValueError("a text has no end")
        return inner, rest
    if text[:1] in ("{", "["):
        return _read_many(text, quote)
    if text.startswith('"'):
        value, end = json.JSONDecoder().raw_decode(text)
        return value, text[end:]
    plain = _PLAIN.match(text)
    if plain is None:
        raise ValueError(f"no value at {text[:40]!r}")
    try:
        return json.loads(plain[0]), text[plain.end():]
    except ValueError:
        word = plain[0].strip()
        return _WORDS.get(word, word), text[plain.end():]


def _read_many(text: str, quote: str) -> tuple[Any, str]:
    is_object, end = text[0] == "{", "}" if text[0] == "{" else "]"
    entries: dict[str, Any] = {}
    values: list[Any] = []
    text = text[1:].lstrip()
    while not text.startswith(end):
        if is_object:
            key, text = _key(text, quote)
            entries[key], text = _read(text, quote)
        else:
            value, text = _read(text, quote)
            values.append(value)
        text = text.lstrip()
        if text.startswith(","):
            text = text[1:].lstrip()
        elif not text.startswith(end):
            raise ValueError(f"neither a comma nor an end at {text[:40]!r}")
    return entries if is_object else values, text[1:]


def _key(text: str, quote: str) -> tuple[str, str]:
    if text.startswith((quote, '"')):
        key, rest = _read(text, quote)
    else:
        key, colon, rest = text.partition(":")
        rest = colon + rest
    if not rest.lstrip().startswith(":"):
        raise ValueError(f"no value for {key[:40]!r}")
    return key.strip(), rest.lstrip()[1:].lstrip()
