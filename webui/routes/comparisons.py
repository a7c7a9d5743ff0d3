"""The routes of replies side by side: one message, several columns that answer it, and the vote."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from model import PARAMETER_SPECS

from ..chat.comparing import Column
from ..errors import BadRequest
from ..ids import check_id
from ..storage.schema import MAX_COLUMNS, MAX_TEXT, check_engine_choice, is_preset_id
from .body import Body, read_body
from .parlor import parlor
from .sessions import answer_with

bp = Blueprint("comparisons", __name__, url_prefix="/api/sessions")


@bp.post("/<session_id>/comparisons")
def compare(session_id: str) -> ResponseReturnValue:
    """Append the user's message and let each column answer it. 202 with the message and the replies' ids."""
    with read_body() as body:
        revision = body.revision()
        text = body.text("text", most=MAX_TEXT)
        blind = body.flag("blind", False)
        columns = _columns(body.value("columns"))
    if not text.strip():
        raise BadRequest("The message is empty.", hint="Say what the columns are to answer.")
    message, jobs = parlor().chat.compare(session_id, revision, text, columns, blind)
    session = parlor().store.session(session_id)
    return {"message": message, "replies": [job.info for job in jobs],
            "comparison": session["comparisons"][-1]["id"], **answer_with(session)}, 202


@bp.post("/<session_id>/comparisons/<comparison_id>/vote")
def vote(session_id: str, comparison_id: str) -> ResponseReturnValue:
    """The message that won goes on; the others stay as its versions."""
    with read_body() as body:
        revision = body.revision()
        winner = check_id(body.value("winner"), "message")
    comparison_id = check_id(comparison_id, "comparison")
    return answer_with(parlor().chat.vote(session_id, revision, comparison_id, winner))


def _columns(value: object) -> list[Column]:
    if not isinstance(value, list) or len(value) > MAX_COLUMNS or not all(
            isinstance(entry, dict) for entry in value):
        raise BadRequest(f"columns is not a list of at most {MAX_COLUMNS} objects.")
    return [_column(entry) for entry in value]


def _column(entry: dict[str, object]) -> Column:
    fields = Body(entry)
    bot = fields.optional_id("bot")
    if bot is None:
        raise BadRequest("A column has no bot.")
    preset = fields.value("preset") if fields.has("preset") else None
    if preset is not None and not is_preset_id(preset):
        raise BadRequest("The preset of a column is not the id of a preset.")
    seed = None
    if fields.has("seed") and fields.value("seed") is not None:
        seed = fields.whole("seed", 0, PARAMETER_SPECS["seed"]["max"])
    has_engine = fields.has("engine")
    try:
        engine = check_engine_choice("engine", fields.value("engine")) if has_engine else None
    except ValueError as error:
        raise BadRequest(f"{error}.") from None
    fields.check_all_known()
    return Column(bot, preset, seed, has_engine, engine)
