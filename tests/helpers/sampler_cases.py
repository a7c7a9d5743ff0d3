"""Random logits and settings, and what the float64 reference leaves of them after each stage.

For the page's arithmetic (webui/static/sampling/sampler-chain.js), which is given what the server would send.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch

from model import NextToken, SamplingParams
from model.engine.next_token import next_logits
from model.kernels.reference import sampling as reference
from model.kernels.sampling import SamplingRow
from model.kernels.stages import SAMPLERS, STAGES_OF_LOGITS
from webui.routes.tokens import next_as_json
from webui.sampling import as_json

END = 2


@dataclass(frozen=True)
class Case:
    """`steps`: (name, probabilities of all tokens) of each stage that can be compared, in order."""

    next_token: dict[str, Any]
    settings: dict[str, Any]
    steps: list[tuple[str, list[float]]]


def random_case(rng: random.Random, vocab_size: int, whole: bool) -> Case:
    """`whole`: every token stands for itself; else most of a large vocabulary are in groups."""
    logits = torch.tensor([rng.gauss(0, 3) for _ in range(vocab_size)])
    history = [rng.randrange(min(vocab_size, 12)) for _ in range(rng.randrange(1, 40))]
    reply_length = rng.randrange(len(history) + 1)
    breaks = [int(rng.random() < 0.1) for _ in history]
    params = random_params(rng)
    row = SamplingRow(params, history=torch.tensor(history, dtype=torch.int32), num_tokens=len(history),
                      prompt_length=len(history) - reply_length, seed=0, eos_token_ids=[END])
    row.breaks = torch.tensor(breaks, dtype=torch.uint8)
    others = range(vocab_size) if whole else {END, *row.biases}
    found = next_logits(logits, history, reply_length, breaks, others)
    told = NextToken(found, (b"",) * len(found.candidates), frozenset(), frozenset([END]), len(history),
                     reply_length)
    return Case(next_as_json(told), as_json(params), _steps(logits, row))


def random_params(rng: random.Random) -> SamplingParams:
    """Each stage in half of all cases, in an order of its own."""
    values: dict[str, Any] = {
        "repetition_penalty": rng.uniform(1, 2), "repetition_range": rng.choice([0, 5, 20]),
        "repetition_decay": rng.choice([0, 7]), "presence_penalty": rng.uniform(-2, 2),
        "frequency_penalty": rng.uniform(-1, 1), "dry_multiplier": rng.uniform(0, 3),
        "dry_base": rng.uniform(1, 3), "dry_allowed_length": rng.randrange(1, 4),
        "dry_penalty_last_n": rng.choice([-1, 10, 25]), "top_n_sigma": rng.uniform(0.3, 3),
        "temperature": rng.choice([0.0, *(rng.uniform(0.1, 3) for _ in range(9))]),
        "dynatemp_range": rng.uniform(0, 2), "dynatemp_exponent": rng.uniform(0, 3),
        "top_k": rng.randrange(1, 60), "top_p": rng.uniform(0.05, 1), "min_p": rng.uniform(0, 0.3),
        "typical_p": rng.uniform(0.05, 1), "xtc_probability": 1.0, "xtc_threshold": rng.uniform(0.01, 0.2),
        "mirostat_tau": rng.uniform(0.5, 6), "mirostat": rng.choice([0, 0, 0, 2]),
        "min_new_tokens": rng.choice([0, 4]), "banned_tokens": (rng.randrange(50),),
        "logit_bias": {rng.randrange(50): rng.uniform(-5, 5) for _ in range(2)}}
    chosen = {name: value for name, value in values.items() if rng.random() < 0.5}
    first, others = list(STAGES_OF_LOGITS), [name for name in SAMPLERS if name not in STAGES_OF_LOGITS]
    rng.shuffle(first)
    rng.shuffle(others)
    samplers = tuple(first + others[:rng.randrange(len(others) + 1)])
    return replace(SamplingParams(temperature=1.0, top_p=1.0, min_p=0.0), samplers=samplers, **chosen)


def _steps(logits: torch.Tensor, row: SamplingRow) -> list[tuple[str, list[float]]]:
    """The reference has biases in every distribution, the page in a stage of their own, so that what comes
    before is compared without them; where the temperature is 0, only the end is."""
    names = ["model", *row.stages]
    num_of_logits = sum(name in STAGES_OF_LOGITS for name in names)
    biased = bool(row.biases) or row.num_tokens - row.prompt_length < row.settings.min_new_tokens
    first = num_of_logits + 1 if biased else 0
    if row.settings.temperature == 0 and "temperature" in names:
        names, first = [*names[:-1], "temperature"], len(names) - 1
    weights = [reference.kept_weights(logits, row.up_to(count)) for count in range(first, len(names))]
    return [(name, (one / one.sum()).tolist())
            for name, one in zip(names[first:], weights, strict=True) if one.sum() > 0]
