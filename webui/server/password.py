"""The password and who has given it: scrypt, random cookies, and a limit on guessing.

The password itself is not kept, nor is it ever written anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict, deque

from ..errors import TooManyGuesses

COST = 1 << 15  # with r = 8: 32 MiB, about 0.1 s
LOGIN_SECONDS = 30 * 86_400.0
MAX_LOGINS = 1_000
FAILURES = 5
FAILURE_SECONDS = 60.0
MAX_PLACES = 1_000
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
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._guessing = threading.Lock()

    def login(self, guess: str, place: str) -> str | None:
        """A new token if `guess` is right; `place` is where it comes from, as place_of() says.

        Raises TooManyGuesses after FAILURES wrong ones from there within a minute; others are not held up.
        """
        with self._guessing:
            now = time.monotonic()
            self._check_patience(place, now)
            if not hmac.compare_digest(self._derive(guess), self._hash):
                self._failures.setdefault(place, deque()).append(now)
                self._failures.move_to_end(place)
                if len(self._failures) > MAX_PLACES:
                    self._failures.popitem(last=False)
                return None
            self._failures.pop(place, None)
            token = secrets.token_urlsafe(32)
            self._logins[self._digest(token)] = now + LOGIN_SECONDS
            while len(self._logins) > MAX_LOGINS:
                del self._logins[next(iter(self._logins))]
            return token

    def logout(self, token: str) -> None:
        """Whoever has this token is no longer known."""
        with self._guessing:
            self._logins.pop(self._digest(token), None)

    def knows(self, token: str) -> bool:
        return self._logins.get(self._digest(token), 0.0) > time.monotonic()

    def _check_patience(self, place: str, now: float) -> None:
        failures = self._failures.get(place, ())
        while failures and now - failures[0] > FAILURE_SECONDS:
            failures.popleft()
        if len(failures) >= FAILURES:
            wait = int(FAILURE_SECONDS - (now - failures[0])) + 1
            raise TooManyGuesses("Too many wrong passwords.", hint=f"Wait {wait} seconds.", retry_after=wait)

    def _derive(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode("utf-8", "replace"), salt=self._salt, dklen=32,
                              n=self._cost, r=8, p=1, maxmem=256 * 8 * self._cost)

    @staticmethod
    def _digest(token: str) -> str:
        return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def place_of(address: str) -> str:
    """Where an address is, for limits: itself, or the /64 that a provider gives to one home in IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
