"""A file that somebody brings: whose it is, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..storage.schema import SESSION, Bot, Session
from .character_card import ReadCard, is_card, read_card
from .exllama import is_exllama, read_exllama
from .parlor_file import read_ours


@dataclass(frozen=True)
class Incoming:
    """All good, none of it saved: sessions with the bots that speak in them, or a character card."""

    sessions: list[Session] = field(default_factory=list)
    bots: list[Bot] = field(default_factory=list)
    card: ReadCard | None = None


def read_incoming(data: Any, known: list[Bot], title: str) -> Incoming:
    """What the JSON value `data` holds. Raises ValueError with what is wrong.

    known  the bots that are here: who speaks in a chat is found among them by name
    title  of a session whose file has none
    """
    if is_card(data):
        return Incoming(card=read_card(data, (bot["name"] for bot in known)))
    if not isinstance(data, dict):
        raise ValueError("it is no chat and no character that Parlor knows")
    if is_exllama(data):
        session, bots = read_exllama(data, known, title)
        SESSION.check(session)
    else:
        session, bots = read_ours(data)
    return Incoming([session], bots)
