"""An app behind waitress in the process of the tests, ended so that nothing of it is left to the next one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.server import create_server

from webui.routes.parlor import parlor

END_SECONDS = 60


@contextmanager
def served(app: Flask, **adjustments: Any) -> Iterator[str]:
    """The address, without a slash at its end."""
    sockets: dict[int, Any] = {}
    server = create_server(app, map=sockets, host="127.0.0.1", port=0, channel_request_lookahead=1,
                           **adjustments)
    loop = threading.Thread(target=server.run, name="served", daemon=True)
    loop.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        parlor(app).close("the test is over", 1.0)
        # Threads first, which wake the loop with every answer; then the sockets, by the loop that waits for
        # them: closed by another thread, their numbers may by then be those of somebody else's files.
        server.task_dispatcher.shutdown(timeout=END_SECONDS)
        server.trigger.pull_trigger(lambda: wasyncore.close_all(sockets, ignore_all=True))
        loop.join(END_SECONDS)
        assert not loop.is_alive()
