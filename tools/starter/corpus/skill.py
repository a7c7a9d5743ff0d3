"""One skill: something that can be asked, how it is asked, and what a right answer holds.

A skill owns its phrasings. Those in `held_out` are never trained on; tools.check_starter asks with them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tools.starter.corpus.phrases import read_phrases
from tools.starter.corpus.words import capitalize, expand, pick

Slots = Callable[[Random], dict[str, Any]]


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the words of which a right answer must hold at least one."""

    question: str
    answer: str
    accept: tuple[str, ...] = ()
    skill: str = ""


@dataclass(frozen=True)
class Skill:
    """`slots(rng)` draws what fills the {slots}; its "accept" key goes to the exchange."""

    name: str
    slots: Slots
    questions: list[str]
    answers: list[str]
    held_out: list[str] = field(default_factory=list)
    prefixed: bool = True  # may "Hey, " or "Please tell me: " stand in front

    def exchange(self, rng: Random, held_out: bool = False) -> Exchange:
        """One exchange; with a phrasing kept from training if `held_out`."""
        slots = self.slots(rng)
        accept = tuple(str(word) for word in slots.get("accept", ()))
        question = pick(rng, self.held_out if held_out else self.questions, **slots)
        if not held_out:
            question = vary(rng, question, self.prefixed)
        return Exchange(capitalize(question), capitalize(pick(rng, self.answers, **slots)), accept, self.name)


def load_skills(file: str, slots: dict[str, Slots], unprefixed: tuple[str, ...] = ()) -> list[Skill]:
    """The skills of phrases/<file>.txt: what fills their slots is drawn by `slots` of the same name."""
    sections = read_phrases(file)
    if missing := set(sections) ^ set(slots):
        raise ValueError(f"phrases/{file}.txt and its slots differ in {sorted(missing)}")
    return [
        Skill(
            name,
            slots[name],
            section["ask"],
            section["answer"],
            section.get("check", []),
            name not in unprefixed,
        )
        for name, section in sections.items()
    ]


PREFIXES = [
    "[Hey|Hi|Hello|Ok|Okay|So|Well|Now|Right], ",
    "[Quick|Small|Short|Simple|Next|One|Another] question: ",
    "[Please tell me|Tell me|I wonder|I was wondering|I would like to know|Answer this|Say]: ",
    "[Let me ask you something|I have a question]. ",
    "[And|But|Also|Oh], ",
    "[By the way|Now then|Let's see|Hmm|Great|Good|Nice|Cool|Thanks], ",
]
SUFFIXES = [
    " Please.",
    " Thanks!",
    " Thank you.",
    " Do you know?",
    " I forgot.",
    " I am curious.",
    " :)",
    " 🙂",
    " Just the answer please.",
]


def vary(rng: Random, question: str, prefixed: bool) -> str:
    """The small differences between people who write: a greeting in front, no question mark, no capitals."""
    if prefixed and rng.random() < 0.22:
        question = expand(rng, rng.choice(PREFIXES)) + (
            question if rng.random() < 0.5 else question[:1].lower() + question[1:]
        )
    if rng.random() < 0.08:
        question = question.rstrip("?.!")
    elif prefixed and rng.random() < 0.08:
        question += rng.choice(SUFFIXES)
    if rng.random() < 0.08:
        question = question[:1].lower() + question[1:]
    return question
