"""A session as one bot sees it: the messages that go to the model before it speaks.

Alone with the user, turns are plain text. In a room (two bots or more) the speaker's own turns are
`assistant` and plain, everyone else's are `user` as "Name: text"; neighbours follow each other, so that the
model joins by a line break as many of them as its context has room for. The system message names the people
in the room. The starter model was trained on exactly this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import dropwhile
from typing import NamedTuple

from model import ChatMessage, SamplingParams

from ..storage.audience import before_arrival, entry_of, knowing
from ..storage.schema import DEFAULT_USER_NAME, MAX_NAME, MAX_PROMPT, USER, Bot, Document, Message, Session
from ..storage.summaries import stands_for, told_to
from .lore import MAX_REACH, REACH, Brought, brought_in, brought_in_by_bot
from .macros import Macros, without_angles

GO_ON = "(go on)"
EXAMPLES = "Examples of how {{char}} talks:"
_START = re.compile(r"<start>", re.IGNORECASE)
BEFORE = "What was said before, in short:"
OWN_NOTES = "Your own notes, which nobody else sees:"
_OWN = ("persona", "examples", "system")
MAX_STRANGERS = 16  # of those who have left the room; an import may hold thousands


class Shown(NamedTuple):
    """A message of a view, and what it comes from.

    kind  persona, examples (of how it talks), you (who the user is), system (the session's prompt), room
          (who is there), notes (the bot's own), book and lore (entries of the bot's and of the session's lore
          book that were brought in) and summary (of messages that are not in): together the system message;
          turn: something that was said; note: the author's; book, too, where an entry names its depth;
          go_on: what a bot is asked that speaks twice; after: what the bot's card has for the prompt's end
    id    of the session's message that it shows, or up to which a summary goes; None for what was made up
    name  who said it; the keys of an entry
    """

    message: ChatMessage
    kind: str
    id: str | None = None
    name: str = ""


@dataclass(frozen=True)
class BotView:
    """`begins`: where in `shown` what was said begins without gaps; `first`: the id of the first message,
    seen or not; `covered`: for how many messages that the bot knows a summary stands; `before`: how many
    were said before it came in; `others`: how many since then that are not for it."""

    shown: list[Shown]
    speaker: str
    stop: tuple[str, ...]
    begins: int = 0
    first: str | None = None
    covered: int = 0
    before: int = 0
    others: int = 0
    macros: Macros = field(default_factory=lambda: Macros("", DEFAULT_USER_NAME))

    @property
    def messages(self) -> list[ChatMessage]:
        return [one.message for one in self.shown]

    def against(self, negative_prompt: str) -> list[ChatMessage]:
        """The system messages that guidance leads away from: these with the negative prompt in the place of
        the bot's persona, of how it talks, and of the session's prompt."""
        text = self.macros.fill(negative_prompt.strip())
        others = [one.message for one in self.shown if one.message.role == "system" and one.kind not in _OWN]
        parts = [ChatMessage("system", text), *others] if text else others
        return [replace(part, follows=index > 0) for index, part in enumerate(parts)]

    def guide(self, params: SamplingParams, first_index: int) -> list[Shown] | None:
        """What is read once more for guidance to lead away from, as `start` makes it: against(), and what was
        said as far as the model sees it from `first_index` on; None without guidance."""
        if params.guidance_scale == 1:
            return None
        turns = dropwhile(lambda one: one[1].message.role == "system", enumerate(self.shown))
        return [*(Shown(message, "system") for message in self.against(params.negative_prompt)),
                *(one for index, one in turns if index >= first_index or one.message.pinned)]

    @property
    def message_ids(self) -> list[str | None]:
        return [one.id if one.kind == "turn" else None for one in self.shown]

    def memory(self, first_index: int) -> tuple[str | None, int]:
        """The id of the message with which the model's memory begins if it sees `first_index` and what
        follows (see ContextFit), and how many of those that are known to the bot are not seen."""
        ids = self.message_ids
        first = next((message_id for message_id in ids[max(first_index, self.begins):] if message_id), None)
        cut = sum(one.kind == "turn" and not one.message.pinned for one in self.shown[:first_index])
        left_out = self.covered + cut
        return (first if left_out else self.first), left_out


def user_name(session: Session) -> str:
    return session["user_name"] or DEFAULT_USER_NAME


def about_user(session: Session) -> str:
    """Who the user is, as bots are told; "" where nobody said."""
    persona = session.get("user_persona", "").strip()
    return f"About {user_name(session)}: {persona}" if persona else ""


def called(bot: Bot) -> str:
    """What {{char}} stands for: the nickname of its card, or its name."""
    return " ".join(of_card(bot, "nickname").split())[:MAX_NAME] or bot["name"]


def of_card(bot: Bot, name: str) -> str:
    """A text of its card; "" where there is none of a length that a bot's own may have."""
    text = bot.get("card", {}).get(name)
    return without_angles(text) if isinstance(text, str) and len(text) <= MAX_PROMPT else ""


def macros_of(session: Session, char: str, path: list[Message]) -> Macros:
    """For what stands before the conversation: chance and hour are those of its beginning."""
    first = path[0] if path else None
    return Macros(char, user_name(session), first["id"] if first else session["id"],
                  moment=first["created"] if first else session["created"])


def is_pinned(message: Message) -> bool:
    """Whether it stays in every bot's view when those round it are left out."""
    return message.get("pinned", False)


def bot_view(session: Session, bots: Mapping[str, Bot], speaker: Bot, path: list[Message]) -> BotView:
    """What `speaker` sees after `path`; `bots` are those that exist, by id."""
    macros = macros_of(session, called(speaker), path)
    summary, num_covered = told_to(session, path, speaker["id"])
    knows, late = knowing(session, [speaker["id"]]), before_arrival(session, speaker["id"])
    said = [message for message in path if message["text"].strip()]
    num_before = sum(message["id"] in late for message in said)
    covered, rest = ([message for message in part if message["text"].strip() and knows(message)]
                     for part in (path[:num_covered], path[num_covered:]))
    kept = [message for message in covered if is_pinned(message) or not stands_for(summary or {}, message)]
    path, seen = covered + rest, kept + rest
    people = _people(session, bots, speaker, path)
    in_room = len(people) > 2
    turns = _room_turns(session, bots, speaker, seen) if in_room else _plain_turns(session, speaker, seen)
    book = brought_in_by_bot(speaker.get("lore_book"), [message["text"] for message in path[-MAX_REACH:]],
                             sum(message["author"] != USER for message in path), macros)
    passing = macros.at(path[-1]["id"], path[-1]["created"]) if path else macros
    _insert_notes(session, passing, book, turns)
    if (seen and seen[-1]["author"] == speaker["id"]) or (said and not seen):
        turns.append(Shown(ChatMessage("user", GO_ON), "go_on"))
    if after := passing.fill(of_card(speaker, "post_history_instructions")).strip():
        _insert(turns, len(turns), "after", after)
    stop = tuple(f"\n{name}:" for name in people if name != speaker["name"]) if in_room else ()
    shown = [*_system(session, speaker, people if in_room else [], path, summary, macros, book), *turns]
    first = rest[0]["id"] if rest else None
    begins = next((index for index, one in enumerate(shown) if one.kind == "turn" and one.id == first), 0)
    return BotView(shown, speaker["name"], stop, begins, said[0]["id"] if said else None,
                   len(covered) - len(kept), num_before, len(said) - num_before - len(path), macros)


def _insert_notes(session: Session, macros: Macros, book: list[Brought], turns: list[Shown]) -> None:
    """The author's note, and entries of the bot's lore book that name one, at their depth."""
    end = len(turns)
    note = session.get("note") or {"text": "", "depth": 1}
    notes = [(note["depth"], "note", note["text"], "")]
    notes += [(one.depth, "book", one.text, ", ".join(one.keys)) for one in book if one.depth is not None]
    for depth, kind, text, name in sorted(notes, key=lambda each: each[0]):
        if text := macros.fill(text).strip():
            _insert(turns, max(0, end - depth), kind, text, name)


def _insert(turns: list[Shown], at: int, kind: str, text: str, name: str = "") -> None:
    """As the user's, since every template takes that there, and in brackets, since nobody said it."""
    follows = at > 0 and turns[at - 1].message.role == "user"
    shown = Shown(ChatMessage("user", f"[{text}]", follows=follows, pinned=True), kind, name=name)
    if at < len(turns) and turns[at].message.role == "user":
        turns[at] = turns[at]._replace(message=replace(turns[at].message, follows=True))
    turns.insert(at, shown)


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


def _system(session: Session, speaker: Bot, people: list[str], path: list[Message],
            summary: Document | None, macros: Macros, book: list[Brought]) -> list[Shown]:
    """The parts of the system message."""
    def shown(kind: str, text: str, **more: str) -> Shown:
        filled = text if kind == "summary" else macros.fill(text).strip()
        return Shown(ChatMessage("system", filled), kind, **more)

    before, behind = ([shown("book", one.text, name=", ".join(one.keys)) for one in book
                       if one.depth is None and one.is_before is is_before] for is_before in (True, False))
    parts = [*before, shown("persona", speaker["persona"].strip()), shown("examples", _examples(speaker)),
             shown("you", about_user(session)), shown("system", session["system_prompt"].strip())]
    if people:
        parts.append(shown("room", f"People in the room: {', '.join(people)}. You are {speaker['name']}. "
                                   f"Write only what {speaker['name']} says."))
    notes = entry_of(session, speaker["id"]).get("notes", "").strip()
    parts.append(shown("notes", f"{OWN_NOTES} {notes}" if notes else ""))
    lore = brought_in(session.get("lore", []), [message["text"] for message in path[-REACH:]])
    parts += behind
    parts += [shown("lore", entry["text"].strip(), name=", ".join(entry["keys"])) for entry in lore]
    if summary is not None:
        parts.append(shown("summary", f"{BEFORE} {summary['text'].strip()}", id=summary["until"]))
    there = [part for part in parts if part.message.content]
    return [part._replace(message=replace(part.message, follows=index > 0))
            for index, part in enumerate(there)]


def _examples(speaker: Bot) -> str:
    """How a bot talks, as character cards show it; dialogues are apart by the mark <START>."""
    dialogues = [text.strip() for text in _START.split(speaker.get("example_dialogue", "")) if text.strip()]
    return "\n".join([EXAMPLES, "\n***\n".join(dialogues)]) if dialogues else ""


def _plain_turns(session: Session, speaker: Bot, path: list[Message]) -> list[Shown]:
    def turn(message: Message) -> Shown:
        if message["author"] == USER:
            said = ChatMessage("user", message["text"], user_name(session), pinned=is_pinned(message))
        else:
            said = _own(message, speaker)
        return Shown(said, "turn", message["id"], said.name)

    return [turn(message) for message in path]


def _room_turns(session: Session, bots: Mapping[str, Bot], speaker: Bot, path: list[Message]) -> list[Shown]:
    turns: list[Shown] = []
    for message in path:
        name = speaker["name"]
        if message["author"] == speaker["id"]:
            said = _own(message, speaker)
        else:
            name = _name_of(session, bots, message)
            follows = bool(turns) and turns[-1].message.role == "user"
            said = ChatMessage("user", f"{name}: {message['text']}", follows=follows,
                               pinned=is_pinned(message))
        turns.append(Shown(said, "turn", message["id"], name))
    return turns


def _own(message: Message, speaker: Bot) -> ChatMessage:
    return ChatMessage("assistant", message["text"], speaker["name"], message["thinking"],
                       pinned=is_pinned(message))
