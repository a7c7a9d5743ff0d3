"""Routes of bots and presets: the small documents that sessions refer to."""

from __future__ import annotations

import base64
import time
import zlib
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from ..chat.bot_view import of_card
from ..errors import BadRequest, NotFound, Refused, TooMany
from ..exchange.character_card import card_json, card_png
from ..ids import check_id, new_id
from ..sampling import BUILT_IN_PRESETS
from ..storage.names import free_name
from ..storage.picture import clean_picture, picture_bytes
from ..storage.schema import BOT, MAX_NAME, MAX_PROMPT, PRESET, Bot, Document
from .attachment import attachment
from .body import Body, read_body
from .parlor import parlor, vocab_size

MAX_PRESETS = 200
DEFAULT_COLOR = "#5b6b7b"
_BOT_FIELDS = ("name", "color", "persona", "greeting", "alternate_greetings", "example_dialogue", "lore_book",
               "adapter")
_UNSHOWN = ("card", "lore_book", "picture")
"""What of a bot may be large: only who asks for one bot gets it."""
_OF_CARD = {"nickname": MAX_NAME, "post_history_instructions": MAX_PROMPT}
"""What is kept as its card has it, and can be changed: the longest text."""

bp = Blueprint("bots", __name__, url_prefix="/api")


@bp.get("/bots")
def list_bots() -> ResponseReturnValue:
    """Without what may be large; see shown_bot()."""
    return {"bots": [shown_bot(bot) for bot in parlor().store.known_bots()]}


@bp.post("/bots")
def create_bot() -> ResponseReturnValue:
    with read_body() as body:
        fields = {"color": DEFAULT_COLOR, "persona": "", "greeting": "", "sampling": {}, **_given(body)}
        card = _given_of_card(body)
    bot = {"schema_version": BOT.version, "id": new_id(), "revision": 1, "created": time.time(), **fields}
    bot = _with_card(bot, card)
    parlor().store.add_bots([bot])
    return {"bot": shown_bot(bot)}, 201


@bp.get("/bots/<bot_id>")
def read_bot(bot_id: str) -> ResponseReturnValue:
    return {"bot": parlor().store.bots.get(bot_id)}


@bp.patch("/bots/<bot_id>")
def change_bot(bot_id: str) -> ResponseReturnValue:
    with read_body() as body:
        revision = body.revision()
        fields, card = _given(body), _given_of_card(body)
    bot = parlor().store.bots.change(bot_id, revision, lambda old: _with_card({**old, **fields}, card))
    parlor().store.changes.touch_bots()
    return {"bot": shown_bot(bot)}


@bp.post("/bots/<bot_id>/duplicate")
def duplicate_bot(bot_id: str) -> ResponseReturnValue:
    """A copy with a number behind its name."""
    with read_body():
        pass
    store = parlor().store
    bot = store.bots.get(bot_id)
    copy = {**bot, "schema_version": BOT.version, "id": new_id(), "revision": 1, "created": time.time(),
            "name": free_name(bot["name"], (other["name"] for other in store.known_bots()))}
    store.add_bots([copy])
    return {"bot": shown_bot(copy)}, 201


@bp.get("/bots/<bot_id>/export")
def export_bot(bot_id: str) -> ResponseReturnValue:
    """The bot as a character card, which other programs read, too: JSON, or its picture with that in it."""
    bot = parlor().store.bots.get(bot_id)
    kind = request.args.get("format", "json")
    if kind == "json":
        return attachment(card_json(bot), "application/json", bot["name"], "json")
    if kind != "png":
        raise BadRequest(f"format is {kind[:60]!r}; expected json or png.")
    return attachment(card_png(bot, _picture_of(bot)), "image/png", bot["name"], "png")


@bp.get("/bots/<bot_id>/picture")
def read_picture(bot_id: str) -> ResponseReturnValue:
    """The picture as a PNG file. With `v`, the bot's picture_version, the address is this picture's alone."""
    response = Response(_picture_of(parlor().store.bots.get(bot_id)), content_type="image/png")
    if "v" in request.args:
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


