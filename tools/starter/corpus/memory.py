"""What a person tells about themselves, and the questions about it some turns later.

The values are drawn from large or endless pools: only reading the earlier turn gives the answer.
"""

from dataclasses import dataclass
from random import Random

from tools.starter.corpus.phrases import read_phrases
from tools.starter.corpus.skill import Exchange, vary
from tools.starter.corpus.words import (
    COLOURS,
    FOODS,
    JOBS,
    PETS,
    TOWNS,
    a,
    capitalize,
    expand,
    invented_word,
    person,
    pick,
)

MEMORIES = read_phrases("memory")  # kind -> tell, reply, ask, check, answer
NUMBER_ASKED = {
    "my lucky number is": [
        "what is my lucky number?",
        "do you [know|remember] my lucky number?",
        "which is my lucky number?",
    ],
    "I am": ["how old am I?", "what is my age?", "do you remember how old I am?"],
    "my favourite number is": ["what is my favourite number?", "which number do I like best?"],
    "remember": ["which number did I tell you?", "what was the number?", "do you remember the number?"],
    "please keep": [
        "which number did I tell you?",
        "what was the number?",
        "which number did you keep in mind?",
    ],
}
UNTOLD = ["You have not told me yet.", "I do not know that yet. Tell me!", "You did not tell me yet."]


@dataclass(frozen=True)
class Memory:
    """One thing told: the message that tells it, the reply at once, and how it is asked for later."""

    kind: str
    slots: dict[str, str]
    told: Exchange
    asked: list[str]

    def recall(self, rng: Random, held_out: bool = False) -> Exchange:
        """Ask for it. Numbers have no held-out phrasing."""
        questions = MEMORIES[self.kind]["check"] if held_out else self.asked
        answers = MEMORIES[self.kind].get("answer") or ["It is {x}.", "{x}.", "You told me {x}."]
        question = pick(rng, questions, **self.slots)
        if not held_out:
            question = vary(rng, question, prefixed=True)
        right = self.slots["x"] if "{x}?" not in question or self.kind != "pet" else self.slots["kind"]
        return Exchange(
            capitalize(question),
            capitalize(pick(rng, answers, **self.slots)),
            (right,),
            f"recall_{self.kind}",
        )


def draw_memory(rng: Random, kind: str = "", user: str = "") -> Memory:
    """Something told with random values; `user` is the name to tell, where the room knows it already."""
    kind = kind or rng.choices(list(MEMORIES), [5, 3, 2, 2, 2, 1, 1])[0]
    slots = _values(rng, kind)
    if kind == "name" and user:
        slots["x"] = user
    telling = rng.choice(MEMORIES[kind]["tell"])
    asked = MEMORIES[kind].get("ask") or next(
        asked for start, asked in NUMBER_ASKED.items() if telling.startswith(start)
    )
    told = capitalize(vary(rng, expand(rng, telling, **slots), prefixed=False))
    reply = capitalize(pick(rng, MEMORIES[kind]["reply"], **slots))
    return Memory(kind, slots, Exchange(told, reply, (slots["x"],), f"told_{kind}"), asked)


def untold(rng: Random, kind: str) -> Exchange:
    """Asked for something that was never told."""
    questions = [question for question in MEMORIES[kind]["ask"] if "{x}" not in question]
    slots = {**_values(rng, kind)}
    return Exchange(capitalize(pick(rng, questions, **slots)), rng.choice(UNTOLD), ("not",), "untold")


def _values(rng: Random, kind: str) -> dict[str, str]:
    if kind == "name":
        return {"x": person(rng)}
    if kind == "pet":
        pet = rng.choice(PETS)
        return {"x": person(rng), "kind": pet, "a_kind": a(pet)}
    if kind == "job":
        job = rng.choice(JOBS)
        return {"x": job, "a_x": a(job)}
    if kind == "number":
        return {"x": str(rng.randint(2, 99))}
    if kind == "town":
        return {"x": invented_word(rng) if rng.random() < 0.5 else rng.choice(TOWNS)}
    return {"x": rng.choice(COLOURS if kind == "colour" else FOODS)}
