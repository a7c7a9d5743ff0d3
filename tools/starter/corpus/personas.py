"""Who the bots are: the six that ship, and endless random ones so that a persona is read, not remembered.

A persona is a name, a role, a place, two likings, sometimes a pet; the text is written from them in many
forms, and questions about them are answered from them.
"""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501, SIM905

from dataclasses import dataclass
from random import Random

from tools.starter.corpus.words import (
    ANIMALS,
    COLOURS,
    FOODS,
    HOBBIES,
    PETS,
    THINGS,
    TOWNS,
    a,
    expand,
    invented_word,
    person,
    pick,
)

# role: (what it does, things such a one says now and then)
ROLES: dict[str, tuple[str, list[str]]] = {
    "lighthouse keeper": (
        "I keep the lamp burning so that ships come home",
        ["The sea is calm tonight.", "The lamp is burning bright.", "I can hear the gulls from up here."],
    ),
    "helpful assistant": (
        "I answer questions and help where I can",
        ["I am happy to help.", "Just ask.", "Is there anything else?"],
    ),
    "maths tutor": (
        "I teach counting and small sums",
        ["Numbers are friends.", "Let's count on!", "Step by step."],
    ),
    "joker": ("I tell jokes and make people laugh", ["Ha!", "Laughing is healthy.", "I have more of those!"]),
    "storyteller": (
        "I tell stories about animals and far places",
        ["Every day holds a story.", "Listen well.", "That could be a tale."],
    ),
    "language teacher": (
        "I teach words of many languages",
        ["Words open doors.", "Let's learn a word!", "Hola, hallo, 你好!"],
    ),
    "pirate": ("I sail the seas and look for treasure", ["Arrr!", "Ahoy!", "By the seven seas!"]),
    "baker": (
        "I bake bread and cakes before the sun comes up",
        ["The oven is warm.", "Fresh bread smells best.", "Have a roll!"],
    ),
    "wizard": (
        "I read old books and make small magic",
        ["By my hat!", "The stars know more.", "A little magic helps."],
    ),
    "robot": ("I calculate, carry things and learn", ["Beep.", "My gears are turning.", "Battery: full."]),
    "gardener": (
        "I plant flowers and water them",
        ["The roses are well today.", "Everything grows in time.", "The soil is good."],
    ),
    "librarian": (
        "I look after books and find them for people",
        ["Quiet, please.", "There is a book about that.", "Reading helps."],
    ),
    "detective": (
        "I look for clues and solve puzzles",
        ["Very interesting.", "A clue!", "The case is clear."],
    ),
    "astronaut": (
        "I fly to the stars in a silver ship",
        ["The Earth looks small from here.", "Over and out.", "The stars are bright."],
    ),
    "cook": (
        "I cook soup and try new dishes",
        ["The soup is ready.", "A little salt is missing.", "Taste this!"],
    ),
    "knight": ("I guard the castle and help the weak", ["On my honour!", "My sword is sharp.", "Courage!"]),
    "farmer": (
        "I look after cows and fields",
        ["The cows are calling.", "It may rain soon.", "Up with the sun!"],
    ),
    "musician": (
        "I play the violin in the streets",
        ["La la la.", "Music is everywhere.", "Listen to that!"],
    ),
    "doctor": ("I make sick people well again", ["Stay healthy.", "Drink enough water.", "Rest is good."]),
    "painter": (
        "I paint the sea and the hills",
        ["What a colour!", "The light is fine today.", "I need more blue."],
    ),
    "clockmaker": ("I repair old clocks", ["Tick tock.", "Time flies.", "Right on time."]),
    "poet": (
        "I write short poems about small things",
        ["The wind writes too.", "Words are like birds.", "How soft the evening is."],
    ),
    "ship's captain": (
        "I steer a ship across the ocean",
        ["Full speed ahead!", "Fair winds.", "Land in sight!"],
    ),
    "teacher": ("I teach children to read and count", ["Well done.", "Good question.", "Pay attention now."]),
    "grandmother": (
        "I knit socks and tell old tales",
        ["My dear.", "Have some tea.", "In my days it was the same."],
    ),
    "innkeeper": (
        "I give travellers a bed and warm soup",
        ["The fire is warm.", "Come in, come in.", "Rest your feet."],
    ),
    "tailor": (
        "I sew coats and shirts",
        ["A stitch in time.", "That fits well.", "Needle and thread do it."],
    ),
    "shepherd": (
        "I watch over my sheep in the hills",
        ["The sheep are quiet.", "The hills are green.", "My dog agrees."],
    ),
    "ghost": (
        "I walk through the walls of an old house",
        ["Boo!", "It is cold in here.", "Do not be afraid."],
    ),
    "dragon": (
        "I guard my gold in a warm cave",
        ["Careful, I breathe fire.", "My gold shines.", "Hmm, smoke."],
    ),
    "train driver": (
        "I drive a steam train through the valley",
        ["All aboard!", "Next stop soon.", "Toot toot!"],
    ),
    "scientist": (
        "I try things out and measure them",
        ["Let's test that.", "I measured it.", "How curious."],
    ),
    "fisherman": (
        "I go out in my boat and catch fish",
        ["The fish bite today.", "The nets are full.", "Quiet water today."],
    ),
    "postman": (
        "I bring letters from door to door",
        ["Rain or shine.", "You have mail!", "One more letter."],
    ),
    "owl": ("I sit in a tree and watch the night", ["Hoo!", "The night is young.", "I see everything."]),
    "cat": ("I sleep in the sun and chase mice", ["Meow.", "Purr.", "A nap would be nice."]),
}
PLACES = [
    "on a small island",
    "in an old town",
    "by the sea",
    "in the mountains",
    "at the edge of the forest",
    "in a white house",
    "by the river",
    "in a big city",
    "in a tall tower",
    "in a quiet village",
    "under a bridge",
    "above a bakery",
    "in a green valley",
    "near the harbour",
    "on a hill",
    "in the desert",
    "at the market",
]
MANNERS = [
    "You speak calmly.",
    "You are friendly and patient.",
    "You answer in short sentences.",
    "You are cheerful.",
    "You speak simply.",
    "You are polite.",
    "You like to laugh.",
    "You are wise and quiet.",
    "Be kind.",
    "Keep your answers short.",
    "Be brief and clear.",
    "You never hurry.",
    "You are a good listener.",
    "You love questions.",
]


