"""A real server in a process of its own, for the tests that need one, and a client over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0


class Server:
    """`python -m tests.helpers.fake_server` with a free port; `with` ends it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._arguments = ["--sessions-dir", str(folder), *arguments]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Run it; after kill() under the same address again."""
        command = [sys.executable, "-m", "tests.helpers.fake_server", "--port", str(self.port),
                   *self._arguments]
        flags = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, **flags)
        self.port = self._read_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _read_port(self) -> int:
        """Once the model is there, where one is loaded."""
        port = int(self.read_until(r"http://\S+?:(\d+)/")[1])
        if not {"--no-model", "--fail"} & set(self._arguments):
            self.read_until(r"is loaded\.$")
        return port

    def read_until(self, pattern: str) -> re.Match[str]:
        """The first line of its output that has this. Raises RuntimeError with what it says as it ends."""
        timer = threading.Timer(START_SECONDS, self.process.kill)  # ends the wait for a line as well
        timer.start()
        try:
            for line in self.process.stdout:
                if found := re.search(pattern, line.rstrip()):
                    return found
        finally:
            timer.cancel()
        raise RuntimeError(f"the server ended: {self.process.stderr.read()}")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, float]:
        """Ask it to end as a service manager does; the exit code, and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)
        code = self.process.wait(30)
        return code, time.monotonic() - started

    def client(self) -> HttpClient:
        return HttpClient(self.port)


class HttpClient:
    """Enough of Flask's test client for tests.helpers.api.Page, over a real connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self, path: str, method: str = "GET", json: Any = None,
             headers: dict[str, str] | None = None) -> SimpleNamespace:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = None if json is None else _dump(json)
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, {**kind, **(headers or {})})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return SimpleNamespace(status_code=response.status, data=data, headers=response.headers,
                               json=_load(data) if is_json else None)

    def get(self, path: str) -> SimpleNamespace:
        return self.open(path)

    def post(self, path: str, json: Any = None) -> SimpleNamespace:
        return self.open(path, "POST", json)


class EventSocket:
    """One reader of a reply's events, on a bare socket: it can also read slowly, or never."""

    def __init__(self, port: int, reply_id: str, *, buffer: int = 0) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        path = f"/api/replies/{reply_id}/events"
        self.socket.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        self.data = b""

    def read_until(self, mark: bytes) -> None:
        while mark not in self.data:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise EOFError(f"the stream ended before {mark!r}: {self.data[-200:]!r}")
            self.data += piece

    def read_to_end(self) -> bytes:
        """The whole body."""
        while piece := self.socket.recv(1 << 16):
            self.data += piece
        self.socket.close()
        return self.data.partition(b"\r\n\r\n")[2]


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _load(data: bytes) -> Any:
    return json.loads(data)
