"""The journal of one running reply: what a crash would otherwise take with it.

A line is the crc32 of its JSON in hex, a space, the JSON; each carries a sequence number. The first line
(`begin`) holds the message without its text, then come pieces of text, and `end` holds the whole message.
A bad last line is a torn tail and is cut; a bad line in the middle is told as damage, and what came before
it is good. Knows nothing of sessions; recovery.py brings the message back into its own.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import strict_json
from ..ids import is_id
from .disk import Disk
from .schema import Message

TEXT_SECONDS = 0.25  # a piece of text waits at most this long for its line
MAX_BYTES = 64 << 20  # of a journal: some times what the longest reply takes, however it is written
_TORN_BEGINNING = re.compile(rb"[0-9a-f]{1,8}|[0-9a-f]{8} (\{[^\n]*)?")
SYNC_SECONDS = 1.0  # and this long until a power cut cannot take it


class Journal:
    """Written by the one thread of its reply. Every method raises OSError when the disk refuses."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._sequence = 0
        self._size = 0  # bytes of whole lines
        self._pending = {"text": "", "think": ""}
        self._last_line = self._last_sync = time.monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o600)

    def begin(self, session_id: str, message: Message) -> None:
        self._line({"kind": "begin", "session": session_id, "message": message})
        self._disk.fdatasync(self._descriptor)
        self._disk.sync_folder(self.path.parent)

    def text(self, channel: str, text: str) -> None:
        """Note a piece of text; it is written within TEXT_SECONDS as long as more comes.

        What the disk refused is written with the next piece, should there be room by then.
        """
        self._pending[channel] += text
        now = time.monotonic()
        if now - self._last_line < TEXT_SECONDS:
            return
        self._last_line = now
        self._flush_text()
        if now - self._last_sync >= SYNC_SECONDS:
            self._disk.fdatasync(self._descriptor)
            self._last_sync = now

    def end(self, message: Message) -> None:
        """The whole message, durable before anybody hears that it is done."""
        self._line({"kind": "end", "message": message})
        self._disk.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush_text(self) -> None:
        for channel, text in self._pending.items():
            if text:
                self._line({"kind": channel, "text": text})
                self._pending[channel] = ""

    def _line(self, record: dict[str, Any]) -> None:
        line = encode_line({"seq": self._sequence, **record})
        try:
            self._disk.write_all(self._descriptor, line)
        except OSError:
            self._drop_half_a_line()
            raise
        self._size += len(line)
        self._sequence += 1

    def _drop_half_a_line(self) -> None:
        """The next line would turn a torn tail into damage; where it cannot be cut there is no next line."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self.close()


@dataclass(frozen=True)
class JournalContent:
    """What could be read of a journal."""

    session_id: str
    message: Message
    ended: bool
    damage: str  # of a line before the last; empty if there is none


def encode_line(record: dict[str, Any]) -> bytes:
    data = strict_json.dumps(record)
    return b"%08x %s\n" % (zlib.crc32(data), data)


def is_torn_beginning(data: bytes) -> bool:
    """Whether this is the first part of a first line, and nothing else."""
    return _TORN_BEGINNING.fullmatch(data) is not None


def read_journal(data: bytes) -> JournalContent | None:
    """The message in a journal, as far as it is whole; None if not even its beginning is."""
    records, damage = _good_records(data)
    if not records or records[0].get("kind") != "begin":
        return None
    message = records[0].get("message")
    if not isinstance(message, dict) or not is_id(records[0].get("session")) or not is_id(message.get("id")):
        return None
    if not all(isinstance(message.get(name, ""), str) for name in ("text", "thinking")):
        return None
    if records[-1]["kind"] == "end":
        return JournalContent(records[0]["session"], records[-1]["message"], True, damage)
    text = message.get("text", "") + "".join(record["text"] for record in records if record["kind"] == "text")
    thinking = message.get("thinking", "") + "".join(r["text"] for r in records if r["kind"] == "think")
    message = {**message, "text": text, "thinking": thinking, "finish_reason": "interrupted",
               "error": "Parlor ended while this was being written."}
    return JournalContent(records[0]["session"], message, False, damage)


def _good_records(data: bytes) -> tuple[list[dict[str, Any]], str]:
    """Records up to the first bad line, and what is wrong if that line is not the last."""
    lines = data.split(b"\n")
    records: list[dict[str, Any]] = []
    for index, line in enumerate(lines):
        record = _decode_line(line, len(records))
        if record is None:
            is_tail = index == len(lines) - 1 or not any(lines[index + 1:])
            return records, "" if is_tail else f"is damaged at line {index + 1}"
        records.append(record)
    return records, ""


def _decode_line(line: bytes, sequence: int) -> dict[str, Any] | None:
    crc, _, data = line.partition(b" ")
    try:
        if len(crc) != 8 or int(crc, 16) != zlib.crc32(data):
            return None
        record = strict_json.loads(data)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("seq") != sequence:
        return None
    kind = record.get("kind")
    whole = isinstance(record.get("text"), str) if kind in ("text", "think") else \
        kind in ("begin", "end") and isinstance(record.get("message"), dict)
    return record if whole else None