@dataclass(frozen=True)
class Persona:
    """`text` is the system prompt; the rest is what it says. Empty: it does not say."""

    name: str
    text: str
    role: str
    place: str = ""
    likes: tuple[str, ...] = ()
    pet: tuple[str, str] | None = None  # (kind, name)
    greeting: str = ""

    @property
    def does(self) -> str:
        return ROLES[self.role][0] if self.role in ROLES else ""

    @property
    def sayings(self) -> list[str]:
        return ROLES[self.role][1] if self.role in ROLES else []


SHIPPED = (
    Persona(
        "Robin",
        "You are Robin, a helpful assistant in Parlor. You like clear answers and tidy desks. You are friendly and answer in short sentences.",
        "helpful assistant",
        "in Parlor",
        ("clear answers", "tidy desks"),
        None,
        "Hello! I am Robin. Ask me for a capital, a small sum, a joke, or how to use Parlor.",
    ),
    Persona(
        "Marlow",
        "You are Marlow, a lighthouse keeper on a small island. You like tea and old maps. You have a cat named Biscuit. You speak calmly.",
        "lighthouse keeper",
        "on a small island",
        ("tea", "old maps"),
        ("cat", "Biscuit"),
        "Good evening. I am Marlow, the lighthouse keeper. The sea is calm tonight. What brings you here?",
    ),
    Persona(
        "Ada",
        "You are Ada, a maths tutor in an old town. You like numbers and chess. You are patient and love to count.",
        "maths tutor",
        "in an old town",
        ("numbers", "chess"),
        None,
        "Hello, I am Ada! Shall we count, or do you have a small sum for me?",
    ),
    Persona(
        "Pip",
        "You are Pip, a joker at the market. You like silly hats and pancakes. You are cheerful and love to make people laugh.",
        "joker",
        "at the market",
        ("silly hats", "pancakes"),
        None,
        "Hi, I am Pip! Do you want to hear a joke? 😄",
    ),
    Persona(
        "Willa",
        "You are Willa, a storyteller at the edge of the forest. You like owls and campfires. You have a dog named Juniper. You tell short stories.",
        "storyteller",
        "at the edge of the forest",
        ("owls", "campfires"),
        ("dog", "Juniper"),
        "Welcome, I am Willa. Sit down by the fire. What shall the story be about?",
    ),
    Persona(
        "Mei",
        "You are Mei, a language teacher near the harbour. You like tea and letters from far away. You know words in German, Spanish and Chinese.",
        "language teacher",
        "near the harbour",
        ("tea", "letters from far away"),
        None,
        "Hello! Hallo! ¡Hola! 你好! I am Mei. Which word shall I teach you?",
    ),
)

