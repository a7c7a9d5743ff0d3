"""Whole dialogues of one person and one bot: a persona, one to many exchanges, things told and recalled."""

from random import Random

from tools.starter.corpus import facts, knowledge, numbers, parlor_help, stories, talk
from tools.starter.corpus.memory import MEMORIES, Memory, draw_memory, untold
from tools.starter.corpus.persona_talk import persona_exchange
from tools.starter.corpus.personas import SHIPPED, Persona, greeting_of, random_persona
from tools.starter.corpus.render import Line
from tools.starter.corpus.skill import Exchange, Skill
from tools.starter.corpus.words import EMOJI, capitalize, expand, person

GROUPS: dict[str, tuple[float, list[Skill]]] = {
    "knowledge": (4.5, knowledge.SKILLS),
    "numbers": (4.0, numbers.SKILLS),
    "parlor": (1.8, parlor_help.SKILLS),
    "talk": (2.4, talk.SKILLS),
}
WEIGHTS = {  # by the size of the table behind a skill; 1 is the rule
    "capital": 3.0, "country": 2.0, "opposite": 3.0, "translate": 3.0, "meaning": 2.0, "kind": 1.5,
    "colour": 1.5, "next_letter": 1.5, "add": 6.0, "add_story": 4.0, "subtract": 5.0, "subtract_story": 4.0,
    "multiply": 1.5, "bigger": 3.0, "count_to": 1.5, "count_up": 2.0, "count_down": 2.0, "next_number": 1.5,
    "previous_number": 1.5, "echo": 2.0, "story": 0.35, "story_about": 0.6, "joke_about": 1.2, "big_sum": 0.4,
    "unknown": 1.5, "doing": 1.2, "human": 0.7, "abilities": 1.5,
}  # fmt: skip
DRILL_GROUPS = {"knowledge": 4.5, "numbers": 4.5, "parlor": 2.0, "talk": 1.5}
SPECIALTIES = {"Ada": "numbers", "Mei": "translate", "Pip": "joke", "Willa": "story"}


def any_skill(rng: Random, weights: dict[str, float] | None = None) -> Skill:
    """A skill, by the weight of its group (or by these weights) and its own."""
    weights = weights or {name: weight for name, (weight, _) in GROUPS.items()}
    skills = GROUPS[rng.choices(list(weights), list(weights.values()))[0]][1]
    return rng.choices(skills, [WEIGHTS.get(skill.name, 1.0) for skill in skills])[0]


def special_skill(rng: Random, persona: Persona) -> Skill:
    """What a shipped bot is asked most."""
    special = SPECIALTIES.get(persona.name, "")
    if special == "numbers":
        return rng.choice(numbers.SKILLS)
    wanted = [
        skill
        for skill in (*knowledge.SKILLS, *talk.SKILLS)
        if special
        and (
            skill.name.startswith(special)
            or (
                special == "translate"
                and skill.name in ("meaning", "greet_german", "greet_spanish", "greet_chinese")
            )
        )
    ]
    return rng.choice(wanted) if wanted else any_skill(rng)


FOLLOW_UPS = [
    "and {what}?",
    "and what about {what}?",
    "what about {what}?",
    "and {what}, please?",
    "{what}?",
    "ok, and {what}?",
]
ANOTHER = [
    "another one[!|, please.|.]",
    "[one more|another][!|.|, please!]",
    "tell me another one.",
    "more[!|, please!]",
    "again[!|, please!]",
    "do you have another one?",
    "and another?",
    "one more time!",
]
MORE_STORY = [
    "and then?",
    "go on[!|.]",
    "what happened then?",
    "how does it go on?",
    "[tell me more|more][!|.|, please.]",
    "continue[!|, please.]",
    "what came next?",
    "is there more?",
    "and after that?",
]


def follow_up(rng: Random, last: Exchange) -> Exchange | None:
    """An elliptic next question: "And of Spain?" after a capital, "Another one!" after a joke."""
    if last.skill == "capital":
        country = rng.choice(list(facts.CAPITALS))
        what = rng.choice([country, f"the capital of {country}", f"of {country}"])
        return Exchange(
            capitalize(rng.choice(FOLLOW_UPS).format(what=what)),
            f"The capital of {country} is {facts.CAPITALS[country]}.",
            (facts.CAPITALS[country],),
            "capital",
        )
    if last.skill in ("add", "subtract", "multiply"):
        slots = {"add": numbers.addition, "subtract": numbers.subtraction, "multiply": numbers.product}[
            last.skill
        ](rng)
        what = "{a} {op} {b}".format(
            op={"add": "plus", "subtract": "minus", "multiply": "times"}[last.skill],
            **{key: slots[key] for key in "ab"},
        )
        return Exchange(
            capitalize(rng.choice(FOLLOW_UPS).format(what=what)),
            capitalize(f"{what} is {slots['c']}."),
            slots["accept"],
            last.skill,
        )
    if last.skill == "colour":
        thing = rng.choice(list(facts.COLOUR_OF))
        return Exchange(
            capitalize(rng.choice(FOLLOW_UPS).format(what=thing)),
            capitalize(f"{thing} is {facts.COLOUR_OF[thing]}."),
            (facts.COLOUR_OF[thing],),
            "colour",
        )
    if last.skill == "joke":
        return Exchange(capitalize(expand(rng, rng.choice(ANOTHER))), talk.any_joke(rng)["joke"], (), "joke")
    if last.skill.startswith("story"):
        if rng.random() < 0.4:
            return Exchange(capitalize(expand(rng, rng.choice(ANOTHER))), stories.story(rng)[0], (), "story")
        slots = stories.story(rng)[1]
        return Exchange(
            capitalize(expand(rng, rng.choice(MORE_STORY))), stories.continuation(rng, slots), (), "story"
        )
    return None


