"""Word lists and the little grammar that everything in the corpus is written with.

`expand` turns "[Hi|Hello] {name}" into one of its sentences. Names are half real, half built from
syllables, so that a model has to copy them from the text instead of knowing them.
"""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501, SIM905

import re
from random import Random

CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(rng: Random, template: str, **slots: object) -> str:
    """Pick one alternative in every [a|b|c], innermost first, then fill the {slots}."""
    while match := CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template.format(**slots) if "{" in template else template


def pick(rng: Random, templates: list[str], **slots: object) -> str:
    """Expand one of the templates."""
    return expand(rng, rng.choice(templates), **slots)


def capitalize(text: str) -> str:
    """Upper-case the first letter and leave the rest alone."""
    return text[:1].upper() + text[1:]


def a(noun: str) -> str:
    """The noun with its article."""
    return ("an " if noun[0].lower() in "aeio" else "a ") + noun


def join_words(words: list[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" {last} " + words[-1]


NAMES = """Adam Alice Amir Amy Andrea Anna Anton Arthur Ava Ben Bella Boris Bruno Carl Carla Carmen Chloe Clara Claire
Daniel David Diego Dora Eli Elena Elias Ella Emil Emily Emma Erik Eva Felix Finn Fiona Flora Frank Frida Gabriel George
Gina Greta Hana Hanna Harry Hector Heidi Helen Henry Hugo Ida Igor Ines Irene Isaac Ivan Jack Jacob James Jana Jane
Jasper Joan John Jonas Jose Julia Julian Karl Kate Kim Klara Lara Laura Lea Leo Leon Liam Lily Linda Lisa Louis Lucas
Lucy Luis Luna Maja Marco Maria Marie Mario Mark Martha Martin Mary Max Maya Mia Michael Mila Milo Mina Mira Nadia
Nathan Nick Nina Noah Nora Olaf Olga Oliver Omar Oscar Otto Paul Paula Pedro Peter Petra Philip Rosa Ruben Ruby Ruth
Sam Samir Sara Simon Sofia Sonia Stella Sven Tara Theo Thomas Tim Tina Tom Uma Vera Victor Viola Walter Wanda Will
Yara Yusuf Zoe Lin Wei Ming Yuki Kenji Priya Ravi Aisha Fatima Kofi Ama""".split()

ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ee ia io oa oo".split()
VOWEL_WEIGHTS = [9, 9, 9, 9, 6, 1, 1, 1, 1, 1, 1, 1]
CODAS = ["", "", "", "", "l", "m", "n", "r", "s", "x", "th", "nd", "rk", "ck", "ll", "ss"]


def invented_word(rng: Random, syllables: int = 0) -> str:
    """A word of two or three random syllables: "Breloth", "Kazumi"."""
    count = syllables or rng.choice((1, 2, 2, 2, 3))
    parts = []
    for index in range(count):
        parts.append(rng.choice(ONSETS) + rng.choices(VOWELS, VOWEL_WEIGHTS)[0])
        if index == count - 1 or rng.random() < 0.25:
            parts.append(rng.choice(CODAS))
    return "".join(parts).capitalize()


def person(rng: Random, other_than: tuple[str, ...] = ()) -> str:
    """A first name, real or invented, different from those given."""
    while True:
        name = rng.choice(NAMES) if rng.random() < 0.5 else invented_word(rng)
        if len(name) > 2 and name not in other_than:
            return name


ANIMALS = """dog cat horse cow sheep goat pig rabbit mouse hamster fox wolf bear deer owl eagle duck goose hen parrot frog
turtle snake lizard fish whale dolphin crab snail bee butterfly ant spider lion tiger elephant monkey giraffe zebra camel
penguin seal otter beaver squirrel hedgehog bat crow swan donkey""".split()
PETS = "dog cat rabbit hamster parrot turtle goldfish horse mouse lizard duck snail hedgehog ferret canary goat".split()
COLOURS = (
    "red blue green yellow orange purple pink brown black white grey turquoise violet silver gold".split()
)
FOODS = """pizza pasta soup bread cheese rice noodles pancakes salad chocolate curry dumplings apples cherries mushrooms
potatoes tomatoes sushi tacos porridge honey strawberries cake waffles beans olives""".split()
HOBBIES = """chess painting fishing hiking swimming running cooking baking reading gardening dancing singing sailing
skating drawing cycling pottery knitting climbing photography astronomy football tennis origami""".split()
JOBS = """teacher nurse baker farmer pilot sailor doctor carpenter painter driver gardener cook dentist engineer
librarian musician plumber writer tailor postman student mechanic""".split()
TOWNS = """Paris Berlin London Madrid Rome Vienna Oslo Lisbon Prague Dublin Hamburg Munich Zurich Boston Chicago Toronto
Sydney Tokyo Beijing Shanghai Lima Cairo Nairobi Delhi Seoul Kyoto Porto Lyon Krakow Bergen""".split()
THINGS = """lamp boat kite clock key lantern apple book umbrella bridge drum candle hat mirror map ring violin stone
feather bicycle teapot ladder snowman robot balloon whistle cloud star moon river mountain garden castle forest""".split()
FRUITS = "apple banana cherry pear plum grape orange lemon peach melon kiwi mango strawberry".split()
VEGETABLES = "carrot potato tomato cucumber onion cabbage pea bean spinach pumpkin radish".split()
EMOJI = "😊 🙂 😄 🌟 ⭐ 🌊 🌻 🎉 👍 ☀️ 🍀 🐾 🎈 ❤️ ✨ 🌈".split()
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
SEASONS = "spring summer autumn winter".split()
