"""An index of what is said in all sessions, so that thousands are searched at once.

A SQLite file beside the sessions, only ever a copy of them: what it does not have (yet) as it is on disk it
names, and the caller reads that. A thread of its own keeps it up to date; a damaged one is made anew; where
SQLite has no trigrams there is none. Words are found anywhere, also in the middle of others.

Rows of messages are numbered session by session: the session's number << ROW_BITS, and a number in it. The
index knows three characters in a row; shorter words are found as the beginnings of such, for which each text
has an END of two characters more.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import NotFound
from .schema import Session

VERSION = 2  # of the tables below; another one's file is made anew
ROW_BITS = 24
SNIPPET = 120
TRIGRAM = 3  # characters
MOST_TRIGRAMS = 100  # that begin with a short word, if it is to be found by them
END = "\n\n"
LAST_CHARACTER = chr(sys.maxunicode)
WAIT_SECONDS = 0.5  # after a change, for the next one
AT_ONCE = 200  # sessions written, rows read
log = logging.getLogger("parlor.search")

_TABLES = """
CREATE TABLE sessions (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL,
                       title TEXT NOT NULL);
CREATE TABLE messages (row INTEGER PRIMARY KEY, id TEXT NOT NULL, checksum INTEGER NOT NULL,
                       folded TEXT NOT NULL);
