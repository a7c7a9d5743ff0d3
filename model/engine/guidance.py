"""Classifier-free guidance: away from what the model would say after another prompt.

Liu et al., "Stay on topic with Classifier-Free Guidance", https://arxiv.org/abs/2306.17806, equation 7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def guided(logits: Tensor, others: Tensor, scale: float) -> Tensor:
    """Log-probabilities log q + scale * (log p - log q), not normalized: p the model's after the prompt, q
    after the guide's. 1 is p, 0 is q. Where one of them rules a token out, p stands.

    logits, others  float32 [vocab_size]; the logits of p and of q, which are not changed

    The same as transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor, where that gives numbers. Sums of
    float32 are off by less than sampling can tell: log q is one for all tokens.
    """
    own, other = logits.log_softmax(-1), others.log_softmax(-1)
    stands = (own == -math.inf) | (other == -math.inf)
    return torch.where(stands, own, other + scale * (own - other))
