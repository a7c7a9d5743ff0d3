"""The ways in which RoPE is scaled, each as the divisors of its frequencies.

    divisors_of(kind) -> how much slower each pair of a head turns; Rope holds nothing else of them
Sources: transformers' modeling_rope_utils.py, which follows the papers (YaRN: arXiv 2309.00071; LongRoPE:
arXiv 2402.13753) and Meta's Llama 3.1.
"""

from __future__ import annotations

import math

from model.families.spec import DynamicRope, Rope


def frequencies(rope: Rope, length: int = 0) -> list[float]:
    """Angle per position of each pair, dim / 2 numbers, in sequences of so many tokens."""
    long = rope.long if rope.long is not None and length > rope.long.beyond else None
    if isinstance(long, DynamicRope):
        return plain_frequencies(dynamic_theta(rope.theta, rope.dim, long, length), rope.dim)
    divisors = rope.divisors if long is None else long.divisors
    base = plain_frequencies(rope.theta, rope.dim)
    return base if divisors is None else [f / divisor for f, divisor in zip(base, divisors, strict=True)]


def plain_frequencies(theta: float, dim: int) -> list[float]:
    return [theta ** (-2 * i / dim) for i in range(dim // 2)]


def linear_divisors(factor: float, dim: int) -> tuple[float, ...]:
    """Positions are divided by `factor`."""
    return (factor,) * (dim // 2)


def llama3_divisors(theta: float, dim: int, factor: float, low: float, high: float,
                    original: int) -> tuple[float, ...]:
    """Long wavelengths are divided by `factor`, short ones stay, in between blended.

    low, high  turns within `original` positions below and above which that holds
    """
    def divisor(frequency: float) -> float:
        turns = original * frequency / (2 * math.pi)
        blend = min(1.0, max(0.0, (turns - low) / (high - low)))
        return 1 / (blend + (1 - blend) / factor)

    return tuple(map(divisor, plain_frequencies(theta, dim)))


def yarn_divisors(theta: float, dim: int, factor: float, original: int, fast: float, slow: float,
                  truncate: bool) -> tuple[float, ...]:
    """Pairs that turn over `fast` times within `original` positions stay, those below `slow` are divided.

    truncate  the ends of the ramp between are rounded to whole pairs
    """
    def pair_that_turns(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(fast), pair_that_turns(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001

    def divisor(pair: int) -> float:
        ramp = min(1.0, max(0.0, (pair - low) / (high - low)))
        return 1 / (1 - ramp + ramp / factor)

    return tuple(map(divisor, range(dim // 2)))


def yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1


def longrope_magnitude(factor: float, original: int) -> float:
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def ntk_theta(theta: float, dim: int, alpha: float) -> float:
    """The base with which the slowest pair turns `alpha` times slower."""
    return theta * alpha ** (dim / (dim - 2))


def dynamic_theta(theta: float, dim: int, long: DynamicRope, length: int) -> float:
    """The base for a sequence of `length` tokens, more than long.beyond."""
    return ntk_theta(theta, dim, long.factor * length / long.beyond - (long.factor - 1))
