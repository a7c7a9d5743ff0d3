"""The tokens of replies and what else could have come in their places: a file a reply, beside its session.

    tokens/<session id>/<message id>

Nobody wrote them and they can be computed again. So they are saved without waiting for the disk, a file that
is damaged or belongs to an older text counts as none, and what is deleted takes them along for good.
Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from ..ids import check_id, is_id
from .disk import Disk

MAX_SHARE = 3  # times the text's bytes that a file may have
MAX_BYTES = 1 << 24
_HEAD = struct.Struct("<BIII")  # the format's number, crc32 of the text, tokens, alternatives
_FORMAT = 1
_FINENESS = 45.0   # see _as_byte
_MAX_NATS = 30.0
_UNKNOWN = 255
_CONTROL = 128     # added to the length of an alternative
_LONGEST = 127     # bytes of an alternative
_KEPT = ((8, 0.0, 8), (8, 0.002, 4), (8, 0.005, 3), (6, 0.01, 2), (5, 0.01, 1), (4, 0.02, 1), (3, 0.03, 1),
         (2, 0.05, 1), (1, 0.1, 1), (1, 0.1, 0), (0, 1.0, 0))
"""Most alternatives of a token, the least share that one must have, and how many are kept whatever they have:
the first of these that fits is taken."""
log = logging.getLogger("parlor.tokens")


@dataclass(frozen=True)
class Alternative:
    """A token that could have come. `is_text`: it is no part of the model's format, as a reply's end is."""

    data: bytes
    logprob: float
    is_text: bool = True


@dataclass(frozen=True)
class ReplyToken:
    """A token of a reply: its bytes (which may be a part of a character), its log-probability, the entropy of
    all that could have come in nats (None: not known), and the likeliest others, best first."""

    data: bytes
    logprob: float
    entropy: float | None
    others: tuple[Alternative, ...] = ()


class TokenFiles:
    """Of one store. Thread-safe, as files are: a reply has one writer."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def save(self, session_id: str, message_id: str, tokens: Sequence[ReplyToken]) -> None:
        """Keep them, with as many alternatives as there is room for. A disk that refuses is no error."""
        path = self._path(session_id, message_id)
        try:
            data = pack(tokens)
            if data is None:
                self.remove(session_id, message_id)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk.save(path, data, sync=False)
        except OSError as error:
            log.warning("the tokens of message %s are not kept: %s", message_id, error)

    def load(self, session_id: str, message_id: str, text: str) -> list[ReplyToken] | None:
        """Those of a message whose text this is; None if they are not known."""
        try:
            return unpack(self._disk.read(self._path(session_id, message_id), MAX_BYTES), text.encode())
        except OSError:
            return None

    def remove(self, session_id: str, message_id: str) -> None:
        with contextlib.suppress(OSError):
            self._path(session_id, message_id).unlink()

    def remove_session(self, session_id: str) -> None:
        shutil.rmtree(self._folder / check_id(session_id, "session"), ignore_errors=True)

    def keep_only(self, session_ids: Iterable[str]) -> None:
        """Remove those of all other sessions, which are gone, and what a crash left half written."""
        known = set(session_ids)
        for path in self._folder.glob("*"):
            if path.name in known:
                self._disk.clear_temporaries(path)
            elif is_id(path.name):
                self.remove_session(path.name)

    def _path(self, session_id: str, message_id: str) -> Path:
        return self._folder / check_id(session_id, "session") / check_id(message_id, "message")


def pack(tokens: Sequence[ReplyToken]) -> bytes | None:
    """At most MAX_SHARE bytes for each of the tokens' own; None if there is no room even without
    alternatives, or nothing to keep. A log-probability is a byte, true to a hundredth of a share."""
    text = b"".join(token.data for token in tokens)
    if not text or max(len(token.data) for token in tokens) > 255:
        return None
    columns = b"".join([
        bytes(len(token.data) for token in tokens),
        bytes(_as_byte(-token.logprob) for token in tokens),
        bytes(_UNKNOWN if token.entropy is None else _as_byte(token.entropy) for token in tokens)])
    candidates = [_candidates(token) for token in tokens]
    found, first, end = None, 0, len(_KEPT)
    while first < end:  # each keeps less than the one before it
        middle = (first + end) // 2
        kept = [_likely(others, *_KEPT[middle]) for others in candidates]
        others = [other for some in kept for other in some]
        data = zlib.compress(b"".join([
            _HEAD.pack(_FORMAT, zlib.crc32(text), len(tokens), len(others)), columns,
            bytes(map(len, kept)),
            bytes(length for _share, length, _logprob, _data in others),
            bytes(logprob for _share, _length, logprob, _data in others),
            *(data for _share, _length, _logprob, data in others)]))
        if len(data) <= MAX_SHARE * len(text):
            found, end = data, middle
        else:
            first = middle + 1
    return found


def unpack(data: bytes, text: bytes) -> list[ReplyToken] | None:
    """What `pack` made of tokens with this text; None of anything else."""
    unzip = zlib.decompressobj()
    try:
        packed = unzip.decompress(data, 64 * len(text) + (1 << 16))
        if not unzip.eof:
            return None
        number, checksum, count, num_others = _HEAD.unpack_from(packed)
        if (number, checksum) != (_FORMAT, zlib.crc32(text)):
            return None
        sizes = (count, count, count, count, num_others, num_others)
        ends = list(accumulate(sizes, initial=_HEAD.size))
        lengths, logprobs, entropies, numbers, other_lengths, other_logprobs = (
            packed[start:end] for start, end in pairwise(ends))
        others = [Alternative(piece, -_from_byte(value), length < _CONTROL) for piece, value, length in zip(
            _cut(packed[ends[-1]:], [length % _CONTROL for length in other_lengths]), other_logprobs,
            other_lengths, strict=True)]
        ranges = pairwise(accumulate(numbers, initial=0))
        return [ReplyToken(piece, -_from_byte(logprob), None if entropy == _UNKNOWN else _from_byte(entropy),
                           tuple(others[start:end]))
                for piece, logprob, entropy, (start, end) in zip(
                    _cut(text, lengths), logprobs, entropies, ranges, strict=True)]
    except (zlib.error, struct.error, ValueError):
        return None


_Candidate = tuple[float, int, int, bytes]
"""An alternative that may be kept: share, length with _CONTROL, log-probability as a byte, bytes."""


def _candidates(token: ReplyToken) -> list[_Candidate]:
    return [(math.exp(other.logprob), len(other.data) + _CONTROL * (not other.is_text),
             _as_byte(-other.logprob), other.data) for other in token.others if len(other.data) <= _LONGEST]


def _likely(others: list[_Candidate], most: int, least_share: float, at_least: int) -> list[_Candidate]:
    return others[:at_least] + [other for other in others[at_least:most] if other[0] >= least_share]


def _as_byte(nats: float) -> int:
    """Of a number of nats, finer towards 0: e to minus it, a share, is never off by more than 0.01."""
    return round(_FINENESS * math.sqrt(min(max(0.0, nats), _MAX_NATS)))


def _from_byte(value: int) -> float:
    return (value / _FINENESS) ** 2


def _cut(data: bytes, lengths: Iterable[int]) -> list[bytes]:
    """Raises ValueError unless these are the lengths of all of it."""
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] != len(data):
        raise ValueError("the lengths are not those of the data")
    return [data[start:end] for start, end in pairwise(ends)]
