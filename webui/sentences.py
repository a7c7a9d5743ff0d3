"""What the server says to people, in the language of their page.

Errors, warnings and what is in the way of a model are English sentences wherever they arise: in a session's
file, in a log, in the protocols of programs. Only the answer to a page is translated, on its way out, by what
static/languages/server/ has for sentences with places: "{name} is still writing in this session." is that of
every f-string of its form in the sources, and what stands in the place is put into the translation. So a
sentence that was stored, or that another exception has wrapped, is translated like any other one, and into
each reader's own language. What is not known stays as it is.

python -m tools.languages finds the sentences (tools/server_sentences.py); tests/webui/test_sentences.py holds
that none lacks a translation.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from .languages import ENGLISH, FOLDER, ONE_FORM

SERVER = FOLDER / "server"
SAID = ("message", "hint", "problem", "advice", "error", "what")
"""The names under which an answer to a page has a sentence of the server's, where it has a text there."""
SAID_BY_NAME = ("cannot",)
"""An object of sentences."""
SAID_IN_LISTS = ("taken", "kept", "left")
"""Lists of them: what became of a character's parts."""
PLACE = re.compile(r"\{(\w+)\}")
NAMED = ("kind_name", "what", "where")
"""Places in which a single word may be one of ours, such as the kind of a document."""
MAX_LENGTH = 4_000  # characters of what is looked at
MAX_SENTENCES = 12
MAX_DEPTH = 4  # sentences within each other
_SENTENCE_END = re.compile(r"(?<=[.?!]) (?=[A-Z`])")
_OUTER_SPACE = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?: [KMGT]iB)?")
_MARKS = {"de": (".", ","), "es": (".", ","), "fr": ("\u202f", ",")}
"""Between thousands and before decimals; elsewhere as in English."""


class Sentences:
    """Of one language."""

    def __init__(self, catalogue: Mapping[str, str], language: str) -> None:
        self._whole = {key: said for key, said in catalogue.items() if not PLACE.search(key)}
        forms = [(PLACE.split(key), said) for key, said in catalogue.items() if PLACE.search(key)]
        # First what has most words of its own.
        self._forms = sorted(((parts[::2], parts[1::2], said) for parts, said in forms),
                             key=lambda form: -len("".join(form[0])))
        self._marks = _MARKS.get(language, (",", "."))
        self._stop = "。" if language in ONE_FORM else "."

    def told(self, text: str) -> str:
        """`text` in the language, as far as it is known."""
        return self._told(text, MAX_DEPTH) if 0 < len(text) <= MAX_LENGTH else text

    def _told(self, text: str, depth: int) -> str:
        """Several sentences one after the other, each as long as can be; an unknown one stays."""
        if not depth:
            return text
        parts = _SENTENCE_END.split(text, MAX_SENTENCES - 1)
        told, at = [], 0
        while at < len(parts):
            said, at = self._beginning(parts, at, depth)
            told.append(said)
        return " ".join(told)

    def _beginning(self, parts: list[str], at: int, depth: int) -> tuple[str, int]:
        """What the parts from `at` on begin with, and where it ends: rather what has no whole sentence in one
        of its places."""
        for whole in (False, True):
            for end in range(len(parts), at, -1):
                text = " ".join(parts[at:end])
                said = self._known(text, depth, whole)
                if said is None and text.endswith(".") and \
                        (said := self._known(text[:-1], depth, whole)) is not None:
                    said += self._stop
                if said is not None:
                    return said, end
        return parts[at], at + 1

    def _known(self, text: str, depth: int, whole: bool) -> str | None:
        """Of one entry. whole: with sentences in its places, too."""
        if (said := self._whole.get(text)) is not None:
            return said
        found = ((values, names, said) for literals, names, said in self._forms
                 if (values := _filled(literals, text)) is not None
                 and (whole or not any(map(_SENTENCE_END.search, values))))
        # What went wrong within stands last: "The file cannot be taken: the title has 300 characters."
        best = min(found, key=lambda form: len(form[0][0]), default=None)
        if best is None:
            return None
        values, names, said = best
        places = {name: self._value(name, value, depth) for name, value in zip(names, values, strict=True)}
        return PLACE.sub(lambda place: places.get(place[1], place[0]), said)

    def _value(self, name: str, value: str, depth: int) -> str:
        if _NUMBER.fullmatch(value):
            thousands, decimals = self._marks
            return value.replace(",", "\0").replace(".", decimals).replace("\0", thousands)
        if " " not in value.strip() and not name.startswith(NAMED):
            return value
        before, inner, behind = _OUTER_SPACE.fullmatch(value).groups()
        told = self._told(inner, depth - 1)
        return f"{before}{told}{behind}" if self._stop == "." else told


def _filled(literals: list[str], text: str) -> list[str] | None:
    """What `text` has between the literals, each place as short as can be; None if it has not this form.
    In linear time, whatever the text is."""
    first, *middle, last = literals
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return None
    values = []
    for literal in middle:
        found = text.find(literal, at, end)
        if found < 0:
            return None
        values.append(text[at:found])
        at = found + len(literal)
    return [*values, text[at:end]]


@functools.cache
def sentences_of(language: str) -> Sentences:
    """Those of static/languages/server/; English has none."""
    return Sentences(server_catalogue(language), language)


def server_catalogue(language: str) -> dict[str, str]:
    """Translations by the English sentence with its places."""
    return {} if language == ENGLISH else json.loads((SERVER / f"{language}.json").read_text("utf-8"))


def told(answer: Any, language: str) -> Any:
    """An answer to a page with its sentences in that language; the rest of it is not looked at."""
    return answer if language == ENGLISH else _told(answer, sentences_of(language))


def _told(value: Any, words: Sentences) -> Any:
    if isinstance(value, dict):
        return {name: _said(name, item, words) for name, item in value.items()}
    if isinstance(value, list):
        return [_told(item, words) if isinstance(item, dict | list) else item for item in value]
    return value


def _said(name: str, value: Any, words: Sentences) -> Any:
    if isinstance(value, str):
        return words.told(value) if name in SAID else value
    if name in SAID_BY_NAME and isinstance(value, dict):
        return {key: words.told(item) for key, item in value.items()}
    if name in SAID_IN_LISTS and isinstance(value, list):
        return [words.told(item) if isinstance(item, str) else item for item in value]
    return _told(value, words) if isinstance(value, dict | list) else value
