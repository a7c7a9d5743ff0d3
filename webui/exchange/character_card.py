"""Character cards: bots as SillyTavern, RisuAI, Agnai and others keep them, as JSON or in the texts of a PNG.

V2: https://github.com/malfoyslastname/character-card-spec-v2/blob/8083fb388615ccbce768e97cbbd49d2b3214632c/spec_v2.md
V3: https://github.com/kwaroran/character-card-spec-v3/blob/f3a86af019fbd99f788f7a1155f399655b34ab35/SPEC_V3.md
V1 has V2's first six fields at the top; Pygmalion's older one has names of its own for them. Whatever a bot
has no field for stays in its `card`, and goes out again with it.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import strict_json
from ..ids import new_id
from ..storage.lore_book import check_lore_book
from ..storage.names import clean_name, free_name
from ..storage.schema import BOT, MAX_CARD, Bot
from .png_texts import text_of, with_texts

V2, V3 = "chara_card_v2", "chara_card_v3"
CARD_COLOR = "#7a4a86"
_KEYWORDS = ("ccv3", "chara")  # of the texts in a PNG; the first wins
_PYGMALION = {"char_name": "name", "char_persona": "description", "char_greeting": "first_mes",
              "world_scenario": "scenario", "example_dialogue": "mes_example"}
_PERSONA = ("system_prompt", "description", "personality", "scenario")
_OWN = ("name", "first_mes", "mes_example", "alternate_greetings", "character_book")
"""What a bot has fields for; of _PERSONA it has one text."""
_ONLY_V3 = ("assets", "nickname", "creator_notes_multilingual", "source", "group_only_greetings",
            "creation_date", "modification_date")
_USED = {"post_history_instructions": "instructions for the end of the prompt",
         "group_only_greetings": "greetings for groups", "nickname": "nickname"}
"""What is used as it stands in the card: see chat/bot_view.py and chat/greetings.py."""
_KEPT = {"creator_notes": "notes of its author", "tags": "tags", "extensions": "settings of other programs",
         "assets": "pictures and sounds"}
_CHAR = re.compile(r"\{\{\s*char\s*\}\}|<(?:char|bot)>", re.IGNORECASE)
_USER = re.compile(r"\{\{\s*user\s*\}\}|<user>", re.IGNORECASE)
_ORIGINAL = re.compile(r"\{\{\s*original\s*\}\}\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ReadCard:
    """A bot to be saved, and the name that the card has for it. In words: what of the card it uses, what it
    only keeps, what it has not."""

    bot: Bot
    name: str
    taken: list[str]
    kept: list[str]
    left: list[str]


def is_card(data: object) -> bool:
    if not isinstance(data, dict) or "messages" in data or "history" in data:
        return False
    spec = data.get("spec")
    return (isinstance(spec, str) and spec.startswith("chara_card")) or any(
        name in data for name in ("first_mes", "char_name", "char_persona", "char_greeting"))


def card_in_png(data: bytes) -> Any:
    """The JSON value of the card in a PNG file. Raises ValueError."""
    text = text_of(data, *_KEYWORDS)
    if text is None:
        raise ValueError("there is no character in this picture; converting a picture loses it")
    try:
        decoded = base64.b64decode(b"".join(text.split()) + b"==", validate=False)
    except binascii.Error:
        raise ValueError("the character in this picture is damaged (not base64)") from None
    return strict_json.loads(decoded)


def read_card(card: Any, known_names: Iterable[str]) -> ReadCard:
    """The bot of a card, under a name that none of `known_names` is. Raises ValueError with what is wrong."""
    if not is_card(card):
        raise ValueError("it is no character card")
    data = card.get("data", card) if "spec" in card else card
    if not isinstance(data, dict):
        raise ValueError("data is not an object")
    data = {_PYGMALION.get(key, key): value for key, value in data.items()
            if key not in ("spec", "spec_version")}
    wanted = clean_name(_text(data, "name"))
    if not wanted:
        raise ValueError("the character has no name")
    name = free_name(wanted, known_names)
    rest = {key: value for key, value in data.items() if key not in _OWN and not _is_empty(value)}
    rest, left = _without_files(rest)
    book = check_lore_book("the lore book", data.get("character_book"))
    others = [_placeholders(text).strip() for text in _texts(data, "alternate_greetings")]
    bot = {"schema_version": BOT.version, "id": new_id(), "revision": 1, "name": name, "color": CARD_COLOR,
           "persona": persona_of(data), "greeting": _spoken(data, "first_mes"), "sampling": {},
           "created": time.time(), "alternate_greetings": [text for text in others if text],
           "example_dialogue": _spoken(data, "mes_example"), "card": rest}
    if book is not None:
        bot["lore_book"] = book
    BOT.check(bot)
    return ReadCard(bot, wanted, _taken(bot), _kept(bot), left)


def persona_of(data: dict[str, Any]) -> str:
    """One text of the four by which a card says who somebody is, in the order in which others send them."""
    system, description, personality, scenario = (_spoken(data, name) for name in _PERSONA)
    parts = [_ORIGINAL.sub("", system).strip(), description]
    parts += [f"{{{{char}}}}'s personality: {personality}"] if personality else []
    parts += [f"Scenario: {scenario}"] if scenario else []
    return "\n\n".join(part for part in parts if part)


def card_of(bot: Bot, spec: str | None = None) -> dict[str, Any]:
    """The card of a bot, as V2, or as V3 where it has what only that knows; or as `spec` says."""
    kept = {name: value for name, value in bot.get("card", {}).items() if name not in _OWN}
    spec = spec or (V3 if any(name in kept for name in _ONLY_V3) else V2)
    data: dict[str, Any] = {
        "name": bot["name"], "description": "", "personality": "", "scenario": "",
        "first_mes": bot["greeting"], "mes_example": bot.get("example_dialogue", ""), "creator_notes": "",
        "system_prompt": "", "post_history_instructions": "",
        "alternate_greetings": bot.get("alternate_greetings", []), "tags": [], "creator": "",
        "character_version": "", "extensions": {}}
    if spec == V3:
        data["group_only_greetings"] = []
    data |= kept
    if not _says(kept, bot["persona"]):
        data |= {**dict.fromkeys(_PERSONA, ""), "description": bot["persona"]}
    if bot.get("lore_book") is not None:
        data["character_book"] = bot["lore_book"]
    return {"spec": spec, "spec_version": "3.0" if spec == V3 else "2.0", "data": data}


def card_json(bot: Bot) -> bytes:
    """The card with V1's fields at the top, too, for programs that know nothing else."""
    card = card_of(bot)
    first = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
    return strict_json.pretty({**{name: card["data"][name] for name in first}, **card})


