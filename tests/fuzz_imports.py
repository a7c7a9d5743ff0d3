"""Random imports, each followed by every action of the interface: no answer is a 500, nothing hangs.

    python -m tests.fuzz_imports 100000

Sessions of Parlor's, its exports, those of other programs and character cards are made at random and broken
at random places by values that are nearly right, pictures by bytes. What is taken must bear everything that
the page can do with it, and a new start. The model is scripted; a case that takes over CASE_SECONDS of the
processor ends the program with the stacks of all threads. The numbers so far are printed with each new start.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from model import PARAMETER_SPECS, ModelSlot
from tests.helpers.api import LIN, MARLOW, OTTO
from tests.helpers.case_limit import case_limit
from tests.helpers.failing_disk import FastDisk
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import write_bots
from tests.helpers.png_cards import as_base64, packed, png, png_chunk
from webui import create_app
from webui.routes.parlor import parlor
from webui.storage import schema
from webui.storage.store import Store

CASE_SECONDS = 60  # of the processor
RESTART_EVERY = 200  # imports, with one store; then it is opened anew
ANSWERS = {200, 201, 202, 400, 404, 409, 410, 503}
ODD = [
    None, True, False, 0, -1, 1, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 64, 10**30, 0.5, -0.0, 1e18, 1e300,
    float("inf"), float("nan"), "", " ", "a", "a:b", "a\nb", "x" * 61, "x" * 201, "x" * 50_001, "x" * 200_001,
    "\ud800", "\u2028", "\0", "<|user|>", "{{char}} {{user}}", "{{", "🎉" * 70, "0" * 16, "user", "../../x",
    [], {}, [[]], [None], {"a": {}}, [[[[[[]]]]]], 1.7e9, 1.7e12, 1.7e15, "1700000000", "2024-01-01"]
TEXTS = [
    "hello", "code", "markdown", "think aloud", "fail", "crash", "refuse", "long", "empty", "spaces", "xss",
    "a" * 5_000, "word " * 3_000, "\n\n", "Marlow?", "Otto, Lin!", "\U00100000<|im_end|>", "# Title\n*x*",
    "<script>", "\u202e", "[](", "| a |\n|--|", "$$x$$", "\x07"]
NAMES = ["Ann", "Marlow", "marlow", "Ot to", "小林", "N" * 60, "O'Neil", "C.(*", "🎉", "User", "Lin"]


def session_of(rng: random.Random) -> dict[str, Any]:
    """A session that is good: a tree of messages by the user, by known bots and by strangers."""
    authors = ["user", MARLOW, OTTO, LIN, *(f"{rng.getrandbits(64):016x}" for _ in range(3))]
    messages: list[dict[str, Any]] = []
    for _ in range(rng.randrange(12)):
        author = rng.choice(authors)
        above = [None, *(message["id"] for message in messages[-3:])]
        message: dict[str, Any] = {
            "id": f"{rng.getrandbits(64):016x}",
            "parent": above[-1] if rng.random() < 0.7 else rng.choice(above),
            "author": author, "name": rng.choice(NAMES), "text": rng.choice(TEXTS), "thinking": "",
            "created": rng.uniform(0, 4e9)}
        if author != "user":
            message |= {"model": "m", "error": "", "sampling": sampling_of(rng),
                        "finish_reason": rng.choice(schema.FINISH_REASONS),
                        **{name: rng.randrange(1 << rng.randrange(1, 53)) for name in schema.REPLY_NUMBERS}}
        if rng.random() < 0.2:
            message["pinned"] = rng.random() < 0.8
            message["label"] = rng.choice(["", "Ending", "E" * 60])
        if rng.random() < 0.3:
            message |= {"seed": rng.getrandbits(53), "sampling": sampling_of(rng), "record": {
                "model": "f1a7" * 4, "on": {"isa": "avx2"}, "prompt": "00" * 8, "tokens": "11" * 8,
                "count": rng.randrange(40), "begun": rng.randrange(9), "begun_tokens": rng.randrange(3)}}
        if rng.random() < 0.2:
            message["for"] = rng.choice([None, rng.sample(authors[1:], rng.randrange(1, 4))])
        messages.append(message)
    room = rng.sample(authors[1:], rng.randrange(5))
    return {**memory_of(rng, [message["id"] for message in messages]),
            "pinned": rng.random() < 0.5, "folder": rng.choice(["", "Sea", "F" * 60]),
            "tags": rng.sample(["fog", "Sea", "小"], rng.randrange(4)), "schema_version": 1,
            "id": f"{rng.getrandbits(64):016x}", "revision": rng.randrange(100),
            "title": rng.choice(TEXTS)[:200], "title_is_auto": rng.random() < 0.5,
            "created": rng.uniform(0, 4e9), "updated": rng.uniform(0, 4e9),
            "bots": [{"id": bot, "muted": rng.random() < 0.2,
                      **entry_of(rng, [message["id"] for message in messages])} for bot in room],
            "user_name": rng.choice(["", *NAMES]), "system_prompt": rng.choice(["", *TEXTS]),
            "turn_order": rng.choice(schema.TURN_ORDERS)["id"], "sampling": sampling_of(rng),
            "preset": rng.choice(["balanced", "greedy", "0" * 16]),
            "leaf": rng.choice([m["id"] for m in messages] or [None]), "messages": messages}


def entry_of(rng: random.Random, ids: list[str]) -> dict[str, Any]:
    """What a bot of a session knows, if that is not all."""
    known = {"since": rng.choice([None, *ids]), "notes": rng.choice(TEXTS)}
    return {name: value for name, value in known.items() if rng.random() < 0.3}


def memory_of(rng: random.Random, ids: list[str]) -> dict[str, Any]:
    """What a session keeps in mind, if it does."""
    known: dict[str, Any] = {
        "note": rng.choice([None, {"text": rng.choice(TEXTS), "depth": rng.randrange(1, 101)}]),
        "lore": [{"keys": ["a", "Hello"], "text": rng.choice(TEXTS)}, {"keys": [], "text": ""}],
        "summaries": [{"id": f"{rng.getrandbits(64):016x}", "until": rng.choice([*ids, "0" * 16]),
                       "text": rng.choice(TEXTS) or "x", "created": rng.uniform(0, 4e9)} for _ in range(2)]}
    return {name: value for name, value in known.items() if rng.random() < 0.3}


def sampling_of(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in rng.sample(list(PARAMETER_SPECS.values()), rng.randrange(4)):
        if spec["type"] == "int":
            low, high = spec["min"], spec["max"]
            values[spec["name"]] = rng.choice([low, high, rng.randrange(low, high + 1, spec["step"])])
        elif spec["type"] == "float":
            values[spec["name"]] = rng.uniform(spec["min"], spec["max"])
    if rng.random() < 0.2:
        values |= {"stop": ["a", "\n"], "banned_tokens": [rng.getrandbits(31)],
                   "logit_bias": {str(rng.getrandbits(31)): 1.5}}
    return values


def bot_of(rng: random.Random) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if rng.random() < 0.3:
        more = {"picture": rng.choice(["", as_base64(png()), as_base64(png(after=True))]),
                "alternate_greetings": rng.sample(TEXTS, 2), "example_dialogue": rng.choice(TEXTS),
                "lore_book": {"entries": [{"keys": ["a"], "content": "b"}]}, "card": {"tags": ["x"]}}
    return {**more, "schema_version": 1, "id": f"{rng.getrandbits(64):016x}", "revision": 1,
            "name": rng.choice(NAMES), "color": "#123456", "persona": rng.choice(TEXTS),
            "greeting": rng.choice(TEXTS), "sampling": sampling_of(rng), "created": rng.uniform(0, 4e9)}


def exllama_of(rng: random.Random) -> dict[str, Any]:
    people = rng.sample(NAMES, rng.randrange(1, 5))
    return {"participants": people, "fixed_prompt": {"text": rng.choice(TEXTS)}, "keep_fixed_prompt": True,
            "history": [{"author": rng.choice([*people, None, "Eve"]), "text": rng.choice(TEXTS)}
                        for _ in range(rng.randrange(10))],
            "temperature": rng.uniform(-1, 3), "top_p": rng.random(), "top_k": rng.randrange(-1, 5_000),
            "token_repetition_penalty_sustain": rng.choice([-1, 0, 1 << 40]), "break_on_newline": True}


def card_of(rng: random.Random) -> dict[str, Any]:
    """A character card: V1, V2 or V3, with some fields and a lore book."""
    data: dict[str, Any] = {"name": rng.choice(NAMES),
                            "alternate_greetings": rng.sample(TEXTS, rng.randrange(4))}
    for name in ("description", "personality", "scenario", "first_mes", "mes_example", "creator_notes",
                 "system_prompt", "post_history_instructions"):
        if rng.random() < 0.6:
            data[name] = rng.choice(TEXTS)
    if rng.random() < 0.5:
        data["character_book"] = {"extensions": {}, "entries": [
            {"keys": rng.sample(NAMES, 2), "content": rng.choice(TEXTS), "enabled": True, "extensions": {},
             "insertion_order": rng.randrange(100), "constant": rng.random() < 0.5}
            for _ in range(rng.randrange(4))]}
    if rng.random() < 0.5:
        data |= {"extensions": {"a/b": rng.choice(ODD[:8])}, "tags": ["x"], "group_only_greetings": [],
                 "assets": [{"type": "icon", "uri": rng.choice(["data:x", "ccdefault:"]), "name": "a"}]}
    spec = rng.choice(["", "chara_card_v2", "chara_card_v3", "chara_card_v4"])
    return {"spec": spec, "spec_version": "2.0", "data": data} if spec else data


def tavern_of(rng: random.Random) -> list[Any]:
    """A chat of SillyTavern's, with or without its first line."""
    lines: list[Any] = [{"user_name": rng.choice(NAMES), "character_name": rng.choice(NAMES)}]
    for _ in range(rng.randrange(8)):
        line = {"name": rng.choice(NAMES), "is_user": rng.random() < 0.4, "mes": rng.choice(TEXTS),
                "send_date": rng.choice([*ODD[:12], "May 1, 2024 10:00am", "2024-05-01T10:00:00Z"])}
        if rng.random() < 0.4:
            line |= {"swipes": rng.sample(TEXTS, 3), "swipe_id": rng.randrange(4),
                     "swipe_info": [{"extra": {"reasoning": rng.choice(TEXTS)}}, {}]}
        lines.append(line)
    return lines[rng.randrange(2):]


