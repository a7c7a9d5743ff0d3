"""Routes of other engines. What they are shown in confidence comes in here, and never goes out again."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from ..errors import BadRequest
from ..ids import check_id
from ..storage.schema import MAX_NAME, MAX_SECRET, MAX_URL
from .body import Body, read_body
from .parlor import parlor

bp = Blueprint("engines", __name__, url_prefix="/api/engines")


@bp.post("")
def add_engine() -> ResponseReturnValue:
    """Name an engine, or give one another key, name or headers. Nothing is sent to it yet."""
    with read_body() as body:
        url = body.text("url", most=MAX_URL)
        name = body.text("name", most=MAX_NAME, default="")
        key = body.text("key", most=MAX_SECRET, default="")
        headers = _headers(body)
    return {"engine": parlor().engines.add(url, name, key, headers)}, 201


@bp.delete("/<engine_id>")
def remove_engine(engine_id: str) -> ResponseReturnValue:
    """Forget it and its key; what it writes just now ends."""
    with read_body():
        pass
    parlor().engines.remove(check_id(engine_id, "engine"))
    return {"removed": engine_id}


def _headers(body: Body) -> dict[str, str]:
    headers = body.value("headers") if body.has("headers") else {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise BadRequest("headers is not an object of texts.")
    return headers
