"""The page and its files, read once when the server starts: few, and compressed before anybody asks.

Their address changes with any of them, so a browser that has one never asks for it again. The modules become
three files (two are loaded later). What the first paint waits for, the styles and early.js, stands in the
page, so that it waits for no second answer; the page's policy names both by their hashes. Page and modules
are there in each language, made when somebody first asks for it. Knows nothing of what is in them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask import Response, abort, request

from ..languages import LANGUAGES, catalogue_of, direction, language_for, translated
from .bundle import ASKED, LIBRARIES, bare, bundles
from .guard import content_security_policy

STYLES = ("base", "frame", "chat", "text", "panels", "overlays", "print")  # in this order: later ones win
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml",
         ".png": "image/png", ".webmanifest": "application/manifest+json", ".woff2": "font/woff2"}
WITH_STYLES = """\
await new Promise((done) => {
const link = document.createElement("link");
Object.assign(link, { rel: "stylesheet", href: new URL("./asked.css", import.meta.url) });
Object.assign(link, { onload: done, onerror: done });
document.head.append(link);
});
"""
"""What ASKED begins with: what is loaded when somebody asks for it has a sheet of its own."""
PAGE = "page.html"
ALONE = ("icon.svg", "icon.png", "parlor.webmanifest")
"""What index.html names besides the bundles; libraries are loaded by the modules that need them."""
EARLY = "early.js"


class StaticFiles:
    """What a browser gets of the files in `folder`: bundles, and libraries for when they are needed.

    write_page  gives the page's HTML, with what the template names
    """

    def __init__(self, folder: Path, write_page: Callable[..., str]) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
        read = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._modules = {name: text.decode() for name, text in read.items()
                         if name.endswith(".js") and name != EARLY}
        files = {name: content for name, content in read.items()
                 if name in ALONE or name.startswith(LIBRARIES)}
        self._early = bare(read[EARLY].decode())
        self._styles = _bare_styles(b"\n".join(read[f"css/{name}.css"] for name in STYLES)).decode()
        files["asked.css"] = _bare_styles(read["css/asked.css"])
        self._write_page = write_page
        sprite = read["vendor/lucide/sprite.svg"].decode()
        self._icons = sprite.replace("<svg ", "<svg hidden ", 1).replace('<symbol id="', '<symbol id="icon-')
        self._files = {name: _both(content) for name, content in files.items()}
        self._made: dict[str, _InLanguage] = {}
        self._making = threading.Lock()

    def prepare(self, language: str) -> _InLanguage:
        """The page and its modules in a language. Wants an application's context."""
        with self._making:
            if language in self._made:
                return self._made[language]
            catalogue = catalogue_of(language)
            texts = bundles({name: translated(text, catalogue) for name, text in self._modules.items()})
            texts[ASKED] = WITH_STYLES + texts[ASKED]
            files = {name: _both(text.encode()) for name, text in texts.items()}
            digest = hashlib.sha256()
            for name, (content, _zipped) in [*self._files.items(), *files.items()]:
                digest.update(f"{name} {len(content)} ".encode() + content)
            version = f"{digest.hexdigest()[:16]}-{language}"
            static = f"/static/{version}"
            styles = self._styles.replace(f'url("{LIBRARIES}', f'url("{static}/{LIBRARIES}')
            page = self._write_page(static=static, styles=styles, early=self._early, icons=self._icons,
                                    lang=language, dir=direction(language),
                                    t=lambda text: catalogue.get(text, text))
            files[PAGE] = _both(page.encode())
            policy = content_security_policy(script=_hash(self._early), style=_hash(styles))
            return self._made.setdefault(language, _InLanguage(version, files, policy))

    def answer_page(self) -> Response:
        made = self.prepare(language_for(request))
        response = _answer(PAGE, made.files[PAGE])
        response.headers["Content-Security-Policy"] = made.policy
        response.vary.update(("Accept-Language", "Cookie"))
        return response

    def answer(self, version: str, name: str) -> Response:
        language = next((code for code in LANGUAGES if version.endswith(f"-{code}")), language_for(request))
        made = self.prepare(language)
        content = self._files.get(name) or made.files.get(name)
        if content is None or name == PAGE:
            abort(404)
        response = _answer(name, content)
        if version == made.version:  # else an open page from before an update: not to be kept
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@dataclass(frozen=True)
class _InLanguage:
    version: str
    files: dict[str, tuple[bytes, bytes]]
    """As they are, and compressed."""
    policy: str
    """Of the page."""


def _answer(name: str, content: tuple[bytes, bytes]) -> Response:
    zipped = request.accept_encodings["gzip"] > 0
    response = Response(content[zipped], mimetype=TYPES[Path(name).suffix])
    if zipped:
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    return response


def _hash(text: str) -> str:
    """As a policy names what may stand in a page. https://www.w3.org/TR/CSP3/#grammardef-hash-source"""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _bare_styles(sheet: bytes) -> bytes:
    return re.sub(rb"/\*.*?\*/|^\s+", b"", sheet, flags=re.MULTILINE | re.DOTALL)


def _both(content: bytes) -> tuple[bytes, bytes]:
    """As it is, and compressed."""
    return content, gzip.compress(content, mtime=0)
