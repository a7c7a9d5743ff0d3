"""The route of the token lens: the tokens of a reply, each with what else could have come."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ..chat.lens import can_be_chosen
from ..ids import check_id
from ..server.streams import cut_connection, gone_test
from ..storage.schema import Document
from ..storage.token_files import Alternative, ReplyToken
from .parlor import parlor

bp = Blueprint("tokens", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/messages/<message_id>/tokens")
def read_tokens(session_id: str, message_id: str) -> ResponseReturnValue:
    """Those that are kept with the reply; where there are none the model reads it again, unless the
    connection is closed. That holds a thread of the server, as streams do, and counts as one."""
    environ, streams = request.environ, parlor().streams
    is_gone = gone_test(environ)
    stream = streams.open(lambda: cut_connection(environ))
    try:
        tokens = parlor().chat.tokens(check_id(session_id, "session"), check_id(message_id, "message"),
                                      lambda: is_gone() or streams.closing.is_set())
    finally:
        streams.release(stream)
    return {"tokens": as_json(tokens)}


def as_json(tokens: Sequence[ReplyToken]) -> list[Document]:
    """`text`: the characters that a token completes; `bytes`: its own in hex, if they are no characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [{**_piece(token.data), "text": decoder.decode(token.data), "logprob": round(token.logprob, 4),
             "entropy": None if token.entropy is None else round(token.entropy, 4),
             "others": [_other(other, index) for other in token.others]}
            for index, token in enumerate(tokens)]


def _other(other: Alternative, index: int) -> Document:
    return {**_piece(other.data), "id": other.data.hex(), "logprob": round(other.logprob, 4),
            "choosable": can_be_chosen(other, index)}


def _piece(data: bytes) -> Document:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"text": "", "bytes": data.hex(" ").upper()}
