"""What was changed in a session, step by step: to undo it, and to do it again.

    session["undo"]        steps, the latest last
    session["redo"]        steps that were undone, the next one to be done again last
    session["history_at"]  the revision that both are about: a program that does not know them changes the
                           session and leaves them, and then they count for nothing

They are saved with the session, in its file: after a crash there is a change and its step, or neither. A step
says what differed, whoever made the change:

    {id, at, size, what: {kind, ...}, before: {field: value}, after: {field: value}, added: [message id],
     changed: [{id, before, after}], removed: [{message, index, children, was_leaf, unknown_to}]}

A field that was not there is in neither of `before` and `after`. Messages that were added stay in the session
when that is undone, as a branch that is not shown, so no text is lost by something else that is said then.
What is not in the session any more, such as the text before an edit, is in the step. Pure functions.
"""

from __future__ import annotations

import time
from typing import Any

from .. import strict_json
from ..errors import NotFound
from ..ids import is_id, new_id
from . import tree
from .schema import USER, Document, Message, Session

Step = Document
MAX_STEPS = 100  # and of so many bytes in all; the latest one is kept however long it is
MAX_BYTES = 1 << 21
JOINED_SECONDS = 5.0  # what is typed or dragged is one step, unless there is such a pause
KEYS = ("undo", "redo", "history_at")
_UNTOUCHED = frozenset({"id", "schema_version", "revision", "created", "updated", "taken_replies", "messages",
                        *KEYS})
_STEP = {"id": str, "at": (int, float), "size": int, "what": dict, "before": dict, "after": dict,
         "added": list, "changed": list, "removed": list}
_NOTHING = object()


def without_history(session: Session) -> Session:
    """For a copy, which begins with none, and for a file that others may get: what was deleted is in it."""
    return {name: value for name, value in session.items() if name not in KEYS}


def steps_of(session: Session, name: str) -> list[Step]:
    """The steps of `name`, "undo" or "redo"; none where they are about another revision, or are no steps."""
    steps = session.get(name)
    if session.get("history_at") != session["revision"] or not isinstance(steps, list):
        return []
    return steps if all(map(_is_step, steps)) else []


def recorded(before: Session, after: Session) -> Session:
    """`after`, which is to follow `before` as its next revision, with the step that leads there."""
    if any(after.get(name) is not before.get(name) for name in KEYS):
        return after  # undone() or redone() made it
    done, undone = steps_of(before, "undo"), steps_of(before, "redo")
    step = _step(before, after)
    if step is not None and not _is_making(before, step):
        done = _joined([*done, *_kept(undone)], before, step)
        undone = []
    return _with_steps(after, before["revision"] + 1, done, undone)


def undone(session: Session, step_id: str | None = None) -> Session:
    """The session before its latest step; or without the step of this id, whatever came after it. Raises
    NotFound if there is none, or nothing of it is as it was then."""
    return _moved(session, "undo", "redo", step_id)


def redone(session: Session) -> Session:
    """The session with what was undone last. Raises NotFound if there is nothing."""
    return _moved(session, "redo", "undo", None)


def shown_history(session: Session) -> Document:
    """What would be undone and done again next, for the page: each {id, kind, ...}, or null."""
    latest = {name: steps_of(session, name)[-1:] for name in ("undo", "redo")}
    return {name: {**steps[0]["what"], "id": steps[0]["id"]} if steps else None
            for name, steps in latest.items()}


def _with_steps(session: Session, revision: int, undo: list[Step], redo: list[Step]) -> Session:
    return {**session, "undo": _bounded(undo), "redo": _bounded(redo), "history_at": revision}


def _bounded(steps: list[Step]) -> list[Step]:
    size = 0
    for number, step in enumerate(reversed(steps)):
        size += step["size"]
        if number and (size > MAX_BYTES or number >= MAX_STEPS):
            return steps[-number:]
    return steps


def _moved(session: Session, source: str, target: str, step_id: str | None) -> Session:
    steps, others = steps_of(session, source), steps_of(session, target)
    for step in reversed(steps):
        if step_id not in (None, step["id"]):
            continue
        steps = [other for other in steps if other is not step]
        changed = _back(session, step) if source == "undo" else _forth(session, step)
        if changed != session:
            moved = {source: steps, target: [*others, step]}
            return _with_steps(changed, session["revision"] + 1, moved["undo"], moved["redo"])
    if step_id:
        raise NotFound("This can no longer be undone: it was undone before, or is too long ago.")
    raise NotFound("There is nothing to undo." if source == "undo" else "There is nothing to redo.")


