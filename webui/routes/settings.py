"""Routes about the server itself: what it runs, what can be set, what changed, and the login."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, make_response, request
from flask.typing import ResponseReturnValue

from model import PARAMETER_SPECS

from ..errors import BadRequest, NeedsPassword, NotFound
from ..languages import COOKIE, LANGUAGES, catalogue_of, chosen_language, language_for, said
from ..sampling import ADVISED, BUILT_IN_PRESETS
from ..server.guard import login_cookie
from ..server.other_devices import qr_svg
from ..server.password import LOGIN_SECONDS, place_of
from ..storage import schema
from ..version import VERSION
from .body import read_body
from .parlor import parlor
from .replies import whole_argument
from .sessions import MAX_TURNS

MAX_PASSWORD = 1_000
MAX_LANGUAGE = 20
LANGUAGE_SECONDS = 400 * 86_400.0  # longer than browsers keep a cookie
MAX_CHANGES = 1 << 53
ADVISED_PRESET = {"id": ADVISED, "name": "As the model's authors advise", "builtin": True}
SAID_OF_PARAMETERS, SAID_OF_ORDERS, SAID_OF_PRESETS = ("label", "help", "empty"), ("label", "help"), ("name",)

bp = Blueprint("settings", __name__, url_prefix="/api")


@bp.get("/status")
def status() -> ResponseReturnValue:
    here = parlor()
    model = here.slot.model
    return {"model": model.info() if model else None, "engine": model.status() if model else None,
            "slot": here.models.state(), "version": VERSION,
            "uptime": round(time.monotonic() - here.started, 1), "changes": here.store.changes.counter}


@bp.get("/settings")
def settings() -> ResponseReturnValue:
    """Every parameter with its default and range, and everything else that the page offers."""
    model = parlor().slot.model
    limits = {"max_text": schema.MAX_TEXT, "max_title": schema.MAX_TITLE, "max_name": schema.MAX_NAME,
              "max_prompt": schema.MAX_PROMPT, "max_bots": schema.MAX_BOTS, "max_turns": MAX_TURNS,
              "max_seq_len": model.info()["max_seq_len"] if model else None}
    words = catalogue_of(language_for(request))
    presets = [*parlor().store.known_presets(), *_advised_preset()]
    return {"parameters": [said(spec, SAID_OF_PARAMETERS, words) for spec in PARAMETER_SPECS.values()],
            "turn_orders": [said(order, SAID_OF_ORDERS, words) for order in schema.TURN_ORDERS],
            "presets": [said(one, SAID_OF_PRESETS, words) if one.get("builtin") else one for one in presets],
            "limits": limits,
            "engines": parlor().engines.known(),
            "password": parlor().guard.password is not None, "address_for_others": _address_for_others()}


@bp.get("/language")
def languages() -> ResponseReturnValue:
    """Which languages the page has, and which was chosen in this browser; "" is what the browser prefers."""
    return {"languages": [{"id": code, "name": name} for code, name in LANGUAGES.items()],
            "language": chosen_language(request)}


@bp.post("/language")
def choose_language() -> ResponseReturnValue:
    """The language of the page in this browser from its next loading on; "" for what the browser prefers."""
    with read_body() as body:
        chosen = body.text("language", most=MAX_LANGUAGE)
    if chosen and chosen not in LANGUAGES:
        raise BadRequest(f"{chosen!r} is no language of the page; expected one of {', '.join(LANGUAGES)}, "
                         'or "" for what the browser prefers.')
    response = make_response({"language": chosen})
    if chosen:
        response.set_cookie(COOKIE, chosen, max_age=int(LANGUAGE_SECONDS), httponly=True, samesite="Strict")
    else:
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
    return response


def settings_sentences() -> set[str]:
    """All of settings() that is said in the page's language."""
    offered = ((PARAMETER_SPECS.values(), SAID_OF_PARAMETERS), (schema.TURN_ORDERS, SAID_OF_ORDERS),
               ([*BUILT_IN_PRESETS, ADVISED_PRESET], SAID_OF_PRESETS))
    return {entry[name] for entries, fields in offered for entry in entries
            for name in fields if name in entry}


@bp.get("/other-devices.svg")
def other_devices() -> ResponseReturnValue:
    """The address for other devices as a QR code."""
    address = _address_for_others()
    if address is None:
        raise NotFound("Other devices cannot open this Parlor.",
                       hint="Start it with --host 0.0.0.0 --password.")
    return Response(qr_svg(address), mimetype="image/svg+xml")


def _address_for_others() -> str | None:
    return parlor().guard.address_for_others(request.environ["SERVER_PORT"])


def _advised_preset() -> list[dict[str, Any]]:
    """What the authors of the loaded model advise, if they do."""
    model = parlor().slot.model
    advice = model.info().get("advice") if model else None
    return [{**ADVISED_PRESET, "sampling": advice}] if advice else []


@bp.get("/changes")
def changes() -> ResponseReturnValue:
    """What changed after `since`; `full` means that the list is everything there is."""
    changed = parlor().store.changes.since(whole_argument("since", MAX_CHANGES))
    summaries = parlor().showing.summaries()
    if not changed.full:
        summaries = [entry for entry in summaries if entry["id"] in changed.sessions]
    return {"changes": changed.counter, "sessions": summaries, "deleted": changed.deleted,
            "bots": changed.bots, "full": changed.full, "model": parlor().models.state()}


@bp.post("/login")
def login() -> ResponseReturnValue:
    """Trade the password for a cookie."""
    with read_body() as body:
        guess = body.text("password", most=MAX_PASSWORD)
    password = parlor().guard.password
    if password is None:
        return {"logged_in": True}
    token = password.login(guess, place_of(request.remote_addr or ""))
    if token is None:
        raise NeedsPassword("That is not the password.", code="wrong_password")
    response = make_response({"logged_in": True})
    response.set_cookie(_cookie(), token, max_age=int(LOGIN_SECONDS), httponly=True, samesite="Strict",
                        secure=request.is_secure)
    return response


@bp.post("/logout")
def logout() -> ResponseReturnValue:
    """Forget this browser: its cookie opens nothing any more."""
    with read_body():
        pass
    password = parlor().guard.password
    if password is not None:
        password.logout(request.cookies.get(_cookie(), ""))
    response = make_response({"logged_in": password is None})
    response.delete_cookie(_cookie(), httponly=True, samesite="Strict")
    return response


def _cookie() -> str:
    return login_cookie(request.environ["SERVER_PORT"])