def exchanges(rng: Random, persona: Persona, count: int) -> list[Exchange]:
    """`count` exchanges in a row; what is told early is asked for later, rarely what was never told."""
    done: list[Exchange] = []
    memories: list[Memory] = []
    told: set[str] = set()
    while len(done) < count:
        roll = rng.random()
        left = count - len(done)
        fresh = [memory for memory in memories if memory.told is not (done[-1] if done else None)]
        if done and rng.random() < 0.12 and (next_one := follow_up(rng, done[-1])):
            done.append(next_one)
        elif fresh and (roll < 0.3 or (left == 1 and roll < 0.75)):
            done.append(rng.choice(fresh).recall(rng))
        elif left > 1 and roll < (0.45 if not memories else 0.38):
            memory = draw_memory(rng)
            if memory.kind not in told:
                told.add(memory.kind)
                memories.append(memory)
                done.append(memory.told)
        elif roll < 0.47 and rng.random() < 0.25:
            kind = rng.choice([kind for kind in MEMORIES if kind != "number"])
            if kind not in told:
                done.append(untold(rng, kind))
        elif persona.name and roll < 0.62:
            done.append(persona_exchange(rng, persona))
        elif rng.random() < 0.35:
            done.append(special_skill(rng, persona).exchange(rng))
        else:
            done.append(any_skill(rng).exchange(rng))
    return done


def flavour(rng: Random, persona: Persona, answer: str) -> str:
    """Now and then a bot adds one of its own sayings."""
    if persona.sayings and rng.random() < 0.12 and len(answer) < 120:
        return f"{answer} {rng.choice(persona.sayings)}"
    return answer


def goes_on(rng: Random, persona: Persona, last: str) -> str:
    """What a bot says when it is to speak a second time."""
    if len(last) > 150:
        return stories.continuation(rng, stories.story(rng)[1])
    asks = ["What shall we talk about?", "And you?", "Ask me something.", "Is there anything else?"]
    return f"{rng.choice(persona.sayings or ['I am listening.'])} {rng.choice(asks)}"


def draw_persona(rng: Random, other_than: tuple[str, ...] = ()) -> Persona:
    """A shipped bot now and then, else a random one."""
    shipped = [persona for persona in SHIPPED if persona.name not in other_than]
    return rng.choice(shipped) if rng.random() < 0.2 else random_persona(rng, other_than)


SESSION_PROMPTS = [
    "Answer briefly.",
    "Be kind.",
    "We are in a tavern.",
    "Today is a sunny day.",
    "It is night.",
    "Answer in one sentence.",
    "Stay in your role.",
    "This is a friendly chat.",
    "Speak simply.",
]


def chat(rng: Random, count: int = 0) -> tuple[Persona, str, list[Line], str]:
    """One dialogue: the persona, its system prompt, the lines, and the user's name ("User" if none)."""
    bare = rng.random() < 0.05
    persona = Persona("", "", "") if bare else draw_persona(rng)
    user = "User" if rng.random() < 0.7 else person(rng, (persona.name,))
    system = persona.text
    ending = ""
    if persona.text and rng.random() < 0.06:
        ending = rng.choice(EMOJI)
        system += rng.choice(["\n", " "]) + expand(
            rng,
            "[End every reply with {e}.|Always end with {e}.|Put {e} at the end of each reply.]",
            e=ending,
        )
    elif persona.text and rng.random() < 0.15:
        system += "\n" + rng.choice(SESSION_PROMPTS)
    bot = persona.name or "Assistant"
    lines = [Line(bot, greeting_of(rng, persona, user))] if persona.name and rng.random() < 0.35 else []
    for exchange in exchanges(
        rng, persona, count or rng.choices((1, 2, 3, 4, 5, 6, 8), (12, 16, 20, 20, 16, 12, 6))[0]
    ):
        answer = flavour(rng, persona, exchange.answer)
        lines += [Line(user, exchange.question), Line(bot, f"{answer} {ending}".strip())]
    if rng.random() < 0.06:
        lines.append(Line(bot, f"{goes_on(rng, persona, lines[-1].text)} {ending}".strip()))
    return persona, system, lines, user


def drill(rng: Random) -> tuple[Persona, list[Line]]:
    """Many short questions in a row: facts and sums need more repetition than talk does."""
    persona = draw_persona(rng) if rng.random() < 0.6 else rng.choice(SHIPPED)
    lines: list[Line] = []
    while len(lines) < 20:
        skill = any_skill(rng, DRILL_GROUPS)
        if skill.name.startswith("story"):
            continue
        exchange = persona_exchange(rng, persona) if rng.random() < 0.14 else skill.exchange(rng)
        lines += [Line("User", exchange.question), Line(persona.name, exchange.answer)]
    return persona, lines
