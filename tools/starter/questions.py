"""The held-out check: 200 questions in phrasings that training never saw, and what a right answer is.

Deterministic. Knows nothing of the engine: it makes messages and judges text.
"""

import re
from dataclasses import dataclass
from random import Random

from tools.starter.corpus import knowledge, numbers, parlor_help, talk
from tools.starter.corpus.dialogue import any_skill, exchanges
from tools.starter.corpus.memory import draw_memory
from tools.starter.corpus.persona_talk import persona_exchange, topics_of
from tools.starter.corpus.personas import SHIPPED, Persona, random_persona
from tools.starter.corpus.render import Line, view
from tools.starter.corpus.rooms import draw_room
from tools.starter.corpus.skill import Exchange, Skill
from tools.starter.corpus.words import NUMBER_WORDS

QUESTION_SEED = 30_000_001  # no training run uses it
NUMBER = re.compile(r"\d+|\b(?:" + "|".join(NUMBER_WORDS) + r")\b", re.IGNORECASE)
YES_NO = ("kind", "persona_are_you")
LAST_NUMBER = ("add", "add_story", "subtract", "subtract_story", "multiply", "next_number", "previous_number")
SEQUENCES = ("count_to", "count_up", "count_down")


@dataclass(frozen=True)
class Question:
    """A prompt as (role, content) messages, whose turn it is, and what the answer is judged by."""

    category: str
    exchange: Exchange
    messages: list[tuple[str, str]]
    persona: Persona
    people: tuple[str, ...] = ()  # everyone in a room; a reply may speak for none but the persona

    def right(self, reply: str) -> bool:
        return stays_in_turn(reply, self.people) and answers(self.exchange, self.persona, reply)


def stays_in_turn(reply: str, people: tuple[str, ...]) -> bool:
    """No line of the reply is written as "Name: ..." for anybody in the room, and no role token appears."""
    starts = tuple(f"{name}:" for name in people)
    return (
        not any(line.strip().startswith(starts) for line in reply.split("\n") if starts) and "<|" not in reply
    )


def answers(exchange: Exchange, persona: Persona, reply: str) -> bool:
    """Whether the reply gives the right answer. Judged by the words it must hold; numbers by their place."""
    for saying in persona.sayings:  # "One more letter." is no answer to a sum
        reply = reply.replace(saying, " ")
    wanted = [word.lower() for word in exchange.accept]
    found = [match[0].lower() for match in NUMBER.finditer(reply)]
    if exchange.skill in YES_NO:
        return reply.lower().startswith(tuple(wanted))
    if exchange.skill in LAST_NUMBER:
        return bool(found) and found[-1] in wanted
    if exchange.skill == "bigger":
        return bool(found) and found[0] in wanted
    if exchange.skill in SEQUENCES:
        return found == NUMBER.findall(wanted[0])
    if exchange.skill.startswith(("story", "joke", "rhyme")) and len(reply.split()) < 6:
        return False
    if exchange.skill == "listing":
        return sum(word in reply.lower() for word in wanted) >= 2
    return any(holds(reply.lower(), word) for word in wanted)


def holds(reply: str, word: str) -> bool:
    """The word stands in the reply as a word of its own."""
    if word and word[0].isascii() and word[0].isalnum():
        return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![0-9])", reply) is not None
    return word in reply


def history(rng: Random, persona: Persona, count: int) -> list[Line]:
    """Some turns before the question, with right answers."""
    return (
        [
            line
            for exchange in exchanges(rng, persona, count)
            for line in (Line("User", exchange.question), Line(persona.name, exchange.answer))
        ]
        if count
        else []
    )


def ask_alone(
    rng: Random, category: str, persona: Persona, before: list[Line], exchange: Exchange
) -> Question:
    lines = [*before, Line("User", exchange.question)]
    return Question(
        category, exchange, view(lines, persona.name, persona.text, [persona.name], "User"), persona
    )


def skill_questions(rng: Random, category: str, skills: list[Skill], count: int) -> list[Question]:
    """Every skill in turn, until there are `count`."""
    usable = [skill for skill in skills if skill.held_out]
    questions = []
    for index in range(count):
        persona = rng.choice(SHIPPED) if rng.random() < 0.4 else random_persona(rng)
        exchange = usable[index % len(usable)].exchange(rng, held_out=True)
        questions.append(
            ask_alone(rng, category, persona, history(rng, persona, rng.choice((0, 0, 1, 2))), exchange)
        )
    return questions


def persona_questions(rng: Random, count: int) -> list[Question]:
    """Who it is, what it does, where it lives: answered from the system prompt."""
    questions = []
    for index in range(count):
        persona = SHIPPED[index] if index < len(SHIPPED) else random_persona(rng)
        topic = "name" if index % 2 == 0 else rng.choice(topics_of(persona))
        questions.append(
            ask_alone(
                rng,
                "persona",
                persona,
                history(rng, persona, rng.choice((0, 0, 1, 2))),
                persona_exchange(rng, persona, topic, held_out=True),
            )
        )
    return questions


def memory_questions(rng: Random, count: int) -> list[Question]:
    """Something told, four turns of other talk, then asked for. Every second one is the person's name."""
    questions = []
    while len(questions) < count:
        persona = random_persona(rng)
        memory = draw_memory(
            rng, "name" if len(questions) % 2 == 0 else rng.choice(("pet", "colour", "food", "town", "job"))
        )
        between = [any_skill(rng).exchange(rng) for _ in range(4)]
        talked = [memory.told, *between]
        lines = [
            line
            for exchange in talked
            for line in (Line("User", exchange.question), Line(persona.name, exchange.answer))
        ]
        recall = memory.recall(rng, held_out=True)
        if any(holds(line.text.lower(), recall.accept[0].lower()) for line in lines[2:]):
            continue  # the value came up again in between: that would be no memory of four turns
        questions.append(ask_alone(rng, "memory", persona, lines, recall))
    return questions


def room_questions(rng: Random, count: int) -> list[Question]:
    """Three bots and a person; one bot is addressed by name and asked about itself or what it knows."""
    questions = []
    while len(questions) < count:
        room = draw_room(rng, 2)
        if len(room.bots) != 3 or len(room.lines) < 3:
            continue
        bot = rng.choice(room.bots)
        if room.lines[-1].by == bot.name:
            continue
        if len(questions) % 2 == 0:
            exchange = persona_exchange(rng, bot, "name", held_out=True)
        else:
            exchange = rng.choice(
                [skill for skill in (*knowledge.SKILLS, *numbers.SKILLS) if skill.held_out]
            ).exchange(rng, held_out=True)
        question = (
            exchange.question
            if exchange.question.startswith(("I ", "I'"))
            else exchange.question[:1].lower() + exchange.question[1:]
        )
        lines = [*room.lines, Line(room.user, f"{bot.name}, {question}")]
        messages = view(lines, bot.name, bot.text, room.names, room.user)
        questions.append(Question("room", exchange, messages, bot, (room.user, *room.names)))
    return questions


def held_out_questions(seed: int = QUESTION_SEED) -> list[Question]:
    """The 200 questions."""
    rng = Random(seed)
    return [
        *skill_questions(rng, "knowledge", knowledge.SKILLS, 54),
        *skill_questions(rng, "numbers", numbers.SKILLS, 36),
        *skill_questions(rng, "parlor", parlor_help.SKILLS, 22),
        *skill_questions(rng, "talk", talk.SKILLS, 28),
        *persona_questions(rng, 20),
        *memory_questions(rng, 20),
        *room_questions(rng, 20),
    ]