def webui_of(rng: random.Random) -> Any:
    """A chat of Open WebUI's, or several."""
    messages: dict[str, Any] = {}
    for number in range(rng.randrange(8)):
        parent = rng.choice([None, *messages])
        messages[str(number)] = {
            "id": str(number), "parentId": parent, "role": rng.choice(["user", "assistant"]), "model": "a:b",
            "content": rng.choice(TEXTS), "modelName": rng.choice(NAMES), "timestamp": number}
    history = {"currentId": rng.choice([None, *messages]), "messages": messages}
    chat = {"title": rng.choice(TEXTS), "params": {"system": rng.choice(TEXTS)},
            "timestamp": rng.choice(ODD[:12]), "history": history}
    return rng.choice([chat, {"chat": chat, "created_at": 5}, [{"chat": chat}, {"chat": chat}]])


def roles_of(rng: random.Random) -> Any:
    """A chat of roles: a list, an object, or several as lines."""
    roles = ["user", "assistant", "system", "tool", "x"]
    chat = [{"role": rng.choice(roles), "content": rng.choice([*TEXTS, [{"type": "text", "text": "a"}]])}
            for _ in range(rng.randrange(6))]
    return rng.choice([chat, {"messages": chat}, [{"messages": chat}, {"messages": chat}]])


