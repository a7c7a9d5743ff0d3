"""tiktoken.model: the tokens of Kimi's folders are those of merging by rank, written out here."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import regex

from model.files import ModelLoadError
from model.text.tokenizer import Tokenizer

_SPECIAL = {"[BOS]": 0, "[EOS]": 1, "<|im_end|>": 2, "<|im_user|>": 3, "<|im_middle|>": 4}  # behind the ranks
_UPPER, _LOWER = (rf"[{case}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]" for case in (r"\p{Lu}\p{Lt}", r"\p{Ll}"))
_BEFORE, _AFTER = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PIECES = regex.compile(
    rf"\p{{Han}}+|{_BEFORE}{_UPPER}*{_LOWER}+{_AFTER}|{_BEFORE}{_UPPER}+{_LOWER}*{_AFTER}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", regex.V1)
TEXT = "Hello helloWorld, we'LL see 12345 hellos!\n\n  你好你好 hello好の 🙂\r\n end  "


def merged(ranks: dict[bytes, int], piece: bytes) -> list[bytes]:
    """The pair of the least rank first, until none is a token."""
    if piece in ranks:
        return [piece]
    parts = [piece[at:at + 1] for at in range(len(piece))]
    while True:
        pairs = [(ranks[parts[at] + parts[at + 1]], at) for at in range(len(parts) - 1)
                 if parts[at] + parts[at + 1] in ranks]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at:at + 2] = [parts[at] + parts[at + 1]]


@pytest.fixture
def ranks() -> dict[bytes, int]:
    """Every byte, in another order than theirs; "hellos" is no sum of two tokens."""
    words = [b"lo", b"he", b"el", b"ell", b"hel", b"hello", b"wor", b"12", "你".encode()[:2], "你".encode(),
             "你好".encode(), "好".encode(), b"\n\n", b" h", b"hellos", b"end", b"nd"]
    return {token: rank for rank, token in enumerate([*(bytes([255 - byte]) for byte in range(256)), *words])}


def write_folder(folder: Path, ranks: dict[bytes, int], **changes: str) -> Path:
    added = {str(len(ranks) + offset): {"content": text, "special": True}
             for text, offset in _SPECIAL.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": added, "eos_token": "[EOS]",
        "bos_token": "[BOS]", **changes}))
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    (folder / "tiktoken.model").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def test_tokens_are_those_of_merging_by_rank(tmp_path: Path, ranks: dict[bytes, int]):
    tokenizer = Tokenizer.load(write_folder(tmp_path, ranks))
    wanted = [ranks[token] for piece in _PIECES.findall(TEXT) for token in merged(ranks, piece.encode())]
    assert tokenizer.encode(TEXT) == wanted, "no BOS, as the template writes it"
    assert len(wanted) < len(TEXT) and tokenizer.decode(wanted) == TEXT


def test_a_word_that_is_a_token_is_taken_whole(tmp_path: Path, ranks: dict[bytes, int]):
    """Merging alone would give hello and s."""
    assert Tokenizer.load(write_folder(tmp_path, ranks)).encode("hellos") == [ranks[b"hellos"]]


def test_added_tokens_are_control_tokens_behind_the_ranks(tmp_path: Path, ranks: dict[bytes, int]):
    tokenizer = Tokenizer.load(write_folder(tmp_path, ranks))
    ids = {text: len(ranks) + offset for text, offset in _SPECIAL.items()}
    turn = "<|im_user|>user<|im_middle|>hello<|im_end|>"
    encoded = tokenizer.encode(turn)
    assert [token for token in encoded if token >= len(ranks)] == [
        ids["<|im_user|>"], ids["<|im_middle|>"], ids["<|im_end|>"]]
    assert max(tokenizer.encode(turn, control=False)) < len(ranks)
    assert tokenizer.decode(encoded) == "userhello"
    assert tokenizer.eos_ids == {ids["[EOS]"], ids["<|im_end|>"]} and tokenizer.bos_id == ids["[BOS]"]


def test_what_cannot_be_read_is_told(tmp_path: Path, ranks: dict[bytes, int]):
    with pytest.raises(ModelLoadError, match="the class QwenTokenizer; of such files TikTokenTokenizer"):
        Tokenizer.load(write_folder(tmp_path, ranks, tokenizer_class="QwenTokenizer"))
    for text, message in (("aGk= x\n", "line 1 is no token in base64 and its rank"),
                          ("aGk= 0\n", "its 1 tokens are not numbered from 0 on, or not every byte")):
        write_folder(tmp_path, ranks)
        (tmp_path / "tiktoken.model").write_text(text)
        with pytest.raises(ModelLoadError, match=message):
            Tokenizer.load(tmp_path)
