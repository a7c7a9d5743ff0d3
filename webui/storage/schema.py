"""What a session, a bot and a preset look like on disk: their fields, their checks, their migrations.

A check raises ValueError with the place and what is wrong; unknown fields are kept. Migrations are pure
functions from one version to the next, each held by a golden file in tests/data/. Knows no paths.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import strict_json
from ..ids import is_id, new_id
from ..sampling import ADVISED, BUILT_IN_PRESETS, DEFAULT_PRESET, check_changes, check_recorded
from .arrangement import check_arrangement, check_label
from .lore_book import check_lore_book
from .picture import check_picture

Document = dict[str, Any]
Session = Document
Message = Document
Bot = Document

USER = "user"
DEFAULT_USER_NAME = "User"
UNTITLED = "New session"
MAX_TEXT = 200_000  # of what a person writes
MAX_REPLY = 1_000_000  # of what a bot writes, and of its thoughts
MAX_TITLE = 200
MAX_NAME = 60
MAX_PROMPT = 50_000
MAX_BOTS = 12
MAX_GREETINGS = 100  # besides the first
MAX_CARD = 1 << 20  # bytes of JSON: what a bot's character card holds that nothing here uses
MAX_SUMMARIES = 200
MAX_COMPARISONS = 500  # each of at most so many columns
MAX_COLUMNS = 4
MAX_LORE = 100  # entries, each with so many keys of so many characters
MAX_KEYS = 10
MAX_KEY = 100
MAX_URL = 1_000  # of another engine
MAX_SECRET = 10_000
MAX_DEPTH = 100  # messages that an author's note may stand before the end
MAX_ERROR = 2_000
MAX_MODEL_NAME = 1_000
MAX_NUMERICS = 20  # of what is told of how a reply was computed
MAX_ADAPTER = 100  # of its name, as in model/config.py
MAX_REVISION = 1 << 53  # what JavaScript counts exactly
LAST_MOMENT = 32_503_680_000.0  # the year 3000; beyond it calendars fail, Windows' first
FINISH_REASONS = ("eos", "stop", "length", "cancelled", "context", "error", "interrupted")
TURN_ORDERS = (
    {"id": "in_turn", "label": "In turn",
     "help": "Whoever you name answers; otherwise the next bot in the room."},
    {"id": "mention", "label": "By mention", "help": "Whoever you name answers; otherwise who spoke last."},
    {"id": "all", "label": "Everyone once", "help": "Each bot answers once, in the order of the room."},
    {"id": "model", "label": "Model decides", "help": "The model picks whose turn is the likeliest."},
    {"id": "manual", "label": "Only on click", "help": "Nobody answers until you click a bot."},
)
NOT_IN_NAMES = re.compile("[:\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
REPLY_NUMBERS = ("seed", "prompt_tokens", "cached_tokens", "new_tokens", "seconds_to_first_token",
                 "prompt_seconds", "decode_seconds", "tokens_per_second", "drafted_tokens", "accepted_tokens")
THOUGHT_NUMBERS = ("thinking_tokens", "thinking_seconds")
MAX_REPLY_NUMBER = (1 << 53) - 1


@dataclass(frozen=True)
class Kind:
    """One kind of document: its current version, its check, and the way from each older version."""

    name: str
    version: int
    check: Callable[[Document], None]
    migrations: dict[int, Callable[[Document], Document]] = field(default_factory=dict)
    max_bytes: int = 4 << 20  # of a file; beyond it is neither written nor read
    check_change: Callable[[Document, Document], None] | None = None  # as check, from a good document on

    def read(self, document: object) -> Document:
        """`document`, from a file or an import, in the current version and checked. Raises ValueError."""
        if not isinstance(document, dict):
            raise ValueError(f"it is not a {self.name}")
        if version_of(document) > self.version:
            raise ValueError(f"it is of version {document['schema_version']}; this Parlor reads up to "
                             f"{self.version}")
        try:
            document = self.upgrade(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not what a {self.name} of its version looks like ({error!r})") from None
        self.check(document)
        return document

    def upgrade(self, document: Document) -> Document:
        """The document in the current version. Raises ValueError if there is no way to it."""
        while (version := document["schema_version"]) < self.version:
            if version not in self.migrations:
                raise ValueError(f"{self.name} of version {version}; this Parlor reads up to {self.version} "
                                 "and knows no way from there")
            document = {**self.migrations[version](document), "schema_version": version + 1}
        return document


def version_of(document: Document) -> int:
    """Raises ValueError if it has none."""
    return check_whole("schema_version", document.get("schema_version"), MAX_REVISION)


def check_revision(document: Document) -> None:
    """Of a document that is to be changed here; Documents counts it up."""
    check_whole("revision", document.get("revision"), MAX_REVISION)


def new_session(bots: list[Bot], title: str = "") -> Session:
    now = time.time()
    return {"schema_version": SESSION.version, "id": new_id(), "revision": 1, "title": title or UNTITLED,
            "title_is_auto": not title, "created": now, "updated": now,
            "bots": [{"id": bot["id"], "muted": False} for bot in bots], "user_name": "", "system_prompt": "",
            "turn_order": "in_turn", "sampling": {}, "preset": DEFAULT_PRESET, "leaf": None, "messages": []}


def new_message(author: str, name: str, text: str, parent: str | None) -> Message:
    return {"id": new_id(), "parent": parent, "author": author, "name": name, "text": text, "thinking": "",
            "created": time.time()}


def check_text(where: str, value: object, most: int, *, least: int = 0) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is not a text")
    if not least <= len(value) <= most:
        raise ValueError(f"{where} has {len(value):,} characters; expected {least} to {most:,}")
    return value


def check_whole(where: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{where} is {str(value)[:60]!r}; expected a whole number from 0 to {most}")
    return value


def longest_text(author: str) -> int:
    """Characters that a message's text may have."""
    return MAX_TEXT if author == USER else MAX_REPLY


