"""The JSON body of a request, field by field; a route asks for what it knows and nothing else may be there.

    with read_body() as body:
        text = body.text("text", most=MAX_TEXT)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import request

from .. import strict_json
from ..errors import BadRequest
from ..ids import is_id
from ..sampling import Changes, check_changes
from ..storage.schema import MAX_REVISION, check_audience

_SAID = {"text": "The message", "title": "The title", "password": "The password"}
"""What a person calls a field of this name."""


@contextmanager
def read_body() -> Iterator[Body]:
    """The body of the present request; on leaving, fields that nobody asked for are refused."""
    data = request.get_data()
    try:
        raw = strict_json.loads(data) if data else {}
    except ValueError as error:
        raise BadRequest(f"The body cannot be read: {error}.") from None
    if not isinstance(raw, dict):
        raise BadRequest("The body is not a JSON object.")
    body = Body(raw)
    yield body
    body.check_all_known()


class Body:
    """Every method raises BadRequest with a sentence."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self.asked: set[str] = set()

    def check_all_known(self) -> None:
        """Raises BadRequest for a field that nobody asked for."""
        unknown = sorted(self._raw.keys() - self.asked)
        if unknown:
            known = ", ".join(sorted(self.asked))
            raise BadRequest(f"{unknown[0][:60]!r} is not known here; expected {known}.")

    def has(self, name: str) -> bool:
        self.asked.add(name)
        return name in self._raw

    def value(self, name: str) -> Any:
        """Unchecked; for what has a check of its own."""
        if not self.has(name):
            raise BadRequest(f"{name} is missing.")
        return self._raw[name]

    def text(self, name: str, *, most: int, least: int = 0, default: str | None = None) -> str:
        if default is not None and not self.has(name):
            return default
        value = self.value(name)
        if not isinstance(value, str):
            raise BadRequest(f"{name} is not a text.")
        if not least <= len(value) <= most:
            said = _SAID.get(name, name)
            raise BadRequest(f"{said} has {len(value):,} characters; expected {least} to {most:,}.")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequest(f"{name} is not a whole number from {low} to {high}.")
        return value

    def revision(self) -> int:
        return self.whole("revision", 0, MAX_REVISION)

    def flag(self, name: str, default: bool) -> bool:
        if not self.has(name):
            return default
        value = self._raw[name]
        if not isinstance(value, bool):
            raise BadRequest(f"{name} is not true or false.")
        return value

    def sampling(self, name: str, vocab_size: int | None) -> Changes:
        """Sampling values for a model of `vocab_size` tokens."""
        try:
            return check_changes(self.value(name), vocab_size)
        except ValueError as error:
            raise BadRequest(f"{error}.") from None

    def optional_id(self, name: str) -> str | None:
        """An id; None if it is null or missing."""
        value = self._raw[name] if self.has(name) else None
        if value is not None and not is_id(value):
            raise BadRequest(f"{name} is not an id.")
        return value

    def audience(self) -> list[str] | None:
        """The field `for`: ids of the bots that something is for; None if it is null or missing."""
        try:
            return check_audience("for", self._raw["for"] if self.has("for") else None)
        except ValueError as error:
            raise BadRequest(f"{error}.") from None

    def ids(self, name: str, most: int) -> list[str] | None:
        """A list of different ids; None if it is missing."""
        if not self.has(name):
            return None
        value = self._raw[name]
        if not isinstance(value, list) or len(value) > most or not all(is_id(entry) for entry in value):
            raise BadRequest(f"{name} is not a list of at most {most} ids.")
        if len(set(value)) < len(value):
            raise BadRequest(f"{name} holds an id twice.")
        return value
