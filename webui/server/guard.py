"""The one hook over every route: Host, origin, password, bodies; and the headers of every answer.

Default-deny: a route that is added tomorrow is guarded without knowing it. Loopback is no boundary: any
page in the same browser can send requests here, under names of its own (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from flask import Request, Response
from werkzeug.http import parse_cookie

from ..errors import BadBody, NeedsKey, NeedsPassword, Refused
from .other_devices import address_for_others, is_loopback
from .password import Password
from .programs import Programs, protocol_of

MAX_BODY = 4 << 20
LARGE_BODIES = {"transfer.import_session": 64 << 20, "documents.read_pdf": 28 << 20}
"""Endpoints that take more: what an export wrote must come in again, and a PDF comes in base64."""
LARGEST_BODY = max(LARGE_BODIES.values())
LOGIN_BODY = 64 << 10
"""What a sender may send that is not logged in."""
OPEN_ENDPOINTS = frozenset({"page", "static", "settings.login", "service.healthz", "service.readyz"})
"""What answers without a password: the page itself, its files, the way to log in, and whether all is well."""
KEY_ENDPOINTS = frozenset({"service.metrics"})
"""What programs read with their keys, besides the protocols."""


def content_security_policy(script: str = "", style: str = "") -> str:
    """What a browser may load for an answer: `script` and `style` name what may stand in it, by hashes."""
    script, style = (f"'self' {hashes}".rstrip() for hashes in (script, style))
    return (f"default-src 'none'; script-src {script}; style-src {style}; font-src 'self'; "
            "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
            "frame-ancestors 'none'")


HEADERS = {
    "Content-Security-Policy": content_security_policy(),  # the page has its own
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """`host` is the address that the server listens on; beyond loopback there must be a password.

    names     further names that people open it by: of a LAN, a tailnet, a proxy in front. Raises ValueError
    programs  who may use the protocols of other programs
    """

    def __init__(self, host: str = "127.0.0.1", password: Password | None = None, *,
                 names: Iterable[str] = (), programs: Programs | None = None) -> None:
        if password is None and not is_loopback(host):
            raise ValueError(f"Listening on {host} lets others in; that needs --password.")
        self.password = password
        self.programs = programs or Programs()
        self._host, self._open_to_others = host, not is_loopback(host)
        self._names = {*_LOOPBACK_NAMES, _bracketed(host.lower()), *map(_host_name, names)}
        if self._open_to_others:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", own.partition(".")[0]}

    def check(self, request: Request) -> None:
        """Raises a Problem unless the request may go on."""
        host = request.headers.get("Host", "")
        if not self._is_our_name(host):
            raise Refused("This server does not answer under that name.", code="host",
                          hint="Open the address that Parlor printed when it started.")
        if self.programs.is_preflight(request):
            return
        if not self._is_same_origin(request, host) and not self.programs.takes_origin(request):
            raise Refused("Another site sent this request.", code="origin")
        if protocol_of(request.path) or request.endpoint in KEY_ENDPOINTS:
            self._check_program(request)
        elif self.password and request.endpoint not in OPEN_ENDPOINTS and not self.is_logged_in(request):
            raise NeedsPassword("The password is needed.")
        self._check_body(request)

    def is_logged_in(self, request: Request) -> bool:
        return self._knows(request.cookies, request.environ["SERVER_PORT"])

    def address_for_others(self, port: int | str) -> str | None:
        """By which other devices open this Parlor; None if they cannot."""
        return address_for_others(self._host, port)

    def body_limit(self, headers: Mapping[str, str], port: int) -> int:
        """Bytes that a request with these headers (waitress' names) may send, before it is known where to."""
        is_known = (self._knows(parse_cookie(headers.get("COOKIE", "")), port)
                    or self.programs.knows(headers.get("AUTHORIZATION", ""), headers.get("X_API_KEY", "")))
        return LARGEST_BODY if is_known else LOGIN_BODY

    def _check_program(self, request: Request) -> None:
        """A key opens the protocols, the metrics and nothing else; a browser that is logged in needs none."""
        given = request.headers
        if self.programs.knows(given.get("Authorization", ""), given.get("x-api-key", "")):
            return
        if self.password is None and not self.programs.has_keys:
            return  # whatever key a program sends
        if self.password is not None and self.is_logged_in(request):
            return
        raise NeedsKey("The API key is missing or wrong." if self.programs.has_keys else
                       "This Parlor has a password; programs need a key. Start it with --api-key FILE.")

    def _knows(self, cookies: Mapping[str, str], port: int | str) -> bool:
        return self.password is None or self.password.knows(cookies.get(login_cookie(port), ""))

    def add_headers(self, request: Request, response: Response) -> Response:
        policy = response.headers.get("Content-Security-Policy")
        response.headers.update({**HEADERS, **self.programs.cors_headers(request)})
        if policy:
            response.headers["Content-Security-Policy"] = policy
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return response

    def _is_our_name(self, host: str) -> bool:
        """Loopback's names, those given, and beyond loopback this machine's name or any address.

        A rebinding attack must use a name of its own: an address is what the browser really went to.
        """
        match = _HOST.fullmatch(host.lower())
        if not match:
            return False
        return match[1] in self._names or (self._open_to_others and _is_address(match[1]))

    def _is_same_origin(self, request: Request, host: str) -> bool:
        site = request.headers.get("Sec-Fetch-Site")
        reads = request.method in ("GET", "HEAD")
        if site is not None:
            if site == "same-origin" or (site == "none" and reads):
                return True
            follows_link = request.headers.get("Sec-Fetch-Mode") == "navigate" and reads
            return follows_link and request.endpoint == "page"
        origin = request.headers.get("Origin")
        try:
            return origin is None or urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:  # such as http://[
            return False

    @staticmethod
    def _check_body(request: Request) -> None:
        request.max_content_length = LARGE_BODIES.get(request.endpoint or "", MAX_BODY)
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        takes_any = protocol_of(request.path) == "ollama"  # whose clients do not say that it is JSON
        if (has_body or request.content_type) and request.mimetype != "application/json" and not takes_any:
            raise BadBody("Only application/json is taken here.")


def login_cookie(port: int | str) -> str:
    """The name of the cookie of the server on `port`: browsers share cookies among a host's ports."""
    return f"parlor-login-{port}"


def _host_name(name: str) -> str:
    """`name` as it stands in a Host header, without a port."""
    match = _HOST.fullmatch(_bracketed(name.strip().lower().rstrip(".")))
    if not match or match[2]:
        raise ValueError(f"--allow-host {name!r} is not a host's name; expected one such as box.example.org")
    return match[1]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