def _picture_of(bot: Bot) -> bytes:
    if not bot.get("picture"):
        raise NotFound(f"{bot['name']} has no picture.")
    return base64.b64decode(bot["picture"])


@bp.delete("/bots/<bot_id>")
def delete_bot(bot_id: str) -> ResponseReturnValue:
    """Its messages stay in their sessions."""
    with read_body():
        pass
    undo = parlor().store.bots.delete(bot_id)
    parlor().store.changes.touch_bots()
    return {"undo": undo}


@bp.post("/bots/restore")
def restore_bot() -> ResponseReturnValue:
    with read_body() as body:
        token = body.value("undo")
    return {"bot": shown_bot(parlor().store.restore_bot(token))}


@bp.post("/presets")
def create_preset() -> ResponseReturnValue:
    with read_body() as body:
        fields = {"name": body.value("name"), "sampling": body.sampling("sampling", vocab_size())}
    if len(parlor().store.known_presets()) >= MAX_PRESETS:
        raise TooMany(f"There are {MAX_PRESETS} presets already.", hint="Delete one first.")
    preset = {"schema_version": PRESET.version, "id": new_id(), "revision": 1, **fields}
    return {"preset": _shown(parlor().store.presets.create(preset))}, 201


@bp.put("/presets/<preset_id>")
def change_preset(preset_id: str) -> ResponseReturnValue:
    with read_body() as body:
        fields = {"name": body.value("name"), "sampling": body.sampling("sampling", vocab_size())}
    _check_own(preset_id)
    return {"preset": _shown(parlor().store.presets.change(preset_id, None, lambda old: {**old, **fields}))}


@bp.delete("/presets/<preset_id>")
def delete_preset(preset_id: str) -> ResponseReturnValue:
    """Sessions that use it fall back to Balanced."""
    with read_body():
        pass
    _check_own(preset_id)
    parlor().store.presets.delete(preset_id)
    return {"deleted": preset_id}


def shown_bot(bot: Bot) -> Document:
    """A bot as lists and answers have it; GET /api/bots/<id> has all of it."""
    shown = {name: value for name, value in bot.items() if name not in _UNSHOWN}
    shown |= {name: text for name in _OF_CARD if (text := of_card(bot, name))}
    if bot.get("picture"):
        shown["picture_version"] = f"{zlib.crc32(bot['picture'].encode()):08x}"
    return shown


def as_kept(picture: object) -> str:
    """A PNG file in base64 as a bot's picture: its pixels alone; "" for none. Raises BadRequest."""
    if picture in ("", None):
        return ""
    try:
        data = clean_picture(picture_bytes("the picture", picture))
    except ValueError as error:
        raise BadRequest(f"The picture cannot be taken: {error}.") from None
    return base64.b64encode(data).decode()


def _given(body: Body) -> dict[str, Any]:
    given = {name: body.value(name) for name in (*_BOT_FIELDS, "engine") if body.has(name)}
    if body.has("picture"):
        given["picture"] = as_kept(body.value("picture"))
    return given | {"sampling": body.sampling("sampling", vocab_size())} if body.has("sampling") else given


def _given_of_card(body: Body) -> dict[str, str]:
    return {name: body.text(name, most=most) for name, most in _OF_CARD.items() if body.has(name)}


def _with_card(bot: Bot, changes: dict[str, str]) -> Bot:
    """With these texts in its card; one that is empty is none."""
    card = {name: value for name, value in (bot.get("card", {}) | changes).items()
            if value or name not in changes}
    return {**bot, "card": card} if changes and (card or "card" in bot) else bot


def _check_own(preset_id: str) -> None:
    if any(preset["id"] == preset_id for preset in BUILT_IN_PRESETS):
        raise Refused("This preset comes with Parlor and cannot be changed.",
                      hint="Save yours under another name.")
    check_id(preset_id, "preset")


def _shown(preset: Document) -> Document:
    return {key: preset[key] for key in ("id", "name", "sampling")}
