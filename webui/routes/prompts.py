"""The route of the prompt inspector: what a bot would be sent."""

from __future__ import annotations

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ..ids import check_id
from .parlor import parlor

bp = Blueprint("prompts", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/prompt")
def read_prompt(session_id: str) -> ResponseReturnValue:
    """That of the next reply, of `bot` or of whoever spoke last; or of the reply `message`, written again."""
    here = parlor()
    bot, message = (_id_or_none(name) for name in ("bot", "message"))
    session = here.chat.session(check_id(session_id, "session"))
    return here.inspector.prompt(session, bot, message)


def _id_or_none(name: str) -> str | None:
    value = request.args.get(name)
    return None if value is None else check_id(value, name)
