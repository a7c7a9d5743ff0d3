"""The tokenizer keys of a GGUF file, made from a folder's files as llama.cpp's converter makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from model.text.sentencepiece_backend import _fields

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def bpe_metadata(folder: Path, pre: str) -> dict[str, Any]:
    """Of a byte-level tokenizer.json."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    vocab, added = dict(spec["model"]["vocab"]), spec["added_tokens"]
    vocab |= {token["content"]: token["id"] for token in added}
    texts = sorted(vocab, key=vocab.__getitem__)
    special = {token["content"]: token["special"] for token in added}
    types = [(_CONTROL if special[t] else _USER_DEFINED) if t in special else _NORMAL for t in texts]
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": texts,
            "tokenizer.ggml.token_type": np.array(types, np.int32), "tokenizer.ggml.merges": merges}


def sentencepiece_metadata(folder: Path, model: str = "llama") -> dict[str, Any]:
    """Of a tokenizer.model; "llama" for one trained as BPE, "t5" for Unigram."""
    pieces, normalizer = [], {}
    for field, _, value in _fields((folder / "tokenizer.model").read_bytes()):
        if field == 1:
            pieces.append({f: v for f, _, v in _fields(value)})
        elif field == 3:
            normalizer = {f: v for f, _, v in _fields(value)}
    scores = [np.frombuffer(piece.get(2, bytes(4)), "<f4")[0] for piece in pieces]
    return {"tokenizer.ggml.model": model, "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": [piece[1].decode() for piece in pieces],
            "tokenizer.ggml.scores": np.array(scores, np.float32),
            "tokenizer.ggml.token_type": np.array([piece.get(3, 1) for piece in pieces], np.int32),
            "tokenizer.ggml.add_space_prefix": bool(normalizer.get(3, 1)),
            "tokenizer.ggml.remove_extra_whitespaces": bool(normalizer.get(4, 1)),
            "tokenizer.ggml.precompiled_charsmap": np.frombuffer(normalizer.get(2, b""), np.uint8)}
