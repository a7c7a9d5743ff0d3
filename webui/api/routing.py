"""Which function of which protocol answers where.

A protocol is imported when the first program speaks it: the page's start does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from flask import Flask
from flask.typing import ResponseReturnValue

ROUTES = (
    ("GET", "/v1/models", "openai.list_models"),
    ("GET", "/v1/models/<path:name>", "openai.read_model"),
    ("POST", "/v1/chat/completions", "openai.complete_chat"),
    ("POST", "/v1/completions", "completions.complete_text"),
    ("POST", "/v1/embeddings", "openai.embed"),
    ("POST", "/v1/responses", "responses.create_response"),
    ("POST", "/v1/messages", "anthropic.create_message"),
    ("POST", "/v1/messages/count_tokens", "anthropic.count"),
    ("GET", "/api/version", "ollama.version"),
    ("GET", "/api/tags", "ollama.list_models"),
    ("GET", "/api/ps", "ollama.list_running"),
    ("POST", "/api/show", "ollama.show"),
    ("POST", "/api/chat", "ollama.chat"),
    ("POST", "/api/generate", "ollama.generate"),
    ("POST", "/api/embed", "ollama.embed"),
    ("POST", "/api/embeddings", "ollama.embed"),
    ("POST", "/api/pull", "ollama.refuse"),
    ("POST", "/api/push", "ollama.refuse"),
    ("POST", "/api/create", "ollama.refuse"),
    ("POST", "/api/copy", "ollama.refuse"),
    ("DELETE", "/api/delete", "ollama.refuse"),
)
"""(method, path, module and function)"""


def register(app: Flask) -> None:
    """Put all of them into the app."""
    for method, path, name in ROUTES:
        app.add_url_rule(path, path, _later(name), methods=[method])


def _later(name: str) -> Callable[..., ResponseReturnValue]:
    module, _, function = name.partition(".")

    def view(**arguments: Any) -> ResponseReturnValue:
        return getattr(import_module(f".{module}", __package__), function)(**arguments)

    return view
