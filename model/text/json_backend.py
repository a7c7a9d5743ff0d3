"""tokenizer.json: text <-> token ids by Hugging Face's tokenizers.

Where a text hides control tokens (message content that only looks like one), the sections in question are
encoded by a second copy of the tokenizer in which the control tokens have unguessable names.
Knows nothing of chat templates; of BOS and EOS only what the post-processor says.
"""

from __future__ import annotations

import copy
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, read_json
from model.text.detokenizer import byte_table
from model.text.errors import TokenizerError, rust_panics_as

_MAX_BYTES = 256 << 20
_MAX_GROWTH = 64  # characters that a rule may write for each one that it reads
_PROBE = "a <|b|>\n你好 \U0001f642 \U0010fffd"  # a vocabulary that cannot take this fails at load


class JsonBackend:
    """Encoding with and without control tokens, and the bytes of each token."""

    def __init__(self, path: Path, is_control: Callable[[str, bool], bool], no_inner_prefix: bool,
                 spec: dict[str, Any] | None = None) -> None:
        """`is_control(text, special)` -> bool. `no_inner_prefix`: only a text's start gets the leading space
        (what `"legacy": false` in tokenizer_config.json asks for), whatever tokenizer.json says.
        `spec`: what tokenizer.json would hold, made from a file of another format at `path`."""
        self._plain: tuple[Any, Any] | None = None
        self._lock = threading.Lock()
        try:
            if spec is None:
                spec = read_json(path, _MAX_BYTES)
            self._load(spec, is_control, no_inner_prefix)
        except ModelLoadError as error:
            raise ModelLoadError(f"{path}: {error}") from None
        except BaseException as error:  # tokenizers raises bare Exception, and BaseException for a Rust panic
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise ModelLoadError(f"{path}: not a tokenizer that can be read ({error}). "
                                 "Download the file again.") from error

    def _load(self, spec: dict[str, Any], is_control: Callable[[str, bool], bool],
              no_inner_prefix: bool) -> None:
        if no_inner_prefix:
            _set_prepend_scheme(spec, "always", "first")
        _check_growth(spec)
        self._spec, self._full = spec, _build(spec)
        self.ids: dict[str, int] = self._full.get_vocab(with_added_tokens=True)
        self._unknown = spec["model"].get("unk_token")
        self._unknown_id = self.ids.get(self._unknown)
        added = {token["content"]: bool(token.get("special")) for token in spec.get("added_tokens") or []}
        self._control = [text for text, special in added.items() if is_control(text, special)]
        self.control_ids = frozenset(self.ids[text] for text in self._control)
        self.special_ids = frozenset(self.ids[text] for text, special in added.items() if special)
        decoder = ByteDecoder(spec.get("decoder"))
        self.strips_leading_space = decoder.strips_leading_space
        control = frozenset(self._control)  # their names are looked for in texts; others are text
        self.token_bytes = byte_table({text: text.encode() if text in control else decoder.bytes_of(text)
                                       for text in self.ids}, self.ids)
        self.prefix_ids, self.suffix_ids = self._post_processor_ids()
        self.default_ids = {"bos_token": self.prefix_ids[0]} if self.prefix_ids else {}
        self.encode(_PROBE, {})

    def _post_processor_ids(self) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text (BOS, EOS)."""
        inner = self._full.encode("a", add_special_tokens=False).ids
        outer = self._full.encode("a", add_special_tokens=True).ids
        start = next((i for i in range(len(outer)) if outer[i:i + len(inner)] == inner), 0)
        return outer[:start], outer[start + len(inner):]

    def encode(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        """Token ids; control tokens are recognised. `hidden`: stand-ins -> the characters they stand for."""
        encoding = _encode(self._full, text)
        if not any(mark in text for mark in hidden):
            return encoding.ids
        ids: list[int] = []
        section: list[int] = []
        start = 0
        for token_id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self.control_ids:
                ids += [*self._encode_section(text, start, begin, section, hidden), token_id]
                section, start = [], end
            else:
                section.append(token_id)
        return ids + self._encode_section(text, start, len(text), section, hidden)

    def _encode_section(self, text: str, start: int, end: int, ids: list[int],
                        hidden: Mapping[str, str]) -> list[int]:
        """The ids of text[start:end], a run without control tokens: `ids`, unless it hides something."""
        piece = text[start:end]
        if not any(mark in piece for mark in hidden):
            return ids
        first, inner = self._plain_tokenizers()
        plain = piece.translate(str.maketrans(dict(hidden)))
        return _encode(first if start == 0 else inner, plain).ids

    def _plain_tokenizers(self) -> tuple[Any, Any]:
        """Tokenizers that know no control token: for a run that starts the text, and for any other."""
        with self._lock:
            if self._plain is None:
                spec = _without_tokens(self._spec, self._control)
                first = _build(spec)
                self._plain = (first, _build(spec) if _set_prepend_scheme(spec, "first", "never") else first)
            return self._plain

    def inspect(self, text: str) -> tuple[int, list[tuple[int, int]]]:
        """(number of tokens, where `encode` sees control tokens: start and end in characters)."""
        encoding = _encode(self._full, text)
        if self.control_ids.isdisjoint(encoding.ids):
            return len(encoding.ids), []
        found = []
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            is_unknown = token_id == self._unknown_id and text[start:end] != self._unknown
            if token_id in self.control_ids and not is_unknown:
                found.append((start, end))
        return len(encoding.ids), found


def _encode(tokenizer: Any, text: str) -> Any:
    """Raises TokenizerError where the tokenizer's own rules fail, as a regular expression may."""
    with rust_panics_as(TokenizerError, "The model's tokenizer cannot read this text"):
        return tokenizer.encode(text, add_special_tokens=False)


