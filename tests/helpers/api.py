"""A page for tests: the requests that the real one makes, by method, and the events of replies."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

MARLOW, OTTO, LIN = "a0a0a0a0a0a0a001", "a0a0a0a0a0a0a002", "a0a0a0a0a0a0a003"


@dataclass
class Event:
    index: int
    name: str
    data: dict[str, Any]


def parse_events(body: bytes) -> list[Event]:
    """Server-sent events; comments are left out."""
    events = []
    for block in body.decode("utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append(Event(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


class Page:
    """One tab that shows one session and keeps its revision."""

    def __init__(self, client, *bots: str):
        self.client = client
        self.session = client.post("/api/sessions", json={"bots": list(bots or (MARLOW,))}).json["session"]

    @property
    def url(self) -> str:
        return f"/api/sessions/{self.session['id']}"

    def load(self) -> dict[str, Any]:
        body = self.client.get(self.url).json
        self.session = body["session"]
        return body

    def send(self, method: str, path: str, expect: int | None = None, **body: Any) -> dict[str, Any]:
        response = self.client.open(self.url + path, method=method,
                                    json={"revision": self.session["revision"], **body})
        if expect is not None:
            assert response.status_code == expect, response.json
        else:
            assert response.status_code < 300, response.json
        if "session" in response.json and response.status_code < 300:
            self.session = response.json["session"]
        return response.json

    def set(self, **fields: Any) -> None:
        self.send("PATCH", "", **fields)

    def events(self, reply: dict[str, str], start: int = 0) -> list[Event]:
        """All events of a reply, waiting for its end."""
        return parse_events(self.client.get(f"/api/replies/{reply['reply_id']}/events?from={start}").data)

    def finish(self, reply: dict[str, str] | None) -> list[dict[str, Any]]:
        """The messages of a reply and of those that follow it, waiting for the last."""
        messages = []
        while reply:
            last = self.events(reply)[-1]
            assert last.name in ("done", "error")
            messages.append(last.data.get("message") if last.name == "done" else last.data["partial"])
            reply = last.data.get("next")
        self.load()
        return messages

    def say(self, text: str, **options: Any) -> list[dict[str, Any]]:
        """Say something and wait for all that answer."""
        return self.finish(self.send("POST", "/messages", text=text, **options)["reply"])

    def reply(self, kind: str, **options: Any) -> list[dict[str, Any]]:
        return self.finish(self.send("POST", "/replies", kind=kind, **options)["reply"])

    def shown(self) -> list[str]:
        by_id = {message["id"]: message for message in self.session["messages"]}
        way, at = [], self.session["leaf"]
        while at:
            way.append(by_id[at]["text"])
            at = by_id[at]["parent"]
        return way[::-1]

    def names(self) -> list[str]:
        by_id = {message["id"]: message for message in self.session["messages"]}
        way, at = [], self.session["leaf"]
        while at:
            way.append(by_id[at]["name"])
            at = by_id[at]["parent"]
        return way[::-1]


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def read_some(client, reply):
    """Read a reply's events until there is text; the tab is closed then."""
    response = client.get(f"/api/replies/{reply['reply_id']}/events")
    while b"event: text" not in next(response.response):
        pass
    response.close()
