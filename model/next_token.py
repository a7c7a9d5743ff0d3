"""What the next token of a reply may be, with texts: the engine's numbers as they come to the page.

Nothing is written. Knows nothing of messages, templates or how the tokens are sampled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.engine.request import FailedEvent, FinishedEvent, PromptProgress, Request
from model.reply import ReplyDone, ReplyEvent, ReplyFailed

if TYPE_CHECKING:
    from model.engine.logprobs import LogitScores
    from model.engine.next_token import NextLogits
    from model.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class NextToken:
    """What is known of the token after a prompt.

    texts         bytes of each of logits.candidates; empty where it has none
    control       ids of those that belong to the model's format; they are not seen
    ends          ids of those that end a reply
    num_tokens    of the sequence so far
    reply_length  of these the reply's
    """

    logits: NextLogits
    texts: tuple[bytes, ...]
    control: frozenset[int]
    ends: frozenset[int]
    num_tokens: int
    reply_length: int


class NextTokenReading:
    """A prompt that is read for what follows it. Read like a reply; see RunningReply."""

    is_shortened, prompt_digest = False, ""

    def __init__(self, found: Sequence[tuple[Request, LogitScores]], guidance_scale: float,
                 tokenizer: Tokenizer, first_index: int, reply_length: int, breaks: Sequence[int],
                 others: Collection[int]) -> None:
        """`found`: of the prompt, and of its guide if there is one. The last three are those of
        `next_logits`, to which the ends of a reply come."""
        self._found, self._scale, self._tokenizer = found, guidance_scale, tokenizer
        self._prompt = found[0][0].prompt
        self.first_index, self.prompt_tokens = first_index, len(self._prompt)
        self._reply_length, self._breaks, self._others = reply_length, breaks, others

    def cancel(self) -> None:
        """End within one step."""
        for request, _ in self._found:
            request.cancel()

    def events(self) -> Iterator[ReplyEvent | NextToken]:
        """Progress, one NextToken, ReplyDone("length"); or an end without it."""
        for request, _ in self._found:
            for event in request.events():
                if isinstance(event, PromptProgress):
                    yield event
                elif isinstance(event, FailedEvent):
                    self.cancel()
                    yield ReplyFailed(event.message)
                    return
                elif isinstance(event, FinishedEvent):
                    end = ReplyDone(event.reason, event.stats)
            if end.finish_reason != "length":
                break
        else:
            yield self._next_token()
        yield end

    def _next_token(self) -> NextToken:
        from model.engine.guidance import guided
        from model.engine.next_token import next_logits
        tokenizer, prompt = self._tokenizer, self._prompt
        logits = [scores.logits[-1] for _, scores in self._found]
        mixed = guided(*logits, self._scale) if len(logits) > 1 else logits[0]
        found = next_logits(mixed, prompt, self._reply_length, self._breaks,
                            {*self._others, *tokenizer.eos_ids})
        ids = [one.token_id for one in found.candidates]
        texts = [tokenizer.token_bytes(one) if one < tokenizer.vocab_size else b"" for one in ids]
        control = tokenizer.control_ids | tokenizer.eos_ids
        return NextToken(found, tuple(texts), control.intersection(ids), tokenizer.eos_ids.intersection(ids),
                         len(prompt), self._reply_length)
