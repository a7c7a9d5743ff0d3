"""An answer that is a file to save, under a name that every system takes."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from flask import Response

_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the dot."""


def attachment(data: bytes, content_type: str, title: str, suffix: str) -> Response:
    """`title` is any text; the file is called by what of it may stand in a name."""
    response = Response(data, content_type=content_type)
    response.headers["Content-Disposition"] = _disposition(title, suffix)
    return response


def _disposition(title: str, suffix: str) -> str:
    """A header with the title as file name: plain ASCII for old programs, and all of it for the others."""
    clean = re.sub(r"[^\w .,!'()-]+", "_", title)[:80].strip(" ._") or "session"
    if _DEVICE.match(clean):
        clean = f"_{clean}"
    plain = unicodedata.normalize("NFKD", clean).encode("ascii", "ignore").decode().strip() or "session"
    return f"attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{quote(clean)}.{suffix}"
