"""What the routes work on: one object, put into the app by create_app(), or by create_api()."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from flask import Flask, current_app

from model import ModelSlot

from ..chat.chat import Chat
from ..chat.inspecting import Inspector
from ..chat.looking import Looking
from ..chat.models import Models
from ..chat.other_engines import OtherEngines
from ..chat.showing import Showing
from ..server.guard import Guard
from ..server.streams import Streams
from ..storage.store import Store

KEY = "parlor"


@dataclass(frozen=True, kw_only=True)
class Api:
    """All that the protocols of other programs need."""

    slot: ModelSlot
    guard: Guard
    streams: Streams
    started: float = field(default_factory=time.monotonic)
    ending: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, kw_only=True)
class Parlor(Api):
    """With the page and its sessions."""

    store: Store
    chat: Chat
    showing: Showing
    inspector: Inspector
    looking: Looking
    models: Models
    engines: OtherEngines

    def close(self, why: str, seconds: float) -> None:
        """End every reply, then every stream, within about `seconds`."""
        self.ending.set()
        self.chat.chains.close(why, seconds / 2)
        self.chat.commits.close()
        self.streams.close(seconds / 2)


def parlor(app: Flask | None = None) -> Parlor:
    """Of the app that answers the present request."""
    return (app or current_app).extensions[KEY]


def api() -> Api:
    """Of the app that answers the present request, whether or not it has a page."""
    return current_app.extensions[KEY]


def vocab_size() -> int | None:
    """Of the loaded model, if there is one: the token ids that can be set are 0 to vocab_size - 1."""
    model = parlor().slot.model
    return model.info()["vocab_size"] if model else None
