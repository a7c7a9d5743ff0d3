"""The trash: what was deleted stays for so many days, however often the clock jumps meanwhile; what is in it.

A file's age is that of its time stamp. A clock that ran far ahead since the last start (or back) was set, and
counts as MAX_AWAY_DAYS (or none): the stamps are moved along with it. Of what files say it reads the names.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT_DAYS = 30
MAX_AWAY_DAYS = 7
DAY = 86_400.0
_FILE = re.compile(r"(session|bot)-([0-9a-f]{16})-([0-9a-f]{16})")
SEEN = ".seen"  # its time stamp is when the trash was last looked at


def empty_old(trash: Path) -> None:
    """Remove the files that were deleted KEPT_DAYS ago. A file that cannot be removed is in nobody's way."""
    now = time.time()
    jump = _jump(trash, now)
    if jump is None:
        return
    for path in trash.glob("*.json*"):
        with contextlib.suppress(OSError):
            if not path.is_file():
                continue
            deleted = path.stat().st_mtime + jump
            if jump:
                os.utime(path, (deleted, deleted))
            if deleted < now - KEPT_DAYS * DAY:
                path.unlink()


def _jump(trash: Path, now: float) -> float | None:
    """Seconds by which the clock was set since the last look; None at the first one."""
    seen = trash / SEEN
    away = now - seen.stat().st_mtime if seen.exists() else None
    with contextlib.suppress(OSError):
        trash.mkdir(parents=True, exist_ok=True)
        seen.touch()
        os.utime(seen, (now, now))
    return None if away is None else away - min(max(away, 0.0), MAX_AWAY_DAYS * DAY)


class TrashList:
    """Deleted sessions and bots, the latest first. Thread-safe: what a file says is read once, for it stays.

    read  the JSON value of a file, of a kind; raises OSError or ValueError
    """

    def __init__(self, trash: Path, read: Callable[[Path, str], Any]) -> None:
        self._trash, self._read = trash, read
        self._names: dict[str, dict[str, Any]] = {}

    def entries(self, begin: int, most: int) -> tuple[list[dict[str, Any]], int]:
        """`most` of them from number `begin` on, and how many there are: each {undo, kind, id, name, deleted,
        kept_until}, in seconds since 1970; a session has num_messages, too."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._trash) as files:
            for file in files:
                if (is_known := _FILE.fullmatch(file.name.removesuffix(".json"))):
                    with contextlib.suppress(OSError):
                        found.append((file.stat().st_mtime, *is_known.groups()))
        found.sort(reverse=True)
        there = {token for _, _, token, _ in found}
        self._names = {token: said for token, said in self._names.items() if token in there}
        return [{"undo": token, "kind": kind, "id": key, "deleted": deleted,
                 "kept_until": deleted + KEPT_DAYS * DAY, **self._said(kind, token, key)}
                for deleted, kind, token, key in found[begin:begin + most]], len(found)

    def kind_of(self, token: str) -> str:
        """"session" or "bot"; "" if there is nothing of this token."""
        for path in self._trash.glob(f"*-{token}-*.json"):
            if is_known := _FILE.fullmatch(path.stem):
                return is_known[1]
        return ""

    def _said(self, kind: str, token: str, key: str) -> dict[str, Any]:
        if token not in self._names:
            try:
                document = self._read(self._trash / f"{kind}-{token}-{key}.json", kind)
                name = document["title" if kind == "session" else "name"]
                said: dict[str, Any] = {"name": name if isinstance(name, str) else ""}
                if kind == "session":
                    said["num_messages"] = len(document["messages"])
            except (OSError, ValueError, TypeError, KeyError):
                return {"name": ""}  # a damaged file, or one that went this moment
            self._names[token] = said
        return self._names[token]
