"""Skills of counting and of arithmetic up to twenty."""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501, SIM905

from random import Random
from typing import Any

from tools.starter.corpus.skill import load_skills
from tools.starter.corpus.words import NUMBER_WORDS, person

THINGS = "apples pears coins books eggs stones marbles cookies pencils flowers stamps shells buttons cards candles".split()


def write(rng: Random, number: int, words: bool) -> str:
    return NUMBER_WORDS[number] if words else str(number)


def sum_slots(rng: Random, a: int, b: int, result: int) -> dict[str, Any]:
    """Operands in digits or in words; the answer in the same way, both accepted."""
    words = rng.random() < 0.15
    return {
        "a": write(rng, a, words),
        "b": write(rng, b, words),
        "c": write(rng, result, words),
        "who": person(rng),
        "things": rng.choice(THINGS),
        "accept": (str(result), NUMBER_WORDS[result]),
    }


def addition(rng: Random) -> dict[str, Any]:
    total = rng.randint(0, 20)
    a = rng.randint(0, total)
    return sum_slots(rng, a, total - a, total)


def subtraction(rng: Random) -> dict[str, Any]:
    a = rng.randint(0, 20)
    b = rng.randint(0, a)
    return sum_slots(rng, a, b, a - b)


def product(rng: Random) -> dict[str, Any]:
    a = rng.randint(1, 10)
    b = rng.randint(1, 20 // a)
    return sum_slots(rng, a, b, a * b)


def bigger(rng: Random) -> dict[str, Any]:
    a, b = rng.sample(range(21), 2)
    return {"a": a, "b": b, "c": max(a, b), "d": min(a, b), "accept": (f"{max(a, b)}",)}


def count_up(rng: Random) -> dict[str, Any]:
    a = rng.choice((1, 1, rng.randint(0, 15)))
    b = rng.randint(a + 1, min(20, a + 10))
    sequence = ", ".join(str(n) for n in range(a, b + 1))
    return {"a": a, "b": b, "c": sequence, "accept": (sequence,)}


def count_down(rng: Random) -> dict[str, Any]:
    a = rng.randint(2, 20)
    b = rng.randint(max(0, a - 10), a - 1)
    sequence = ", ".join(str(n) for n in range(a, b - 1, -1))
    return {"a": a, "b": b, "c": sequence, "accept": (sequence,)}


def count_to(rng: Random) -> dict[str, Any]:
    b = rng.randint(2, 20)
    sequence = ", ".join(str(n) for n in range(1, b + 1))
    return {"b": b, "bw": NUMBER_WORDS[b], "c": sequence, "accept": (sequence,)}


def neighbour(step: int) -> Any:
    def draw(rng: Random) -> dict[str, Any]:
        a = rng.randint(1, 19)
        return sum_slots(rng, a, 0, a + step)

    return draw


SKILLS = load_skills(
    "numbers",
    {
        "add": addition,
        "add_story": addition,
        "subtract": subtraction,
        "subtract_story": subtraction,
        "multiply": product,
        "bigger": bigger,
        "count_to": count_to,
        "count_up": count_up,
        "count_down": count_down,
        "next_number": neighbour(1),
        "previous_number": neighbour(-1),
    },
)
