"""The routes of the token lens and of the X-ray: a reply's tokens, and what may come at one place.

Each may have the model read something, until the connection is closed.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from model import NextToken

from ..chat.lens import can_be_chosen
from ..chat.reply_tokens import piece
from ..ids import check_id
from ..storage.schema import Document
from ..storage.token_files import Alternative, ReplyToken
from .parlor import parlor

bp = Blueprint("tokens", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/messages/<message_id>/tokens")
def read_tokens(session_id: str, message_id: str) -> ResponseReturnValue:
    """Those that are kept with the reply; where there are none the model reads it again."""
    session, message = check_id(session_id, "session"), check_id(message_id, "message")
    with parlor().streams.waiting(request.environ) as is_gone:
        tokens = parlor().looking.tokens(session, message, is_gone)
    return {"tokens": as_json(tokens)}


@bp.get("/<session_id>/next-token")
def read_next_token(session_id: str) -> ResponseReturnValue:
    """What is to be known of the token that `bot` would write now, to try samplers on."""
    session, bot = check_id(session_id, "session"), check_id(request.args.get("bot"), "bot")
    with parlor().streams.waiting(request.environ) as is_gone:
        found = parlor().looking.next_token(session, bot, is_gone)
    return next_as_json(found)


@bp.get("/<session_id>/messages/<message_id>/tokens/<int:index>")
def read_token_within(session_id: str, message_id: str, index: int) -> ResponseReturnValue:
    """The same of a reply's token number `index`, with what that is."""
    session, message = check_id(session_id, "session"), check_id(message_id, "message")
    with parlor().streams.waiting(request.environ) as is_gone:
        found, token = parlor().looking.token_within(session, message, index, is_gone)
    return {**next_as_json(found), "chosen": piece(token.data)}


def as_json(tokens: Sequence[ReplyToken]) -> list[Document]:
    """`text`: the characters that a token completes; `bytes`: its own in hex, if they are no characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [{**piece(token.data), "text": decoder.decode(token.data), "logprob": round(token.logprob, 4),
             "entropy": None if token.entropy is None else round(token.entropy, 4),
             "others": [_other(other, index) for other in token.others]}
            for index, token in enumerate(tokens)]


def next_as_json(found: NextToken) -> Document:
    """What a candidate has not is left out: neither occurred nor repeats, not of the format, no end."""
    tokens: list[Document] = []
    for one, data in zip(found.logits.candidates, found.texts, strict=True):
        token: Document = {**piece(data), "id": one.token_id, "logit": one.logit}
        if one.back is not None:
            token |= {"back": one.back, "count": one.count}
        if one.repeats:
            token["repeats"] = one.repeats
        if one.token_id in found.control:
            token["control"] = True
        if one.token_id in found.ends:
            token["ends"] = True
        tokens.append(token)
    return {"tokens": tokens, "rest": [[round(logit, 4), count] for logit, count in found.logits.rest],
            "num_tokens": found.num_tokens, "reply_length": found.reply_length}


def _other(other: Alternative, index: int) -> Document:
    return {**piece(other.data), "id": other.data.hex(), "logprob": round(other.logprob, 4),
            "choosable": can_be_chosen(other, index)}
