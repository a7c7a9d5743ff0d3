"""The page and its files, read once when the server starts: few, and compressed before anybody asks.

Their address changes with any of them, so a browser that has one never asks for it again. The modules become
three files (two are loaded later), the style sheets two. Knows nothing of what is in them.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

from flask import Response, abort, request

from .bundle import ASKED, LIBRARIES, bare, bundles

STYLES = ("base", "frame", "chat", "text", "panels", "overlays", "print")  # in this order: later ones win
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml",
         ".webmanifest": "application/manifest+json", ".woff2": "font/woff2"}
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
ALONE = ("early.js", "icon.svg", "parlor.webmanifest")
"""What index.html names besides the bundles; libraries are loaded by the modules that need them."""


class StaticFiles:
    """What a browser gets of the files in `folder`: bundles, and libraries for when they are needed."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
        read = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        modules = {name: text.decode() for name, text in read.items()
                   if name.endswith(".js") and name not in ALONE}
        self._files = {name: content for name, content in read.items()
                       if name in ALONE or name.startswith(LIBRARIES)}
        self._files["early.js"] = bare(read["early.js"].decode()).encode()
        self._files["page.css"] = _bare_styles(b"\n".join(read[f"css/{name}.css"] for name in STYLES))
        self._files["asked.css"] = _bare_styles(read["css/asked.css"])
        self._files |= {name: text.encode() for name, text in bundles(modules).items()}
        self._files[ASKED] = WITH_STYLES.encode() + self._files[ASKED]
        digest = hashlib.sha256()
        for name, content in self._files.items():
            digest.update(f"{name} {len(content)} ".encode() + content)
        self.version = digest.hexdigest()[:16]
        self.url = f"/static/{self.version}"
        sprite = read["vendor/lucide/sprite.svg"].decode()
        self.icons = sprite.replace("<svg ", "<svg hidden ", 1).replace('<symbol id="', '<symbol id="icon-')
        self._compressed = {name: _compressed(content) for name, content in self._files.items()}

    def set_page(self, html: str) -> None:
        """The page itself, which is written with `url` and `icons`."""
        self._files[PAGE] = html.encode()
        self._compressed[PAGE] = _compressed(self._files[PAGE])

    def answer_page(self) -> Response:
        return self._answer(PAGE)

    def answer(self, version: str, name: str) -> Response:
        if name not in self._files or name == PAGE:
            abort(404)
        response = self._answer(name)
        if version == self.version:  # else an open page from before an update: not to be kept
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    def _answer(self, name: str) -> Response:
        zipped = request.accept_encodings["gzip"] > 0
        content = (self._compressed if zipped else self._files)[name]
        response = Response(content, mimetype=TYPES[Path(name).suffix])
        if zipped:
            response.content_encoding = "gzip"
        response.vary.add("Accept-Encoding")
        return response


def _bare_styles(sheet: bytes) -> bytes:
    return re.sub(rb"/\*.*?\*/|^\s+", b"", sheet, flags=re.MULTILINE | re.DOTALL)


def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