def check_name(where: str, value: object, *, least: int = 1) -> str:
    """A speaker's name: it becomes "Name:" in prompts, so it may not hold what ends one."""
    name = check_text(where, value, MAX_NAME, least=least)
    if NOT_IN_NAMES.search(name) or name != name.strip():
        raise ValueError(f"{where} may not hold a colon, a line break or outer spaces")
    return name


def check_bots(where: str, value: object) -> list[Document]:
    """The `bots` of a session."""
    if not isinstance(value, list) or len(value) > MAX_BOTS:
        raise ValueError(f"{where} is not a list of at most {MAX_BOTS} bots")
    for index, entry in enumerate(value):
        if not (isinstance(entry, dict) and is_id(entry.get("id")) and isinstance(entry.get("muted"), bool)):
            raise ValueError(f"{where} holds an entry that is not {{id, muted, since?, notes?}}")
        check_text(f"{where}[{index}].notes", entry.get("notes", ""), MAX_PROMPT)
    if len({entry["id"] for entry in value}) < len(value):
        raise ValueError(f"{where} holds a bot twice")
    return value


def check_audience(where: str, value: object) -> list[str] | None:
    """Ids of the bots that something is for; None: it is for all."""
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MAX_BOTS or not all(map(is_id, value)):
        raise ValueError(f"{where} is neither null nor a list of 1 to {MAX_BOTS} ids of bots")
    if len(set(value)) < len(value):
        raise ValueError(f"{where} holds a bot twice")
    return value


