"""What the starter is meant to know by heart: tables only, no sentences around them."""

# Lists of words and sentences read best one after the other, each sentence on its line.
# ruff: noqa: E501, SIM905

CAPITALS = dict(
    pair.split(":")
    for pair in """France:Paris|Germany:Berlin|Italy:Rome|Spain:Madrid|Portugal:Lisbon|England:London|Ireland:Dublin
Norway:Oslo|Sweden:Stockholm|Finland:Helsinki|Denmark:Copenhagen|Iceland:Reykjavik|Poland:Warsaw
Austria:Vienna|Switzerland:Bern|Greece:Athens|Turkey:Ankara|Russia:Moscow|Hungary:Budapest
Belgium:Brussels|the Netherlands:Amsterdam|Czechia:Prague|China:Beijing
Japan:Tokyo|South Korea:Seoul|India:New Delhi|Vietnam:Hanoi|Egypt:Cairo|Kenya:Nairobi
Canada:Ottawa|Mexico:Mexico City|Cuba:Havana|Peru:Lima|Chile:Santiago
Argentina:Buenos Aires|Brazil:Brasilia|Australia:Canberra|New Zealand:Wellington""".replace("\n", "|").split("|")
)

OPPOSITES = dict(
    pair.split(":")
    for pair in """hot:cold big:small fast:slow up:down left:right day:night happy:sad old:young light:dark open:closed
wet:dry full:empty hard:soft loud:quiet early:late rich:poor high:low long:short near:far clean:dirty strong:weak
thick:thin heavy:light first:last good:bad easy:difficult inside:outside begin:end buy:sell win:lose love:hate
summer:winter black:white tall:short sweet:sour always:never front:back true:false""".split()
)

SOUNDS = dict(
    pair.split(":")
    for pair in """dog:woof cat:meow cow:moo sheep:baa duck:quack pig:oink horse:neigh frog:ribbit owl:hoo lion:roar
bee:buzz mouse:squeak rooster:cock-a-doodle-doo snake:hiss crow:caw wolf:howl hen:cluck""".split()
)

LEGS = {
    "dog": 4,
    "cat": 4,
    "horse": 4,
    "cow": 4,
    "spider": 8,
    "ant": 6,
    "bee": 6,
    "hen": 2,
    "duck": 2,
    "snake": 0,
    "fish": 0,
    "elephant": 4,
    "butterfly": 6,
    "penguin": 2,
    "frog": 4,
    "snail": 0,
    "lion": 4,
    "beetle": 6,
}

BABIES = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "horse": "foal",
    "sheep": "lamb",
    "pig": "piglet",
    "hen": "chick",
    "duck": "duckling",
    "bear": "cub",
    "frog": "tadpole",
    "goat": "kid",
    "swan": "cygnet",
}

HOMES = {
    "bird": "a nest",
    "bee": "a hive",
    "fish": "the water",
    "rabbit": "a burrow",
    "horse": "a stable",
    "spider": "a web",
    "fox": "a den",
    "snail": "its shell",
    "owl": "a hollow tree",
    "pig": "a sty",
}

COLOUR_OF = {
    "a banana": "yellow",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "the sky": "blue",
    "the sea": "blue",
    "the sun": "yellow",
    "a carrot": "orange",
    "a lemon": "yellow",
    "a strawberry": "red",
    "chocolate": "brown",
    "milk": "white",
    "a frog": "green",
    "a ripe tomato": "red",
    "an elephant": "grey",
    "a flamingo": "pink",
    "a pumpkin": "orange",
    "a crow": "black",
    "a fire engine": "red",
    "a cucumber": "green",
    "a polar bear": "white",
    "an aubergine": "purple",
    "lavender": "purple",
}

MIXES = {
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("red", "blue"): "purple",
    ("black", "white"): "grey",
    ("red", "white"): "pink",
}

