"""The password and who has given it: scrypt, random cookies, and a limit on guessing.

The password itself is not kept, nor is it ever written anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque

from ..errors import TooManyGuesses

COST = 1 << 15  # with r = 8: 32 MiB, about 0.1 s
LOGIN_SECONDS = 30 * 86_400.0
MAX_LOGINS = 1_000
FAILURES = 5
FAILURE_SECONDS = 60.0
LEAST_LENGTH = 8


class Password:
    """One password for everybody. Thread-safe; one guess at a time."""

    def __init__(self, password: str, *, cost: int = COST) -> None:
        """Raises ValueError if it is too short to be one. `cost` is scrypt's n."""
        if len(password) < LEAST_LENGTH:
            raise ValueError(f"the password has {len(password)} characters; expected at least {LEAST_LENGTH}")
        self._cost = cost
        self._salt = secrets.token_bytes(16)
        self._hash = self._derive(password)
        self._logins: dict[str, float] = {}
        self._failures: deque[float] = deque()
        self._guessing = threading.Lock()

    def login(self, guess: str) -> str | None:
        """A new token if `guess` is right. Raises TooMany after FAILURES wrong ones within a minute."""
        with self._guessing:
            now = time.monotonic()
            while self._failures and now - self._failures[0] > FAILURE_SECONDS:
                self._failures.popleft()
            if len(self._failures) >= FAILURES:
                wait = int(FAILURE_SECONDS - (now - self._failures[0])) + 1
                raise TooManyGuesses("Too many wrong passwords.", hint=f"Wait {wait} seconds.",
                                     retry_after=wait)
            if not hmac.compare_digest(self._derive(guess), self._hash):
                self._failures.append(now)
                return None
            token = secrets.token_urlsafe(32)
            self._logins[self._digest(token)] = now + LOGIN_SECONDS
            while len(self._logins) > MAX_LOGINS:
                del self._logins[next(iter(self._logins))]
            return token

    def knows(self, token: str) -> bool:
        return self._logins.get(self._digest(token), 0.0) > time.monotonic()

    def _derive(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode("utf-8", "replace"), salt=self._salt, dklen=32,
                              n=self._cost, r=8, p=1, maxmem=256 * 8 * self._cost)

    @staticmethod
    def _digest(token: str) -> str:
        return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
