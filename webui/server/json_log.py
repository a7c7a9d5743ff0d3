"""The console as JSON, an object a line, for what collects logs: {"time", "level", "what", ...}.

Whatever Python writes there becomes such a line: the log's records, what is printed, warnings, and the
errors that end a thread. Requests are told when they are answered, by method, path, status and milliseconds:
never what was asked after a "?", nor anything of a body or a header.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, TextIO

from werkzeug.wsgi import ClosingIterator

MAX_PATH = 1_000
log = logging.getLogger("parlor.requests")


def begin() -> None:
    """From now on; call once, before any thread writes."""
    out, err = sys.stdout, sys.stderr
    handler = logging.StreamHandler(err)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    sys.stdout, sys.stderr = Lines(out, "info"), Lines(err, "error")
    sys.excepthook = _log_error
    threading.excepthook = lambda args: _log_error(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_error(args.exc_type, args.exc_value, args.exc_traceback)


def log_requests(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The WSGI application, with a line for each request once all of its answer has gone out."""

    def logged(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began, answered = time.monotonic(), ["500"]

        def start(status: str, *arguments: Any) -> Any:
            answered[0] = status
            return start_response(status, *arguments)

        def tell() -> None:
            path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
            tell_request(environ["REQUEST_METHOD"], path, int(answered[0].partition(" ")[0]), began)

        return ClosingIterator(app(environ, start), [tell])

    return logged


def tell_request(method: str, path: str, status: int, began: float) -> None:
    """The line of one request, which began at this monotonic moment. Without begin() nobody sees it."""
    log.info("request", extra={"fields": {"method": method, "path": path[:MAX_PATH], "status": status,
                                          "ms": round(1000 * (time.monotonic() - began), 1)}})


class JsonFormatter(logging.Formatter):
    """A record as a line. What it says further stands in its attribute `fields`, a dictionary."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name, **getattr(record, "fields", {})}
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return _line(record.levelname.lower(), record.getMessage(), record.created, **fields)


class Lines(io.TextIOBase):
    """In place of a console: each line that is printed becomes a JSON object of this level."""

    encoding = "utf-8"

    def __init__(self, console: TextIO, level: str) -> None:
        self._console, self._level = console, level
        self._begun = threading.local()  # print() writes a line and its end apart

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        whole = [_line(self._level, line.strip(), time.time()) for line in lines if line.strip()]
        if whole:
            self._console.write("\n".join([*whole, ""]))
        return len(text)

    def flush(self) -> None:
        self._console.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False


def _line(level: str, what: str, at: float, **fields: Any) -> str:
    moment = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    told = {"time": moment.replace("+00:00", "Z"), "level": level, "what": what, **fields}
    return json.dumps(told, default=str)


def _log_error(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    logging.getLogger("parlor").error("%s", error or kind.__name__, exc_info=error and (kind, error, trace))
