"""Replicas of the engine by Ray Serve, each with a model of its own, behind one address that speaks /v1.

    serve run serve.parlor_serve:app model=MODEL.gguf replicas=2 threads=8

A request comes to the front, which looks which conversation it is of and passes it to the replica that has
that in its cache; there the same app answers that Parlor has beside its page, without page and sessions.
docs/service.md tells how to run it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from model import ModelSlot, load_model
from model.config import EngineConfig
from model.machine import physical_cores
from model.options import add_engine_options, engine_config, path_option
from model.sizes import MAX_RUNNING
from serve.conversations import ConversationRouter, conversation_of
from serve.metrics import of_all
from serve.wsgi import Call, Head, answer
from webui import create_api
from webui.api.errors import broken_off, protocol_error
from webui.errors import Problem, TooMany
from webui.routes.service import engine_problem
from webui.server.guard import MAX_BODY, Guard
from webui.server.programs import Programs, protocol_of

STARTER = Path(__file__).resolve().parent.parent / "starter"
NAME = "parlor"
REPLICA_HEADER = "X-Parlor-Replica"
MAX_OPEN = 1 << 14     # requests that the front passes on at once
MAX_QUEUED = 1_000     # requests that wait until a replica has a row left; more are refused
METRICS, METRICS_SECONDS = "/metrics", 10
PARTING_SECONDS = 600  # for replies that a replica still writes when it is to go


class ReplicaGone(Problem, status=503, code="replica_gone"):
    """Who wrote this is not there any more."""


@serve.deployment(name="engine", max_ongoing_requests=MAX_RUNNING, max_queued_requests=MAX_QUEUED,
                  request_router_config=RequestRouterConfig(request_router_class=ConversationRouter),
                  graceful_shutdown_timeout_s=PARTING_SECONDS)
class Replica:
    """One engine with its model, in a process of its own."""

    def __init__(self, model: str, config: EngineConfig, names: list[str], programs: Programs) -> None:
        self._slot = ModelSlot.holding(load_model(model, config))
        guard = Guard(names=names, programs=programs)
        self._app = create_api(self._slot, guard=guard, max_streams=MAX_RUNNING)
        self._threads = ThreadPoolExecutor(MAX_RUNNING, thread_name_prefix="answer")
        self._id = serve.get_replica_context().replica_id.unique_id

    async def answer(self, call: Call) -> AsyncIterator[Head | bytes]:
        """The status and headers of the answer, then each piece of its body."""
        async for piece in answer(self._app, call, self._threads):
            if isinstance(piece, tuple):
                status, headers = piece
                piece = status, [*headers, (REPLICA_HEADER, self._id)]
            yield piece

    async def metrics(self, call: Call) -> tuple[str, Head, bytes]:
        """(which replica this is, status and headers, the body) of what it answers to GET /metrics."""
        plain = [(name, value) for name, value in call.headers if name.lower() != "accept-encoding"]
        pieces = answer(self._app, replace(call, headers=tuple(plain)), self._threads)
        head = await anext(pieces)
        return self._id, head, b"".join([piece async for piece in pieces])

    def status(self) -> dict[str, Any]:
        """What this replica does now and has done, for all of them at once: handle.broadcast("status")."""
        model = self._slot.model
        tally = model.tally()
        return {"replica": self._id, "pid": os.getpid(), **model.status(), "finished": dict(tally.finished),
                "prompt_tokens": tally.prompt_tokens, "cached_tokens": tally.cached_tokens}

    def check_health(self) -> None:
        """Raises RuntimeError if the engine has stopped or is stuck in a step: Ray starts another replica."""
        if problem := engine_problem(self._slot.model):
            raise RuntimeError(problem)

    def __del__(self) -> None:
        if slot := getattr(self, "_slot", None):
            slot.close()


async def _pass_on(request: Request) -> Response:
    return await serve.get_replica_context().servable_object.pass_on(request)


http = Starlette(routes=[Route("/{path:path}", _pass_on, methods=["GET", "POST", "OPTIONS"])])


@serve.deployment(name="front", max_ongoing_requests=MAX_OPEN,
                  ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=PARTING_SECONDS)
@serve.ingress(http)
class Front:
    """Passes requests on and answers back, as they come."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._all, self._replicas = replicas, replicas.options(stream=True)

    async def pass_on(self, request: Request) -> Response:
        """What a replica answers, or why none does."""
        path, body = request.scope["path"], await _body(request)
        call = Call(request.method, path, request.url.query, tuple(request.headers.items()), body)
        handle = self._replicas.options(session_id=conversation_of(request.headers, body))
        try:
            if (call.method, path) == ("GET", METRICS):
                return await self._metrics(call)
            pieces = handle.answer.remote(call)
            status, headers = await anext(pieces)
        except BackPressureError:
            return _refused(path, TooMany("Too many requests wait for an answer.", retry_after=2))
        except (RayError, DeploymentUnavailableError, TimeoutError):
            return _refused(path, ReplicaGone("The engine that was to write this has stopped; another one "
                                              "answers the next request.", retry_after=1))
        response = StreamingResponse(_rest(pieces, path), status)
        response.raw_headers = _raw(headers)
        return response

    async def _metrics(self, call: Call) -> Response:
        """Those of every replica that answers; a refusal, as of a key that is missing, is the same of all."""
        told = await self._all.broadcast("metrics", call).results_async(
            timeout_s=METRICS_SECONDS, return_exceptions=True)
        answers = [one for one in told if not isinstance(one, Exception)]
        if not answers:
            return _refused(METRICS, ReplicaGone("No replica tells its metrics.", retry_after=1))
        _, (status, headers), body = answers[0]
        if status == 200:
            body = of_all({replica: text.decode() for replica, _, text in answers})
        response = Response(body, status)
        response.raw_headers = [*(one for one in _raw(headers) if one[0] != b"content-length"),
                                (b"content-length", b"%d" % len(body))]
        return response


