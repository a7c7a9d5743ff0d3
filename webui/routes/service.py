"""Routes for who runs the server: whether it lives, whether it answers, what it has done.

The first two answer anybody, and say nothing but that.
"""

from __future__ import annotations

from importlib import import_module

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from model import LanguageModel

from .parlor import api

STUCK_SECONDS = 600.0
"""No step takes that long: the longest, half a thousand tokens of a prompt through a model of 70 billion
parameters, takes two minutes on a few old cores."""
_OBSTACLES = {"empty": "No model is loaded.", "checking": "A model is being loaded.",
              "loading": "A model is being loaded.", "waiting": "The model is about to be changed."}

bp = Blueprint("service", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """200 as long as a new start would help nothing: 503 if the engine is gone, or is stuck in a step."""
    problem = engine_problem(api().slot.model)
    return ({"status": "failed", "reason": problem}, 503) if problem else {"status": "ok"}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """200 if a request would be answered now, or as soon as a model that is asleep is there again."""
    here = api()
    reason = "The server is shutting down." if here.ending.is_set() else _obstacle()
    return ({"status": "not ready", "reason": reason}, 503) if reason else {"status": "ready"}


@bp.get("/metrics")
def metrics() -> ResponseReturnValue:
    """What Prometheus reads. Its library is loaded with the first question."""
    exposition = import_module(".metrics", __package__).exposition
    text, content_type = exposition(api().slot)
    return Response(text, content_type=content_type)


def _obstacle() -> str:
    slot = api().slot
    state, model = slot.state, slot.model
    if problem := engine_problem(model):
        return problem
    if state.phase == "checking" and model is not None:
        return ""  # which goes on answering meanwhile
    return _OBSTACLES.get(state.phase, "")


def engine_problem(model: LanguageModel | None) -> str:
    """Why the engine of this process writes nothing any more: it is gone, or stuck in a step; "" if it does,
    or there is none."""
    if model is None or model.info()["host"]:
        return ""
    status = model.status()
    if status["problem"]:
        return "The engine has stopped."
    return "The engine is stuck in a step." if status["seconds_in_step"] > STUCK_SECONDS else ""
