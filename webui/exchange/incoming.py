"""A file that somebody brings: whose it is, and what is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..storage.schema import MAX_TITLE, SESSION, Bot, Session
from .character_card import ReadCard, is_card, read_card
from .exllama import is_exllama, read_exllama
from .open_webui import is_open_webui, read_open_webui
from .parlor_file import read_ours
from .people import People
from .role_chats import is_role_chat, read_role_chat
from .sillytavern import is_sillytavern, read_sillytavern

MAX_CHATS = 1_000  # of one file

Read = Callable[[Any, People, str], Session]


@dataclass(frozen=True)
class Incoming:
    """All good, none of it saved: sessions with the bots that speak in them, or a character card."""

    sessions: list[Session] = field(default_factory=list)
    bots: list[Bot] = field(default_factory=list)
    card: ReadCard | None = None


def read_incoming(data: Any, known: list[Bot], title: str) -> Incoming:
    """What the JSON value `data` holds. Raises ValueError with what is wrong.

    data   of a file of lines, their values as a list
    known  the bots that are here: who speaks in a chat is found among them by name
    title  of a session whose file has none
    """
    if is_card(data):
        return Incoming(card=read_card(data, (bot["name"] for bot in known)))
    if (read := _reader(data)) is not None:
        return _chats([data], read, known, title)
    if isinstance(data, list) and data and (read := _reader(data[0])) is not None:
        return _chats(data, read, known, title)
    if not isinstance(data, dict):
        raise ValueError("it is no chat and no character that Parlor knows")
    sessions, bots = read_ours(data)
    _check_number(len(sessions))
    return Incoming(sessions, bots)


def _reader(value: Any) -> Read | None:
    """What reads this chat of another program; None if it is none."""
    if isinstance(value, list) and is_sillytavern(value):
        return read_sillytavern
    if is_open_webui(value):
        return read_open_webui
    if is_role_chat(value):
        return read_role_chat
    if isinstance(value, dict) and is_exllama(value):
        return read_exllama
    return None


def _chats(values: list[Any], read: Read, known: list[Bot], title: str) -> Incoming:
    """Chats that `read` reads, in the order of the file; several without titles are numbered."""
    _check_number(len(values))
    people, sessions = People(known), []
    for number, value in enumerate(values, start=1):
        where = f"chat {number}: " if len(values) > 1 else ""
        if _reader(value) is not read:
            raise ValueError(f"{where}it is of another kind than the first")
        people.leave()
        named = f"{title[:MAX_TITLE - 6]} {number}" if len(values) > 1 else title
        try:
            session = read(value, people, named)
            SESSION.check(session)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
        sessions.append(session)
    return Incoming(sessions, people.made)


def _check_number(chats: int) -> None:
    if chats > MAX_CHATS:
        raise ValueError(f"it holds {chats:,} chats; at most {MAX_CHATS:,} can be taken at once")
