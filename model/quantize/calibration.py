"""Calibration text as windows of token ids.

Windows begin where a document begins, as a prompt does. Documents are told apart by the tokenizer's BOS, so a
text of rendered chats ("<s><|user|>Hello</s>...") is read as the model was trained on it; a text without any
is one document. Knows nothing of weights.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.quantize.source import ModelSourceError

SHORTEST_WINDOW = 16
"""Tokens; with less there is nothing to calibrate on."""


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer, reduced to what reading a plain text file needs."""

    encode: Callable[[str], list[int]]  # special tokens written out become their ids; none is added
    bos_token_id: int | None


def load_encoder(folder: Path) -> TextEncoder:
    """From tokenizer.json or tokenizer.model. Raises ModelSourceError if there is neither."""
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece_encoder(folder / "tokenizer.model")
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        bos = next((tokenizer.token_to_id(name) for name in ("<s>", "<|begin_of_text|>", "<bos>", "<|bos|>")
                    if tokenizer.token_to_id(name) is not None), None)
        return TextEncoder(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, bos)
    raise ModelSourceError(f"{folder} has neither tokenizer.json nor tokenizer.model; "
                           "GPTQ reads its calibration text with the model's own tokenizer")


def _sentencepiece_encoder(path: Path) -> TextEncoder:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(path))
    every = range(processor.get_piece_size())
    control = {processor.id_to_piece(i): i for i in every if processor.is_control(i)}
    split = re.compile("(" + "|".join(map(re.escape, control)) + ")") if control else None

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in split.split(text) if split else [text]:
            ids += [control[part]] if part in control else processor.encode(part) if part else []
        return ids

    return TextEncoder(encode, processor.bos_id() if processor.bos_id() >= 0 else None)


def split_documents(token_ids: list[int], bos_token_id: int | None) -> list[list[int]]:
    """Cut before each BOS. What comes before the first one is a document too, if it is more than a blank."""
    starts = [i for i, token_id in enumerate(token_ids) if token_id == bos_token_id]
    if not starts:
        return [token_ids if bos_token_id is None else [bos_token_id, *token_ids]] if token_ids else []
    bounds = [*([0] if starts[0] > 2 else []), *starts, len(token_ids)]
    return [token_ids[a:b] for a, b in itertools.pairwise(bounds)]


def make_windows(documents: list[list[int]], samples: int, length: int) -> Tensor:
    """At most `samples` windows of `length` tokens, spread evenly over the text. int64 [count, length]

    A window begins with a document and runs on through the next ones; what is left of the last one is left
    out unless it fills a window of its own. A text shorter than one window gives one shorter window.
    Raises ValueError if there are fewer than 16 tokens.
    """
    stream = [token_id for document in documents for token_id in document]
    if len(stream) < SHORTEST_WINDOW:
        raise ValueError(f"the calibration text has {len(stream)} tokens; "
                         f"expected {SHORTEST_WINDOW} at least, better some ten thousand")
    starts = _window_starts([len(document) for document in documents], length) or [0]
    if len(starts) > samples:
        starts = [starts[i * len(starts) // samples] for i in range(samples)]
    return torch.tensor([stream[start:start + length] for start in starts], dtype=torch.int64)


def _window_starts(document_lengths: list[int], length: int) -> list[int]:
    total = sum(document_lengths)
    document_starts = [0, *itertools.accumulate(document_lengths)]  # the last one is the end
    starts, at = [], 0
    while at + length <= total:
        starts.append(at)
        end = at + length
        following = document_starts[bisect.bisect_left(document_starts, end)]
        at = following if following - end < length else end
    return starts
