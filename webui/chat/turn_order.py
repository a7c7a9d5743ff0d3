"""Who speaks next in a room of several bots. Pure functions over names and turns; the model is a parameter.

in_turn  whoever the user names first; otherwise the bot after the one that spoke last
mention  whoever is named in the last message, in the order of naming; otherwise the one who spoke last
all      everyone once, in the order of the room
model    the one whose "Name:" the model finds likeliest
manual   nobody, until one is clicked
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .speakers import Speaker

Rank = Callable[[list[str]], list[float]]
"""Names -> how likely each is to speak next; the highest wins."""


def after_user(order: str, speakers: list[Speaker], text: str, last_speaker: str | None,
               rank: Rank) -> list[str]:
    """Ids of the bots that answer the user's `text`, in their order; `last_speaker` is the bot before it."""
    if not speakers or order == "manual":
        return []
    if order == "all":
        return [speaker.id for speaker in speakers]
    named = mentioned(speakers, text) if order in ("mention", "in_turn") else []
    if order == "mention":
        return named or [_same_again(speakers, last_speaker).id]
    return named[:1] or [next_speaker(order, speakers, text, last_speaker, rank)]


def next_speaker(order: str, speakers: list[Speaker], text: str, last_speaker: str | None, rank: Rank) -> str:
    """The bot that goes on when bots talk among themselves; nobody speaks twice in a row if another can.

    `text` is the last message, by whomever. `speakers` is not empty.
    """
    others = [speaker for speaker in speakers if speaker.id != last_speaker] or speakers
    if order == "model" and len(others) > 1:
        scores = rank([speaker.name for speaker in others])
        return others[max(range(len(others)), key=scores.__getitem__)].id
    if order == "mention":
        named = mentioned(others, text)
        if named:
            return named[0]
    return _in_turn(speakers, last_speaker).id


def mentioned(speakers: list[Speaker], text: str) -> list[str]:
    """Ids of those whose name stands in `text` as a word of its own, in the order of first naming."""
    places = []
    for speaker in speakers:
        name = re.escape(speaker.name.casefold())
        alone = rf"(?<!\w){name}(?!\w)" if speaker.name.isascii() else name  # not every script has spaces
        found = re.search(alone, text.casefold())
        if found:
            places.append((found.start(), speaker.id))
    return [speaker_id for _, speaker_id in sorted(places, key=lambda place: place[0])]


def _in_turn(speakers: list[Speaker], last_speaker: str | None) -> Speaker:
    ids = [speaker.id for speaker in speakers]
    if last_speaker not in ids:
        return speakers[0]
    return speakers[(ids.index(last_speaker) + 1) % len(speakers)]


def _same_again(speakers: list[Speaker], last_speaker: str | None) -> Speaker:
    return next((speaker for speaker in speakers if speaker.id == last_speaker), speakers[0])
