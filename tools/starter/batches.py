"""Endless training batches: documents of similar length side by side, so that little is padding.

Each row is one document from position 0; nothing leaks from one document into the next.
"""

from collections.abc import Iterator
from random import Random

import torch
from torch import Tensor

from tools.starter.corpus import Document, document
from tools.starter.tokenizer import Encoder

CONTEXT_WEIGHT = (
    0.1  # what a person or a system prompt says: learned a little, so that perplexity means something
)
TRANSCRIPT_WEIGHT = 0.4
MAX_TOKENS = 1536
POOL = 1536  # documents that are sorted by length together


def weigh(encoder: Encoder, doc: Document) -> tuple[list[int], list[float]]:
    """Token ids and the weight of each in the loss: replies and their end count fully."""
    ids = encoder.encode(doc.text)[:MAX_TOKENS]
    if doc.kind == "transcript":
        return ids, [TRANSCRIPT_WEIGHT] * len(ids)
    roles = {encoder.special[token] for token in ("<|system|>", "<|user|>", "<|assistant|>")}
    assistant = encoder.special["<|assistant|>"]
    weights, weight = [], CONTEXT_WEIGHT
    for token in ids:
        if token in roles:
            weights.append(CONTEXT_WEIGHT)
            weight = 1.0 if token == assistant else CONTEXT_WEIGHT
        else:
            weights.append(weight)
    return ids, weights


def to_batch(rows: list[tuple[list[int], list[float]]]) -> tuple[Tensor, Tensor]:
    """Pad at the right: token ids int64 [rows, length], weights float32 [rows, length] (0 = padding)."""
    length = -(-max(len(ids) for ids, _ in rows) // 8) * 8 + 1
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    weights = torch.zeros(len(rows), length)
    for index, (ids, weight) in enumerate(rows):
        tokens[index, : len(ids)] = torch.tensor(ids)
        weights[index, : len(ids)] = torch.tensor(weight)
    return tokens, weights


def batches(encoder: Encoder, seed: int, tokens_per_batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, never the same document twice."""
    rng = Random(seed)
    while True:
        rows = sorted((weigh(encoder, document(rng)) for _ in range(POOL)), key=lambda row: len(row[0]))
        groups, group = [], []
        for row in rows:
            if group and (len(group) + 1) * len(row[0]) > tokens_per_batch:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            yield to_batch(group)