def _back(session: Session, step: Step) -> Session:
    changed = session
    for removed in reversed(step["removed"]):
        changed = tree.with_restored(changed, _removed(removed))
    return _set(session, changed, step, "after", "before")


def _forth(session: Session, step: Step) -> Session:
    changed = session
    for removed in step["removed"]:
        if tree.find(changed, removed["message"]["id"]):
            changed, _ = tree.without_message(changed, removed["message"]["id"])
    return _set(session, changed, step, "before", "after")


def _set(session: Session, changed: Session, step: Step, old: str, new: str) -> Session:
    """`changed`, with each field that `session` has as it was on the `old` side of the step as it was on the
    `new` one. What something else has changed since stays."""
    there = {message["id"] for message in changed["messages"]}
    by_id = {change["id"]: change for change in step["changed"]}
    leaf = changed["leaf"]
    changed = _exchanged(session, changed, step[old], step[new])
    if by_id.keys() & there:
        changed = {**changed, "messages": [
            _exchanged(message, message, by_id[message["id"]][old], by_id[message["id"]][new])
            if message["id"] in by_id else message for message in changed["messages"]]}
    if changed["leaf"] is not None and changed["leaf"] not in there:
        changed["leaf"] = leaf
    return changed


def _exchanged(document: Document, changed: Document, old: Document, new: Document) -> Document:
    names = [name for name in {**old, **new} if _value(document, name) == _value(old, name)]
    if not names:
        return changed
    kept = {name: value for name, value in changed.items() if name not in names or name in new}
    return {**kept, **{name: new[name] for name in names if name in new}}


def _value(document: Document, name: str) -> Any:
    return document.get(name, _NOTHING)


def _step(before: Session, after: Session) -> Step | None:
    """What leads from one to the other; None if nothing that anybody made."""
    olds = {message["id"]: message for message in before["messages"]}
    news = {message["id"]: message for message in after["messages"]}
    if before["messages"] is after["messages"]:
        olds = news = {}
    added = [message for message in after["messages"] if message["id"] not in olds] if news else []
    removed, left = [], before
    for gone in [key for key in olds if key not in news]:
        left, out = tree.without_message(left, gone)
        removed.append(out)
    changed = [{"id": key, **_difference(old, news[key], frozenset({"parent"} if removed else ()))}
               for key, old in olds.items() if key in news and news[key] is not old]
    changed = [change for change in changed if change["before"] or change["after"]]
    step = {"id": new_id(), "at": time.time(), **_difference(before, after, _UNTOUCHED),
            "added": [message["id"] for message in added], "changed": changed,
            "removed": [_as_json(one) for one in removed]}
    if not (step["before"] or step["after"] or added or changed or removed):
        return None
    step["what"] = _what(before, after, added, step)
    if added:  # which replies were side by side is told of what stays
        for side in ("before", "after"):
            step[side].pop("comparisons", None)
    return _sized(step)


def _sized(step: Step) -> Step:
    return {**step, "size": len(strict_json.dumps({**step, "size": 0}))}


def _difference(old: Document, new: Document, but: frozenset[str]) -> Document:
    names = [name for name in {**old, **new} if name not in but and _value(old, name) != _value(new, name)]
    return {"before": {name: old[name] for name in names if name in old},
            "after": {name: new[name] for name in names if name in new}}


def _what(before: Session, after: Session, added: list[Message], step: Step) -> Document:
    """What it was in one word, and of what, for people."""
    if step["removed"]:
        return {"kind": "delete"}
    if "comparisons" in step["after"]:
        return {"kind": "compare" if added else "vote"}
    if added:
        last = added[-1]
        return {"kind": "say"} if last["author"] == USER else {"kind": "reply", "name": last["name"]}
    if step["changed"]:
        last = step["changed"][-1]
        return _what_of_message(tree.get(after, last["id"]), {**last["before"], **last["after"]})
    fields = sorted({**step["before"], **step["after"]})
    if fields == ["bots"]:
        return _what_of_bots(before["bots"], after["bots"])
    if fields == ["leaf"]:
        return {"kind": "branch"}
    if fields == ["sampling"]:
        changed_ones = _difference(before["sampling"], after["sampling"], frozenset())
        return {"kind": "sampling", "parameters": sorted({**changed_ones["before"], **changed_ones["after"]})}
    return {"kind": "settings", "fields": [name for name in fields if name != "title_is_auto"]}


