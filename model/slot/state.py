"""What the place of the loaded model says of itself, and the ways in which it refuses. See model_slot.py."""

from __future__ import annotations

from dataclasses import dataclass

EMPTY, ASLEEP, CHECKING, WAITING, LOADING, READY = \
    "empty", "asleep", "checking", "waiting", "loading", "ready"
BUSY = (CHECKING, WAITING, LOADING)


@dataclass(frozen=True)
class SlotState:
    """A moment of the slot, as it is told.

    phase    empty | asleep (loaded again when it is asked for) | checking (the old one still answers)
             | waiting (for those who use the old one) | loading | ready
    id name  of the model that is loaded or asleep; empty if there is none
    coming   id and name of the one on its way
    what     a line of the loader, and the share that is done
    problem  why the last attempt failed, as a sentence
    version  counts up whenever another model is there, or none
    """

    phase: str = EMPTY
    id: str = ""
    name: str = ""
    coming_id: str = ""
    coming_name: str = ""
    what: str = ""
    share: float = 0.0
    problem: str = ""
    version: int = 0


class NoModel(ValueError):
    """No model is loaded, and none will be unless somebody chooses one."""


class SlotBusy(ValueError):
    """Another model is on its way."""


class LeaseGivenUp(Exception):
    """Nobody waits for the model any more."""