def _raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _body(request: Request) -> bytes:
    """Of one that is too large no more than shows that: the replica refuses it."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            break
    return bytes(body)


async def _rest(pieces: AsyncIterator[bytes], path: str) -> AsyncIterator[bytes]:
    """If the replica dies in the middle, the stream says so in the words of its protocol."""
    try:
        async for piece in pieces:
            yield piece
    except RayError:
        if not protocol_of(path):
            raise
        yield broken_off(path, ReplicaGone("The engine that wrote this has stopped in the middle."))


def _refused(path: str, problem: Problem) -> JSONResponse:
    if protocol_of(path):
        body, status, headers = protocol_error(path, problem)
    else:
        body, status, headers = problem.as_json(), problem.status, {}
    return JSONResponse(body, status, headers)


def app(arguments: Mapping[str, Any]) -> serve.Application:
    """What `serve run` and Ray's configuration files deploy. `arguments`: the options by their names, without
    dashes. Raises ValueError."""
    options = options_of(arguments)
    config = options.config
    cores, gpus = config.threads or physical_cores(), _num_gpus(config)
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.max_replicas is not None:
        scaling = {"num_replicas": None, "autoscaling_config": AutoscalingConfig(
            min_replicas=options.replicas, max_replicas=options.max_replicas,
            target_ongoing_requests=options.queue)}
    keys = options.api_key.read_text(encoding="utf-8-sig").split() if options.api_key else []
    if options.api_key and not keys:
        raise ValueError(f"api-key {options.api_key} holds no key; expected one a line")
    programs = Programs(keys)
    replica = Replica.options(ray_actor_options={"num_cpus": cores, "num_gpus": gpus}, **scaling)
    return Front.bind(replica.bind(str(options.model), config, options.allow_host, programs))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def options_of(arguments: Mapping[str, Any]) -> argparse.Namespace:
    """With `config`, how the engine is to run. Raises ValueError."""
    parser = _Parser(prog="serve run serve.parlor_serve:app", add_help=False)
    parser.add_argument("--model", type=path_option, default=STARTER)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--api-key", type=path_option)
    parser.add_argument("--allow-host", action="append", default=[])
    add_engine_options(parser)
    given = [part for name, value in arguments.items() for part in _option(name.replace("_", "-"), value)]
    options = parser.parse_args(given)
    options.config = engine_config(parser, options)
    if options.replicas < 1 or (options.max_replicas or options.replicas) < options.replicas:
        raise ValueError(f"replicas is {options.replicas} and max-replicas {options.max_replicas}; expected "
                         "at least 1, and no fewer at most")
    return options


def _option(name: str, value: Any) -> list[str]:
    """name=value as on a command line, where an option that takes no value is there or is not."""
    if str(value).lower() in ("true", "false"):
        return [f"--{name}"] if str(value).lower() == "true" else []
    return [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]


def _num_gpus(config: EngineConfig) -> int:
    if config.device != "cuda":
        return 0
    return len(config.gpu_split or (0,))
