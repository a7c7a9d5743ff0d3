"""Rooms of two or three bots and a person, simulated line by line; and plain transcripts of such talks."""

from random import Random

from tools.starter.corpus.dialogue import any_skill, draw_persona, flavour, special_skill
from tools.starter.corpus.memory import Memory, draw_memory
from tools.starter.corpus.persona_talk import persona_exchange
from tools.starter.corpus.personas import Persona, greeting_of
from tools.starter.corpus.render import Line
from tools.starter.corpus.skill import Exchange
from tools.starter.corpus.words import capitalize, expand, person

AGREE = [
    "I think so too.",
    "{other} is right.",
    "I agree with {other}.",
    "{other} said it well.",
    "Yes, {other}.",
    "That is what I would say too, {other}.",
    "Well said, {other}!",
]
TO_ALL = [
    "[hello|hi|good evening|good morning] everyone[!|.]",
    "hello [both|all] of you!",
    "hi all!",
    "hello to the room!",
]
INTRODUCE = [
    "please introduce yourselves[.|!]",
    "who are you all?",
    "who is here?",
    "tell me who you are.",
    "what are your names?",
    "I want to know you all.",
]
WHO_ELSE = [
    "who else is here?",
    "who is in the room?",
    "who are the others?",
    "who is with us?",
    "name the people in the room.",
]
WHO_ELSE_HELD_OUT = ["which people share this room with us?"]
BOT_ASKS = [
    "{name}, {question}",
    "{name}, tell us: {question}",
    "I wonder, {name}: {question}",
    "And you, {name}, {question}",
]
CHATTER = [
    "{saying} What do you think, {name}?",
    "{saying} And how are you, {name}?",
    "{saying} Do you agree, {name}?",
]
CHATTER_REPLIES = [
    "I am fine, {name}. {saying}",
    "I think so too, {name}. {saying}",
    "Yes, {name}. {saying}",
    "You are right, {name}.",
    "{saying} That is how I see it, {name}.",
]


