"""A session as one bot sees it: the messages that go to the model before it speaks.

Alone with the user, turns are plain text. In a room (two bots or more) the speaker's own turns are
`assistant` and plain, everyone else's are `user` as "Name: text"; neighbours follow each other, so that the
model joins by a line break as many of them as its context has room for. The system message names the people
in the room. The starter model was trained on exactly this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model import ChatMessage

from ..storage.schema import DEFAULT_USER_NAME, USER, Bot, Message, Session

GO_ON = "(go on)"
MAX_STRANGERS = 16  # of those who have left the room; an import may hold thousands


@dataclass(frozen=True)
class BotView:
    """message_ids[i] is the id of the session's message that messages[i] shows; None for ones we made up."""

    messages: list[ChatMessage]
    message_ids: list[str | None]
    speaker: str
    stop: tuple[str, ...]


def user_name(session: Session) -> str:
    return session["user_name"] or DEFAULT_USER_NAME


def fill_in(text: str, char: str, user: str) -> str:
    """Replace {{char}} and {{user}}."""
    return text.replace("{{char}}", char).replace("{{user}}", user)


def bot_view(session: Session, bots: Mapping[str, Bot], speaker: Bot, path: list[Message]) -> BotView:
    """What `speaker` sees after `path`; `bots` are those that exist, by id."""
    path = [message for message in path if message["text"].strip()]
    people = _people(session, bots, speaker, path)
    in_room = len(people) > 2
    turns = _room_turns(session, bots, speaker, path) if in_room else _plain_turns(session, speaker, path)
    system = _system_text(session, speaker, people if in_room else [])
    if system:
        turns.insert(0, (ChatMessage("system", system), None))
    if path and path[-1]["author"] == speaker["id"]:
        turns.append((ChatMessage("user", GO_ON), None))
    stop = tuple(f"\n{name}:" for name in people if name != speaker["name"]) if in_room else ()
    messages, ids = [turn for turn, _ in turns], [message_id for _, message_id in turns]
    return BotView(messages, ids, speaker["name"], stop)


def transcript(session: Session, bots: Mapping[str, Bot], path: list[Message]) -> list[tuple[str, str]]:
    """The path as (name, text), for asking the model who speaks next."""
    return [(_name_of(session, bots, message), message["text"])
            for message in path if message["text"].strip()]


def _people(session: Session, bots: Mapping[str, Bot], speaker: Bot, path: list[Message]) -> list[str]:
    """The user, the session's bots in their order, and who else has spoken lately; muted ones included."""
    names = [user_name(session)]
    names += [bots[entry["id"]]["name"] for entry in session["bots"] if entry["id"] in bots]
    names.append(speaker["name"])
    others = (_name_of(session, bots, message) for message in reversed(path) if message["author"] != USER)
    strangers = [name for name in dict.fromkeys(others) if name not in names]
    return list(dict.fromkeys(names + strangers[:MAX_STRANGERS][::-1]))


def _name_of(session: Session, bots: Mapping[str, Bot], message: Message) -> str:
    if message["author"] == USER:
        return user_name(session)
    bot = bots.get(message["author"])
    return bot["name"] if bot else message["name"]


def _system_text(session: Session, speaker: Bot, people: list[str]) -> str:
    parts = [speaker["persona"].strip(), session["system_prompt"].strip()]
    if people:
        parts.append(f"People in the room: {', '.join(people)}. You are {speaker['name']}. "
                     f"Write only what {speaker['name']} says.")
    return fill_in("\n".join(part for part in parts if part), speaker["name"], user_name(session))


def _plain_turns(session: Session, speaker: Bot, path: list[Message]) -> list[tuple[ChatMessage, str | None]]:
    def turn(message: Message) -> ChatMessage:
        if message["author"] == USER:
            return ChatMessage("user", message["text"], user_name(session))
        return ChatMessage("assistant", message["text"], speaker["name"], message["thinking"])

    return [(turn(message), message["id"]) for message in path]


def _room_turns(session: Session, bots: Mapping[str, Bot], speaker: Bot,
                path: list[Message]) -> list[tuple[ChatMessage, str | None]]:
    turns: list[tuple[ChatMessage, str | None]] = []
    for message in path:
        if message["author"] == speaker["id"]:
            own = ChatMessage("assistant", message["text"], speaker["name"], message["thinking"])
            turns.append((own, message["id"]))
            continue
        line = f"{_name_of(session, bots, message)}: {message['text']}"
        follows = bool(turns) and turns[-1][0].role == "user"
        turns.append((ChatMessage("user", line, follows=follows), message["id"]))
    return turns
