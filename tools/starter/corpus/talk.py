"""Skills of talking: greetings in four languages, feelings, thanks, things one did, jokes, rhymes, and what a small model cannot know."""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501

from random import Random
from typing import Any

from tools.starter.corpus import facts, stories
from tools.starter.corpus.skill import load_skills
from tools.starter.corpus.words import (
    ANIMALS,
    COLOURS,
    EMOJI,
    FOODS,
    FRUITS,
    HOBBIES,
    JOBS,
    THINGS,
    TOWNS,
    VEGETABLES,
    a,
    capitalize,
    expand,
    invented_word,
    join_words,
    person,
)


def none(_: Random) -> dict[str, Any]:
    return {}


def accept(*words: str) -> Any:
    return lambda rng: {"accept": words, "emoji": rng.choice(EMOJI)}


def joke(rng: Random) -> dict[str, Any]:
    topic = rng.choice(list(facts.JOKES))
    lines = facts.JOKES[topic]
    return {"topic": topic, "joke": rng.choice(lines), "accept": tuple(lines)}


def any_joke(rng: Random) -> dict[str, Any]:
    lines = [line for group in facts.JOKES.values() for line in group]
    return {"joke": rng.choice(lines), "accept": tuple(lines)}


def story_slots(rng: Random) -> dict[str, Any]:
    topic = rng.choice(ANIMALS + THINGS)
    return {"topic": topic, "a_topic": a(topic), "story": stories.story(rng, topic)[0], "accept": (topic,)}


def any_story(rng: Random) -> dict[str, Any]:
    return {"story": stories.story(rng)[0], "accept": (".",)}


def rhyme_slots(rng: Random) -> dict[str, Any]:
    topic = rng.choice(ANIMALS + THINGS)
    return {"topic": topic, "a_topic": a(topic), "rhyme": stories.rhyme(rng, topic), "accept": (topic,)}


def listing(rng: Random) -> dict[str, Any]:
    kind, members = rng.choice(
        [
            ("fruits", FRUITS),
            ("vegetables", VEGETABLES),
            ("animals", ANIMALS),
            ("colours", COLOURS),
            ("jobs", JOBS),
            ("cities", TOWNS),
        ]
    )
    count = rng.choice((2, 3, 3, 4))
    word = ("", "", "two", "three", "four")[count]
    chosen = rng.sample(members, count)
    return {"kind": kind, "count": word, "members": join_words(chosen), "accept": tuple(members)}


def echo(rng: Random) -> dict[str, Any]:
    pools = (
        lambda: invented_word(rng),
        lambda: person(rng),
        lambda: f"{rng.choice(COLOURS)} {rng.choice(THINGS)}",
        lambda: f"{invented_word(rng)} {invented_word(rng)}",
        lambda: f"the {rng.choice(ANIMALS)} likes {rng.choice(FOODS)}",
        lambda: f"{person(rng)} lives in {invented_word(rng)}",
        lambda: f"{rng.randint(0, 999)}",
    )
    words = capitalize(rng.choice(pools)())
    return {"words": words, "accept": (words,)}


def doing(rng: Random) -> dict[str, Any]:
    kind = rng.randrange(6)
    town, food, hobby, animal, thing = (
        rng.choice(TOWNS),
        rng.choice(FOODS),
        rng.choice(HOBBIES),
        rng.choice(ANIMALS),
        rng.choice(THINGS),
    )
    friend = person(rng)
    said, reply, key = [
        (
            f"I [went|travelled|flew] to {town}[ last week| last summer| yesterday|].",
            f"[How was {town}?|{town} sounds lovely! What did you see there?|I would love to see {town}.]",
            town,
        ),
        (
            f"[Today|Yesterday|This morning] I [cooked|ate|made|had] {food}.",
            f"[I hope the {food} tasted good!|Mmm, {food}! Was it good?|{capitalize(food)} sounds delicious.]",
            food,
        ),
        (
            f"[I have been|Today I was|I spent the day] {hobby if hobby.endswith('ing') else 'busy with ' + hobby}.",
            f"[{capitalize(hobby)} is a fine way to spend the day.|Do you like {hobby}?|That sounds nice. Is {hobby} fun for you?]",
            hobby,
        ),
        (
            f"I saw {a(animal)} [today|in the garden|on my way home|this morning].",
            f"[{capitalize(a(animal))}! What did it do?|How nice! Did the {animal} see you too?|I like animals. Was the {animal} big?]",
            animal,
        ),
        (
            f"I [bought|found|lost] {a(thing)} [today|yesterday|this morning].",
            f"[What kind of {thing} is it?|{capitalize(a(thing))}! Tell me more.|Oh, {a(thing)}. What does it look like?]",
            thing,
        ),
        (
            f"I met {friend} [today|yesterday|this morning|in town].",
            f"[How is {friend}?|Is {friend} a friend of yours?|Nice! What did you do with {friend}?]",
            friend,
        ),
    ][kind]
    return {"said": expand(rng, said), "reply": expand(rng, reply), "accept": (key,)}


UNKNOWN_TOPICS = """quantum physics|the stock market|the news of today|the weather tomorrow|politics|black holes|computer programming|Python|how engines work|the Roman Empire
the last election|chemistry|football results|medicine|the meaning of life|philosophy|how to build a house|tax law|the theory of relativity|Shakespeare|machine learning|bitcoin
how to repair my car|the French Revolution|DNA|the best phone to buy|my computer's error message|cooking a duck|the history of music|nuclear power|algebra|the universe|dinosaurs
the second world war|how to lose weight|guitar chords|the price of gold|train times|visa rules|a recipe for lasagne|the latest films|vitamins|volcanoes""".replace(
    "\n", "|"
).split("|")


def unknown(rng: Random) -> dict[str, Any]:
    return {
        "topic": rng.choice(UNKNOWN_TOPICS)
        if rng.random() < 0.85
        else f"{invented_word(rng)} {rng.choice(THINGS)}s",
        "accept": ("small", "know"),
    }


def big_sum(rng: Random) -> dict[str, Any]:
    a_, b_ = rng.randint(21, 999), rng.randint(21, 999)
    return {
        "a": a_,
        "b": b_,
        "op": rng.choice(["plus", "minus", "times", "+", "-", "*", "divided by"]),
        "accept": ("small", "twenty", "20"),
    }


SKILLS = load_skills(
    "talk",
    {
        "how_are_you": accept("well", "fine", "good", "great"),
        "user_fine": accept("glad", "good", "nice", "happy", "great"),
        "user_sad": accept("sorry", "hope", "rest", "here for you", "better"),
        "hello": accept("hello", "hi", "good", "welcome"),
        "thanks": accept("welcome", "pleasure", "glad", "any time", "happy"),
        "goodbye": accept("bye", "goodbye", "see you", "soon", "good night", "farewell", "well"),
        "praise": accept("thank", "kind", "happy", "glad"),
        "greet_german": accept("hallo", "guten", "freut", "willkommen"),
        "greet_spanish": accept("hola", "buen", "gusto", "bien"),
        "greet_chinese": accept("你好", "很好", "高兴"),
        "joke_about": joke,
        "joke": any_joke,
        "story_about": story_slots,
        "story": any_story,
        "rhyme": rhyme_slots,
        "listing": listing,
        "echo": echo,
        "doing": doing,
        "unknown": unknown,
        "big_sum": big_sum,
        "human": accept("model", "bot", "program"),
    },
    unprefixed=(
        "hello",
        "thanks",
        "goodbye",
        "praise",
        "greet_german",
        "greet_spanish",
        "greet_chinese",
        "echo",
        "doing",
    ),
)
