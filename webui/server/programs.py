"""Programs that speak a protocol of others here: which paths are theirs, their keys, pages of other origins.

Knows no route: a path that is added to a protocol tomorrow is guarded without being named.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from flask import Request

LEAST_KEY = 16
MAX_KEYS = 1_000
OLLAMA_PATHS = frozenset(f"/api/{name}" for name in (
    "chat", "copy", "create", "delete", "embed", "embeddings", "generate", "ps", "pull", "push", "show",
    "tags", "version"))
CORS_HEADERS = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}


def protocol_of(path: str) -> str:
    """"openai", "anthropic" or "ollama"; "" for what is the page's."""
    if path in OLLAMA_PATHS:
        return "ollama"
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    return "openai" if path == "/v1" or path.startswith("/v1/") else ""


class Programs:
    """Who may use the protocols.

    keys     with any of which a program is let in; without keys, whoever may use the page is
    origins  of web pages elsewhere that may send requests; "*" is any

    Raises ValueError for a key that can be guessed, and for what is no origin.
    """

    def __init__(self, keys: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._keys = [key.strip().encode() for key in keys if key.strip()][:MAX_KEYS]
        if any(len(key) < LEAST_KEY for key in self._keys):
            raise ValueError(f"a key of --api-key is shorter than {LEAST_KEY} characters. A good one: "
                             'python -c "import secrets; print(secrets.token_urlsafe())"')
        self._origins = frozenset(map(_origin, origins))

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def knows(self, authorization: str, api_key: str) -> bool:
        """Whether one of these headers, `Authorization: Bearer KEY` or `x-api-key: KEY`, holds a key."""
        scheme, _, bearer = authorization.partition(" ")
        given = [api_key.strip(), bearer.strip() if scheme.lower() == "bearer" else ""]
        return any(hmac.compare_digest(key, text.encode("utf-8", "replace"))
                   for key in self._keys for text in given)

    def takes_origin(self, request: Request) -> bool:
        """Whether a page of another origin sends this, and may."""
        origin = request.headers.get("Origin", "").lower()
        return bool(origin and protocol_of(request.path)) and not self._origins.isdisjoint({"*", origin})

    def is_preflight(self, request: Request) -> bool:
        """Whether a browser asks if such a page may; it has no key yet."""
        return (request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
                and self.takes_origin(request))

    def cors_headers(self, request: Request) -> Mapping[str, str]:
        """What lets such a page read the answer."""
        if not self.takes_origin(request):
            return {}
        asked = request.headers.get("Access-Control-Request-Headers", "")
        allowed = {"Access-Control-Allow-Headers": asked} if asked.isascii() and asked.isprintable() else {}
        return {"Access-Control-Allow-Origin": request.headers["Origin"], "Vary": "Origin",
                "Cross-Origin-Resource-Policy": "cross-origin", **CORS_HEADERS, **allowed}


def _origin(text: str) -> str:
    """`text` as it stands in an Origin header. Raises ValueError."""
    origin = text.strip().lower().rstrip("/")
    try:
        parts = urlsplit(origin)
    except ValueError:
        parts = urlsplit("")
    is_whole = parts.scheme and parts.netloc and f"{parts.scheme}://{parts.netloc}" == origin
    if origin != "*" and not is_whole:
        raise ValueError(f"--allow-origin {text!r} is no origin; expected one such as http://localhost:3000")
    return origin