class Room:
    """The lines of a room so far, and how they go on. Who speaks is often named in the line before."""

    def __init__(self, rng: Random, bots: list[Persona], user: str) -> None:
        self.rng, self.bots, self.user = rng, bots, user
        self.lines: list[Line] = []
        self.memories: list[Memory] = []
        self.names = [bot.name for bot in bots]

    def say(self, by: str, text: str) -> None:
        self.lines.append(Line(by, text))

    def reply(self, bot: Persona, exchange: Exchange) -> None:
        """The bot's answer; sometimes with the name of the one who asked."""
        text = flavour(self.rng, bot, exchange.answer)
        if (
            self.rng.random() < 0.12
            and self.lines[-1].by not in text
            and not exchange.skill.startswith(("echo", "told"))
        ):
            text = (
                f"{self.lines[-1].by}, {text}"
                if text.startswith(("I ", "I'", bot.name))
                else f"{text} That is for you, {self.lines[-1].by}."
            )
        self.say(bot.name, text)

    def addressed(self, bot: Persona, question: str) -> str:
        """The question with the bot's name in it."""
        lower = question if question.startswith(("I ", "I'")) else question[:1].lower() + question[1:]
        return (
            expand(
                self.rng,
                self.rng.choice(
                    [
                        "{n}, {q}",
                        "{n}, {q}",
                        "{n}: {q}",
                        "[Hey|Hi|Hello] {n}, {q}",
                        "[tell me|please], {n}, {q}",
                        "{q2} {n}?",
                    ]
                ),
                n=bot.name,
                q="{q}",
                q2="{q2}",
            )
            .replace("{q2}", question.rstrip("?.!") + ",")
            .replace("{q}", lower)
        )

    def question_for(self, bot: Persona) -> Exchange:
        """Something to ask this bot: what it was told, itself, its specialty, anything."""
        roll = self.rng.random()
        if self.memories and roll < 0.2:
            return self.rng.choice(self.memories).recall(self.rng)
        if roll < 0.5:
            return persona_exchange(self.rng, bot)
        return (special_skill(self.rng, bot) if roll < 0.65 else any_skill(self.rng)).exchange(self.rng)

    def user_asks_one(self) -> None:
        bot = self.rng.choice(self.bots)
        exchange = self.question_for(bot)
        self.say(self.user, capitalize(self.addressed(bot, exchange.question)))
        self.reply(bot, exchange)
        if self.rng.random() < 0.2:
            other = self.other(bot)
            self.say(other.name, flavour(self.rng, other, self.rng.choice(AGREE).format(other=bot.name)))

    def user_asks_room(self) -> None:
        """Nobody is named; one or more answer in their order, the later ones agree or say it again."""
        bots = (
            self.bots
            if self.rng.random() < 0.5
            else self.rng.sample(self.bots, self.rng.randint(1, len(self.bots)))
        )
        exchange = any_skill(self.rng).exchange(self.rng)
        self.say(self.user, exchange.question)
        first = True
        for bot in bots:
            if first or self.rng.random() < 0.3:
                self.reply(bot, exchange)
            else:
                self.say(
                    bot.name, flavour(self.rng, bot, self.rng.choice(AGREE).format(other=self.lines[-1].by))
                )
            first = False

    def user_tells(self) -> None:
        memory = draw_memory(self.rng, user=self.user if self.user != "User" else "")
        self.memories.append(memory)
        bot = self.rng.choice(self.bots)
        self.say(self.user, memory.told.question)
        self.reply(bot, memory.told)

    def introductions(self) -> None:
        self.say(
            self.user,
            capitalize(expand(self.rng, self.rng.choice(INTRODUCE if self.rng.random() < 0.6 else TO_ALL))),
        )
        for bot in self.bots:
            if self.lines[-1].by == self.user or self.rng.random() < 0.8:
                text = (
                    persona_exchange(self.rng, bot, "name").answer
                    if self.rng.random() < 0.7
                    else greeting_of(self.rng, bot, self.user)
                )
                self.say(bot.name, text)

    def who_else(self) -> None:
        bot = self.rng.choice(self.bots)
        self.say(self.user, capitalize(self.addressed(bot, self.rng.choice(WHO_ELSE))))
        others = [name for name in self.names if name != bot.name]
        self.say(
            bot.name,
            self.rng.choice(
                ["{others} and you.", "In the room are {others}, you and I.", "{others}, you and I."]
            ).format(others=", ".join(others)),
        )

    def bot_asks_bot(self) -> None:
        """One bot turns to another, by name; that one answers."""
        asker = self.rng.choice(self.bots)
        if self.lines and self.lines[-1].by == asker.name:
            asker = self.other(asker)
        other = self.other(asker)
        if asker.sayings and self.rng.random() < 0.4:
            self.say(
                asker.name,
                self.rng.choice(CHATTER).format(saying=self.rng.choice(asker.sayings), name=other.name),
            )
            saying = self.rng.choice(other.sayings or ["That is true."])
            self.say(other.name, self.rng.choice(CHATTER_REPLIES).format(name=asker.name, saying=saying))
            return
        exchange = (
            persona_exchange(self.rng, other)
            if self.rng.random() < 0.6
            else any_skill(self.rng).exchange(self.rng)
        )
        question = (
            exchange.question
            if exchange.question.startswith(("I ", "I'"))
            else exchange.question[:1].lower() + exchange.question[1:]
        )
        self.say(asker.name, self.rng.choice(BOT_ASKS).format(name=other.name, question=question))
        self.reply(other, exchange)

    def goes_on(self) -> None:
        """The bot that spoke last speaks again: one more saying, or another question to the room."""
        if not self.lines or self.lines[-1].by == self.user:
            self.introductions()
        bot = next(bot for bot in self.bots if bot.name == self.lines[-1].by)
        other = self.other(bot)
        if bot.sayings and self.rng.random() < 0.6:
            self.say(
                bot.name,
                self.rng.choice(bot.sayings)
                + self.rng.choice(
                    [
                        "",
                        f" And you, {other.name}?",
                        f" What do you say, {other.name}?",
                        f" And you, {self.user}?",
                    ]
                ),
            )
        else:
            self.say(
                bot.name,
                self.rng.choice(
                    [
                        "And how are you, {n}?",
                        "What do you think, {n}?",
                        "And you, {n}?",
                        "I like to be here with you, {n}.",
                    ]
                ).format(n=self.rng.choice([other.name, self.user])),
            )

    def other(self, bot: Persona) -> Persona:
        return self.rng.choice([one for one in self.bots if one is not bot])

    def play(self, events: int) -> None:
        for _ in range(events):
            event = self.rng.choices(
                [
                    self.user_asks_one,
                    self.user_asks_room,
                    self.user_tells,
                    self.introductions,
                    self.who_else,
                    self.bot_asks_bot,
                    self.goes_on,
                ],
                [7, 4, 2, 1.5, 1, 3.5, 1],
            )[0]
            event()


def draw_room(rng: Random, events: int = 0) -> Room:
    """A played room of two or three bots."""
    count = rng.choice((2, 2, 3, 3, 3))
    bots: list[Persona] = []
    user = "User" if rng.random() < 0.55 else person(rng)
    for _ in range(count):
        bots.append(draw_persona(rng, (user, *(bot.name for bot in bots))))
    room = Room(rng, bots, user)
    if rng.random() < 0.4:
        for bot in bots[: rng.randint(1, count)]:
            room.say(bot.name, greeting_of(rng, bot, user))
    room.play(events or rng.randint(1, 5))
    return room
