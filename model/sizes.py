"""Sizes that the engine, the memory plan and the network must agree on. Knows nothing else."""

from __future__ import annotations

PAGE_SIZE = 32
"""Tokens whose keys and values share a page of the cache."""
LOGIT_ROWS = 64
"""Rows of logits that there is memory for; where more are wanted they are sampled in turn."""
MAX_RUNNING = 256
"""Sequences that run at once where the pages allow more: the rows for which a step has buffers."""


def step_tokens(prefill_chunk: int, max_running: int = MAX_RUNNING) -> int:
    """The most tokens of a step: a whole chunk of prompts, or one of each sequence and a page of prompts."""
    return max(prefill_chunk, max_running + PAGE_SIZE)


def pages_for(num_tokens: int) -> int:
    """Pages that `num_tokens` tokens take."""
    return -(-num_tokens // PAGE_SIZE)


def window_pages(reach: int) -> int:
    """Pages that a sequence holds of layers that look back at `reach` tokens, at most, between steps: the
    window and one more."""
    return pages_for(reach) + 1
