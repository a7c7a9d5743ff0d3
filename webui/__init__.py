"""The web server of Parlor: create_app() puts routes, guard and error answers around one model and one store,
create_api() the protocols of other programs alone around one model.

Knows HTTP, disk, messages and text; never a token id or a tensor.
"""

from __future__ import annotations

import logging
from functools import partial
from json import JSONEncoder
from pathlib import Path
from typing import Any

from flask import Flask, Response, render_template, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from model import Downloads, ModelSlot

from .api import routing
from .chat.chat import Chat
from .chat.inspecting import Inspector
from .chat.looking import Looking
from .chat.models import Models
from .chat.other_engines import OtherEngines
from .chat.showing import Showing
from .errors import Problem
from .ids import new_id
from .languages import ENGLISH, language_for
from .routes import (
    arranging,
    bots,
    comparisons,
    documents,
    drafts,
    engines,
    models,
    prompts,
    replay,
    replies,
    service,
    sessions,
    settings,
    summaries,
    tokens,
    transfer,
)
from .routes.parlor import KEY, Api, Parlor
from .sentences import told
from .server.compressing import compress
from .server.guard import MAX_BODY, Guard
from .server.programs import protocol_of
from .server.static_files import StaticFiles
from .server.streams import Streams
from .storage.store import Store

HERE = Path(__file__).parent
MAX_STREAMS = 80
LIST_PART = 64  # messages, or sessions
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=DefaultJSONProvider.default).encode
log = logging.getLogger("parlor")


def create_app(slot: ModelSlot, store: Store, *, guard: Guard | None = None,
               downloads: Downloads | None = None, max_streams: int = MAX_STREAMS) -> Flask:
    """The application. The caller owns `slot` and `store` and closes them after parlor(app).close()."""
    chat = Chat(slot, store)
    others = OtherEngines(slot.engines, store)
    app = _app(Parlor(slot=slot, guard=guard or Guard(), streams=Streams(max_streams), store=store, chat=chat,
                      showing=Showing(slot, store, chat), engines=others,
                      inspector=Inspector(slot, store, chat.voices), looking=Looking(chat),
                      models=Models(slot, chat.chains, downloads, others)))
    for module in (sessions, arranging, replies, comparisons, replay, tokens, prompts, summaries, drafts,
                   documents, bots, models, engines, settings, transfer):
        app.register_blueprint(module.bp)
    files = StaticFiles(HERE / "static", partial(render_template, "index.html"))
    with app.app_context():
        files.prepare(ENGLISH)
    app.add_url_rule("/", "page", files.answer_page)
    app.add_url_rule("/static/<version>/<path:name>", "static", files.answer)
    return app


def create_api(slot: ModelSlot, *, guard: Guard | None = None, max_streams: int = MAX_STREAMS) -> Flask:
    """The protocols of other programs, and whether all is well: no page, no session, nothing on disk. The
    caller owns `slot` and closes it."""
    return _app(Api(slot=slot, guard=guard or Guard(), streams=Streams(max_streams)))


def _app(extension: Api) -> Flask:
    """What both have in common."""
    app = _App(__name__, root_path=str(HERE), static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.extensions[KEY] = extension
    app.register_blueprint(service.bp)
    routing.register(app)
    app.before_request(lambda: extension.guard.check(request))
    app.after_request(lambda response: extension.guard.add_headers(request, response))
    app.after_request(lambda response: compress(request, response))
    app.register_error_handler(Problem, _answer_problem)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_unexpected)
    return app


class _Json(DefaultJSONProvider):
    """Compact, by one encoder; json.dumps would make one for each value."""

    def dumps(self, obj: Any, **options: Any) -> str:
        return _as_json(obj)


def _as_json(value: Any) -> str:
    """Long lists are written in parts: one call for megabytes would keep every other thread waiting."""
    if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
        parts = [f"{_encode(str(key))}:{_as_json(item)}" for key, item in value.items()]
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list) and len(value) > LIST_PART:
        parts = [_encode(value[at:at + LIST_PART])[1:-1] for at in range(0, len(value), LIST_PART)]
        return f"[{','.join(parts)}]"
    return _encode(value)


class _App(Flask):
    json_provider_class = _Json

    def dispatch_request(self) -> ResponseReturnValue:
        """A panic in a library written in Rust is no Exception: nobody would answer the request."""
        try:
            return super().dispatch_request()
        except Exception:
            raise
        except BaseException as panic:
            raise RuntimeError("a library gave up") from panic

    def make_response(self, rv: ResponseReturnValue) -> Response:
        """What the page asked for says its sentences in the page's language."""
        if request.path.startswith("/api/"):
            if isinstance(rv, dict):
                rv = told(rv, language_for(request))
            elif isinstance(rv, tuple) and isinstance(rv[0], dict):
                rv = (told(rv[0], language_for(request)), *rv[1:])
        return super().make_response(rv)


def _answer_problem(problem: Problem) -> ResponseReturnValue:
    if protocol_of(request.path):
        from .api.errors import protocol_error
        return protocol_error(request.path, problem)
    answer = problem.as_json()
    current = answer.pop("current", None)
    if current is not None:
        answer |= sessions.answer_with(current) if "messages" in current else {"current": current}
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after else {}
    return answer, problem.status, headers


def _answer_http(error: HTTPException) -> ResponseReturnValue:
    """What Flask itself refuses: unknown addresses, wrong methods, bodies that are too large."""
    code = (error.name or "error").lower().replace(" ", "_")
    most = (request.max_content_length or MAX_BODY) >> 20
    message = f"The body is larger than {most} MiB." if error.code == 413 else f"{error.name}."
    if error.code == 404 and (protocol_of(request.path) or request.method == "POST"):
        from .api.errors import NO_ROUTE as message
    problem = Problem(message, code=code)
    problem.status = error.code or 500
    return _answer_problem(problem)


def _answer_unexpected(error: Exception) -> ResponseReturnValue:
    """A fault of ours: an id that the log knows too, and nothing else."""
    error_id = new_id()
    log.error("error %s in %s %s", error_id, request.method, request.path, exc_info=error)
    message = f"Something broke inside Parlor; its log says more under {error_id}."
    problem = Problem(message, code="internal", id=error_id)
    problem.status = 500
    return _answer_problem(problem)
