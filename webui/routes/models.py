"""Routes of the models that can be chosen. A model is named by its id in the catalogue, never by a path."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from ..chat.models import STOP, WAIT
from ..errors import BadRequest
from ..ids import check_id
from ..storage.schema import MAX_ADAPTER
from .body import Body, read_body
from .parlor import parlor
from .replies import whole_argument

MAX_SOURCE = 400
MAX_CONTEXT = 1 << 24  # tokens

bp = Blueprint("models", __name__, url_prefix="/api/models")


@bp.get("")
def list_models() -> ResponseReturnValue:
    """What is known now; while `looking` there may be more in a moment."""
    here = parlor()
    looking = here.models.begin_look(anew=whole_argument("again", 1) == 1)
    return {"models": here.models.listed(), "adapters": here.models.adapters(),
            "engines": here.engines.known(), "looking": looking, "model": here.models.state()}


@bp.post("/<model_id>/load")
def load(model_id: str) -> ResponseReturnValue:
    """Begin to load it in place of the present one. 202; how far it is stands in /api/changes."""
    with read_body() as body:
        running = _running(body)
        context = body.whole("max_seq_len", 32, MAX_CONTEXT) if body.has("max_seq_len") else None
    parlor().models.load(check_id(model_id, "model"), running, context)
    return _state()


@bp.post("/adapters/<adapter_id>/load")
def load_adapter(adapter_id: str) -> ResponseReturnValue:
    """Load a LoRA adapter beside the present model; answered when it is there."""
    with read_body():
        pass
    parlor().models.load_adapter(check_id(adapter_id, "adapter"))
    return _adapters()


@bp.post("/adapters/unload")
def unload_adapter() -> ResponseReturnValue:
    """Nothing may ask for this adapter from now on."""
    with read_body() as body:
        name = body.text("name", most=MAX_ADAPTER)
    parlor().models.unload_adapter(name)
    return _adapters()


@bp.post("/unload")
def unload() -> ResponseReturnValue:
    """Begin to let the present model go."""
    with read_body() as body:
        running = _running(body)
    parlor().models.unload(running)
    return _state()


@bp.post("/cancel")
def cancel() -> ResponseReturnValue:
    """Stop the loading that is on its way."""
    with read_body():
        pass
    parlor().models.cancel()
    return _state()


@bp.post("/downloads/look")
def look() -> ResponseReturnValue:
    """What a hub has of a model; nothing is downloaded."""
    with read_body() as body:
        source = body.text("source", most=MAX_SOURCE)
    return parlor().models.look(source)


@bp.post("/downloads")
def download() -> ResponseReturnValue:
    """Begin to get a model from a hub. 202; how far it is stands in /api/changes."""
    with read_body() as body:
        source = body.text("source", most=MAX_SOURCE)
    parlor().models.download(source)
    return _state()


@bp.post("/downloads/cancel")
def cancel_download() -> ResponseReturnValue:
    """Stop the download; what is there of it is kept, so that it can go on."""
    with read_body():
        pass
    parlor().models.cancel_download()
    return _state()


def _adapters() -> ResponseReturnValue:
    return {"adapters": parlor().models.adapters(), "model": parlor().models.state()}


def _state() -> ResponseReturnValue:
    return {"model": parlor().models.state()}, 202


def _running(body: Body) -> str:
    running = body.text("running", most=10, default="")
    if running not in ("", STOP, WAIT):
        raise BadRequest(f"running is {running!r}; expected stop or wait.")
    return running
