"""Routes of other engines. What they are shown in confidence comes in here, and never goes out again."""

from __future__ import annotations

from typing import Any

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


@bp.patch("/<engine_id>")
def change_engine(engine_id: str) -> ResponseReturnValue:
    """What is not given stays; of `headers` those of which the value is null."""
    sizes = {"url": MAX_URL, "name": MAX_NAME, "key": MAX_SECRET}
    with read_body() as body:
        changes: dict[str, Any] = {
            name: body.text(name, most=most) for name, most in sizes.items() if body.has(name)}
        if body.has("headers"):
            changes["headers"] = _headers(body, str | None)
    return {"engine": parlor().engines.change(check_id(engine_id, "engine"), changes)}


@bp.delete("/<engine_id>")
def remove_engine(engine_id: str) -> ResponseReturnValue:
    """Forget it and its key; what it writes just now ends."""
    with read_body():
        pass
    parlor().engines.remove(check_id(engine_id, "engine"))
    return {"removed": engine_id}


def _headers(body: Body, kind: Any = str) -> dict[str, Any]:
    headers = body.value("headers") if body.has("headers") else {}
    if not isinstance(headers, dict) or not all(isinstance(value, kind) for value in headers.values()):
        raise BadRequest("headers is not an object of texts.")
    return headers