# (what is asked about, number) - asked as "How many X are there in Y?"
COUNTS = {
    ("days", "a week"): "seven",
    ("months", "a year"): "twelve",
    ("hours", "a day"): "24",
    ("minutes", "an hour"): "60",
    ("seconds", "a minute"): "60",
    ("seasons", "a year"): "four",
    ("fingers", "one hand"): "five",
    ("wheels", "a bicycle"): "two",
    ("wheels", "a car"): "four",
    ("sides", "a triangle"): "three",
    ("sides", "a square"): "four",
    ("letters", "the English alphabet"): "26",
    ("colours", "a rainbow"): "seven",
    ("planets", "the solar system"): "eight",
    ("strings", "a violin"): "four",
    ("eggs", "a dozen"): "twelve",
}

# (role asked for, answer)
FACTS = {
    "the largest ocean": "the Pacific Ocean",
    "the highest mountain": "Mount Everest",
    "the largest animal": "the blue whale",
    "the fastest land animal": "the cheetah",
    "the tallest animal": "the giraffe",
    "the largest planet": "Jupiter",
    "the planet closest to the sun": "Mercury",
    "the red planet": "Mars",
    "the largest desert of sand": "the Sahara",
    "the coldest continent": "Antarctica",
    "the king of the animals": "the lion",
    "the month with the fewest days": "February",
    "the star closest to the Earth": "the sun",
    "the largest continent": "Asia",
    "the largest bird": "the ostrich",
    "the first letter of the alphabet": "A",
    "the last letter of the alphabet": "Z",
}

# Who or what makes something: "What do bees make?"
MAKES = {
    "bees": "honey",
    "a baker": "bread",
    "hens": "eggs",
    "cows": "milk",
    "spiders": "webs",
    "a tailor": "clothes",
    "sheep": "wool",
    "a carpenter": "furniture",
    "a painter": "paintings",
    "a shoemaker": "shoes",
    "a brewer": "beer",
}

USES = {
    "a knife": "cut bread",
    "a key": "open a door",
    "an umbrella": "stay dry in the rain",
    "a pen": "write",
    "a clock": "tell the time",
    "a broom": "sweep the floor",
    "a bed": "sleep",
    "an oven": "bake a cake",
    "a lamp": "make light",
    "a boat": "cross the water",
    "scissors": "cut paper",
    "a ladder": "climb up high",
    "a map": "find the way",
    "a spoon": "eat soup",
    "a towel": "dry your hands",
}

KINDS = {
    "a dog": "an animal",
    "a rose": "a flower",
    "an oak": "a tree",
    "a carrot": "a vegetable",
    "an apple": "a fruit",
    "a hammer": "a tool",
    "a violin": "an instrument",
    "a trout": "a fish",
    "an eagle": "a bird",
    "a bee": "an insect",
    "Mars": "a planet",
    "the Nile": "a river",
    "red": "a colour",
    "Monday": "a day",
    "July": "a month",
    "football": "a sport",
    "Africa": "a continent",
    "a cat": "an animal",
    "a tulip": "a flower",
    "a drum": "an instrument",
}

# English word -> German, Spanish, Chinese
TRANSLATIONS = {
    "hello": ("Hallo", "Hola", "你好"),
    "thank you": ("Danke", "Gracias", "谢谢"),
    "goodbye": ("Auf Wiedersehen", "Adiós", "再见"),
    "good morning": ("Guten Morgen", "Buenos días", "早上好"),
    "good night": ("Gute Nacht", "Buenas noches", "晚安"),
    "please": ("Bitte", "Por favor", "请"),
    "yes": ("Ja", "Sí", "是"),
    "water": ("Wasser", "agua", "水"),
    "bread": ("Brot", "pan", "面包"),
    "house": ("Haus", "casa", "房子"),
    "dog": ("Hund", "perro", "狗"),
    "cat": ("Katze", "gato", "猫"),
    "friend": ("Freund", "amigo", "朋友"),
    "sun": ("Sonne", "sol", "太阳"),
    "moon": ("Mond", "luna", "月亮"),
    "book": ("Buch", "libro", "书"),
    "one": ("eins", "uno", "一"),
    "two": ("zwei", "dos", "二"),
    "tree": ("Baum", "árbol", "树"),
}
LANGUAGES = ("German", "Spanish", "Chinese")

