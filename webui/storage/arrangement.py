"""How a session stands in the list: pinned to its top, in a folder, with tags.

Each session says so of itself, in three fields that are left out where they say nothing: a folder is there as
long as a session is in it, and no list of folders or tags can be lost. Pure functions; knows no disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_LABEL = 60
MAX_TAG = 40
MAX_TAGS = 20  # of a session
FIELDS = ("pinned", "folder", "tags")
_NOT_IN_LABELS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TAG = re.compile("[^\\s#,\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # one word: it is searched for as #word


def check_arrangement(session: dict[str, Any]) -> None:
    """The three fields of a session. Raises ValueError with what is wrong."""
    if not isinstance(session.get("pinned", False), bool):
        raise ValueError("pinned is not true or false")
    check_label("folder", session.get("folder", ""))
    check_tags("tags", session.get("tags", []))


def check_label(where: str, value: object) -> str:
    """The name of a folder, or of a branch of a chat; "" for none."""
    if not isinstance(value, str) or len(value) > MAX_LABEL or value != value.strip() \
            or _NOT_IN_LABELS.search(value):
        raise ValueError(f"{where} is not a name of at most {MAX_LABEL} characters, in one line and without "
                         "outer spaces")
    return value


def check_tags(where: str, value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        raise ValueError(f"{where} is not a list of at most {MAX_TAGS} tags")
    for tag in value:
        if not isinstance(tag, str) or len(tag) > MAX_TAG or not _TAG.fullmatch(tag):
            raise ValueError(f"{where} holds {str(tag)[:60]!r}; expected words of at most {MAX_TAG} "
                             "characters, without # and comma")
    if len({tag.casefold() for tag in value}) < len(value):
        raise ValueError(f"{where} holds a tag twice")
    return value


@dataclass(frozen=True)
class Arranging:
    """What is to become of sessions; None and empty lists leave a field as it is."""

    pinned: bool | None = None
    folder: str | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()

    def of(self, session: dict[str, Any]) -> dict[str, Any]:
        """`session` so arranged; the same object where it is so already."""
        tags = {tag.casefold(): tag for tag in session.get("tags", [])}
        gone = {tag.casefold() for tag in self.remove_tags}
        wanted = {"pinned": session.get("pinned", False) if self.pinned is None else self.pinned,
                  "folder": session.get("folder", "") if self.folder is None else self.folder,
                  "tags": [tag for name, tag in tags.items() if name not in gone]}
        for tag in self.add_tags:
            if tag.casefold() not in tags.keys() - gone:
                wanted["tags"].append(tag)
        if arrangement_of(session) == arrangement_of(wanted):
            return session
        others = {name: value for name, value in session.items() if name not in FIELDS}
        return {**others, **arrangement_of(wanted)}


def arrangement_of(session: dict[str, Any]) -> dict[str, Any]:
    """The fields of a session, or of a summary, that say something."""
    return {name: session[name] for name in FIELDS if session.get(name)}


def words_and_tags(folded: str, known: Iterable[str]) -> tuple[list[str], list[set[str]]]:
    """What a search asks for: words, and of each `#name` or `tag:name` the tags that it may be.

    folded  what was typed, folded as `known`, the tags that there are
    A name that no tag begins with is a word like others: texts hold such, too.
    """
    words: dict[str, None] = {}
    tags = []
    there = set(known)
    for word in folded.split():
        name = word.removeprefix("#") if word.startswith("#") else word.removeprefix("tag:")
        meant = {name} & there or {tag for tag in there if tag.startswith(name)}
        if name and name != word and meant:
            tags.append(meant)
        else:
            words[word] = None
    return list(words), tags
