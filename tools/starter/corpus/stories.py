"""Short stories and rhymes written by a small grammar, about any hero, animal or thing."""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501, SIM905

from random import Random

from tools.starter.corpus.words import ANIMALS, COLOURS, FOODS, THINGS, a, expand, person, pick

ADJECTIVES = (
    "small brave old shy clever curious sleepy kind lonely cheerful tiny friendly patient hungry".split()
)
PLACES = [
    "a quiet village",
    "the edge of a forest",
    "a house by the sea",
    "a green valley",
    "a little town",
    "a garden behind a wall",
    "an old mill",
    "a cave in the hills",
    "a harbour",
    "a snowy mountain",
    "a field of flowers",
    "an island far away",
]

OPENINGS = [
    "[Once upon a time|Long ago|One day|Once|There was a time when] there was {hero}[ called {name}|] who lived [in|near] {place}.",
    "[Once upon a time|Long ago] {hero}[ named {name}|] lived [in|near] {place}.",
    "In {place} lived {hero}[ called {name}|].",
]
WISHES = [
    "Every [morning|evening|day] {who} [dreamed of|looked for|wished for] {thing}.",
    "{who} had only one wish: {thing}.",
    "{who} was [often |]alone and wanted a friend.",
    "One [cold|windy|rainy|sunny] [morning|evening|night] {who} lost {thing}.",
    "{who} had never seen {thing}.",
]
TROUBLES = [
    "Then a [great |]storm came, and [the way home was gone|everything was dark|the wind took all].",
    "[But one night|Then] {who} heard a [strange|soft|sad] sound: it was {friend}, who was [lost|hungry|cold|hurt].",
    "On the way {who} met {friend}, who [was crying|had lost the way|needed help].",
    "But the [river|road|hill] was [too deep|too long|too high], and {who} was afraid.",
]
HELPS = [
    "{who} gave {friend} some {food} and [a warm place|a kind word|a blanket].",
    "Together they [walked|looked|worked] [all night|all day|for three days] and did not give up.",
    "{who} [took a deep breath|was brave] and [helped|did it] anyway.",
    '"[Don\'t worry|Do not be afraid|Come with me]," said {who}, "[we will find a way|I know what to do|two are better than one]."',
]
ENDINGS = [
    "[In the end|At last] they found {thing}, and it was [more beautiful than|as bright as] a dream.",
    "From that day on {who} and {friend} were [best |good |]friends.",
    "And {who} was never alone again.",
    "They [danced|sang|laughed] until the [sun came up|moon went to sleep].",
    "And so everyone [came home safely|slept well that night|was happy].",
]
CONTINUATIONS = [
    "The next [morning|day] {who} [woke up early|got up] and found {thing} at the door.",
    "After that {who} and {friend} went on a [long |]journey and saw {thing}.",
    "A year later {friend} came back and brought {thing} as a gift.",
    "And every winter they told the others about {thing}.",
]

RHYMES = [
    "The {topic} sat beneath a tree / and sang a little song to me.",
    "A {topic} came along one night / and filled the room with silver light.",
    "I saw a {topic}, small and bright, / it danced with me till morning light.",
    "O {topic}, {topic}, where are you? / The sea is deep, the sky is blue.",
    "The {topic} dreams, the wind is low, / the stars above begin to glow.",
    "My {topic} is a friend to me, / as quiet as the evening sea.",
]


def story(rng: Random, topic: str = "") -> tuple[str, dict[str, str]]:
    """A story of four to six sentences about `topic` (an animal or a thing), and the slots to go on with."""
    living = not topic or topic in ANIMALS
    animal = topic if topic in ANIMALS else rng.choice(ANIMALS)
    thing = a(topic) if topic and not living else a(f"{rng.choice(COLOURS)} {rng.choice(THINGS)}")
    name = person(rng)
    hero = a(f"{rng.choice(ADJECTIVES)} {animal}")
    named = rng.random() < 0.6
    slots = {
        "hero": hero,
        "name": name,
        "place": rng.choice(PLACES),
        "who": name if named else f"the {animal}",
        "thing": thing,
        "friend": a(f"{rng.choice(ADJECTIVES)} {rng.choice(ANIMALS)}"),
        "food": rng.choice(FOODS),
    }
    opening = (
        rng.choice(OPENINGS)
        .replace("[ called {name}|]", " called {name}" if named else "")
        .replace("[ named {name}|]", " named {name}" if named else "")
    )
    parts = [
        expand(rng, opening, **slots),
        _sentence(rng, WISHES[:2] if not living else WISHES, slots),
        _sentence(rng, TROUBLES, slots),
    ]
    slots["friend"] = "the " + slots["friend"].split(" ", 1)[1]
    parts += [_sentence(rng, HELPS, slots), _sentence(rng, ENDINGS, slots)]
    return " ".join(parts), slots


def continuation(rng: Random, slots: dict[str, str]) -> str:
    """One or two more sentences of the same story."""
    return " ".join(_sentence(rng, [line], slots) for line in rng.sample(CONTINUATIONS, rng.choice((1, 2))))


def _sentence(rng: Random, lines: list[str], slots: dict[str, str]) -> str:
    text = pick(rng, lines, **slots)
    return text[:1].upper() + text[1:]


def rhyme(rng: Random, topic: str) -> str:
    """Two rhyming lines about the topic."""
    return rng.choice(RHYMES).format(topic=topic)