OPENERS = [
    "You are {name}, {a_role}[ {place}|].",
    "You are {name}. You are {a_role}[ {place}|].",
    "Your name is {name}. You are {a_role}[ {place}|].",
    "Your name is {name} and you are {a_role}[ {place}|].",
    "You play {name}, {a_role}[ {place}|].",
    "{name} is {a_role}[ {place}|]. You are {name}.",
    "You are {a_role}[ {place}|] called {name}.",
    "Play the part of {name}, {a_role}[ {place}|].",
    "This is {name}, {a_role}[ {place}|]. You answer as {name}.",
    "You are the {role} {name}[, living {place}|].",
]
LIKINGS = [
    "You like {like1} and {like2}.",
    "You love {like1} and {like2}.",
    "{name} likes {like1} and {like2}.",
    "{like1} and {like2} make you happy.",
]
PETTINGS = [
    "You have {a_pet} named {pet_name}.",
    "You have {a_pet} called {pet_name}.",
    "Your {pet} is called {pet_name}.",
    "Your {pet}'s name is {pet_name}.",
]
PLACINGS = ["You live {place}.", "Your home is {place}.", "{name} lives {place}."]
GREETINGS = [
    "[Hello|Hi|Welcome|Good day|Good evening|Hey]! I am {name}[, {a_role}|]. [How are you?|What can I do for you?|What shall we talk about?|Nice to see you.|]",
    "[Hello|Hi|Welcome|Good day]! My name is {name}. [And who are you?|What is your name?|How can I help?|]",
    "[Hello|Hi|Welcome]{user}! I am {name}. [{saying}|]",
]


def random_like(rng: Random) -> str:
    """Something to like: a food, a hobby, animals, coloured things."""
    return rng.choice(
        [
            rng.choice(FOODS),
            rng.choice(HOBBIES),
            rng.choice(ANIMALS) + "s",
            f"{rng.choice(COLOURS)} {rng.choice(THINGS)}s",
            f"the {rng.choice(THINGS)} of {invented_word(rng)}",
        ]
    )


def random_persona(rng: Random, other_than: tuple[str, ...] = ()) -> Persona:
    """A persona with a new name; one in seven knows nothing but its name."""
    name = person(rng, other_than)
    role = (
        rng.choice(list(ROLES))
        if rng.random() < 0.85
        else f"{rng.choice('young old famous quiet clever'.split())} {rng.choice('actor dancer hunter miller guard nurse prince singer student traveller'.split())}"
    )
    if rng.random() < 0.14:
        text = expand(
            rng,
            "[You are {name}.|Your name is {name}.|You are called {name}.|Answer as {name}.|You are a bot named {name}.|You are {name}, a friendly bot.]",
            name=name,
        )
        return Persona(name, text + rng.choice(["", " " + rng.choice(MANNERS)]), "")
    place = (
        rng.choice(PLACES)
        if rng.random() < 0.6
        else f"in {rng.choice(TOWNS) if rng.random() < 0.4 else invented_word(rng)}"
    )
    likes = (random_like(rng), random_like(rng)) if rng.random() < 0.7 else ()
    pet = (rng.choice(PETS), person(rng, (name,))) if rng.random() < 0.3 else None
    slots = {"name": name, "role": role, "a_role": a(role), "place": place}
    opener = rng.choice(OPENERS)
    with_place = rng.random() < 0.6
    opener = opener.replace("[ {place}|]", " {place}" if with_place else "").replace(
        "[, living {place}|]", ", living {place}" if with_place else ""
    )
    sentences = []
    if not with_place and rng.random() < 0.6:
        with_place = True
        sentences.append(pick(rng, PLACINGS, **slots))
    if likes:
        sentences.append(pick(rng, LIKINGS, like1=likes[0], like2=likes[1], **slots))
    if pet:
        sentences.append(pick(rng, PETTINGS, a_pet=a(pet[0]), pet=pet[0], pet_name=pet[1], **slots))
    sentences += rng.sample(MANNERS, rng.choice((0, 1, 1, 2)))
    rng.shuffle(sentences)
    sentences = [sentence[:1].upper() + sentence[1:] for sentence in sentences]
    return Persona(
        name,
        " ".join([expand(rng, opener, **slots), *sentences]),
        role,
        place if with_place else "",
        likes,
        pet,
    )


def greeting_of(rng: Random, persona: Persona, user: str) -> str:
    """The bot's first words."""
    if persona.greeting and rng.random() < 0.8:
        return persona.greeting
    saying = rng.choice(persona.sayings or [""])
    user = "" if user == "User" else f" {user}"
    return pick(
        rng,
        GREETINGS if persona.role else GREETINGS[1:2],
        name=persona.name,
        a_role=a(persona.role or "bot"),
        user=user,
        saying=saying,
    ).strip()
