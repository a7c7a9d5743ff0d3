"""tiktoken.model as the contents of a tokenizer.json: the tokenizer of Kimi's folders.

A line has a token's bytes, in base64, and its rank, which is its id; of parts side by side those are merged
whose sum has the least rank. How text is cut before that stands in code beside the file, which is never
executed: what Kimi's does is known, and others' files are refused.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, read_bytes
from model.splits import split_named
from model.text.json_backend import byte_alphabet
from model.text.settings import TextSettings

_MAX_BYTES = 64 << 20
_MAX_TOKEN = 1024  # bytes; each has as many cuts
_CLASS = "TikTokenTokenizer"


def tokenizer_json(path: Path, settings: TextSettings) -> dict[str, Any]:
    """Raises ModelLoadError if the file cannot be read, or if its text is cut in a way that is not known."""
    if settings.tokenizer_class != _CLASS:
        raise ModelLoadError(f"{path}: tokenizer_config.json names the class {settings.tokenizer_class}; of "
                             f"such files {_CLASS} alone is supported: how others cut text stands in code.")
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    ranks = _ranks(path)

    def name(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    split = split_named("kimi-k2")
    assert split is not None
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    cuts = [{"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
            for expression in split.expressions]
    added = [{"id": token.token_id, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": text in settings.declared_special}
             for text, token in sorted(settings.added_tokens.items(), key=lambda item: item[1].token_id)]
    return {"version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, byte_level]},
            "decoder": byte_level,
            "model": {"type": "BPE", "ignore_merges": split.whole_words,
                      "vocab": {name(token): rank for token, rank in ranks.items()},
                      "merges": [[name(left), name(right)] for left, right in _merges(ranks)]}}


def _ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(path, _MAX_BYTES).splitlines(), 1):
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            ranks[token] = int(rank)
        except (ValueError, binascii.Error):
            raise ModelLoadError(f"{path}: line {number:,} is no token in base64 and its rank. Download the "
                                 "file again.") from None
        if not 1 <= len(token) <= _MAX_TOKEN:
            raise ModelLoadError(f"{path}: line {number:,} has a token of {len(token):,} bytes; expected 1 "
                                 f"to {_MAX_TOKEN:,}")
    has_all_bytes = all(bytes([byte]) in ranks for byte in range(256))
    if sorted(ranks.values()) != list(range(len(ranks))) or not has_all_bytes:
        raise ModelLoadError(f"{path}: its {len(ranks):,} tokens are not numbered from 0 on, or not every "
                             "byte is one. Download the file again.")
    return ranks


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair that makes a token, in the order of what they make."""
    return [(left, right) for token in sorted(ranks, key=ranks.__getitem__)
            for left, right in ((token[:at], token[at:]) for at in range(1, len(token)))
            if left in ranks and right in ranks]
