"""The fields of a request in somebody else's protocol: those we know are checked, others are ignored.

    fields = read_fields()
    prompt = fields.text("prompt")
"""

from __future__ import annotations

import json
from typing import Any

from flask import request

from .. import strict_json
from ..errors import BadRequest

Json = dict[str, Any]


class BadField(BadRequest):
    """`param` is the name of the field."""

    def __init__(self, message: str, param: str = "", code: str = "") -> None:
        super().__init__(message, code=code)
        self.param = param


def read_fields() -> Fields:
    """Of the present request's body."""
    try:
        body = strict_json.loads(request.get_data())
    except ValueError as error:
        raise BadField(f"The body cannot be read: {error}.") from None
    if not isinstance(body, dict):
        raise BadField("The body is not a JSON object.")
    return Fields(body)


class Fields:
    """One object. null is the same as nothing. Every method raises BadField with a sentence."""

    def __init__(self, values: Json, where: str = "") -> None:
        self._values = values
        self._where = where

    def path(self, name: str) -> str:
        """What a person calls the field: messages[2].content."""
        return f"{self._where}.{name}" if self._where else name

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def value(self, name: str, default: Any = None) -> Any:
        """Unchecked."""
        found = self._values.get(name)
        return default if found is None else found

    def text(self, name: str, default: str | None = None) -> str:
        """Raises BadField if it is missing and there is no default."""
        return self._of_type(name, str, "a text", default)

    def flag(self, name: str, default: bool = False) -> bool:
        return self._of_type(name, bool, "true or false", default)

    def whole(self, name: str, default: int | None = None, least: int = 0, most: int = 1 << 53) -> int:
        value = self._of_type(name, int, "a whole number", default)
        if not least <= value <= most:
            raise BadField(f"{self.path(name)} is {value}; expected {least} to {most}.", self.path(name))
        return value

    def number(self, name: str) -> float:
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadField(f"{self.path(name)} is not a number.", self.path(name))
        return value

    def object(self, name: str) -> Fields:
        """An empty one if it is missing."""
        return Fields(self._of_type(name, dict, "an object", {}), self.path(name))

    def objects(self, name: str) -> list[Fields]:
        """A list of objects; empty if it is missing."""
        values = self._of_type(name, list, "a list", [])
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise BadField(f"{self.path(name)}[{index}] is not an object.", self.path(name))
        return [Fields(value, f"{self.path(name)}[{index}]") for index, value in enumerate(values)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A text or a list of texts; empty ones are left out."""
        value = self.value(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise BadField(f"{self.path(name)} is neither a text nor a list of texts.", self.path(name))
        return tuple(dict.fromkeys(text for text in values if text))

    def all(self) -> Json:
        return self._values

    def _of_type(self, name: str, kind: type, said: str, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise BadField(f"{self.path(name)} is missing.", self.path(name))
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise BadField(f"{self.path(name)} is not {said}.", self.path(name))
        return value


def content_text(fields: Fields, name: str = "content") -> str:
    """A message's content: a text, or a list of parts of which each is a text."""
    value = fields.value(name, "")
    if isinstance(value, str):
        return value
    texts = []
    for part in fields.objects(name):
        kind = part.text("type", "text")
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise BadField(f"{part.path('type')} is {kind[:40]!r}; the model here reads text only.",
                           part.path("type"))
        texts.append(part.text("refusal" if kind == "refusal" else "text"))
    return "\n".join(texts)


as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
