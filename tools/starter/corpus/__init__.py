"""The starter's corpus: `document(rng)` writes one piece of training text. Deterministic by its generator.

A document is (text, kind). Kinds: "chat" (one bot), "room" (several, as one of them sees it) and
"transcript" (plain lines with names).
"""

from dataclasses import dataclass
from random import Random

from tools.starter.corpus.dialogue import SESSION_PROMPTS, chat, drill
from tools.starter.corpus.render import render, transcript, with_reply
from tools.starter.corpus.rooms import draw_room

DRILL_SHARE = 0.5  # of the documents; about two thirds of the tokens


@dataclass(frozen=True)
class Document:
    """Text in the model's own format. `kind` is chat, room or transcript."""

    text: str
    kind: str


def document(rng: Random) -> Document:
    """One document: mostly chats, a fifth rooms, some plain transcripts, one in thirty long."""
    if rng.random() < DRILL_SHARE:
        persona, lines = drill(rng)
        return Document(render(with_reply(lines, persona.name, persona.text, [persona.name], "User")), "chat")
    roll = rng.random()
    long = rng.random() < 0.025
    if roll < 0.76:
        persona, system, lines, user = chat(rng, rng.randint(14, 40) if long else 0)
        name = persona.name or "Assistant"
        return Document(render(with_reply(lines, name, system, [name], user)), "chat")
    room = draw_room(rng, rng.randint(10, 24) if long else 0)
    if roll < 0.95:
        speakers = {line.by for line in room.lines} - {room.user}
        speaker = rng.choice([bot for bot in room.bots if bot.name in speakers])
        system = speaker.text + ("\n" + rng.choice(SESSION_PROMPTS) if rng.random() < 0.1 else "")
        return Document(render(with_reply(room.lines, speaker.name, system, room.names, room.user)), "room")
    return Document(transcript(room.lines), "transcript")


def documents(seed: int, count: int) -> list[Document]:
    """`count` documents of a seed: always the same ones."""
    rng = Random(seed)
    return [document(rng) for _ in range(count)]