def _what_of_message(message: Message, fields: Document) -> Document:
    if "edited" in fields:
        return {"kind": "edit"}
    if "text" in fields or "thinking" in fields:
        return {"kind": "continue", "name": message["name"]}
    if "pinned" in fields:
        return {"kind": "pin" if message.get("pinned") else "unpin"}
    return {"kind": "whisper" if "for" in fields else "label"}


def _what_of_bots(before: list[Document], after: list[Document]) -> Document:
    olds, news = [{entry["id"]: entry for entry in bots} for bots in (before, after)]
    come, gone = [key for key in news if key not in olds], [key for key in olds if key not in news]
    if come or gone:
        return {"kind": "bot-in" if come else "bot-out", "bot": (come or gone)[0]}
    for key, entry in news.items():
        if entry != olds[key]:
            if entry["muted"] == olds[key]["muted"]:
                return {"kind": "bot-knows", "bot": key}
            return {"kind": "bot-mute" if entry["muted"] else "bot-unmute", "bot": key}
    return {"kind": "bot-move"}


def _is_making(before: Session, step: Step) -> bool:
    """Whether this belongs to the making of a new session: what was set on it before its first message."""
    return before["revision"] == 1 and not (step["added"] or step["changed"] or step["removed"]) and not any(
        message["author"] == USER for message in before["messages"])


def _joined(steps: list[Step], before: Session, step: Step) -> list[Step]:
    """`step` at the end of `steps`; or as one with the last one, where people take both for one."""
    last = steps[-1] if steps else None
    if last is None:
        return [step]
    typed = step["what"] == last["what"] and abs(step["at"] - last["at"]) < JOINED_SECONDS and \
        step["what"]["kind"] in ("settings", "sampling", "bot-knows")
    # Another version of a reply: the leaf went up to its parent before it was written.
    rewritten = step["what"]["kind"] == "reply" and last["what"]["kind"] == "branch" and \
        step["before"].get("leaf", _NOTHING) == last["after"]["leaf"] and \
        any(message["parent"] == last["after"]["leaf"] for message in before["messages"])
    if not (typed or rewritten):
        return [*steps, step]
    first, last_fields = {**last["before"], **last["after"]}, {**step["before"], **step["after"]}
    both = {"before": {**{name: value for name, value in step["before"].items() if name not in first},
                       **last["before"]},
            "after": {**{name: value for name, value in last["after"].items() if name not in last_fields},
                      **step["after"]}}
    return [*steps[:-1], _sized({**step, **both})]


def _kept(undone: list[Step]) -> list[Step]:
    """What was undone, once something else is done: nothing leads forward any more, so what would be lost, a
    text that was written over another one, is there as steps that were done and undone."""
    lost = [step for step in reversed(undone)
            if not step["added"] and not step["removed"] and step["what"]["kind"] != "branch"]
    back = [{**step, "id": new_id(), "before": step["after"], "after": step["before"],
             "changed": [{"id": one["id"], "before": one["after"], "after": one["before"]}
                         for one in step["changed"]],
             "what": {**step["what"], "undone": not step["what"].get("undone", False)}}
            for step in reversed(lost)]
    return [*lost, *back]


def _as_json(removed: tree.Removed) -> Document:
    return {"message": removed.message, "index": removed.index, "children": sorted(removed.children),
            "was_leaf": removed.was_leaf, "unknown_to": sorted(removed.unknown_to)}


def _removed(document: Document) -> tree.Removed:
    return tree.Removed(document["message"], document["index"], frozenset(document["children"]),
                        document["was_leaf"], frozenset(document["unknown_to"]))


def _is_step(step: object) -> bool:
    """Whether it has the shape of one. What it makes of a session is checked as anything else is."""
    if not isinstance(step, dict):
        return False
    if not all(isinstance(step.get(name), kind) for name, kind in _STEP.items()):
        return False
    if not isinstance(step["what"].get("kind"), str) or not all(map(is_id, step["added"])):
        return False
    return all(map(_is_change, step["changed"])) and all(map(_is_removed, step["removed"]))


def _is_change(one: object) -> bool:
    return isinstance(one, dict) and is_id(one.get("id")) and isinstance(one.get("before"), dict) \
        and isinstance(one.get("after"), dict)


def _is_removed(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("message"), dict):
        return False
    ids = [one.get("children"), one.get("unknown_to"), [one["message"].get("id")]]
    return all(isinstance(some, list) and all(map(is_id, some)) for some in ids) \
        and "parent" in one["message"] and isinstance(one.get("index"), int) \
        and isinstance(one.get("was_leaf"), bool)
