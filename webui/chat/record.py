"""What a reply is generated from, kept with its message, so that it can be generated once more and compared.

Beside the message's `model`, `seed` and `sampling`:

    host      of the engine elsewhere that wrote it; then nothing else is known
    model     the fingerprint of the model's files; `adapter` and `adapter_files` likewise, if there was one
    on        how it was computed: instruction set, kernels' build, cache (the engine's `numerics`)
    prompt    a digest of the prompt's tokens, and of those of what guidance led away from
    count     of the tokens that came, and `tokens`, a digest of them, where the model told them
    told_to_answer   somebody had it end its thought, at a moment of time that is not kept
    begun     characters of the text that were there before, `begun_thought` those of the thought, and
              `begun_tokens` the tokens of that text where it goes on from exactly these

Digests tell whether two things are the same, and nothing of what they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model import RunningReply, ScoredToken

from ..storage.schema import Document

if TYPE_CHECKING:
    from .reply_job import ReplyPlan

_DIGEST_BYTES = 8


class TokensDigest:
    """Of the tokens of one reply, as they come."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def take(self, token: ScoredToken) -> None:
        self.count += 1
        self._digest.update(token.token_id.to_bytes(4, "little"))

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def record_of(plan: ReplyPlan, info: Mapping[str, Any], reply: RunningReply,
              tokens: TokensDigest | None) -> Document:
    """info: of the model that wrote it; tokens: None where it does not tell them."""
    if info["host"]:
        return {"host": info["host"]}
    record = {"model": info["fingerprint"], "on": dict(info["numerics"]), "prompt": reply.prompt_digest}
    if plan.adapter:
        files = info["adapter_fingerprints"].get(plan.adapter, "")
        record |= {"adapter": plan.adapter, "adapter_files": files}
    if tokens is not None:
        record |= {"count": tokens.count, "tokens": tokens.hexdigest()}
    if plan.continues:
        record |= {"begun": len(plan.message["text"]), "begun_thought": len(plan.message["thinking"])}
        if plan.forks:
            record["begun_tokens"] = len(plan.begun or ())
    return record
