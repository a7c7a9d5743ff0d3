"""A bot as those see it who decide whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speaker:
    """A bot that may speak: in the room and not muted."""

    id: str
    name: str
