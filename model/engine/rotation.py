"""For how long a sequence its positions are rotated, where a model's RoPE depends on that.

A sequence that becomes long has all its keys rotated anew, which is to compute it again. With a dynamic RoPE
every further token would ask for that, so a sequence that is still written is rotated for more tokens than it
has: up to the next of steps of an eighth of the model's own context. A text of which only logits are wanted
is rotated for its very length, as transformers does it. Lists and integers only.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.engine.sequences import Owner, TokenSequence
from model.families.spec import Spec

_STEPS = 8
"""In the context that the model was made for."""


@dataclass(frozen=True)
class Rotation:
    """beyond      tokens of the longest sequence that is short; None: all are
    is_dynamic  how long ones are rotated depends on their length
    """

    beyond: int | None = None
    is_dynamic: bool = False

    @classmethod
    def of(cls, spec: Spec) -> Rotation:
        return cls(spec.long_beyond, spec.is_dynamic)

    def length(self, sequence: TokenSequence[Owner]) -> int:
        """The tokens that it is to be rotated for; 0: as all short ones. Of two of one request that are both
        long it is the same."""
        if self.beyond is None or len(sequence.token_ids) <= self.beyond:
            return 0
        if not self.is_dynamic:
            return self.beyond + 1
        longest = max(len(one.token_ids) for one in sequence.pair)
        step = max(1, self.beyond // _STEPS)
        return longest if sequence.is_whole else self.beyond + -(-(longest - self.beyond) // step) * step

    def end(self, sequence: TokenSequence[Owner]) -> int | None:
        """How many tokens it may have and stay rotated as it is; None: any number."""
        if self.is_dynamic and sequence.rotated_for:
            return sequence.rotated_for
        return None if sequence.rotated_for else self.beyond

    def can_be_together(self, sequences: list[TokenSequence[Owner]]) -> bool:
        """Whether one step can have all of these: there is one table for long ones."""
        return len({one.rotated_for for one in sequences} - {0}) <= 1


SAME = Rotation()
"""All sequences are rotated alike."""