def picture_of(rng: random.Random) -> bytes:
    """A card in a PNG file, whole or with some bytes changed."""
    text = packed(card_of(rng))
    kind, body = rng.choice([(b"tEXt", text), (b"zTXt", b"\0" + zlib.compress(text)),
                             (b"iTXt", b"\0\0\0\0" + text)])
    keyword = rng.choice([b"chara", b"ccv3", b"Comment"])
    file = bytearray(png(png_chunk(kind, keyword + b"\0" + body), after=rng.random() < 0.5))
    for _ in range(rng.choice([0, 0, 1, 5])):
        file[rng.randrange(len(file))] = rng.randrange(256)
    return bytes(file[:rng.choice([len(file), len(file), rng.randrange(len(file))])])


def broken(rng: random.Random, value: Any) -> Any:
    """`value` with something else at one place of it: odd, missing, doubled, or from another place."""
    value = json.loads(json.dumps(value))
    places = list(places_in(value))
    holder, key = rng.choice(places)
    way = rng.randrange(5)
    if way == 0 and isinstance(holder, dict):
        del holder[key]
    elif way == 1:
        other, other_key = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[other_key]))
    elif way == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), holder[key])
    elif way == 3 and isinstance(holder, dict):
        holder[rng.choice(["x", "edited", "shortened", "error", "seed", "thinking"])] = rng.choice(ODD)
    else:
        holder[key] = rng.choice(ODD)
    return value


