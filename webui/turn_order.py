"""Who speaks next in a room of several bots. Pure functions over names and turns; the model is a parameter.

in_turn  the bot after the one that spoke last
mention  whoever is named in the last message, in the order of naming; otherwise the one who spoke last
all      everyone once, in the order of the room
model    the one whose "Name:" the model finds likeliest
manual   nobody, until one is clicked
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Rank = Callable[[list[str]], list[float]]
"""Names -> how likely each is to speak next; the highest wins."""


@dataclass(frozen=True)
class Speaker:
    """A bot that may speak: in the room and not muted."""

    id: str
    name: str


def after_user(order: str, room: list[Speaker], text: str, last_speaker: str | None,
               rank: Rank) -> list[str]:
    """Ids of the bots that answer the user's `text`, in their order; `last_speaker` is the bot before it."""
    if not room or order == "manual":
        return []
    if order == "all":
        return [speaker.id for speaker in room]
    if order == "mention":
        return mentioned(room, text) or [_same_again(room, last_speaker).id]
    return [next_speaker(order, room, text, last_speaker, rank)]


def next_speaker(order: str, room: list[Speaker], text: str, last_speaker: str | None, rank: Rank) -> str:
    """The bot that goes on when bots talk among themselves; nobody speaks twice in a row if another can.

    `text` is the last message, by whomever. `room` is not empty.
    """
    others = [speaker for speaker in room if speaker.id != last_speaker] or room
    if order == "model" and len(others) > 1:
        scores = rank([speaker.name for speaker in others])
        return others[max(range(len(others)), key=scores.__getitem__)].id
    if order == "mention":
        named = mentioned(others, text)
        if named:
            return named[0]
    return _in_turn(room, last_speaker).id


def mentioned(room: list[Speaker], text: str) -> list[str]:
    """Ids of those whose name stands in `text` as a word of its own, in the order of first naming."""
    places = []
    for speaker in room:
        name = re.escape(speaker.name.casefold())
        alone = rf"(?<!\w){name}(?!\w)" if speaker.name.isascii() else name  # not every script has spaces
        found = re.search(alone, text.casefold())
        if found:
            places.append((found.start(), speaker.id))
    return [speaker_id for _, speaker_id in sorted(places, key=lambda place: place[0])]


def _in_turn(room: list[Speaker], last_speaker: str | None) -> Speaker:
    ids = [speaker.id for speaker in room]
    if last_speaker not in ids:
        return room[0]
    return room[(ids.index(last_speaker) + 1) % len(room)]


def _same_again(room: list[Speaker], last_speaker: str | None) -> Speaker:
    return next((speaker for speaker in room if speaker.id == last_speaker), room[0])