def card_png(bot: Bot, picture: bytes) -> bytes:
    """`picture`, a PNG file, with the card in it, as V2 and as V3. Raises ValueError."""
    def packed(spec: str) -> bytes:
        return base64.b64encode(strict_json.dumps(card_of(bot, spec)))

    return with_texts(picture, {"chara": packed(V2), "ccv3": packed(V3)})


def _says(kept: dict[str, Any], persona: str) -> bool:
    """Whether a card's own texts are still what the bot is told: somebody may have changed that since."""
    return all(isinstance(kept.get(name, ""), str) for name in _PERSONA) and persona_of(kept) == persona


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def _spoken(data: dict[str, Any], name: str) -> str:
    return _placeholders(_text(data, name)).strip()


def _texts(data: dict[str, Any], name: str) -> list[str]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name} is not a list of texts")
    return value


def _placeholders(text: str) -> str:
    """With the two that are filled in here when the text is used, in their one spelling."""
    return _USER.sub("{{user}}", _CHAR.sub("{{char}}", text.replace("\r\n", "\n")))


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _without_files(rest: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Without pictures and sounds for which there is no room, and those beside the card in its file."""
    assets = rest.get("assets")
    if not isinstance(assets, list):
        return rest, []
    room = MAX_CARD - len(strict_json.dumps({**rest, "assets": []}))
    outside = []
    for asset in assets:
        uri = str(asset.get("uri")).lower() if isinstance(asset, dict) else ""
        size = len(strict_json.dumps(asset)) + 1
        if not uri.startswith(("__asset:", "embeded://")) and (size <= room or not uri.startswith("data:")):
            room -= size
            outside.append(asset)
    number = len(assets) - len(outside)
    if not number:
        return rest, []
    rest = {key: value for key, value in {**rest, "assets": outside}.items() if key != "assets" or outside}
    return rest, ["1 picture or sound in it" if number == 1 else f"{number} pictures and sounds in it"]


def _taken(bot: Bot) -> list[str]:
    others = len(bot["alternate_greetings"])
    entries = len(bot.get("lore_book", {}).get("entries", []))
    said = {"who it is": bot["persona"], "greeting": bot["greeting"],
            "1 other greeting" if others == 1 else f"{others} other greetings": others,
            "example dialogue": bot["example_dialogue"],
            "lore book with 1 entry" if entries == 1 else f"lore book with {entries} entries": entries}
    return [*(what for what, value in said.items() if value),
            *(what for name, what in _USED.items() if name in bot["card"])]


def _kept(bot: Bot) -> list[str]:
    card = bot["card"]
    kept = [said for name, said in _KEPT.items() if name in card]
    others = len([name for name in card if name not in {*_KEPT, *_USED, *_PERSONA}])
    return kept + ([f"{others} other fields" if others > 1 else "1 other field"] if others else [])
