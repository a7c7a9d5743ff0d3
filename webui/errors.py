"""What can go wrong with a request, as exceptions that carry their HTTP answer.

Raised anywhere in webui/, turned into JSON by create_app(). Knows nothing of Flask.
"""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """A refusal that the person at the page may read: status, code, sentence, and what to do about it."""

    status = 400
    code = "bad_request"

    def __init_subclass__(cls, status: int | None = None, code: str | None = None) -> None:
        super().__init_subclass__()
        cls.status = status or cls.status
        cls.code = code or cls.code

    def __init__(self, message: str, *, hint: str = "", code: str = "", retry_after: int | None = None,
                 **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.retry_after = retry_after
        self.extra = extra

    def as_json(self) -> dict[str, Any]:
        error = {"message": self.message, "code": self.code}
        if self.hint:
            error["hint"] = self.hint
        return {"error": error, **self.extra}


class BadRequest(Problem):
    """The request does not say what it must say."""


class Invalid(BadRequest, ValueError):
    """A document would break its own rules."""


class NeedsPassword(Problem, status=401, code="login"):
    """Nobody has logged in with this browser."""


class NeedsKey(Problem, status=401, code="invalid_api_key"):
    """A program came without a key of this server's."""


class Refused(Problem, status=403, code="refused"):
    """Understood, and not allowed."""


class NotFound(Problem, status=404, code="not_found"):
    """There is nothing under that id, or nothing that can be read."""


class Stale(Problem, status=409, code="stale"):
    """Based on an older revision than the one on disk."""


class Busy(Problem, status=409, code="busy"):
    """Something is running that this would get in the way of."""


class NoModelLoaded(Problem, status=409, code="no_model"):
    """Nothing can be written until somebody chooses a model."""


class ReadOnly(Problem, status=409, code="read_only"):
    """Written by a newer version: shown, never overwritten."""


class Gone(Problem, status=410, code="gone"):
    """It was there, and it ended too long ago."""


class ReaderGone(Problem, status=499, code="reader_gone"):
    """Nobody is there to be answered."""


class EngineFailed(Problem, status=500, code="engine_failed"):
    """The engine could not go on."""


class BadBody(Problem, status=415, code="content_type"):
    """The body is of a kind that is not taken."""


class TooManyGuesses(Problem, status=429, code="too_many_guesses"):
    """Wrong passwords, faster than a person types."""


class TooMany(Problem, status=503, code="too_many"):
    """More at once than can be served."""


class HubProblem(Problem, status=502, code="hub"):
    """A model hub does not give what was asked for."""


class NotSaved(Problem, status=507, code="not_saved"):
    """The disk refused."""
