"""Questions about the bot itself, answered from its persona."""

from random import Random

from tools.starter.corpus.personas import Persona
from tools.starter.corpus.phrases import read_phrases
from tools.starter.corpus.skill import Exchange, vary
from tools.starter.corpus.words import a, capitalize, person, pick

PHRASES = read_phrases("persona")


def slots_of(rng: Random, persona: Persona) -> dict[str, str]:
    role = persona.role or "bot"
    slots = {
        "name": persona.name,
        "role": role,
        "a_role": a(role),
        "place": persona.place,
        "at": f" {persona.place}" if persona.place else "",
        "saying": rng.choice(persona.sayings or ["Nice to meet you."]),
        "does": capitalize(persona.does or "I talk with people"),
    }
    if persona.likes:
        slots.update(like1=persona.likes[0], like2=persona.likes[1])
    if persona.pet:
        slots.update(pet=persona.pet[0], a_pet=a(persona.pet[0]), pet_name=persona.pet[1])
    return slots


def topics_of(persona: Persona) -> list[str]:
    """What this persona can be asked about."""
    topics = ["name", "name", "are_you"]
    topics += (
        ["role"] * bool(persona.role)
        + ["place"] * bool(persona.place)
        + ["likes"] * bool(persona.likes)
        + ["pet"] * bool(persona.pet)
    )
    return topics


def persona_exchange(rng: Random, persona: Persona, topic: str = "", held_out: bool = False) -> Exchange:
    """A question about the bot itself, and its answer."""
    topic = topic or rng.choice(topics_of(persona))
    slots = slots_of(rng, persona)
    if topic == "are_you":
        return _are_you(rng, persona, held_out)
    section = PHRASES[topic]
    answers = section["answer"]
    accept = {
        "name": (persona.name,),
        "role": (persona.role,),
        "place": (persona.place,),
        "likes": persona.likes,
        "pet": persona.pet[1:] if persona.pet else (),
    }[topic]
    if not persona.role:
        answers = [answer for answer in answers if "role" not in answer]
    question = pick(rng, section["check" if held_out else "ask"], **slots)
    if not held_out:
        question = vary(rng, question, prefixed=True)
    return Exchange(
        capitalize(question), capitalize(pick(rng, answers, **slots)).strip(), accept, f"persona_{topic}"
    )


def _are_you(rng: Random, persona: Persona, held_out: bool) -> Exchange:
    asked = persona.name if rng.random() < 0.5 else person(rng, (persona.name,))
    question = pick(rng, PHRASES["are_you"]["check" if held_out else "ask"], asked=asked)
    if asked == persona.name:
        return Exchange(
            capitalize(question),
            pick(rng, ["Yes, I am {name}.", "Yes, that is me, {name}.", "Yes! I am {name}."], name=asked),
            ("Yes",),
            "persona_are_you",
        )
    answer = pick(
        rng,
        ["No, I am {name}.", "No, my name is {name}.", "No, I am {name}, not {asked}."],
        name=persona.name,
        asked=asked,
    )
    return Exchange(capitalize(question), answer, ("No",), "persona_are_you")
