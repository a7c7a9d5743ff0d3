"""Where another engine is, and what it wants to be shown: its address, a key, further headers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from model.files import readable

MAX_URL, MAX_NAME, MAX_SECRET, MAX_HEADERS = 1_000, 60, 10_000, 16
_NAMED = re.compile(r"([^=/:?#]{1,60})=(.*)", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OWN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection",
                          "accept-encoding"})


class BadAddress(ValueError):
    """What was given is no engine's address, key or header."""


@dataclass(frozen=True)
class EngineAddress:
    """One engine. `url` is where its /v1 begins, without the last slash; `name` is what people call it.

    Raises BadAddress. Neither key nor headers are in its repr.
    """

    url: str
    name: str = ""
    key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_url(self.url))
        object.__setattr__(self, "name", _checked_name(self.name) or self.host)
        object.__setattr__(self, "key", _checked_secret(self.key, "The key"))
        object.__setattr__(self, "headers", _checked_headers(self.headers))

    @property
    def id(self) -> str:
        """Sixteen hex digits, the same as long as its address is."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def host(self) -> str:
        """Name and port, as people are told where text goes."""
        return urlsplit(self.url).netloc

    @property
    def root(self) -> str:
        """Where routes lie that are not below /v1."""
        return self.url.removesuffix("/v1")

    def without_secrets(self, text: str) -> str:
        """`text` of the engine's, which may repeat the key that it was shown."""
        for secret in sorted((self.key, *self.headers.values()), key=len, reverse=True):
            if len(secret) >= 4:
                text = text.replace(secret, "•••")
        return text


def parse_engine(text: str, key: str = "", headers: Mapping[str, str] | None = None) -> EngineAddress:
    """Of "URL" or "NAME=URL". Raises BadAddress."""
    named = _NAMED.fullmatch(text)
    name, url = (named[1], named[2]) if named else ("", text)
    return EngineAddress(url, name, key, headers or {})


def shown_name(model: str, engine: str) -> str:
    """As an engine's model is called in the menu and on messages."""
    return f"{model} ({engine})"


def parse_header(text: str) -> tuple[str, str]:
    """Of "Name: value". Raises BadAddress, which does not repeat the value."""
    name, colon, value = text.partition(":")
    if not colon:
        raise BadAddress("A header has no colon; expected Name: value.")
    return name.strip(), value.strip()


def _checked_url(url: str) -> str:
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL or re.search(r"[\x00-\x20\x7f]", url.strip()):
        raise BadAddress(f"An engine's address has 1 to {MAX_URL:,} characters and no white space.")
    url = readable(url.strip())
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise BadAddress("The engine's address cannot be read; expected one such as "
                         "http://127.0.0.1:8000/v1.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadAddress("An engine's address begins with http:// or https:// and a host, such as "
                         "http://127.0.0.1:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment or "\\" in url:
        raise BadAddress("An engine's address holds no user, question mark or hash: a key has a place of its "
                         "own.")
    host = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    for route in ("/chat/completions", "/completions", "/models"):
        path = path.removesuffix(route)
    netloc = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{netloc}{path or '/v1'}"


def _checked_name(name: str) -> str:
    name = " ".join(readable(name).split()) if isinstance(name, str) else ""
    if len(name) > MAX_NAME or re.search(r"[\x00-\x1f\x7f]", name):
        raise BadAddress(f"An engine's name has at most {MAX_NAME} characters.")
    return name


def _checked_secret(text: str, what: str) -> str:
    text = text.strip() if isinstance(text, str) else ""
    if len(text) > MAX_SECRET or re.search(r"[^\x20-\x7e]", text):
        raise BadAddress(f"{what} has characters that no header can hold, or more than {MAX_SECRET:,}.")
    return text


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise BadAddress(f"There are {len(headers)} headers; at most {MAX_HEADERS} are possible.")
    for name in headers:
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise BadAddress("A header's name is not one; expected Name: value.")
        if name.lower() in _OWN_HEADERS:
            raise BadAddress(f"The header {name} is set by the connection itself.")
    return {name: _checked_secret(value, f"The header {name}") for name, value in headers.items()}
