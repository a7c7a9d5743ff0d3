"""Routes of many sessions at once, of their folders and tags, and of the trash.

What is asked for is done one by one: what cannot be done is told, and the rest is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from ..errors import BadRequest, NotFound, Problem
from ..exchange.parlor_file import parts_of_bundle
from ..storage.arrangement import MAX_LABEL, Arranging, check_label, check_tags
from ..storage.schema import Document, Session
from .body import Body, read_body
from .parlor import parlor
from .replies import whole_argument
from .transfer import bots_of

MAX_AT_ONCE = 1_000
MAX_EXPORTED = 10_000
TRASH_PART = 200
MAX_TRASH = 1 << 31

bp = Blueprint("arranging", __name__, url_prefix="/api")


@bp.patch("/sessions")
def arrange_sessions() -> ResponseReturnValue:
    """Pin them, put them into a folder, give or take tags."""
    with read_body() as body:
        ids = _ids(body, "sessions")
        arranging = Arranging(
            pinned=body.flag("pinned", False) if body.has("pinned") else None,
            folder=_checked(check_label, body, "folder") if body.has("folder") else None,
            add_tags=tuple(_checked(check_tags, body, "add_tags")) if body.has("add_tags") else (),
            remove_tags=tuple(_checked(check_tags, body, "remove_tags")) if body.has("remove_tags") else ())
    done, failed = _each(ids, lambda key: parlor().store.arrange_session(key, arranging)["id"])
    return {"sessions": done, "failed": failed}


@bp.delete("/sessions")
def delete_sessions() -> ResponseReturnValue:
    """To the trash; `undo` has a token for each, by the session's id."""
    with read_body() as body:
        ids = _ids(body, "sessions")
    done, failed = _each(ids, lambda key: (key, parlor().chat.delete(key)))
    return {"undo": dict(done), "failed": failed}


@bp.post("/sessions/export")
def export_sessions() -> ResponseReturnValue:
    """One file with sessions and their bots, which can be imported again. What is gone is left out."""
    with read_body() as body:
        ids = _ids(body, "sessions", MAX_EXPORTED)
    store = parlor().store

    def sessions() -> Iterator[Session]:
        for key in ids:
            try:
                yield store.sessions.read(key)
            except NotFound:
                continue

    parts = parts_of_bundle(sessions(), lambda session: bots_of(store, session))
    return Response(parts, content_type="application/json")


@bp.get("/folders")
def folders() -> ResponseReturnValue:
    """Which folders and tags there are, each with the number of its sessions."""
    entries = parlor().store.summaries()
    inside = Counter(entry["folder"] for entry in entries if "folder" in entry)
    names: dict[str, str] = {}
    for entry in entries:
        for tag in entry.get("tags", ()):
            names.setdefault(tag.casefold(), tag)  # as it is written in the latest session
    tagged = Counter(tag.casefold() for entry in entries for tag in entry.get("tags", ()))
    return {"folders": _numbered(inside), "tags": _numbered({names[tag]: n for tag, n in tagged.items()})}


@bp.patch("/folders")
def rename_folder() -> ResponseReturnValue:
    """Have a folder's sessions in one of another name, or with "" in none."""
    with read_body() as body:
        folder = body.text("folder", least=1, most=MAX_LABEL)
        name = _checked(check_label, body, "name")
    number = parlor().store.rename_folder(folder, name)
    if not number:
        raise NotFound("There is no such folder.")
    return {"number": number}


@bp.get("/trash")
def trash() -> ResponseReturnValue:
    """What was deleted and can be brought back, the latest first, from number `from` on."""
    entries, number = parlor().store.trash_list.entries(whole_argument("from", MAX_TRASH), TRASH_PART)
    return {"entries": entries, "number": number}


@bp.post("/trash/restore")
def restore_deleted() -> ResponseReturnValue:
    with read_body() as body:
        tokens = _ids(body, "undo")
    store = parlor().store
    done, failed = _each(tokens, lambda token: (token, store.restore_deleted(token)))
    return {"restored": [token for token, _ in done], "failed": failed}


@bp.delete("/trash")
def erase_deleted() -> ResponseReturnValue:
    """For good."""
    with read_body() as body:
        tokens = _ids(body, "undo")
    store = parlor().store
    done, failed = _each(tokens, lambda token: (token, store.erase_deleted(token)))
    return {"erased": [token for token, _ in done], "failed": failed}


def _each(keys: list[str], do: Callable[[str], Any]) -> tuple[list[Any], list[Document]]:
    """What `do` gives for each, and what it refuses as {id, message}."""
    done, failed = [], []
    for key in keys:
        try:
            done.append(do(key))
        except Problem as problem:
            failed.append({"id": key, "message": problem.message})
    return done, failed


def _ids(body: Body, name: str, most: int = MAX_AT_ONCE) -> list[str]:
    ids = body.ids(name, most)
    if not ids:
        raise BadRequest(f"{name} is missing or empty; expected a list of ids.")
    return ids


def _checked(check: Callable[[str, object], Any], body: Body, name: str) -> Any:
    try:
        return check(name, body.value(name))
    except ValueError as error:
        raise BadRequest(f"{error}.") from None


def _numbered(numbers: dict[str, int]) -> list[Document]:
    return [{"name": name, "number": number}
            for name, number in sorted(numbers.items(), key=lambda entry: entry[0].casefold())]
