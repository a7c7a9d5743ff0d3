"""A GGUF file's tokenizer in a form that other people's libraries read, and what it says about its text.

  tokenizer.ggml.model  llama, t5  pieces with scores -> the bytes of a sentencepiece model
                        gpt2       merges, cut as `tokenizer.ggml.pre` says -> the contents of tokenizer.json
                        gemma4     merges over whole lines, spaces written as U+2581 -> the same
Knows metadata, not how text is encoded. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.config import shown
from model.files import ModelLoadError
from model.formats.gguf import GgufFile
from model.splits import SUPPORTED, Split, split_named

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # tokenizer.ggml.token_type
_MAX_VOCABULARY = 1 << 20
_SARVAM = "sarvam-moe"
"""`pre` of a vocabulary as Gemma 4 has it, whatever `model` says."""
_KEYS = "tokenizer.ggml."
_SPECIAL = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
            "pad_token": "padding_token_id", "sep_token": "seperator_token_id", "mask_token": "mask_token_id"}
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class GgufText:
    """Either `json` or `sentencepiece` is there."""

    json: dict[str, Any] | None      # as in tokenizer.json
    sentencepiece: bytes | None      # as in tokenizer.model
    special_tokens: dict[str, str]   # "bos_token" -> "<s>", ...
    bos_token_id: int | None
    eos_token_ids: frozenset[int]    # every token that ends a reply
    add_bos: bool
    add_eos: bool
    template: str | None


def read_text(gguf: GgufFile) -> GgufText:
    """Raises ModelLoadError, naming what the tokenizer is and which there may be."""
    source = _Source(gguf)
    kind = source.text("model")
    if kind in ("llama", "t5"):
        json, proto = None, _sentencepiece(source, kind)
        add_bos, add_eos = kind == "llama", kind == "t5"
    elif kind == "gemma4" or source.value("pre") == _SARVAM:
        json, proto = _whole_line_bpe(source), None
        add_bos, add_eos = kind == "gemma4", False
    elif kind == "gpt2":
        split = _split(source)
        json, proto = _byte_level_bpe(source, split), None
        add_bos, add_eos = split.add_bos, False
    else:
        raise source.error("model", f"is {shown(kind)}; supported: llama (sentencepiece), gpt2 (BPE), "
                           "gemma4 and t5 (Unigram)")
    ids = {name: source.token_id(key) for name, key in _SPECIAL.items()}
    if kind == "llama":  # what llama.cpp takes where the file does not say
        ids["bos_token"] = _first(ids["bos_token"], source.ids.get("<s>"))
        ids["eos_token"] = _first(ids["eos_token"], source.ids.get("</s>"))
    ends = {source.token_id(key) for key in _ENDS} | {ids["eos_token"]}
    return GgufText(json, proto, {name: source.texts[i] for name, i in ids.items() if i is not None},
                    ids["bos_token"], frozenset(i for i in ends if i is not None),
                    kind == "gemma4" or source.flag("add_bos_token", add_bos),
                    source.flag("add_eos_token", add_eos), _template(gguf))


def _first(value: int | None, otherwise: int | None) -> int | None:
    return otherwise if value is None else value


class _Source:
    """Keys of the tokenizer, checked."""

    def __init__(self, gguf: GgufFile) -> None:
        self.gguf = gguf
        self.texts = self._texts()
        self.ids = {text: index for index, text in enumerate(self.texts)}
        if len(self.ids) != len(self.texts):
            raise self.error("tokens", "names a token twice")
        types = self.numbers("token_type", "iu")
        self.types = [_NORMAL] * len(self.texts) if types is None else types.tolist()

    def error(self, key: str, problem: str) -> ModelLoadError:
        return ModelLoadError(f"{self.gguf.path.name}: {_KEYS}{key} {problem}")

    def value(self, key: str) -> Any:
        return self.gguf.metadata.get(_KEYS + key)

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(key, f"is {shown(value)}; expected a text")
        return value

    def list_of_texts(self, key: str) -> list[str]:
        value = self.value(key)
        if not isinstance(value, list):
            raise self.error(key, f"is {shown(value)}; expected a list of texts")
        return value

    def numbers(self, key: str, kinds: str) -> np.ndarray | None:
        """A number for each token; None if there is no such key."""
        value = self.value(key)
        if value is None:
            return None
        count = len(self.texts)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds or len(value) != count:
            raise self.error(key, f"is {shown(value)}; expected {count:,} numbers")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, f"is {shown(value)}; expected true or false")
        return default if value is None else value

    def token_id(self, key: str) -> int | None:
        """None if there is no such key, or if it names a token beyond the vocabulary, as some files do."""
        value = self.value(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.error(key, f"is {shown(value)}; expected a token's number")
        return value if value is not None and 0 <= value < len(self.texts) else None

    def of_type(self, *types: int) -> list[str]:
        return [text for text, kind in zip(self.texts, self.types, strict=True) if kind in types]

    def _texts(self) -> list[str]:
        texts = self.list_of_texts("tokens")
        if not 1 <= len(texts) <= _MAX_VOCABULARY:
            raise self.error("tokens", f"has {len(texts):,} tokens; expected 1 to {_MAX_VOCABULARY:,}")
        return [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]


def _template(gguf: GgufFile) -> str | None:
    template = gguf.metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ModelLoadError(f"{gguf.path.name}: tokenizer.chat_template is {shown(template)}; expected a "
                             "text")
    return template or None


def _split(source: _Source) -> Split:
    name = source.value("pre")
    split = split_named(name) if isinstance(name, str) else None
    if split is None:
        what = "is not there" if name is None else f"is {shown(name)}"
        raise source.error("pre", f"{what}: how text is to be cut is not known, and guessing would spoil "
                           "what the model reads. Use a newer conversion of it; supported: "
                           f"{', '.join(SUPPORTED)}.")
    return split


def _merges(source: _Source) -> list[list[str]]:
    """Pairs. A merge is written with a space between its parts, of which the first may begin with one."""
    merges = []
    for merge in source.list_of_texts("merges"):
        at = merge.find(" ", 1)
        if at < 0 or at + 1 == len(merge):
            raise source.error("merges", f"has {shown(merge)}; expected two parts")
        merges.append([merge[:at], merge[at + 1:]])
    return [pair for pair in merges if all(part in source.ids for part in (*pair, "".join(pair)))]


def _json(source: _Source, model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    added = [{"id": source.ids[text], "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kind != _USER_DEFINED}
             for text, kind in zip(source.texts, source.types, strict=True)
             if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": source.ids, "merges": _merges(source)} | model
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "post_processor": None, "model": model} | parts


def _isolated(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def _byte_level_bpe(source: _Source, split: Split) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": source.flag("add_space_prefix", False),
                  "trim_offsets": True, "use_regex": False}
    steps = [*map(_isolated, split.expressions), byte_level]
    return _json(source, {"ignore_merges": split.whole_words}, decoder=byte_level,
                 normalizer={"type": "NFC"} if split.composed else None,
                 pre_tokenizer={"type": "Sequence", "pretokenizers": steps})


def _whole_line_bpe(source: _Source) -> dict[str, Any]:
    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
             {"type": "Fuse"}]
    return _json(source, {"byte_fallback": True, "unk_token": next(iter(source.of_type(_UNKNOWN)), None)},
                 normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                 pre_tokenizer=_isolated(r"[^\n]+|[\n]+"), decoder={"type": "Sequence", "decoders": steps})


def _sentencepiece(source: _Source, kind: str) -> bytes:
    """A ModelProto: pieces, how they were trained (BPE or Unigram) and how text is normalized."""
    scores = source.numbers("scores", "fi")
    if scores is None:
        raise source.error("scores", "is not there; a sentencepiece tokenizer needs a score for each token")
    ids = {"unknown": source.token_id("unknown_token_id"),
           "bos": _first(source.token_id("bos_token_id"), source.ids.get("<s>")),
           "eos": _first(source.token_id("eos_token_id"), source.ids.get("</s>")),
           "padding": source.token_id("padding_token_id")}
    unknown = source.ids.get("<unk>", 0) if ids["unknown"] is None else ids["unknown"]
    ids["unknown"] = unknown
    # Exactly one may be unknown; some files call padding so, and not the token that is.
    types = [_UNUSED if number == _UNKNOWN else number for number in source.types]
    types[unknown] = _UNKNOWN
    out = bytearray()
    for text, score, number in zip(source.texts, scores.tolist(), types, strict=True):
        out += _bytes_field(1, _bytes_field(1, text.encode()) + struct.pack("<Bf", 2 << 3 | 5, score)
                            + _number_field(3, number))
    trainer = _number_field(3, 2 if kind == "llama" else 1) + _number_field(35, _BYTE in types)
    for field, token_id in zip((40, 41, 42, 43), ids.values(), strict=True):
        trainer += _number_field(field, -1 if token_id is None else token_id)
    chars = source.value("precompiled_charsmap")
    normalizer = _bytes_field(1, b"identity")
    if isinstance(chars, np.ndarray):
        normalizer += _bytes_field(2, chars.tobytes())
    normalizer += _number_field(3, source.flag("add_space_prefix", True))
    normalizer += _number_field(4, source.flag("remove_extra_whitespaces", False)) + _number_field(5, True)
    return bytes(out) + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
