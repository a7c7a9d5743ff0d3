"""Sampling in plain torch: penalties, cuts, one random number a token. Every kernel is tested against it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from model.kernels.sampling import SamplingRow

FAR_BELOW = 708.0
"""A token that lies so far below the likeliest one has no weight: exp(-708) is about the least that a float64
holds in full."""
LEAST_TEMPERATURE = 1e-6
"""That the dynamic one comes to."""
MOST_BEYOND_ALLOWED, MOST_PENALTY = 256, 1e30
"""Of DRY."""


def sample(logits: Tensor, rows: Sequence[SamplingRow], probabilities: Tensor | None = None,
           surprises: Tensor | None = None) -> Tensor:
    """Choose the next token of each sequence; int32 [S]. -1 where no token is possible. All in float64.

    logits         float32 [S, vocab_size], rows may be strided; not changed
    rows           one for each row of logits
    probabilities  float32 [S, vocab_size] or None: receives the distribution that the choice was made from
    surprises      float64 [S] or None: receives -log2 of the chosen token's probability in it

    For one row, h being the history (prompt and reply) and x the logits; NaN counts as -inf. First, x = -inf
    for tokens whose bit in row.allowed is not set, if there is such a mask. Then what acts on logits, where
    row.stages names it:
     penalties    repetition_penalty r: a token whose latest occurrence lies d tokens back (d = 0: the last
                  token of h) has the strength p = r for d < range, p = r + (1 - r) * (d - range) / decay for
                  range <= d < range + decay, else 1 (as ExLlama; a range of 0 covers all of h).
                  x = x / p where x > 0, else x * p.
                  x -= presence_penalty + frequency_penalty * count for tokens that occur `count` > 0 times in
                  the reply.
     dry          a token that has come before, at i: n is how many tokens before i are those at the end of h,
                  going back to the first that is different or, at the end of h, a break (row.breaks). With n
                  the most that any i gives, x -= dry_multiplier * dry_base ^ (n - dry_allowed_length) where
                  n >= dry_allowed_length; no i counts that is a break itself. h is its last
                  dry_penalty_last_n tokens (-1: all); n counts up to MOST_BEYOND_ALLOWED more than allowed,
                  the penalty up to MOST_PENALTY.
    Then x += logit_bias; x = -inf for banned tokens, and for EOS while the reply has fewer than
    min_new_tokens. A temperature of 0 takes the token with the largest x; nothing below counts. Otherwise, in
    the order of row.stages, with y = (x - max x) / T, weights w = exp(y) and p = w / (sum of w) of the tokens
    that are left, which are never those with y < -FAR_BELOW (T is 1 at first):
     temperature  T = temperature; with a dynatemp_range r > 0 between max(0, T - r) and T + r, at the share
                  (H / ln n) ^ dynatemp_exponent, H = -sum(p ln p) being the entropy of the n tokens left.
     top_n_sigma  those with y >= (the largest y) - top_n_sigma * (the standard deviation of y).
     top_k        the k largest w.
     top_p        the shortest run of the largest w whose sum of p is at least top_p.
     min_p        those with w >= min_p * (the largest w).
     typical_p    in ascending order of |H + ln p|, the shortest run whose sum of p is at least typical_p.
     xtc          with the probability xtc_probability: of the tokens with p >= xtc_threshold only the least
                  likely one stays, beside all below the threshold.
     mirostat     those with -log2 p <= row.mirostat_mu; the likeliest where there is none.
    Random numbers are philox_uniforms(seed, number of tokens in h). The first chooses: the first token, in
    the order of ids, at which the running sum of the w that are left exceeds it times their sum. The second
    is that of xtc, which is done where it lies below the probability.
    Everywhere a tie goes to the lower token id, and a cut keeps at least one token.

    Sources: top_n_sigma is arXiv 2411.07641, typical_p 2202.00666, mirostat the second of 2007.14966; dry,
    xtc and the dynamic temperature are as text-generation-webui and KoboldCpp introduced them.
    """
    chosen = torch.empty(len(rows), dtype=torch.int32)
    for index, row in enumerate(rows):
        weights = kept_weights(logits[index], row)
        total = weights.sum()
        if probabilities is not None:
            probabilities[index] = weights / total if total > 0 else 0.0
        chosen[index] = _pick(weights, philox_uniforms(row.seed, row.num_tokens)[0]) if total > 0 else -1
        if surprises is not None:
            surprises[index] = -torch.log2(weights[chosen[index]] / total) if total > 0 else 0.0
    return chosen


def kept_weights(logits: Tensor, row: SamplingRow) -> Tensor:
    """float64 [vocab_size]: the weights after all stages; zero where a token is cut."""
    settings = row.settings
    x = penalized_logits(logits, row)
    best = x.max()
    if best == -math.inf:
        return torch.zeros_like(x)
    if settings.temperature == 0 and "temperature" in row.stages:
        weights = torch.zeros_like(x)
        weights[int((x == best).nonzero()[0])] = 1.0
        return weights
    y = x - best
    descending = torch.argsort(-x, stable=True)
    is_left = y > -math.inf
    temperature = 1.0
    for stage in row.stages:
        if stage == "temperature":
            temperature = _temperature(y, is_left, row)
            y = y - y[is_left].max()
            is_left &= y / temperature >= -FAR_BELOW
            continue
        is_left &= y / temperature >= -FAR_BELOW
        weights = torch.exp(y / temperature)
        p = torch.where(is_left, weights, 0.0) / weights[is_left].sum()
        if stage == "top_n_sigma":
            left = y[is_left]
            is_left &= y >= left.max() - settings.top_n_sigma * left.std(correction=0)
        elif stage == "top_k":
            is_left[descending[is_left[descending]][settings.top_k:]] = False
        elif stage == "top_p":
            is_left = _shortest_run(descending, weights, is_left, settings.top_p)
        elif stage == "min_p":
            is_left &= weights >= settings.min_p * weights[is_left].max()
        elif stage == "typical_p":
            log_p = torch.where(p > 0, p.log(), 0.0)
            deviation = torch.where(p > 0, ((p * log_p).sum() - log_p).abs(), math.inf)
            order = torch.argsort(deviation, stable=True)
            is_left = _shortest_run(order, weights, is_left, settings.typical_p)
        elif stage == "xtc" and philox_uniforms(row.seed, row.num_tokens)[1] < settings.xtc_probability:
            likely = descending[(is_left & (p >= settings.xtc_threshold))[descending]]
            is_left[likely[:-1]] = False
        elif stage == "mirostat":
            first = descending[is_left[descending]][0]
            is_left = p >= 2.0 ** -row.mirostat_mu
            is_left[first] = True
    is_left &= y / temperature >= -FAR_BELOW
    return torch.where(is_left, torch.exp(y / temperature), 0.0)


def _temperature(y: Tensor, is_left: Tensor, row: SamplingRow) -> float:
    settings, left = row.settings, y[is_left & (y >= -FAR_BELOW)]
    if settings.dynatemp_range == 0 or len(left) == 1:
        return settings.temperature
    p = left.exp() / left.exp().sum()
    share = float(-(p * p.log()).sum()) / math.log(len(left))
    low = max(0.0, settings.temperature - settings.dynatemp_range)
    high = settings.temperature + settings.dynatemp_range
    share = min(1.0, max(0.0, share))
    return max(LEAST_TEMPERATURE, low + (high - low) * share ** settings.dynatemp_exponent)


def penalized_logits(logits: Tensor, row: SamplingRow) -> Tensor:
    """float64 [vocab_size]: what `sample` does before the cuts."""
    settings = row.settings
    x = logits.double().nan_to_num(nan=-math.inf, posinf=3.4e38, neginf=-math.inf)
    if row.allowed is not None:
        token_ids = torch.arange(len(x))
        x[row.allowed[token_ids // 32] >> (token_ids % 32) & 1 == 0] = -math.inf
    for stage in row.stages:
        if stage == "penalties":
            _penalize(x, row)
        elif stage == "dry":
            _penalize_repeated_sequences(x, row)
    for token_id, bias in row.biases.items():
        if token_id < len(x):
            x[token_id] += bias
    if row.num_tokens - row.prompt_length < settings.min_new_tokens:
        for token_id in row.eos_token_ids:
            if token_id < len(x):
                x[token_id] = -math.inf
    return x


def _penalize(x: Tensor, row: SamplingRow) -> None:
    settings = row.settings
    history = row.history[:row.num_tokens].tolist()
    reach = settings.repetition_range or len(history)
    seen: set[int] = set()
    recent = history[max(0, len(history) - reach - settings.repetition_decay):]
    for distance, token_id in enumerate(reversed(recent)):
        if token_id in seen or token_id >= len(x):
            continue
        seen.add(token_id)
        faded = max(0, distance - reach) / max(1, settings.repetition_decay)
        strength = settings.repetition_penalty + (1 - settings.repetition_penalty) * faded
        x[token_id] = x[token_id] / strength if x[token_id] > 0 else x[token_id] * strength
    reply = history[row.prompt_length:]
    for token_id, count in Counter(t for t in reply if t < len(x)).items():
        x[token_id] -= settings.presence_penalty + settings.frequency_penalty * count


def _penalize_repeated_sequences(x: Tensor, row: SamplingRow) -> None:
    settings = row.settings
    history = row.history[:row.num_tokens].tolist()
    breaks = [0] * len(history) if row.breaks is None else row.breaks[:row.num_tokens].tolist()
    if 0 <= settings.dry_penalty_last_n < len(history):
        history, breaks = history[-settings.dry_penalty_last_n:], breaks[-settings.dry_penalty_last_n:]
    count = len(history)
    longest: dict[int, int] = {}
    for i in range(1, count):
        if breaks[i] or history[i] >= len(x):
            continue
        n = 0
        while (n < i and n < settings.dry_allowed_length + MOST_BEYOND_ALLOWED
               and history[i - 1 - n] == history[count - 1 - n] and not breaks[count - 1 - n]):
            n += 1
        longest[history[i]] = max(n, longest.get(history[i], 0))
    for token_id, n in longest.items():
        if n >= settings.dry_allowed_length:
            penalty = settings.dry_multiplier * settings.dry_base ** (n - settings.dry_allowed_length)
            x[token_id] -= min(penalty, MOST_PENALTY)


def _shortest_run(order: Tensor, weights: Tensor, possible: Tensor, share: float) -> Tensor:
    """The first tokens of `order` among `possible` whose weights add up to at least `share` of all; bool."""
    ordered = order[possible[order]]
    running = weights[ordered].cumsum(0)
    count = int((running < share * running[-1]).sum()) + 1
    kept = torch.zeros_like(possible)
    kept[ordered[:count]] = True
    return kept


def _pick(weights: Tensor, u: float) -> int:
    running = weights.cumsum(0)
    above = (running > u * running[-1]).nonzero()
    return int(above[0])


def philox_uniforms(seed: int, position: int) -> tuple[float, float]:
    """Two numbers in [0, 1) with 53 random bits each, the same for ever for one (seed, position).

    Philox4x32-10 with the key `seed` and the counter (position, 0): the first two words of the block are one
    number, the others the other. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    words = philox4x32((position & 0xFFFFFFFF, position >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))
    first, second = (((words[i] >> 5) * 2**26 + (words[i + 1] >> 6)) / 2**53 for i in (0, 2))
    return first, second


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of four 32-bit words after ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((product1 >> 32) ^ c1 ^ k0, product1 & 0xFFFFFFFF,
                          (product0 >> 32) ^ c3 ^ k1, product0 & 0xFFFFFFFF)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3