def _check_growth(spec: dict[str, Any]) -> None:
    """Refuse replacements that, one after another, make a long text of each letter."""
    for part in ("normalizer", "decoder"):
        growth, waiting = 1.0, [spec.get(part)]
        while waiting:
            step = waiting.pop()
            if not isinstance(step, dict):
                continue
            waiting += step.get("normalizers") or step.get("decoders") or []
            if step.get("type") == "Replace":
                pattern = step["pattern"].get("String") or "x"  # an expression may match a single letter
                growth *= max(1.0, len(step["content"]) / len(pattern))
        if growth > _MAX_GROWTH:
            raise ModelLoadError(f"its {part} makes {growth:,.0f} characters of one; at most {_MAX_GROWTH} "
                                 "are possible")


def _build(spec: dict[str, Any]) -> Any:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _set_prepend_scheme(spec: dict[str, Any], old: str, new: str) -> bool:
    """Change Metaspace's rule for the leading space, in place; True if there was one to change."""
    part = spec.get("pre_tokenizer") or {}
    found = False
    for step in [part, *part.get("pretokenizers", [])]:
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == old:
            step["prepend_scheme"], found = new, True
    return found


def _without_tokens(spec: dict[str, Any], control: list[str]) -> dict[str, Any]:
    """A copy in which the tokens `control` keep their ids but cannot be written."""
    spec = copy.deepcopy(spec)
    secret = secrets.token_hex(16)
    names = {text: f"\U0010fffd{secret}-{index}" for index, text in enumerate(control)}
    for token in spec.get("added_tokens") or []:
        token["content"] = names.get(token["content"], token["content"])
    model = spec["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(text, text): token_id for text, token_id in model["vocab"].items()}
    else:  # Unigram: [piece, score]
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _merge_makes(pair, names)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return spec


def _merge_makes(pair: str | list[str], names: Mapping[str, str]) -> bool:
    left, _, right = pair.partition(" ") if isinstance(pair, str) else (pair[0], "", pair[1])
    return left in names or right in names or left + right in names


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes.

    https://github.com/openai/gpt-2/blob/9b63575ef42771a015060c964af2c3da4cf7c8ab/src/encoder.py#L9
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


class ByteDecoder:
    """tokenizer.json's `decoder` as a function of one token, which is what streaming needs."""

    _SUPPORTED = "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip (one leading space)"

    def __init__(self, spec: dict[str, Any] | None) -> None:
        self.strips_leading_space = False
        self._alphabet: dict[str, int] | None = None
        self._byte_fallback = False
        self._replacements: list[tuple[str, str]] = []
        steps = (spec or {}).get("decoders") or [spec or {"type": "none"}]
        for step in steps:
            self._read_step(step)

    def _read_step(self, step: dict[str, Any]) -> None:
        kind = step.get("type")
        if kind == "ByteLevel":
            self._alphabet = byte_alphabet()
        elif kind == "Metaspace":
            self._replacements.append((step.get("replacement", "▁"), " "))
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            self.strips_leading_space = scheme != "never"
        elif kind == "Replace" and "String" in step.get("pattern", {}):
            self._replacements.append((step["pattern"]["String"], step["content"]))
        elif kind == "ByteFallback":
            self._byte_fallback = True
        elif kind == "Strip" and (step["content"], step["start"], step["stop"]) == (" ", 1, 0):
            self.strips_leading_space = True
        elif kind != "Fuse":
            raise ModelLoadError(f"its decoder has a step {kind}; supported: {self._SUPPORTED}")

    def bytes_of(self, token: str) -> bytes:
        if self._byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        for old, new in self._replacements:
            token = token.replace(old, new)
        if self._alphabet is not None and all(char in self._alphabet for char in token):
            return bytes(self._alphabet[char] for char in token)
        return token.encode()
