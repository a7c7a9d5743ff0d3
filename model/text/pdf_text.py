"""The text of a PDF file, for a message: read in a process with limits of time and memory, for such files are
strangers' programs. A page of a few kB may unpack to gigabytes, or go round in a circle.

Takes the text that a PDF carries; it recognizes no letters in pictures.
"""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

from model.text.limited_process import Gone, LimitedProcess, OverTime, ProcessLimits, serve

PDF_LIMITS = ProcessLimits(seconds=30.0, memory_bytes=1 << 30)
MAX_PAGES = 500
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each file has a process of its own, so that none gets at another's text."""


class PdfError(ValueError):
    """Why there is no text of this file, as a clause: "it is encrypted; ..."."""


def pdf_text(data: bytes, max_characters: int, limits: ProcessLimits = PDF_LIMITS) -> tuple[str, int]:
    """(the text of a PDF file, the number of its pages). Above the text of each of several pages stands a
    line `[Page 2]`; pages without any text are left out.

    Raises PdfError: it is broken, encrypted or without text, has over MAX_PAGES or `max_characters`, or takes
    more than the limits.
    """
    process = LimitedProcess("model.text.pdf_text", limits)
    request = {"pdf": base64.b64encode(data).decode("ascii"), "characters": max_characters}
    with _AT_ONCE:
        try:
            reply = process.ask(request)
        except OverTime:
            raise PdfError(f"reading it takes longer than {limits.seconds:g} seconds") from None
        except Gone:
            raise PdfError(_too_much(limits.memory_bytes)) from None
        finally:
            process.close()
    if "problem" in reply:
        raise PdfError(reply["problem"] or _too_much(limits.memory_bytes))
    return reply["text"], reply["pages"]


def _too_much(memory_bytes: int) -> str:
    return f"reading it takes more than {memory_bytes >> 20:,} MiB of memory"


def answer(request: Any) -> dict[str, Any]:
    """What the process does: `{text, pages}`, or `{problem}`, which is "" where memory ran out."""
    from pypdf.errors import LimitReachedError

    try:
        return _read(base64.b64decode(request["pdf"]), request["characters"])
    except PdfError as error:
        return {"problem": str(error)}
    except (MemoryError, LimitReachedError):
        return {"problem": ""}
    except Exception:  # the library raises of everything on files that are no good
        return {"problem": "it is damaged, or no PDF file"}


def _read(data: bytes, max_characters: int) -> dict[str, Any]:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not _opens(reader):
        raise PdfError("it is encrypted; save it without a password first")
    count = len(reader.pages)
    if count > MAX_PAGES:
        raise PdfError(f"it has {count:,} pages; at most {MAX_PAGES} are read")
    parts, length = [], 0
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text().replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()
        if not text:
            continue
        parts.append(f"[Page {number}]\n{text}" if count > 1 else text)
        length += len(parts[-1]) + 2
        if length - 2 > max_characters:
            raise PdfError(f"its text is too long: {max_characters:,} characters are taken, which end on "
                           f"page {number} of {count}")
    if not parts:
        raise PdfError("it holds no text, as one that was scanned; only text is read, no pictures")
    return {"text": "\n\n".join(parts), "pages": count}


def _opens(reader: Any) -> bool:
    """Whether it can be read without a password, as files whose printing alone is forbidden."""
    try:
        return bool(reader.decrypt(""))
    except Exception:  # a way of encrypting that would take a further library
        return False


if __name__ == "__main__":
    serve(answer)
