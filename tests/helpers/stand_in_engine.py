"""An engine on this machine that speaks OpenAI's protocol, answers by script, and fails in every way.

It counts a word as a token, three for each message and two where a reply begins.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL, CLOSE, HANG_UP = "stall", "close", "hang up"
FIELDS = {"model", "messages", "prompt", "stream", "max_tokens", "temperature", "top_p", "seed", "stop",
          "presence_penalty", "frequency_penalty", "stream_options"}


def text(words: str, **more: Any) -> dict[str, Any]:
    """A chunk with this text."""
    return chunk({"content": words}, **more)


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def end(reason: str = "stop", **more: Any) -> dict[str, Any]:
    return chunk({}, finish_reason=reason, **more)


class StandInEngine:
    """`requests`: (path, headers, body) of each that came; `chats`: bodies of those that probed nothing.

    script        what a reply is made of: chunks (dict), raw bytes, STALL until the connection is closed, or
                  CLOSE in the middle; by default "You said: " and the last message's words
    scripts       those of the next replies, before `script`
    refuses       of a body: (status, answer), HANG_UP, or None
    statuses      (status, body, headers) answered to the next requests for a reply, one after the other
    closed        set when a reader closed the connection during STALL
    """

    def __init__(self, *models: str) -> None:
        self.models: list[dict[str, Any]] = [{"id": name, "object": "model"} for name in models or ("small",)]
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.script: list[Any] | None = None
        self.statuses: list[tuple[int, str, dict[str, str]]] = []
        self.facts: dict[str, Any] = {}
        self.answers_as: str | None = None
        self.content_type = "text/event-stream"
        self.key = ""
        self.scripts: list[list[Any]] = []
        self.refuses: Callable[[dict[str, Any]], Any] = lambda body: None
        self.continues = self.echoes = self.has_usage = True
        self.tells_offsets = self.tells_spaces = True  # of echoed tokens
        self.knows: set[str] | None = None  # fields; None: any
        self.closed, self.ended = threading.Event(), threading.Event()
        self.port = 0

    @property
    def chats(self) -> list[dict[str, Any]]:
        return [body for path, _headers, body in self.requests if path.endswith("/chat/completions")
                and body["messages"][0]["content"] != "Say the alphabet."]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def tokens(self, body: dict[str, Any]) -> int:
        counted = sum(3 + len(message["content"].split()) for message in body["messages"])
        is_begun = self.continues and body["messages"][-1]["role"] == "assistant"
        return counted - (1 if is_begun else -2)

    def pieces(self, body: dict[str, Any]) -> list[Any]:
        said = body["messages"][-1]["content"]
        is_probe = body["messages"][0]["content"] == "Say the alphabet."
        script = self.scripts.pop(0) if self.scripts and not is_probe else self.script
        script = script if script is not None and not is_probe else [
            *(text(word) for word in re.findall(r"\S+\s*", f"You said: {said}")), end()]
        if not self.has_usage:
            return script
        usage = {"prompt_tokens": self.tokens(body), "completion_tokens": len(script) - 1,
                 "prompt_tokens_details": {"cached_tokens": 1}}
        return [*script, {"choices": [], "usage": usage}]

    @contextmanager
    def running(self) -> Iterator[StandInEngine]:
        engine = self

        class Handler(_Handler):
            def __init__(self, *arguments: Any) -> None:
                self.engine = engine
                super().__init__(*arguments)

        server = _Server(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # whoever hung up knows
        self.port = server.server_port
        self.ended.clear()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: StandInEngine

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.engine.requests.append((self.path, self._given(), None))
        if self.path == "/v1/models":
            if self._has_key():
                self._answer(200, {"object": "list", "data": self.engine.models or None})  # as Ollama's
        elif self.path in self.engine.facts:
            self._answer(200, self.engine.facts[self.path])
        else:
            self._answer(404, {"error": {"message": "Not found"}})

    def do_POST(self) -> None:
        engine = self.engine
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine.requests.append((self.path, self._given(), body))
        if engine.statuses:
            status, said, headers = engine.statuses.pop(0)
            return self._answer(status, said, headers)
        if not self._has_key():
            return None
        if body["model"] not in [one["id"] for one in engine.models]:
            return self._answer(404, {"error": {"message": f"The model {body['model']} does not exist."}})
        refused = engine.refuses(body)
        if refused == HANG_UP:
            self.close_connection = True
            return None
        if refused:
            return self._answer(*refused)
        unknown = sorted(body.keys() - engine.knows) if engine.knows is not None else []
        if unknown:
            return self._answer(400, {"error": {"message": f"Unrecognized request argument: {unknown[0]}"}})
        if self.path == "/v1/completions":
            return self._complete(body)
        return self._chat(body)

    def _given(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _has_key(self) -> bool:
        if self.engine.key and self.headers.get("Authorization") != f"Bearer {self.engine.key}":
            given = self.headers.get("Authorization", "")
            self._answer(401, {"error": {"message": f"Incorrect API key provided: {given[7:]}"}})
            return False
        return True

    def _complete(self, body: dict[str, Any]) -> None:
        """The last name that a text holds is the likelier, the longer it is."""
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            words = re.findall(r"\S+\s*", prompt)
            offsets = [sum(map(len, words[:at])) for at in range(len(words))]
            values = [None, *(-10.0 + len(word) for word in words[1:])]
            tokens = [*words, "x"] if self.engine.tells_spaces else [word.strip() for word in [*words, "x"]]
            logprobs = {"tokens": tokens, "token_logprobs": [*values, -1.0], "text_offset":
                        [*offsets, len(prompt)] if self.engine.tells_offsets else [-1] * len(tokens)}
            choices.append({"index": index, "text": f"{prompt}x",
                            "logprobs": logprobs if self.engine.echoes else None})
        self._answer(200, {"choices": choices})

    def _chat(self, body: dict[str, Any]) -> None:
        engine = self.engine
        self.send_response(200)
        self.send_header("Content-Type", engine.content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in engine.pieces(body):
            if piece == CLOSE:
                break
            if piece == STALL:
                self._stall()
            elif isinstance(piece, bytes):
                self.wfile.write(piece)
            else:
                head = {"id": "chatcmpl-1", "object": "chat.completion.chunk",
                        "model": engine.answers_as or body["model"]}
                self.wfile.write(b"data: " + json.dumps({**head, **piece}).encode() + b"\n\n")
            self.wfile.flush()
        else:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _stall(self) -> None:
        while not self.engine.ended.is_set():
            if select.select([self.connection], [], [], 0.01)[0] \
                    and not self.connection.recv(1, socket.MSG_PEEK):
                self.engine.closed.set()
                raise ConnectionResetError

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        given = headers or {}
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)),
                            **given}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
