"""A summary of a conversation, written by the model when somebody asks for one; it changes nothing.

Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from model import ChatMessage, ModelSlot, SamplingParams, TextDelta

from ..errors import BadRequest
from ..storage import tree
from ..storage.audience import is_for
from ..storage.schema import Session
from ..storage.store import Store
from ..storage.summaries import stands_for, summary_on
from .bot_view import BEFORE, transcript
from .reading import borrowed, events_of
from .room import Room
from .voices import Voices

MAX_NEW_TOKENS = 500
HOW = ("You shorten conversations. Tell in at most 200 words what somebody has to know who goes on with this "
       "one: who is there, what happened, what was agreed, what is open. Keep the names and the language of "
       "the conversation. Write nothing else.")
NOW = "(Now write the summary of this conversation.)"


def draft(store: Store, slot: ModelSlot, voices: Voices, session: Session, until: str,
          readers: Collection[str] | None, is_gone: Callable[[], bool]) -> tuple[str, int]:
    """What the model makes of all up to the message `until`, an earlier summary in place of what that stands
    for, and how many messages of the beginning it did not see, for they did not fit. It is told what each of
    `readers` may know, and one of them writes it; None: what is for all.

    Raises NotFound, BadRequest, NoModelLoaded, EngineFailed, ReaderGone.
    """
    tree.get(session, until)
    room = Room.of(session, store, slot)
    path = tree.path(session, until)
    before, covered = summary_on(session, path, readers)
    told = [message for index, message in enumerate(path) if is_for(message, readers)
            and not (index < covered and stands_for(before or {}, message))]
    lines = [f"{name}: {text}" for name, text in transcript(session, room.bots, told)]
    if before is not None:
        lines.insert(0, f"{BEFORE} {before['text']}")
    if not lines:
        raise BadRequest("There is nothing to summarize.")
    messages = [ChatMessage("system", HOW), *(ChatMessage("user", line, follows=index > 0)
                                              for index, line in enumerate([*lines, NOW]))]
    speaker = room.bots.get(room.last_speaker or "")
    if readers is not None and (speaker is None or speaker["id"] not in readers):
        speaker = next((room.bots[bot] for bot in readers if bot in room.bots), None)
        if speaker is None:
            raise BadRequest("None of the bots that the summary is for exists any more.")
    params = SamplingParams(max_new_tokens=MAX_NEW_TOKENS, temperature=0.3)
    with borrowed(voices, speaker.get("engine") if speaker else None, is_gone) as model:
        reply = model.start(messages, params)
        text = "".join(event.text for event in events_of(reply, is_gone)
                       if isinstance(event, TextDelta) and event.channel == "text").strip()
    if not text:
        raise BadRequest("The model wrote nothing.", hint="Try again, or write the summary yourself.")
    return text, max(0, reply.first_index - 1)
