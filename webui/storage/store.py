"""What is kept on disk: sessions, bots, presets, engines, journals of running replies, trash, quarantine.

    chats/<id>.json  bots/<id>.json  presets/<id>.json  engines/<id>.json  journal/<reply id>.jsonl
    tokens/<session id>/  trash/  quarantine/
    .lock  .changes

Opens the folder for this process alone and keeps the list of sessions.
Knows nothing of HTTP or of the model.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import strict_json
from ..errors import NotFound, NotSaved, Problem, TooMany
from ..ids import check_id, is_id
from ..sampling import BUILT_IN_PRESETS, DEFAULT_PRESET
from . import tree
from .arrangement import Arranging, arrangement_of, words_and_tags
from .changes import Changes
from .disk import Disk
from .documents import Documents
from .folder_lock import FolderLock
from .history import recorded
from .problems import Problems
from .revisions import Revisions
from .schema import BOT, ENGINE, PRESET, SESSION, Bot, Document, Kind, Session
from .search_index import Place, SearchIndex, fold, snippet
from .token_files import TokenFiles
from .trash import TrashList, empty_old

MAX_KNOWN_BOTS = 500
BROUGHT = ".shipped"  # the ids of shipped bots that were copied here once
CACHED_SESSIONS = 16  # they can be large


class Store:
    """The one owner of the sessions folder."""

    def __init__(self, folder: Path, *, shipped_bots: Path | None = None, disk: Disk | None = None) -> None:
        """Open `folder`, making it if needed. Raises FolderInUse, OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.disk = disk or Disk()
        self.lock = FolderLock(folder)
        self.changes = Changes(folder / ".changes", self.disk)
        self.quarantine, self.trash = folder / "quarantine", folder / "trash"
        self.trash_list = TrashList(self.trash, self._read_deleted)
        self._problems = Problems()
        self._summaries: dict[str, Document] = {}
        self._summaries_lock = threading.Lock()
        self.revisions = Revisions()
        self._bots_lock = threading.Lock()  # their number is looked at before one is added
        self._bring_shipped(shipped_bots)
        self.sessions = self._documents("chats", SESSION, cached=CACHED_SESSIONS, record=recorded)
        self.bots = self._documents("bots", BOT)
        self.presets = self._documents("presets", PRESET)
        self.engines = self._documents("engines", ENGINE)
        self.journal_folder = folder / "journal"
        self.journal_folder.mkdir(exist_ok=True)
        for session in self.sessions.scan():
            self._summarize(session, note=False)
        self.tokens = TokenFiles(folder / "tokens", self.disk)
        self.tokens.keep_only(self._summaries)
        self.search_index = SearchIndex(folder / ".search.sqlite", self.sessions.read, self.sessions.stamp)
        self.known_bots()
        empty_old(self.trash)

    def begin_indexing(self) -> None:
        """From now on searching is fast; until then it reads every session."""
        self.search_index.start(entry["id"] for entry in self.summaries())

    def close(self) -> None:
        self.search_index.close()
        self.lock.close()

    @property
    def problems(self) -> list[dict[str, str]]:
        """What is told at the page, each as {file, message}."""
        return self._problems.as_json()

    def session(self, session_id: str) -> Session:
        return self.sessions.get(session_id)

    def add_session(self, session: Session) -> Session:
        try:
            session = self.sessions.create(session)
        except NotSaved:
            self._reread(session["id"])
            raise
        self._summarize(session)
        self._changed(session["id"])
        return session

    def change_session(self, session_id: str, revision: int | None, edit: Callable[[Session], Session], *,
                       touch: bool = True) -> Session:
        """See Documents.change(). `touch` moves the session to the top of the list."""
        did_change = False

        def edited(session: Session) -> Session:
            nonlocal did_change
            changed = edit(session)
            did_change = changed is not session
            return {**changed, "updated": time.time()} if touch and did_change else changed

        try:
            session = self.sessions.change(session_id, revision, edited)
        except NotSaved:
            self._reread(session_id)
            raise
        if did_change:
            self._summarize(session)
            self._changed(session_id)
        return session

    def delete_session(self, session_id: str) -> str:
        token = self.sessions.delete(session_id)
        self.tokens.remove_session(session_id)
        with self._summaries_lock:
            self._summaries.pop(session_id, None)
        self.changes.delete(session_id)
        self.search_index.touch(session_id)
        return token

    def restore_session(self, token: str) -> Session:
        session = self.sessions.restore(token)
        self._summarize(session)
        self._changed(session["id"])
        return session

    def arrange_session(self, session_id: str, arranging: Arranging) -> Session:
        """Pin, tag or move it, on top of any revision; it keeps its place among the latest."""
        return self.change_session(session_id, None, arranging.of, touch=False)

    def rename_folder(self, folder: str, name: str) -> int:
        """Have all sessions of one folder in another, or with "" in none; how many they were."""
        inside = [entry["id"] for entry in self.summaries() if entry.get("folder") == folder]
        for session_id in inside:
            self.arrange_session(session_id, Arranging(folder=name))
        return len(inside)

    def restore_deleted(self, token: str) -> str:
        """Bring back what was deleted, a session or a bot; which of them. Raises as their own ways do."""
        kind = self.trash_list.kind_of(check_id(token, "deleted entry"))
        if kind == BOT.name:
            self.restore_bot(token)
        else:
            self.restore_session(token)
        return kind

    def erase_deleted(self, token: str) -> None:
        """Take it out of the trash, for good. Raises NotFound, NotSaved."""
        kind = self.trash_list.kind_of(check_id(token, "deleted entry"))
        (self.bots if kind == BOT.name else self.sessions).erase_deleted(token)

    def summaries(self) -> list[Document]:
        """Sessions for the list, the latest first."""
        with self._summaries_lock:
            return sorted(self._summaries.values(), key=lambda entry: entry["updated"], reverse=True)

    def asked(self, text: str) -> tuple[list[str], list[set[str]]]:
        """What a search for `text` looks for: words, folded, and tags; see words_and_tags()."""
        known = {fold(tag) for entry in self.summaries() for tag in entry.get("tags", [])}
        return words_and_tags(fold(text), known)

    def search(self, text: str) -> list[Document]:
        """Sessions whose title or texts hold every word, with the place where the first one stands, and that
        have the tags."""
        wanted, tags = self.asked(text)
        entries = [entry for entry in self.summaries() if all(
            any(fold(tag) in meant for tag in entry.get("tags", [])) for meant in tags)]
        if not wanted:
            return entries
        indexed, unknown = self.search_index.find(wanted) or ({}, None)
        found = []
        for summary in entries:
            key = summary["id"]
            place = self._place(key, wanted) if unknown is None or key in unknown else indexed.get(key)
            if place is not None:
                found.append({**summary, "snippet": place.snippet, "match": place.message})
        return found

    def _place(self, session_id: str, wanted: list[str]) -> Place | None:
        """Where the session itself holds the words; None if it does not."""
        try:
            return _match(self.sessions.read(session_id), wanted)
        except NotFound:
            return None

    def known_bots(self) -> list[Bot]:
        """Bots in the order in which they came; those that ship come first."""
        return sorted(self.bots.scan(), key=lambda bot: (bot.get("created", 0.0), bot["id"]))

    def add_bots(self, bots: list[Bot]) -> None:
        """Save new bots, all of them or none. Raises TooMany, NotSaved, Invalid."""
        with self._bots_lock:
            self._check_space_for_bots(len(bots))
            for index, bot in enumerate(bots):
                try:
                    self.bots.create(bot)
                except BaseException:
                    self._drop_bots(bots[:index])
                    raise
        if bots:
            self.changes.touch_bots()

    def take_in(self, sessions: list[Session], missing: list[Bot]) -> list[Session]:
        """Save sessions and those of their bots that are not here: all or nothing. Raises as add_bots."""
        self.add_bots(missing)
        taken: list[Session] = []
        try:
            for session in sessions:
                taken.append(self.add_session(session))
        except BaseException:
            for session in taken:
                with contextlib.suppress(Problem):
                    self.delete_session(session["id"])
            self._drop_bots(missing)
            raise
        return taken

    def restore_bot(self, token: str) -> Bot:
        with self._bots_lock:
            self._check_space_for_bots(1)
            bot = self.bots.restore(token)
        self.changes.touch_bots()
        return bot

    def known_presets(self) -> list[Document]:
        own = sorted(self.presets.scan(), key=lambda preset: preset["name"].casefold())
        shown = [{key: preset[key] for key in ("id", "name", "sampling")} for preset in own]
        return [*BUILT_IN_PRESETS, *shown]

    def preset_sampling(self, preset_id: str) -> dict[str, Any]:
        """What the preset changes; a deleted one counts as the default one."""
        presets = {preset["id"]: preset["sampling"] for preset in self.known_presets()}
        return presets.get(preset_id, presets[DEFAULT_PRESET])

    def journal_path(self, reply_id: str) -> Path:
        return self.journal_folder / f"{check_id(reply_id, 'reply')}.jsonl"

    def note_problem(self, path: Path, message: str, *, passing: bool = False) -> None:
        """Tell the page about a file; see Problems."""
        self._problems.note(path.relative_to(self.folder).as_posix(), message, passing=passing)

    def problem_is_over(self, path: Path) -> None:
        self._problems.over(path.relative_to(self.folder).as_posix())

    def _check_space_for_bots(self, number: int) -> None:
        if len(self.known_bots()) + number > MAX_KNOWN_BOTS:
            raise TooMany(f"There is room for {MAX_KNOWN_BOTS} bots.", hint="Delete some first.")

    def _drop_bots(self, bots: list[Bot]) -> None:
        for bot in bots:
            with contextlib.suppress(Problem):
                self.bots.delete(bot["id"])
        self.changes.touch_bots()

    def _documents(self, name: str, kind: Kind, **options: Any) -> Documents:
        return Documents(self.folder / name, kind, self.disk, self.quarantine, self.trash,
                         self._problems, **options)

    def _summarize(self, session: Session, *, note: bool = True) -> None:
        summary = {"id": session["id"], "title": session["title"], "updated": session["updated"],
                   "bots": [entry["id"] for entry in session["bots"]],
                   "num_messages": len(tree.path(session, session["leaf"])), "revision": session["revision"],
                   "read_only": self.sessions.is_read_only(session["id"]), **arrangement_of(session)}
        with self._summaries_lock:
            self._summaries[session["id"]] = summary
        if note:
            self.revisions.note(session)

    def _read_deleted(self, path: Path, kind: str) -> Any:
        return strict_json.loads(self.disk.read(path, (BOT if kind == BOT.name else SESSION).max_bytes))

    def _reread(self, session_id: str) -> None:
        """After a failed save: the list says what the disk says."""
        try:
            self._summarize(self.session(session_id))
        except NotFound:
            with self._summaries_lock:
                self._summaries.pop(session_id, None)
        self._changed(session_id)

    def _changed(self, session_id: str) -> None:
        self.changes.touch(session_id)
        self.search_index.touch(session_id)

    def _bring_shipped(self, shipped: Path | None) -> None:
        """Copy the bots that ship, each once: an edited one stays as it is, a deleted one stays away."""
        if shipped is None:
            return
        target = self.folder / "bots"
        note = target / BROUGHT
        try:
            target.mkdir(parents=True, exist_ok=True)
            text = self.disk.read(note, BOT.max_bytes).decode("utf-8", "replace") if note.exists() else ""
            before = [word for word in text.split() if is_id(word)]
            new = [path for path in sorted(shipped.glob("*.json")) if path.stem not in before]
            for path in new:
                if not (target / path.name).exists():
                    self.disk.save(target / path.name, path.read_bytes())
            if new:
                self.disk.save(note, "\n".join([*before, *(path.stem for path in new), ""]).encode())
        except OSError as error:
            self.note_problem(note, f"cannot be used: {error.strerror or error}. "
                                    "The bots that come with Parlor may be missing.")


def _match(session: Session, wanted: list[str]) -> Place | None:
    """The first place where a message holds one of the words, if every word occurs in the session."""
    title = fold(session["title"])
    missing = {word for word in wanted if word not in title}
    place = Place()
    for message in session["messages"]:
        folded = fold(message["text"])
        hits = [word for word in wanted if word in folded]
        if hits and place.message is None:
            place = Place(snippet(message["text"], folded, hits[0]), message["id"])
        missing.difference_update(hits)
        if place.message is not None and not missing:
            break
    return None if missing else place
