"""Whether a server goes on writing for nobody."""

from __future__ import annotations

import time

from tests.helpers.server_process import Server


def wait_for_running(server: Server, count: int, seconds: float = 20.0) -> None:
    """Until so many replies are being written. What is long takes the slow server twice these seconds."""
    deadline = time.monotonic() + seconds
    while running(server) != count:
        assert time.monotonic() < deadline, f"{running(server)} are being written, not {count}"
        time.sleep(0.02)


def running(server: Server) -> int:
    return server.client().get("/api/status").json["engine"]["running"]
