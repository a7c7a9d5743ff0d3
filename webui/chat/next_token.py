"""The X-ray of the next token: what the model finds likely at one place of a conversation, before sampling.

The model reads the prompt, as a request beside the others, most of it from its cache. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from model import NextToken

from ..errors import BadRequest, EngineFailed
from ..storage.token_files import ReplyToken
from .reading import borrowed, events_of
from .reply_tokens import as_written
from .voices import Voices

if TYPE_CHECKING:
    from .reply_job import ReplyPlan


def next_token(voices: Voices, plan: ReplyPlan, written: Sequence[ReplyToken],
               is_gone: Callable[[], bool]) -> NextToken:
    """What comes after the tokens that are `written` of the reply of `plan`. It waits in turn with other
    requests, and ends once `is_gone` says that nobody waits for it.

    Raises BadRequest with what the model says of it, NoModelLoaded, EngineFailed, ReaderGone.
    """
    prefix, tokens = as_written(written)
    if plan.message["thinking"] and not prefix:
        raise BadRequest("What came first after a thought cannot be looked into.",
                         hint="Choose a later token.")
    with borrowed(voices, plan.engine, is_gone) as model:
        params = plan.params(model.info()["advice"])
        reading = model.next_token(plan.view.messages, params,
                                   reply_name=plan.view.speaker, reply_prefix=prefix, reply_tokens=tokens,
                                   reply_thinking=plan.message["thinking"], adapter=plan.adapter or None,
                                   against=plan.view.against(params.negative_prompt))
        for event in events_of(reading, is_gone):
            if isinstance(event, NextToken):
                return event
    raise EngineFailed("The model ended without saying why.")
