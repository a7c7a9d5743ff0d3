"""The page's files, read once when the server starts.

Their address changes with any of them, so a browser that has one never asks for it again: a page of fifty
modules is loaded again without a request. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Response, abort

STYLES = ("base", "frame", "chat", "text", "panels", "overlays")  # in this order: later ones win
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class StaticFiles:
    """What lies in `folder`, and page.css: the style sheets as one, because each is waited for."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
        self._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._files["page.css"] = b"\n".join(self._files[f"css/{name}.css"] for name in STYLES)
        digest = hashlib.sha256()
        for name, content in self._files.items():
            digest.update(f"{name} {len(content)} ".encode() + content)
        self.version = digest.hexdigest()[:16]
        self.url = f"/static/{self.version}"
        sprite = self._files["vendor/lucide/sprite.svg"].decode()
        self.icons = sprite.replace("<svg ", "<svg hidden ", 1).replace('<symbol id="', '<symbol id="icon-')

    def answer(self, version: str, name: str) -> Response:
        if name not in self._files:
            abort(404)
        response = Response(self._files[name], mimetype=TYPES[Path(name).suffix])
        if version == self.version:  # else an open page from before an update: not to be kept
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
