"""A hub on this machine with the answers that downloads need; it breaks off, lies and refuses as told."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


class StandInHub:
    """`repos`: files by repo and path. `requests`: (path, Range) of each that came.

    break_after  bytes after which a response breaks off, one entry for each response; then none does
    lies         paths whose listed checksum is another file's
    status       by path: answered instead of the file
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.break_after: list[int] = []
        self.lies: set[str] = set()
        self.status: dict[str, int] = {}
        self.knows_ranges = True
        self.go_on = threading.Event()  # while clear every file stands after its first half
        self.go_on.set()
        self.ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Its address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.requests.append((self.path, self.headers.get("Range", "")))
                if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(\?.*)?", self.path):
                    self.send_listing(found[1])
                elif found := re.fullmatch(rf"/([\w.-]+/[\w.-]+)/resolve/{COMMIT}/(.+)", self.path):
                    self.send_file(found[2], hub.repos[found[1]][found[2]])
                else:
                    self.send_error(404)

            def send_listing(self, repo: str) -> None:
                if repo not in hub.repos:
                    body = json.dumps({"error": "Repository not found"}).encode()
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                else:
                    body = json.dumps({"id": repo, "sha": COMMIT, "siblings": [
                        hub.sibling(path, data) for path, data in hub.repos[repo].items()]}).encode()
                    self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def send_file(self, path: str, data: bytes) -> None:
                if path in hub.status:
                    return self.send_error(hub.status[path])
                begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(begin[1]) if begin and hub.knows_ranges else 0
                self.send_response(206 if begin and hub.knows_ranges else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                rest = data[start:]
                if hub.break_after:
                    self.wfile.write(rest[:hub.break_after.pop(0)])
                    self.close_connection = True
                    return None
                self.wfile.write(rest[:len(rest) // 2])
                while not (hub.go_on.wait(0.01) or hub.ended.is_set()):
                    pass
                self.wfile.write(rest[len(rest) // 2:])
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # whoever hung up knows
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def sibling(self, path: str, data: bytes) -> dict[str, object]:
        known = b"another file" if path in self.lies else data
        blob = hashlib.sha1(b"blob %d\0" % len(known) + known).hexdigest()
        listed: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": blob}
        if path.endswith((".gguf", ".safetensors")):
            listed["lfs"] = {"sha256": hashlib.sha256(known).hexdigest(), "size": len(data),
                             "pointerSize": 130}
        return listed
