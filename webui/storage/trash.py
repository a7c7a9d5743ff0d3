"""The trash: what was deleted stays for so many days, however often the clock jumps meanwhile.

A file's age is that of its time stamp. A clock that ran far ahead since the last start (or back) was set, and
counts as MAX_AWAY_DAYS (or none): the stamps are moved along with it. Knows nothing of what the files say.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

KEPT_DAYS = 30
MAX_AWAY_DAYS = 7
DAY = 86_400.0
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
