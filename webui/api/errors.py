"""What goes wrong, in the words of the protocol that is spoken."""

from __future__ import annotations

from typing import Any

from ..errors import Problem
from ..server.programs import protocol_of
from .fields import as_json

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"}

NO_ROUTE = ("There is no such route here. OpenAI's clients are given an address that ends in /v1, "
            "Anthropic's and Ollama's one that ends before it.")

Answer = tuple[dict[str, Any], int, dict[str, str]]


def protocol_error(path: str, problem: Problem) -> Answer:
    """(body, status, headers) for a path that is a protocol's."""
    shapes = {"openai": openai_error, "anthropic": anthropic_error, "ollama": ollama_error}
    return shapes[protocol_of(path)](problem)


def broken_off(path: str, problem: Problem) -> bytes:
    """The end of a stream of the protocol of `path`, by somebody who knows nothing of its beginning."""
    body = as_json(protocol_error(path, problem)[0])
    shapes = {"openai": f"data: {body}\n\ndata: [DONE]\n\n", "anthropic": f"event: error\ndata: {body}\n\n",
              "ollama": f"{body}\n"}
    return shapes[protocol_of(path)].encode("utf-8", "replace")


def openai_error(problem: Problem) -> Answer:
    kind = _OPENAI_TYPES.get(problem.status) or _kind(problem, "server_error")
    return {"error": {"message": _said(problem), "type": kind, "param": getattr(problem, "param", "") or None,
                      "code": problem.code}}, problem.status, _headers(problem)


def anthropic_error(problem: Problem) -> Answer:
    status = 529 if problem.status == 503 else problem.status
    kind = _ANTHROPIC_TYPES.get(problem.status) or _kind(problem, "api_error")
    return {"type": "error", "error": {"type": kind, "message": _said(problem)}}, status, _headers(problem)


def ollama_error(problem: Problem) -> Answer:
    return {"error": _said(problem)}, problem.status, _headers(problem)


def _kind(problem: Problem, ours: str) -> str:
    return ours if problem.status >= 500 else "invalid_request_error"


def _said(problem: Problem) -> str:
    return f"{problem.message} {problem.hint}".strip()


def _headers(problem: Problem) -> dict[str, str]:
    return {"Retry-After": str(problem.retry_after)} if problem.retry_after else {}