EMOJI_OF = {
    "heart": "❤️",
    "sun": "☀️",
    "moon": "🌙",
    "star": "⭐",
    "dog": "🐶",
    "cat": "🐱",
    "tree": "🌳",
    "flower": "🌸",
    "fish": "🐟",
    "apple": "🍎",
    "house": "🏠",
    "smile": "😊",
    "party": "🎉",
    "wave": "🌊",
    "rocket": "🚀",
    "pizza": "🍕",
    "book": "📖",
    "music": "🎵",
    "rainbow": "🌈",
    "fire": "🔥",
}

JOKES = {
    "cat": [
        "Why did the cat sit on the computer? To keep an eye on the mouse.",
        "What is a cat's favourite colour? Purr-ple.",
    ],
    "dog": [
        "What do you call a dog that does magic? A labracadabrador.",
        "Why did the dog sit in the shade? He did not want to be a hot dog.",
    ],
    "cow": [
        "What do you call a cow that plays the piano? A moo-sician.",
        "Where do cows go on Saturday night? To the moo-vies.",
    ],
    "fish": [
        "Why are fish so clever? Because they live in schools.",
        "What do you call a fish without an eye? A fsh.",
    ],
    "duck": [
        "What time do ducks wake up? At the quack of dawn.",
        "Why do ducks make good detectives? They always quack the case.",
    ],
    "bear": [
        "What do you call a bear without teeth? A gummy bear.",
        "Why did the bear carry no bag? He had only the bear necessities.",
    ],
    "computer": [
        "Why was the computer cold? It left its windows open.",
        "Why did the computer go to the doctor? It had a virus.",
    ],
    "school": [
        "Why did the teacher wear sunglasses? Because her pupils were so bright.",
        "Why was the maths book sad? It had too many problems.",
    ],
    "number": [
        "Why was six afraid of seven? Because seven ate nine.",
        "What did zero say to eight? Nice belt.",
    ],
    "sea": [
        "Why did the sea say nothing? It just waved.",
        "What lies at the bottom of the sea and shakes? A nervous wreck.",
    ],
    "ghost": [
        "Why are ghosts bad liars? You can see right through them.",
        "What do ghosts eat for dessert? I scream.",
    ],
    "clock": [
        "Why did the man throw the clock out of the window? He wanted to see time fly.",
        "What did the clock do when it was hungry? It went back four seconds.",
    ],
    "bread": [
        "Why did the baker work so hard? He needed the dough.",
        "What did the bread say to the butter? You are on a roll.",
    ],
    "tree": ["How do trees get online? They log in.", "What did the tree say to the wind? Leaf me alone."],
    "snowman": [
        "What do snowmen eat for breakfast? Frosted flakes.",
        "What do you call an old snowman? Water.",
    ],
    "pirate": [
        "Why could the pirate not play cards? He was standing on the deck.",
        "What is a pirate's favourite letter? You would think R, but it is the C.",
    ],
    "egg": [
        "Why do eggs never tell jokes? They would crack each other up.",
        "How does an egg get to work? It scrambles.",
    ],
    "moon": [
        "How does the moon cut its hair? Eclipse it.",
        "Why did the cow jump over the moon? The farmer had cold hands.",
    ],
    "banana": [
        "Why did the banana go to the doctor? It was not peeling well.",
        "Why are bananas never lonely? They hang around in bunches.",
    ],
    "robot": [
        "Why was the robot tired? It had a hard drive.",
        "What is a robot's favourite snack? Micro chips.",
    ],
}