def check_note(where: str, value: object) -> Document | None:
    """The author's note of a session: a text that stands so many messages before the end."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"text", "depth"}:
        raise ValueError(f"{where} is neither null nor {{text, depth}}")
    check_text(f"{where}.text", value["text"], MAX_PROMPT)
    if not check_whole(f"{where}.depth", value["depth"], MAX_DEPTH):
        raise ValueError(f"{where}.depth is 0; expected a whole number from 1 to {MAX_DEPTH}")
    return value


def check_session(session: Session, before: Session | None = None) -> None:
    """Messages that are, as objects, those of a good session `before` are not looked at once more."""
    check_text("the title", session.get("title"), MAX_TITLE)
    check_name("the user's name", session.get("user_name"), least=0)
    check_text("the user's persona", session.get("user_persona", ""), MAX_PROMPT)
    check_text("the system prompt", session.get("system_prompt"), MAX_PROMPT)
    check_note("note", session.get("note"))
    _check_summaries(session.get("summaries", []))
    _check_lore(session.get("lore", []))
    _check_comparisons(session.get("comparisons", []))
    check_bots("bots", session.get("bots"))
    check_arrangement(session)
    check_changes(session.get("sampling"))
    _one_of("turn_order", session.get("turn_order"), [order["id"] for order in TURN_ORDERS])
    if not isinstance(session.get("title_is_auto"), bool):
        raise ValueError("title_is_auto is not true or false")
    if not is_preset_id(session.get("preset")):
        raise ValueError("preset is not the id of a preset")
    for name in ("created", "updated"):
        _number(name, session.get(name), LAST_MOMENT)
    if "leaf" not in session:
        raise ValueError("leaf is missing")
    taken = session.get("taken_replies", [])
    if not isinstance(taken, list) or not all(is_id(entry) for entry in taken):
        raise ValueError("taken_replies is not a list of ids")
    good = frozenset(map(id, before["messages"])) if before else frozenset()
    _check_tree(session.get("messages"), session["leaf"], good)
    there = {message["id"] for message in session["messages"]}
    for index, entry in enumerate(session["bots"]):
        since = entry.get("since")
        if since is not None and not (is_id(since) and since in there):
            raise ValueError(f"bots[{index}].since is not one of the messages")


def _check_summaries(summaries: object) -> None:
    """Each is `text` for what was said up to the message `until`, which may be gone."""
    if not isinstance(summaries, list) or len(summaries) > MAX_SUMMARIES:
        raise ValueError(f"summaries is not a list of at most {MAX_SUMMARIES} summaries")
    for index, summary in enumerate(summaries):
        where = f"summaries[{index}]"
        if not isinstance(summary, dict) or not is_id(summary.get("id")) or not is_id(summary.get("until")):
            raise ValueError(f"{where} is not {{id, until, text, created}}")
        check_text(f"{where}.text", summary.get("text"), MAX_PROMPT, least=1)
        check_audience(f"{where}.for", summary.get("for"))
        _number(f"{where}.created", summary.get("created"), LAST_MOMENT)
    if len({summary["id"] for summary in summaries}) < len(summaries):
        raise ValueError("summaries holds one twice")


def _check_lore(lore: object) -> None:
    """Each entry is a text that is brought in by any of its keys; both may be empty, while it is written."""
    if not isinstance(lore, list) or len(lore) > MAX_LORE:
        raise ValueError(f"lore is not a list of at most {MAX_LORE} entries")
    for index, entry in enumerate(lore):
        where = f"lore[{index}]"
        if not isinstance(entry, dict) or entry.keys() != {"keys", "text"}:
            raise ValueError(f"{where} is not {{keys, text}}")
        if not isinstance(entry["keys"], list) or len(entry["keys"]) > MAX_KEYS:
            raise ValueError(f"{where}.keys is not a list of at most {MAX_KEYS} words")
        for key in entry["keys"]:
            check_text(f"a key of {where}", key, MAX_KEY, least=1)
        check_text(f"{where}.text", entry["text"], MAX_PROMPT)


def _check_comparisons(comparisons: object) -> None:
    """Replies that were written side by side; chat/comparing.py says what each field is. Messages and bots
    may be gone."""
    if not isinstance(comparisons, list) or len(comparisons) > MAX_COMPARISONS:
        raise ValueError(f"comparisons is not a list of at most {MAX_COMPARISONS} comparisons")
    for index, one in enumerate(comparisons):
        where = f"comparisons[{index}]"
        if not isinstance(one, dict) or not is_id(one.get("id")) or not is_id(one.get("question")):
            raise ValueError(f"{where} is not {{id, created, question, blind, winner, columns}}")
        _number(f"{where}.created", one.get("created"), LAST_MOMENT)
        if not isinstance(one.get("blind"), bool):
            raise ValueError(f"{where}.blind is not true or false")
        columns = one.get("columns")
        if not isinstance(columns, list) or not 1 <= len(columns) <= MAX_COLUMNS:
            raise ValueError(f"{where}.columns is not a list of 1 to {MAX_COLUMNS} columns")
        for column in columns:
            _check_column(f"{where}.columns", column)
        if one.get("winner") is not None and one["winner"] not in [each["message"] for each in columns]:
            raise ValueError(f"{where}.winner is none of its columns")


def _check_column(where: str, column: object) -> None:
    if not isinstance(column, dict) or not is_id(column.get("message")) or not is_id(column.get("bot")):
        raise ValueError(f"{where} holds one that is not {{message, bot, preset, seed, engine?}}")
    if column.get("preset") is not None and not is_preset_id(column["preset"]):
        raise ValueError(f"{where} holds one whose preset is not the id of a preset")
    if column.get("seed") is not None:
        check_whole(f"{where}.seed", column["seed"], MAX_REPLY_NUMBER)
    check_engine_choice(f"{where}.engine", column.get("engine"))


def check_bot(bot: Bot) -> None:
    check_name("the name", bot.get("name"))
    check_text("the character", bot.get("persona"), MAX_PROMPT)
    check_text("the greeting", bot.get("greeting"), MAX_PROMPT)
    check_greetings("the other greetings", bot.get("alternate_greetings", []))
    check_text("the example dialogue", bot.get("example_dialogue", ""), MAX_PROMPT)
    check_lore_book("the lore book", bot.get("lore_book"))
    check_picture("the picture", bot.get("picture", ""))
    card = bot.get("card", {})
    if not isinstance(card, dict) or len(strict_json.dumps(card)) > MAX_CARD:
        raise ValueError(f"the rest of its card is not an object of at most {MAX_CARD >> 10:,} KiB")
    check_changes(bot.get("sampling"))
    check_text("the adapter", bot.get("adapter", ""), MAX_ADAPTER)
    if not isinstance(bot.get("color"), str) or not _COLOR.fullmatch(bot["color"]):
        raise ValueError("color is not #rrggbb")
    _number("created", bot.get("created", 0), LAST_MOMENT)
    check_engine_choice("engine", bot.get("engine"))


def check_greetings(where: str, value: object) -> list[str]:
    """Those of a bot beside its first one."""
    if not isinstance(value, list) or len(value) > MAX_GREETINGS:
        raise ValueError(f"{where} are not a list of at most {MAX_GREETINGS} texts")
    return [check_text(f"{where}[{index}]", text, MAX_PROMPT) for index, text in enumerate(value)]


def check_engine_choice(where: str, value: object) -> Document | None:
    """The model of another engine by which a bot speaks; None: by the one that is loaded."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"id", "model"} or not is_id(value["id"]):
        raise ValueError(f"{where} is neither null nor {{id, model}}")
    check_text(f"{where}.model", value["model"], MAX_MODEL_NAME, least=1)
    return value


