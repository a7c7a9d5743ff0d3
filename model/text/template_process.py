"""Has chat templates rendered by template_worker.py, within limits of time, memory and output.

A rendering takes about a millisecond, until a message makes its template run on: others then get another
process. Safe from several threads. Knows nothing of messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from model.text.errors import TemplateError
from model.text.limited_process import Gone, LimitedProcesses, OverTime, ProcessLimits

MAX_PROCESSES = 4
_SLACK_CHARACTERS = 1 << 16  # of what a template itself may write: a preamble, a few words a message
_TIMES_INPUT = 4


@dataclass(frozen=True)
class TemplateLimits:
    """What one rendering may use. Real templates need a few milliseconds and as much text as the chat has."""

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    characters: int = 32 << 20


class TemplateRefusal(TemplateError):
    """The template itself called raise_exception."""


class TemplateLimitError(TemplateError):
    """The template ran too long or built too much."""


class TemplateProcess:
    """One for each loaded model."""

    def __init__(self, limits: TemplateLimits | None = None) -> None:
        limits = limits or TemplateLimits()
        self._characters = limits.characters
        self._processes = LimitedProcesses("model.text.template_worker",
                                           ProcessLimits(limits.seconds, limits.memory_bytes), MAX_PROCESSES)

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """The rendered text. Raises TemplateRefusal, TemplateLimitError or TemplateError."""
        most = _SLACK_CHARACTERS + _TIMES_INPUT * len(json.dumps(variables))
        request = {"template": template, "variables": variables, "characters": min(most, self._characters)}
        try:
            reply = self._processes.ask(request)
        except OverTime as error:
            raise TemplateLimitError(str(error)) from None
        except Gone:
            raise TemplateError("the process that renders chat templates ends without an answer. "
                                "Is there enough memory?") from None
        if "text" in reply:
            return reply["text"]
        kind = {"refused": TemplateRefusal, "limit": TemplateLimitError}.get(reply["kind"], TemplateError)
        raise kind(reply["error"])

    def close(self) -> None:
        """End the processes; one starts again if something is rendered after this."""
        self._processes.close()