def places_in(value: Any) -> Any:
    """Every (container, key) below a value."""
    stack = [value]
    while stack:
        item = stack.pop()
        entries = item.items() if isinstance(item, dict) else enumerate(item)
        for key, below in list(entries):
            yield item, key
            if isinstance(below, dict | list):
                stack.append(below)


def export_of(rng: random.Random) -> dict[str, Any]:
    bots = [bot_of(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.3:
        several = [session_of(rng) for _ in range(rng.randrange(4))]
        return {"parlor_export": 1, "sessions": several, "bots": bots}
    return {"parlor_export": 1, "session": session_of(rng), "bots": bots}


def import_of(rng: random.Random) -> Any:
    data: Any = rng.choice(KINDS)(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        if isinstance(data, dict | list) and data:
            data = broken(rng, data)
    return data


KINDS = (session_of, session_of, exllama_of, export_of, export_of, card_of, tavern_of, webui_of, roles_of)


class Actions:
    """Everything that can be done with a session, by one client."""

    def __init__(self, client: FlaskClient, rng: random.Random, counts: Counter[str]) -> None:
        self.client, self.rng, self.counts = client, rng, counts
        self.did: list[str] = []
        self.revision = 0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; AssertionError for a status that no action may have."""
        data = None if method == "GET" else json.dumps(body if body is not None else {})
        self.did.append(f"{method} {path} {str(data)[:200]}")
        response = self.client.open(path, method=method, data=data,
                                    content_type=None if data is None else "application/json")
        self.counts["requests"] += 1
        self.counts[f"answers {response.status_code}"] += 1
        assert response.status_code in ANSWERS, (response.status_code, response.text[:500], self.did)
        answer = response.json if response.is_json else {"text": response.text}
        session = answer.get("session") if isinstance(answer, dict) else None
        if response.status_code < 300 and session:
            self.revision = session["revision"]
        return answer

    def change(self, method: str, path: str, **body: Any) -> Any:
        answer = self.ask(method, path, {"revision": self.revision, **body})
        self.finish(answer.get("reply") if isinstance(answer, dict) else None)
        return answer

    def finish(self, reply: dict[str, Any] | None) -> None:
        """Wait for the reply and all that follow it, and read what they said."""
        chains = parlor(self.client.application).chat.chains
        while reply:
            job = chains.job(reply["reply_id"])
            while job.log.ended_at is None:
                time.sleep(0.0005)
            text = self.ask("GET", f"/api/replies/{reply['reply_id']}/events?from=0")["text"]
            last = text.rstrip().rpartition("\n\n")[2]
            assert "event: done" in last or "event: error" in last, text[-500:]
            reply = json.loads(last.partition("data: ")[2]).get("next")

    def all_of(self, session: dict[str, Any]) -> None:
        """Every action once, in an order of its own."""
        url = f"/api/sessions/{session['id']}"
        ids = [message["id"] for message in session["messages"]]
        rng = self.rng

        def some() -> str:
            return rng.choice(ids or ["0" * 16])

        actions = [
            lambda: self.ask("GET", "/api/sessions"), lambda: self.ask("GET", "/api/sessions?q=hello%20a"),
            lambda: self.ask("GET", "/api/changes?since=0"), lambda: self.ask("GET", "/api/bots"),
            lambda: self.ask("GET", f"{url}/export?format=json"),
            lambda: self.ask("GET", f"{url}/export?format=markdown"),
            lambda: self.ask("GET", f"{url}/export?format=html"), lambda: self.take_again(url),
            lambda: self.delete(self.ask("POST", f"{url}/duplicate").get("session")),
            lambda: self.change("PATCH", url, title="x", user_name="Bo", system_prompt="y"),
            lambda: self.change("PATCH", url, turn_order=rng.choice(schema.TURN_ORDERS)["id"]),
            lambda: self.change("PATCH", url, bots=[{"id": bot, "muted": False} for bot in (MARLOW, LIN)]),
            lambda: self.change("PATCH", url, leaf=rng.choice([some(), None])),
            lambda: self.change("POST", f"{url}/messages", text=rng.choice(TEXTS), reply=False),
            lambda: self.change("POST", f"{url}/messages", text=rng.choice(TEXTS)),
            lambda: self.change("POST", f"{url}/messages", text="branch", parent=rng.choice([some(), None])),
            lambda: self.change("POST", f"{url}/replies", kind="next"),
            lambda: self.change("POST", f"{url}/replies", kind="next", turns=3),
            lambda: self.change("POST", f"{url}/replies", kind="regenerate", message=some()),
            lambda: self.change("POST", f"{url}/replies", kind="continue", message=some()),
            lambda: self.change("PATCH", f"{url}/messages/{some()}", text=rng.choice(TEXTS)),
            lambda: self.erase(url, some()), lambda: self.ask("POST", f"{url}/hold", {"hold": False}),
            lambda: self.ask("GET", f"{url}/prompt"), lambda: self.compare(url),
            lambda: self.ask("GET", f"{url}/messages/{some()}/replay"),
            lambda: self.change("PATCH", f"{url}/messages/{some()}", pinned=rng.random() < 0.5),
            lambda: self.change("POST", f"{url}/summaries", until=some(), text=rng.choice(TEXTS)),
            lambda: self.change("POST", f"{url}/messages", text="psst", **{"for": [MARLOW]}),
            lambda: self.change("PATCH", f"{url}/messages/{some()}", **{"for": rng.choice([None, [LIN]])}),
            lambda: self.change("PATCH", url, bots=[{"id": LIN, "muted": False, "notes": rng.choice(TEXTS),
                                                     "since": rng.choice([some(), None])}]),
        ]
        rng.shuffle(actions)
        for action in actions:
            self.ask("GET", url)
            action()
        self.ask("GET", url)

    def all_of_bot(self, bot: dict[str, Any]) -> None:
        """What can be done with a bot that came in: out and in again, twice, changed, talked with."""
        url = f"/api/bots/{bot['id']}"
        whole = self.ask("GET", url)["bot"]
        again = self.ask("POST", "/api/sessions/import", {"data": self.ask("GET", f"{url}/export")})["bot"]
        again = self.ask("GET", f"/api/bots/{again['id']}")["bot"]
        for name in ("persona", "greeting", "alternate_greetings", "example_dialogue", "lore_book", "card"):
            assert again.get(name) == whole.get(name), (name, self.did)
        self.ask("POST", f"{url}/duplicate")
        self.ask("PATCH", url, {"revision": whole["revision"], "persona": "x"})
        chosen = {"bots": [bot["id"]], "greetings": {bot["id"]: 1}}
        begun = self.ask("POST", "/api/sessions", chosen)["session"]
        self.change("POST", f"/api/sessions/{begun['id']}/messages", text=self.rng.choice(TEXTS))
        self.take_again(f"/api/sessions/{begun['id']}")
        self.delete(begun)

    def compare(self, url: str) -> None:
        """Two columns, and a vote for one of them."""
        columns = [{"bot": MARLOW}, {"bot": LIN, "seed": 1, "preset": "greedy"}]
        made = self.change("POST", f"{url}/comparisons", text=self.rng.choice(TEXTS), columns=columns)
        for reply in made.get("replies", []):
            self.finish(reply)
        if "comparison" in made:
            self.ask("GET", url)
            winner = self.rng.choice(made["replies"])["message_id"]
            self.change("POST", f"{url}/comparisons/{made['comparison']}/vote", winner=winner)

    def erase(self, url: str, message: str) -> None:
        undo = self.change("DELETE", f"{url}/messages/{message}").get("undo")
        if undo:
            self.change("POST", f"{url}/undo", step=undo)

    def take_again(self, url: str) -> None:
        """What was exported comes in again, the same."""
        exported = self.ask("GET", f"{url}/export?format=json")
        again = self.ask("POST", "/api/sessions/import", {"data": exported})
        assert again["session"]["messages"] == exported["session"]["messages"], self.did
        self.delete(again["session"])

    def delete(self, session: dict[str, Any] | None) -> None:
        if session:
            self.ask("DELETE", f"/api/sessions/{session['id']}")


def fuzz(folder: Path, count: int, seed: int,
         report: Callable[[Counter[str]], None] = lambda counts: None) -> Counter[str]:
    """`count` imports into a store in `folder`. Raises AssertionError with the case that failed."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for first in range(0, count, RESTART_EVERY):
        write_bots(folder / "bots")
        store = Store(folder, disk=FastDisk())
        assert not store.problems, store.problems
        for left in store.summaries():  # read once more; all of them would slow down every search
            store.delete_session(left["id"])
        app = create_app(ModelSlot.holding(FakeModel(prompt_steps=1)), store)
        for _ in range(first, min(count, first + RESTART_EVERY)):
            with case_limit(CASE_SECONDS):
                data = import_of(rng)
                body = {"data": data} if rng.random() < 0.9 else {"png": as_base64(picture_of(rng))}
                counts["imports"] += 1
                actions = Actions(app.test_client(), rng, counts)
                known = {bot["id"] for bot in store.known_bots()}
                try:
                    made = actions.ask("POST", "/api/sessions/import", {
                        **body, "unknown": rng.choice(["make", "make", "keep", "ask"])})
                    if made.get("bot"):
                        counts["bots taken"] += 1
                        actions.all_of_bot(made["bot"])
                    if made.get("session"):
                        counts["taken"] += 1
                        actions.all_of(made["session"])
                        if rng.random() < 0.9:  # the others are there at the next start
                            undo = actions.ask("DELETE", f"/api/sessions/{made['session']['id']}")["undo"]
                            restored = actions.ask("POST", "/api/sessions/restore", {"undo": undo})
                            actions.delete(restored["session"])
                except Exception:
                    print(f"seed {seed}, import {counts['imports']}: {json.dumps(body)}", file=sys.stderr)
                    raise
                for bot in store.known_bots():
                    if bot["id"] not in known:
                        actions.ask("DELETE", f"/api/bots/{bot['id']}")
        parlor(app).close("the case is over", 1.0)
        for path in store.trash.iterdir():
            path.unlink()
        store.close()
        report(counts)
    Store(folder).close()
    return counts


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    logging.getLogger("parlor.reply").setLevel(logging.CRITICAL)  # the scripted model crashes when asked to
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        fuzz(Path(folder) / "sessions", count, seed,
             lambda counts: print(json.dumps({"seed": seed, **dict(sorted(counts.items()))}), flush=True))


if __name__ == "__main__":
    main()