def check_engine(engine: Document) -> None:
    check_text("the address", engine.get("url"), MAX_URL, least=1)
    check_text("the name", engine.get("name"), MAX_NAME)
    check_text("the key", engine.get("key"), MAX_SECRET)
    headers = engine.get("headers")
    if not isinstance(headers, dict):
        raise ValueError("headers is not an object")
    for name, value in headers.items():
        check_text(f"the header {name}", value, MAX_SECRET)


def check_preset(preset: Document) -> None:
    check_text("the name", preset.get("name"), MAX_NAME, least=1)
    check_changes(preset.get("sampling"))


def is_preset_id(value: object) -> bool:
    return is_id(value) or value == ADVISED or any(value == preset["id"] for preset in BUILT_IN_PRESETS)


def _check_tree(messages: object, leaf: object, good: frozenset[int]) -> None:
    """Every parent is there and there is no circle, so that walking up from any message ends.

    good  id() of messages that are known to be good, each by itself
    """
    if not isinstance(messages, list):
        raise ValueError("messages is not a list")
    parents: dict[str, str | None] = {}
    for index, message in enumerate(messages):
        if id(message) not in good:
            _check_message(f"messages[{index}]", message)
        if message["id"] in parents:
            raise ValueError(f"messages[{index}] has the id of an earlier message")
        parents[message["id"]] = message["parent"]
    rooted: set[str | None] = {None}
    for start in parents:
        way = []
        current: str | None = start
        while current not in rooted:
            if current not in parents or len(way) > len(parents):
                raise ValueError(f"message {start} does not lead up to a first message")
            way.append(current)
            current = parents[current]
        rooted.update(way)
    if leaf is not None and not (isinstance(leaf, str) and leaf in parents):
        raise ValueError("leaf is not one of the messages")


