"""Skills of knowing: capitals, facts, days and months, colours, opposites, animals, foreign words."""

from random import Random
from typing import Any

from tools.starter.corpus import facts
from tools.starter.corpus.skill import load_skills
from tools.starter.corpus.words import (
    DAYS,
    MONTHS,
    NUMBER_WORDS,
    ORDINALS,
    SEASONS,
    a,
    capitalize,
)


def from_table(table: dict, key: str, value: str) -> Any:
    """A slot drawer for a table: one of its pairs; the value is what a right answer holds."""

    def draw(rng: Random) -> dict[str, Any]:
        left = rng.choice(list(table))
        return {
            key: left,
            value: table[left],
            "accept": (table[left],),
            "Left": capitalize(str(left)),
            "Right": capitalize(str(table[left])),
        }

    return draw


def after(names: list[str], step: int) -> Any:
    """A slot drawer for circles like the days: a name and the one `step` further."""

    def draw(rng: Random) -> dict[str, Any]:
        index = rng.randrange(len(names))
        answer = names[(index + step) % len(names)]
        return {"x": names[index], "y": answer, "accept": (answer,)}

    return draw


def nth_month(rng: Random) -> dict[str, Any]:
    index = rng.randrange(12)
    return {"nth": ORDINALS[index], "number": index + 1, "month": MONTHS[index], "accept": (MONTHS[index],)}


def mix(rng: Random) -> dict[str, Any]:
    pair = rng.choice(list(facts.MIXES))
    one, two = rng.sample(pair, 2)
    return {"one": one, "two": two, "mixed": facts.MIXES[pair], "accept": (facts.MIXES[pair],)}


def opposite(rng: Random) -> dict[str, Any]:
    one, two = rng.choice(list(facts.OPPOSITES.items()))
    if rng.random() < 0.5 and one not in ("tall", "first"):
        one, two = two, one
    if one in ("light", "short"):  # opposites that are not one-to-one
        one, two = "big", "small"
    return {"x": one, "y": two, "accept": (two,)}


def legs(rng: Random) -> dict[str, Any]:
    animal, number = rng.choice(list(facts.LEGS.items()))
    word = "no" if number == 0 else NUMBER_WORDS[number]
    article = "an" if animal[0] in "aeio" else "a"
    return {"x": f"{article} {animal}", "y": word, "accept": (word, str(number))}


def count_of(rng: Random) -> dict[str, Any]:
    (things, whole), number = rng.choice(list(facts.COUNTS.items()))
    digits = str(NUMBER_WORDS.index(number)) if number in NUMBER_WORDS else number
    return {"things": things, "whole": whole, "number": number, "accept": (number, digits)}


def translation(rng: Random) -> dict[str, Any]:
    word = rng.choice(list(facts.TRANSLATIONS))
    index = rng.randrange(3)
    foreign = facts.TRANSLATIONS[word][index]
    return {"word": word, "language": facts.LANGUAGES[index], "foreign": foreign, "accept": (foreign,)}


def meaning(rng: Random) -> dict[str, Any]:
    slots = translation(rng)
    return {**slots, "accept": (slots["word"],)}


def emoji(rng: Random) -> dict[str, Any]:
    thing, sign = rng.choice(list(facts.EMOJI_OF.items()))
    return {"thing": thing, "a_thing": a(thing), "emoji": sign, "accept": (sign,)}


def kind_question(rng: Random) -> dict[str, Any]:
    thing = rng.choice(list(facts.KINDS))
    right = facts.KINDS[thing]
    asked = (
        right if rng.random() < 0.5 else rng.choice([kind for kind in facts.KINDS.values() if kind != right])
    )
    answer = f"Yes, {thing} is {right}." if asked == right else f"No, {thing} is {right}."
    return {"x": thing, "kind": asked, "answer": answer, "accept": ("Yes" if asked == right else "No",)}


def next_letter(rng: Random) -> dict[str, Any]:
    index = rng.randrange(25)
    return {
        "x": chr(65 + index),
        "y": chr(66 + index),
        "accept": (f" {chr(66 + index)}.", f"{chr(66 + index)} ", f"{chr(66 + index)}."),
    }


SKILLS = load_skills(
    "knowledge",
    {
        "capital": from_table(facts.CAPITALS, "country", "city"),
        "country": from_table({city: country for country, city in facts.CAPITALS.items()}, "city", "country"),
        "opposite": opposite,
        "sound": from_table(facts.SOUNDS, "animal", "sound"),
        "legs": legs,
        "baby": from_table(facts.BABIES, "animal", "baby"),
        "home": from_table(facts.HOMES, "animal", "home"),
        "colour": from_table(facts.COLOUR_OF, "thing", "colour"),
        "mix": mix,
        "count_of": count_of,
        "fact": from_table(facts.FACTS, "role", "name"),
        "makes": from_table(facts.MAKES, "maker", "product"),
        "uses": from_table(facts.USES, "tool", "use"),
        "kind": kind_question,
        "day_after": after(DAYS, 1),
        "day_before": after(DAYS, -1),
        "month_after": after(MONTHS, 1),
        "month_before": after(MONTHS, -1),
        "nth_month": nth_month,
        "season": after(SEASONS, 1),
        "next_letter": next_letter,
        "translate": translation,
        "meaning": meaning,
        "emoji": emoji,
    },
)
