"""The user's next message, written by the model when somebody asks for one; it is neither sent nor kept.

The model sees the conversation from the user's side: what the user said is its own. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from model import CONTINUE, ChatMessage, ModelSlot, TextDelta

from ..errors import BadRequest
from ..sampling import ADVISED, effective
from ..storage.audience import is_for
from ..storage.schema import USER, Message, Session
from ..storage.store import Store
from .bot_view import GO_ON, about_user, macros_of, transcript, user_name
from .own_name import OwnNameFilter
from .reading import borrowed, events_of
from .room import Room
from .voices import Voices

MAX_NEW_TOKENS = 400
BEGIN = "(Nobody has said anything yet.)"


def draft(store: Store, slot: ModelSlot, voices: Voices, session: Session, begun: str,
          audience: Collection[str] | None, is_gone: Callable[[], bool]) -> Iterator[str]:
    """What the user may say next, piece by piece as it is written, behind the words `begun`; "" while nothing
    has come yet. It is for the bots of `audience` (None: for all), so that what not all of them are told is
    not looked at. By the model of the bot of them that spoke last, with the sampling of the session. Whoever
    ends the iteration ends the reply.

    Raises BadRequest, NoModelLoaded, EngineFailed, ReaderGone.
    """
    room = Room.of(session, store, slot)
    there = [room.last_speaker or "", *(one.id for one in room.speakers), *(audience or ())]
    last = next((room.bots[bot] for bot in there
                 if bot in room.bots and (audience is None or bot in audience)), None)
    if audience is not None and last is None:
        raise BadRequest("None of the bots whom the message is for exists any more.")
    engine = last.get("engine") if last else None
    if begun and (why := voices.cannot(engine, CONTINUE)):
        raise BadRequest(why, hint="Empty the box first.")
    name = user_name(session)
    names = dict.fromkeys(one for one, _ in transcript(session, room.bots, room.path) if one != name)
    preset = None if session["preset"] == ADVISED else store.preset_sampling(session["preset"])
    shown = OwnNameFilter(name, continues=bool(begun))
    with borrowed(voices, engine, is_gone) as model:
        info = model.info()
        params = effective(info.get("advice", {}) if preset is None else preset, session["sampling"], {},
                           tuple(f"\n{one}:" for one in names))
        params = replace(params, max_new_tokens=min(params.max_new_tokens, MAX_NEW_TOKENS), thinking_budget=0,
                         reasoning_effort="none" if "none" in info.get("efforts", ()) else "",
                         guidance_scale=1.0)  # which leads away from how the bots are not to be
        reply = model.start(_messages(session, room, audience), params, reply_name=name, reply_prefix=begun,
                            shorten=True)
        try:
            for event in events_of(reply, is_gone):
                is_text = isinstance(event, TextDelta) and event.channel == "text"
                yield shown.feed(event.text) if is_text else ""
        finally:
            reply.cancel()
    yield shown.finish()


def _messages(session: Session, room: Room, audience: Collection[str] | None) -> list[ChatMessage]:
    name = user_name(session)
    system = [about_user(session), macros_of(session, name, room.path).fill(session["system_prompt"].strip()),
              f"You are {name}. Write the next message of {name} in this conversation, in its language, as "
              f"{name} would write it. Write only what {name} says."]
    messages = [ChatMessage("system", "\n".join(filter(None, system)))]
    for message in [one for one in room.path if one["text"].strip() and is_for(one, audience)]:
        messages.append(_turn(message, name, room, messages[-1].role == "user"))
    if messages[-1].role != "user":
        messages.append(ChatMessage("user", BEGIN if len(messages) == 1 else GO_ON))
    return messages


def _turn(message: Message, name: str, room: Room, follows: bool) -> ChatMessage:
    if message["author"] == USER:
        return ChatMessage("assistant", message["text"], name)
    ((speaker, text),) = transcript(room.session, room.bots, [message])
    return ChatMessage("user", f"{speaker}: {text}", speaker, follows=follows)