def _check_message(where: str, message: object) -> None:
    if not isinstance(message, dict):
        raise ValueError(f"{where} is not an object")
    parent = message.get("parent", "")
    if not is_id(message.get("id")) or not (parent is None or is_id(parent)):
        raise ValueError(f"{where} has no proper id and parent")
    if message.get("author") != USER and not is_id(message.get("author")):
        raise ValueError(f"{where}.author is neither the user nor a bot's id")
    check_name(f"{where}.name", message.get("name"), least=0)  # "" where the writer had no name
    check_text(f"{where}.text", message.get("text"), longest_text(message["author"]))
    check_text(f"{where}.thinking", message.get("thinking"), MAX_REPLY)
    check_text(f"{where}.error", message.get("error", ""), MAX_ERROR)
    check_text(f"{where}.model", message.get("model", ""), MAX_MODEL_NAME)
    _number(f"{where}.created", message.get("created"), LAST_MOMENT)
    _number(f"{where}.edited", message.get("edited", 0), LAST_MOMENT)
    for name in (*REPLY_NUMBERS, *THOUGHT_NUMBERS):
        if message.get(name) is not None:
            _number(f"{where}.{name}", message[name], MAX_REPLY_NUMBER)
    check_audience(f"{where}.for", message.get("for"))
    check_label(f"{where}.label", message.get("label", ""))
    if not isinstance(message.get("pinned", False), bool):
        raise ValueError(f"{where}.pinned is not true or false")
    if message.get("shortened") is not None and not is_id(message["shortened"]):
        raise ValueError(f"{where}.shortened is not the id of a message")
    if "finish_reason" in message:
        _one_of(f"{where}.finish_reason", message["finish_reason"], FINISH_REASONS)
    _check_record(f"{where}.record", message.get("record", {}))
    try:
        check_recorded(message.get("sampling", {}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_record(where: str, record: object) -> None:
    """What a reply was generated from; chat/record.py says what that is."""
    if not isinstance(record, dict):
        raise ValueError(f"{where} is not an object")
    for name in ("host", "model", "adapter", "adapter_files", "prompt", "tokens"):
        check_text(f"{where}.{name}", record.get(name, ""), MAX_MODEL_NAME)
    for name in ("count", "begun", "begun_thought", "begun_tokens"):
        check_whole(f"{where}.{name}", record.get(name, 0), MAX_REPLY)
    if not isinstance(record.get("told_to_answer", False), bool):
        raise ValueError(f"{where}.told_to_answer is not true or false")
    on = record.get("on", {})
    if not isinstance(on, dict) or len(on) > MAX_NUMERICS:
        raise ValueError(f"{where}.on is not an object of at most {MAX_NUMERICS} texts")
    for name, value in on.items():
        check_text(f"{where}.on.{name[:60]}", value, MAX_NAME)


def _one_of(where: str, value: object, known: tuple[str, ...] | list[str]) -> None:
    if value not in known:
        raise ValueError(f"{where} is {str(value)[:60]!r}; expected one of {', '.join(known)}")


def _number(where: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{where} is {str(value)[:60]!r}; expected a number from 0 to {most:.0f}")


SESSION = Kind("session", 1, check_session, max_bytes=128 << 20, check_change=check_session)
BOT = Kind("bot", 1, check_bot)
PRESET = Kind("preset", 1, check_preset)
ENGINE = Kind("engine", 1, check_engine)
