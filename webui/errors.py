"""What can go wrong with a request, as exceptions that carry their HTTP answer.

Raised anywhere in webui/, turned into JSON by create_app(). Knows nothing of Flask.
"""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """A refusal that the person at the page may read: status, code, sentence, and what to do about it."""

    status = 400
    code = "bad_request"

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


class NotFound(Problem):
    status = 404
    code = "not_found"


class Gone(Problem):
    status = 410
    code = "gone"


class Refused(Problem):
    """Understood, and not allowed."""

    status = 403
    code = "refused"


class Stale(Problem):
    """Based on an older revision than the one on disk."""

    status = 409
    code = "stale"


class Busy(Problem):
    """Something is running that this would get in the way of."""

    status = 409
    code = "busy"


class ReadOnly(Problem):
    """Written by a newer version: shown, never overwritten."""

    status = 409
    code = "read_only"


class TooMany(Problem):
    status = 503
    code = "too_many"


class NotSaved(Problem):
    """The disk refused."""

    status = 507
    code = "not_saved"
