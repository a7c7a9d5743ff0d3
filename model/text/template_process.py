"""Runs template_worker.py and asks it to render, within limits of time, memory and output.

One process for each loaded model, started at the first use and again after a template ended it. Safe from
several threads: one renders at a time (about a millisecond). Knows nothing of messages.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.text.errors import TemplateError
from model.text.template_worker import read_message, write_message

_START_SECONDS = 60.0


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
    """A child process that renders templates."""

    def __init__(self, limits: TemplateLimits | None = None) -> None:
        self._limits = limits or TemplateLimits()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """The rendered text. Raises TemplateRefusal, TemplateLimitError or TemplateError."""
        request = {"template": template, "variables": variables}
        with self._lock:
            reply = self._ask(request) or self._ask(request)  # once more if the child had died while idle
            if reply is None:
                raise TemplateError("the process that renders chat templates ends without an answer. "
                                    "Is there enough memory?")
        if "text" in reply:
            return reply["text"]
        kind = {"refused": TemplateRefusal, "limit": TemplateLimitError}.get(reply["kind"], TemplateError)
        raise kind(reply["error"])

    def close(self) -> None:
        """End the child; it starts again if something is rendered after this."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any]) -> dict[str, str] | None:
        """The child's answer, or None if it is gone; then it has been cleared away."""
        try:
            child = self._child or self._start()
            return self._exchange(child, request, self._limits.seconds)
        except TemplateLimitError:
            self._end()
            raise
        except (OSError, ValueError):
            self._end()
            return None

    def _start(self) -> subprocess.Popen[bytes]:
        limits = self._limits
        script = Path(__file__).with_name("template_worker.py")
        command = [sys.executable, str(script), str(limits.memory_bytes), str(limits.characters),
                   str(int(limits.seconds) + 1)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL,
                                       creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        self._exchange(self._child, None, _START_SECONDS)
        return self._child

    @staticmethod
    def _exchange(child: subprocess.Popen[bytes], request: Any, seconds: float) -> Any:
        """Send `request`, if any, and read the answer; a child that takes too long is killed."""
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            child.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdin and child.stdout
            if request is not None:
                write_message(child.stdin, request)
            reply = read_message(child.stdout)
        except (OSError, ValueError):
            reply = None
        finally:
            timer.cancel()
        if reply is None:
            if killed.is_set():
                raise TemplateLimitError(f"it takes longer than {seconds:g} seconds")
            raise OSError("the child is gone")
        return reply

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):  # unsent data of a broken pipe
                if stream:
                    stream.close()
        child.wait()