CREATE TABLE texts (row INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (folded, content='messages', content_rowid='row',
                                       tokenize='trigram case_sensitive 1');
CREATE VIRTUAL TABLE trigrams USING fts5vocab (words, 'row');
"""


class Place(NamedTuple):
    """Where a session holds what was searched for: a part of a message and that one's id; neither where it is
    in the title alone."""

    snippet: str = ""
    message: str | None = None


def fold(text: str) -> str:
    """For comparing: without regard to capital letters."""
    return text.casefold()


def _indexed(text: str) -> str:
    return _without_nul(fold(text)) + END


def _without_nul(folded: str) -> str:
    """SQLite reads a text up to the first NUL."""
    return folded.replace("\0", "\ufffd")


def snippet(text: str, folded: str, word: str) -> str:
    """The place in `text` where `word` stands in its folded form."""
    found = max(0, folded.find(word))
    at = max(0, _unfolded(text, folded, found) - SNIPPET // 3)
    return ("…" if at else "") + " ".join(text[at:at + SNIPPET].split())


def _unfolded(text: str, folded: str, at: int) -> int:
    """Where in `text` the character is that `folded` has at `at`: folding makes some longer, ß for one."""
    if len(text) == len(folded):
        return at
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(fold(text[:middle])) <= at:
            low = middle
        else:
            high = middle - 1
    return low


class SearchIndex:
    """Thread-safe. Without start() it knows nothing, and every session is to be read by the caller.

    read   the session of an id as it is on disk; raises NotFound
    stamp  what changes whenever the session's file does; "" without one
    """

    def __init__(self, path: Path, read: Callable[[str], Session], stamp: Callable[[str], str]) -> None:
        self._path, self._read, self._stamp = path, read, stamp
        self._changed: dict[str, int] = {}  # sessions that the index does not have as they are, and how often
        self._known = False  # whether the rest is in it
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, session_ids: Iterable[str]) -> None:
        """Bring the index up to date, and keep it so, beside everything else."""
        arguments = (list(session_ids),)
        self._thread = threading.Thread(target=self._run, args=arguments, name="search", daemon=True)
        self._thread.start()

    def touch(self, session_id: str) -> None:
        """The session was changed, made or deleted: what the index has of it does not count any more."""
        with self._wake:
            self._changed[session_id] = self._changed.get(session_id, 0) + 1
            self._wake.notify()

    def find(self, words: list[str]) -> tuple[dict[str, str], set[str]] | None:
        """Snippets of the sessions that hold every one of `words` (folded) in title or texts, by id; and ids
        of those that the index cannot speak for. None: it can speak for none."""
        with self._wake:
            if not self._known:
                return None
            unknown = set(self._changed)
        try:
            with contextlib.closing(self._connect()) as database:
                return _find(database, list(map(_without_nul, words))), unknown
        except sqlite3.Error as error:
            log.warning("the search index cannot be read: %s", error)
            return None

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    # The index's own thread

    def _run(self, session_ids: list[str]) -> None:
        for attempt in ("as it is", "anew"):
            try:
                with contextlib.closing(self._connect()) as database:
                    self._begin(database, session_ids)
                    self._follow(database)
                return
            except Exception as error:
                log.warning("the search index (%s) cannot be used: %s", attempt, error)
                with self._wake:
                    self._known = False
                for end in ("", "-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        self._path.with_name(self._path.name + end).unlink()

    def _begin(self, database: sqlite3.Connection, session_ids: list[str]) -> None:
        """Find out what changed while nobody looked."""
        database.execute("PRAGMA journal_mode=WAL")
        if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ValueError("it is of another version")
            database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={VERSION}; COMMIT")
        there = dict(database.execute("SELECT id, stamp FROM sessions"))
        with self._wake:
            for session_id in {*session_ids, *there}:
                if there.get(session_id) != self._stamp(session_id):
                    self._changed.setdefault(session_id, 0)
            self._known = True

    def _follow(self, database: sqlite3.Connection) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._changed or self._closing)
                if self._closing:
                    return
                todo = dict(self._changed)
            for part in _parts(list(todo)):
                if self._closing:
                    return
                with database:
                    for session_id in part:
                        self._update(database, session_id)
                with self._wake:
                    for session_id in part:
                        if self._changed[session_id] == todo[session_id]:
                            del self._changed[session_id]
            with self._wake:
                self._wake.wait_for(lambda: self._closing, WAIT_SECONDS)

    def _update(self, database: sqlite3.Connection, session_id: str) -> None:
        stamp = self._stamp(session_id)  # before reading: a change in between is found the next time
        try:
            session = self._read(session_id)
        except NotFound:
            session = None
        found = database.execute("SELECT number FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if session is None:
            if found:
                _write_messages(database, found[0], {})
                database.execute("DELETE FROM sessions WHERE number = ?", found)
            return
        database.execute("INSERT INTO sessions (id, stamp, title) VALUES (?, ?, ?) ON CONFLICT (id) DO "
                         "UPDATE SET stamp = excluded.stamp, title = excluded.title",
                         (session_id, stamp, _without_nul(fold(session["title"]))))
        number, = database.execute("SELECT number FROM sessions WHERE id = ?", (session_id,)).fetchone()
        texts = {message["id"]: message["text"] for message in session["messages"] if message["text"]}
        _write_messages(database, number, texts)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=5.0)
        database.execute("PRAGMA synchronous=NORMAL")
        return database


def _parts(entries: list[Any]) -> Iterator[list[Any]]:
    for begin in range(0, len(entries), AT_ONCE):
        yield entries[begin:begin + AT_ONCE]


def _write_messages(database: sqlite3.Connection, number: int, texts: dict[str, str]) -> None:
    """Make the session's rows those of `texts`; what is the same stays."""
    first, end = number << ROW_BITS, (number + 1) << ROW_BITS
    there = {message_id: (row, checksum) for message_id, row, checksum in database.execute(
        "SELECT id, row, checksum FROM messages WHERE row >= ? AND row < ?", (first, end))}
    next_row = max((row for row, _ in there.values()), default=first) + 1
    checksums = {message_id: zlib.crc32(text.encode()) for message_id, text in texts.items()}
    for message_id, (row, checksum) in there.items():
        if checksums.get(message_id) != checksum:
            database.execute("INSERT INTO words (words, rowid, folded) SELECT 'delete', row, folded "
                             "FROM messages WHERE row = ?", (row,))
            database.execute("DELETE FROM messages WHERE row = ?", (row,))
            database.execute("DELETE FROM texts WHERE row = ?", (row,))
    for message_id, text in texts.items():
        row, checksum = there.get(message_id, (next_row, None))
        if checksum == checksums[message_id]:
            continue
        next_row += row == next_row
        database.execute("INSERT INTO messages VALUES (?, ?, ?, ?)",
                         (row, message_id, checksums[message_id], _indexed(text)))
        database.execute("INSERT INTO texts VALUES (?, ?)", (row, text))
        database.execute("INSERT INTO words (rowid, folded) VALUES (?, ?)", (row, _indexed(text)))


def _find(database: sqlite3.Connection, words: list[str]) -> dict[str, Place]:
    sessions = {number: (session_id, title) for number, session_id, title in database.execute(
        "SELECT number, id, title FROM sessions")}
    firsts = [_first_rows(database, word) for word in words]
    candidates = set(sessions)
    for word, rows in zip(words, firsts, strict=True):
        candidates &= {number for number in candidates if number in rows or word in sessions[number][1]}
    places: dict[int, tuple[int, str]] = {}  # row -> number, word
    for number in candidates:
        rows = [(rows[number], at) for at, rows in enumerate(firsts) if number in rows]
        if rows:
            row, at = min(rows)
            places[row] = number, words[at]
    found = {sessions[number][0]: Place() for number in candidates}
    wanted = list(places)
    for part in _parts(wanted):
        for row, text, message_id in database.execute(
                "SELECT row, text, id FROM texts JOIN messages USING (row) "
                f"WHERE row IN ({','.join('?' * len(part))})", part):
            number, word = places[row]
            found[sessions[number][0]] = Place(snippet(text, fold(text), word), message_id)
    return found


def _first_rows(database: sqlite3.Connection, word: str) -> dict[int, int]:
    """Number of each session in whose texts the word stands -> the first such row."""
    phrases = [word] if len(word) >= TRIGRAM else [trigram for trigram, in database.execute(
        "SELECT term FROM trigrams WHERE term >= ? AND term < ? LIMIT ?",
        (word, word + LAST_CHARACTER, MOST_TRIGRAMS + 1))]
    if not phrases:
        return {}
    if len(phrases) <= MOST_TRIGRAMS:
        query = f"SELECT rowid >> {ROW_BITS}, min(rowid) FROM words WHERE words MATCH ? GROUP BY 1"
        return dict(database.execute(query, (" OR ".join(map(_quoted, phrases)),)))
    # a letter that stands nearly everywhere: each session's first texts tell
    query = f"""SELECT number, (SELECT row FROM messages WHERE row >= number << {ROW_BITS}
                                AND row < (number + 1) << {ROW_BITS} AND instr(folded, ?) LIMIT 1) AS first
                FROM sessions WHERE first IS NOT NULL"""
    return dict(database.execute(query, (word,)))


def _quoted(phrase: str) -> str:
    return '"' + phrase.replace('"', '""') + '"'
