"""A model that may take the place of the one that is loaded: of this machine, or of another engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from model.language_model import LanguageModel

Progress = Callable[[str, float], None]
"""Hears what goes on and which share of it is done; raises to stop it."""
Report = Callable[[str], None]


class Choice(Protocol):
    """Each function raises ModelLoadError or another ValueError with a sentence."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def takes_memory(self) -> bool:
        """Whether letting it go gives any back."""

    def prepare(self, held_bytes: int, progress: Progress) -> Callable[[Progress, Report], LanguageModel]:
        """Look whether it can be had, while the present model, which takes `held_bytes`, still answers. What
        is returned gets it, when that one is gone."""
