"""tokenizer.model: text <-> token ids by sentencepiece.

The backend cuts the text at control tokens itself and gives sentencepiece only what lies between, so a
control token can only come from where the caller allows one. SentencePiece has no option to ignore
user-defined symbols (`<|user|>`), so control-like ones are switched to UNUSED in the loaded model's bytes.
Knows nothing of chat templates, BOS or EOS.

Model format: https://github.com/google/sentencepiece/blob/v0.2.1/src/sentencepiece_model.proto
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, read_bytes
from model.text.detokenizer import byte_table
from model.text.settings import AddedToken

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6  # SentencePiece.Type; 1 is NORMAL
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"  # normalizer_spec { add_dummy_prefix: false }; a later field wins
_MAX_BYTES = 64 << 20
_PIECES, _NORMALIZER = 1, 3             # fields of ModelProto


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of over 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (field, wire type, value) of one protobuf message; raises IndexError or ValueError if cut."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 2, 5):
            size, at = _varint(data, at) if wire == 2 else ((8 if wire == 1 else 4), at)
            value, at = data[at:at + size], at + size
            if at > len(data):
                raise ValueError("a field longer than the file")
        else:
            raise ValueError(f"wire type {wire}")
        yield key >> 3, wire, value


def _encoded(field: int, value: bytes) -> bytes:
    size, out = len(value), bytearray([field << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + value


class SentencePieceModel:
    """The bytes of a tokenizer.model: its pieces with their types, and variants of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.pieces: list[str] = []
        self.types: list[int] = []
        self.add_dummy_prefix = True
        for field, wire, value in _fields(data):
            if wire != 2:
                continue
            if field == _PIECES:
                parts = {f: v for f, _, v in _fields(value)}
                self.pieces.append(parts.get(1, b"").decode("utf-8"))
                self.types.append(parts.get(3, 1))
            elif field == _NORMALIZER:
                parts = {f: v for f, _, v in _fields(value)}
                self.add_dummy_prefix = bool(parts.get(3, 1))

    def variant(self, unused: Collection[str], dummy_prefix: bool) -> bytes:
        """The model without the user-defined symbols `unused`, and with or without the leading space."""
        out, index = bytearray(), 0
        for field, wire, value in _fields(self._data):
            if field == _PIECES and wire == 2:
                drop = self.types[index] == _USER_DEFINED and self.pieces[index] in unused
                out += _encoded(field, value + bytes([3 << 3, _UNUSED]) if drop else value)
                index += 1
            elif wire == 2:
                out += _encoded(field, value)
        return bytes(out) + (b"" if dummy_prefix else _NO_DUMMY_PREFIX)


class SentencePieceBackend:
    """Encoding with and without control tokens, and the bytes of each token."""

    def __init__(self, path: Path, added_tokens: Mapping[str, AddedToken], legacy: bool,
                 is_control: Callable[[str], bool], data: bytes | None = None) -> None:
        """`added_tokens`: tokens outside the file, by text. `legacy`: every run of plain text gets
        the leading space, not only one that starts the text. `is_control(text)` -> bool.
        `data`: what tokenizer.model would hold, made from a file of another format at `path`."""
        self._legacy = legacy
        try:
            if data is None:
                data = read_bytes(path, _MAX_BYTES)
            self._load(SentencePieceModel(data), added_tokens, is_control)
        except ModelLoadError:
            raise
        except (ValueError, IndexError, RuntimeError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"{path}: not a sentencepiece model ({error}). "
                                 "Download the file again.") from error

    def _load(self, model: SentencePieceModel, added_tokens: Mapping[str, AddedToken],
              is_control: Callable[[str], bool]) -> None:
        import sentencepiece

        kinds = dict(zip(model.pieces, model.types, strict=True))
        symbols = {piece for piece, kind in kinds.items() if kind == _USER_DEFINED and is_control(piece)}

        def processor(dummy_prefix: bool) -> Any:
            return sentencepiece.SentencePieceProcessor(model_proto=model.variant(symbols, dummy_prefix))

        self._inner = processor(False)
        self._first = processor(True) if model.add_dummy_prefix else self._inner
        self.strips_leading_space = model.add_dummy_prefix
        self.ids = {piece: index for index, piece in enumerate(model.pieces)} | {
            text: token.token_id for text, token in added_tokens.items()}
        special = {piece for piece, kind in kinds.items() if kind in (_UNKNOWN, _CONTROL)}
        control = special | symbols | {text for text in added_tokens if is_control(text)}
        self.special_ids = frozenset(self.ids[text] for text in special)
        self.control_ids = frozenset(self.ids[text] for text in control)
        marks = {"bos_token": self._inner.bos_id(), "eos_token": self._inner.eos_id()}
        self.default_ids = {name: token_id for name, token_id in marks.items() if token_id >= 0}
        self.prefix_ids = [token_id for name, token_id in self.default_ids.items() if name == "bos_token"]
        self.suffix_ids: list[int] = []
        cut = sorted((control | set(added_tokens)) - {""}, key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, cut)) or "(?!)")
        self._lstrip = {text for text, token in added_tokens.items() if token.lstrip}
        self._rstrip = {text for text, token in added_tokens.items() if token.rstrip}
        texts = {piece: bytes([int(piece[3:-1], 16)]) if kind == _BYTE else piece.replace("▁", " ").encode()
                 for piece, kind in kinds.items()}
        self.token_bytes = byte_table(texts | {text: text.encode() for text in added_tokens}, self.ids)

    def encode(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        """Token ids; control tokens are recognised. `hidden`: stand-ins -> the characters they stand for."""
        ids: list[int] = []
        reveal, at, before = str.maketrans(dict(hidden)), 0, ""
        for match in [*self._tokens.finditer(text), None]:
            piece = text[at:match.start() if match else len(text)]
            piece = piece.lstrip() if before in self._rstrip else piece
            piece = piece.rstrip() if match and match.group() in self._lstrip else piece
            if piece := piece.translate(reveal):
                ids += (self._first if self._legacy or at == 0 else self._inner).encode(piece)
            if match:
                ids.append(self.ids[match.group()])
                at, before = match.end(), match.group()
        return ids

    def inspect(self, text: str) -> tuple[int, list[tuple[int, int]]]:
        """(number of tokens, where `encode` sees control tokens: start and end in characters)."""
        spans = [match.span() for match in self._tokens.finditer(text)
                 if self.ids[match.group()] in self.control_ids]
        return len(self.encode(text, {})), spans
