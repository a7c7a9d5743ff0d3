"""Text as token ids, in documents and in batches for the calibration.

A document is what the model is to read from position 0. Where the tokenizer's BOS is written out in a text
("<s><|user|>Hello</s>..."), each one begins a document, and the blanks between documents are the file's, not
the model's; a text without any is one document, with BOS in front. Knows nothing of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.text.tokenizer import Tokenizer

SHORTEST_TEXT = 16
"""Tokens; with less there is nothing to calibrate on."""

TOKENS_AT_ONCE = 512
"""How many tokens go through a layer at a time; bounds the scratch memory."""


@dataclass(frozen=True)
class Batch:
    """Pieces of text of about the same length; shorter ones are filled up at the end."""

    token_ids: Tensor  # int64 [count, length]
    is_text: Tensor    # bool [count, length], False where it was filled up


def tokenize_documents(text: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of each document, every one with BOS in front if the tokenizer has one."""
    bos = tokenizer.special_tokens.get("bos_token", "")
    if not bos or bos not in text:
        ids = tokenizer.encode(text, add_bos=True, add_eos=False)
        return [ids] if text.strip() else []
    before, *documents = text.split(bos)
    if before.strip():
        documents.insert(0, before)
    return [tokenizer.encode(bos + document.rstrip(), add_bos=False, add_eos=False) for document in documents]


def make_batches(documents: list[list[int]], budget: int, length: int) -> list[Batch]:
    """Pieces of at most `length` tokens, `budget` tokens of them, evenly spread over the text.

    A document that is longer is cut into several pieces, each from position 0.
    Raises ValueError if the text is too short.
    """
    pieces = [document[i:i + length] for document in documents for i in range(0, len(document), length)]
    total = sum(map(len, pieces))
    if total < SHORTEST_TEXT:
        raise ValueError(f"the calibration text has {total} tokens; expected {SHORTEST_TEXT} at least, "
                         "better some ten thousand")
    count = max(1, min(len(pieces), len(pieces) * budget // total))
    chosen = [pieces[i * len(pieces) // count] for i in range(count)]
    batches: list[list[list[int]]] = []
    for piece in sorted(chosen, key=len, reverse=True):
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0]) > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(piece)
    return [_filled_up(batch) for batch in batches]


def _filled_up(pieces: list[list[int]]) -> Batch:
    lengths = torch.tensor([len(piece) for piece in pieces])
    token_ids = torch.zeros(len(pieces), int(lengths[0]), dtype=torch.int64)
    for row, piece in zip(token_ids, pieces, strict=True):
        row[:len(piece)] = torch.tensor(piece)
    return Batch(token_ids, torch.arange(int(lengths[0])) < lengths[:, None])
