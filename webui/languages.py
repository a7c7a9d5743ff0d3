"""The languages of the page: which one a request wants, and what a sentence is in it.

English stands in the sources, as t("Delete session") in the page's modules and templates, and in the labels
of what can be set; each other language has a file static/languages/<code>.json from there to its own words.
translated() puts these in the place of the English ones before anything is sent, so that a browser gets one
language and no table. A sentence that has no translation stays English; tests/webui/test_languages.py holds
that there is none.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flask import Request

LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "ja": "日本語",
             "zh-Hans": "简体中文"}
"""Code, as in <html lang>, and what its speakers call it."""
ENGLISH = "en"
RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ur"})
ONE_FORM = frozenset({"ja", "zh-Hans"})
"""Languages without a plural; the others have two forms, as English has, chosen by Intl.PluralRules."""
FOLDER = Path(__file__).parent / "static" / "languages"
COOKIE = "parlor-language"
"""What somebody has chosen; else the browser's languages count."""

Catalogue = Mapping[str, "str | list[str]"]
"""Of a language: translations by the English sentence; of plurals a list of forms by the English plural."""

_TEXT = r'"((?:[^"\\\n]|\\.)*)"'
_NO_NAME = r"(?<![\w$])(?<!(?<!\.\.)\.)"  # "..." may stand before
_CALL = re.compile(rf'{_NO_NAME}(?:(t|tParts)\(\s*{_TEXT}(\s*,?\s*\))?|tn\(\s*{_TEXT},\s*{_TEXT})')
_TRADITIONAL = ("zh-tw", "zh-hk", "zh-mo", "zh-hant")


@functools.cache
def catalogue_of(language: str) -> Catalogue:
    """That of static/languages/; English has none."""
    return {} if language == ENGLISH else json.loads((FOLDER / f"{language}.json").read_text("utf-8"))


def sentences(source: str) -> dict[str, bool]:
    """What a module or template wraps with t(), tParts() or tn(): whether it is a plural, by its key."""
    found = {}
    for function, text, _end, _one, many in _CALL.findall(source):
        found[json.loads(f'"{text if function else many}"')] = not function
    return found


def translated(source: str, catalogue: Catalogue) -> str:
    """A module with the language's words in the place of the English ones. A call of t() that has nothing to
    fill in gives way to its text."""

    def put(call: re.Match[str]) -> str:
        function, text, end, one, many = call.groups()
        if function:
            said = catalogue.get(key := _read(text), key)
            return _written(said) if function == "t" and end else f"{function}({_written(said)}{end or ''}"
        forms = catalogue.get(_read(many)) or [_read(one), _read(many)]
        return f"tn({_written(forms[0] if len(forms) > 1 else '')}, {_written(forms[-1])}"

    return _CALL.sub(put, source)


def _read(text: str) -> str:
    return json.loads(f'"{text}"')


def _written(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def said(entry: Mapping[str, Any], fields: Iterable[str], catalogue: Catalogue) -> dict[str, Any]:
    """What the page is offered, such as a parameter, with these of its fields in the language."""
    return {**entry, **{name: catalogue.get(entry[name], entry[name]) for name in fields if name in entry}}


def chosen_language(request: Request) -> str:
    """What was chosen in this browser, or "" for what it prefers."""
    chosen = request.cookies.get(COOKIE, "")
    return chosen if chosen in LANGUAGES else ""


def language_for(request: Request) -> str:
    """The chosen one, else the first that the browser prefers and the page has, else English."""
    if chosen := chosen_language(request):
        return chosen
    ours = {code.partition("-")[0]: code for code in LANGUAGES}
    for wanted in request.accept_languages.values():
        code = ours.get(wanted.lower().partition("-")[0])
        if code and not wanted.lower().startswith(_TRADITIONAL):
            return code
    return ENGLISH


def direction(language: str) -> str:
    """Which way it is written, as in <html dir>."""
    return "rtl" if language.partition("-")[0] in RIGHT_TO_LEFT else "ltr"
