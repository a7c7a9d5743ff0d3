"""Sequences of tokens, and what of them is computed in a step. Lists and integers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from model.engine.loaded_adapters import NO_ADAPTER, AdapterKey
from model.engine.page_pool import Table
from model.engine.prefix_cache import ROOT, root_of

Owner = TypeVar("Owner")


@dataclass(eq=False)
class TokenSequence(Generic[Owner]):
    """Tokens of one request, and how far they are computed. `owner` is the engine's; not looked at here."""

    owner: Owner
    token_ids: list[int]
    prompt_length: int
    reuse_limit: int                      # tokens that may come from the cache; at most prompt_length - 1
    num_computed: int = 0                 # tokens whose keys and values are in the cache
    num_cached: int = 0                   # of the prompt, found there at the first admission
    tables: list[Table] = field(default_factory=list)  # in each pool of pages, while it runs
    chains: list[int] = field(default_factory=lambda: [ROOT])  # before and after pages the pool knows
    turns: tuple[int, ...] = ()           # tokens of the prompt after which a message ends
    slot: int = -1                        # of its state, if there is one
    marks: list[int] = field(default_factory=list)  # tokens of the prompt after which it may be of use again
    saves: dict[int, int] = field(default_factory=dict)  # tokens -> slot for the state after them, this step
    is_whole: bool = False                # a text as it is: nothing will follow
    num_begun: int = 0                    # the last tokens of the prompt that are computed as a reply's are
    rotated_for: int = 0                  # its keys are rotated as in sequences of so many tokens; 0: short
    adapter: AdapterKey = NO_ADAPTER      # the one that it is computed with
    arrival: int = -1
    was_admitted: bool = False
    partner: TokenSequence[Owner] | None = None  # of one request as well: both are there, or neither is
    is_guide: bool = False                # of the two the one that the partner's reply is guided by

    @property
    def pair(self) -> list[TokenSequence[Owner]]:
        """All of its request: itself, or it and its guide."""
        if self.partner is None:
            return [self]
        return [self.partner, self] if self.is_guide else [self, self.partner]

    @property
    def root(self) -> int:
        """The chain before its first page."""
        return root_of(self.rotated_for, self.adapter.serial)

    @property
    def num_known(self) -> int:
        """Pages known to the pool."""
        return len(self.chains) - 1

    @property
    def num_remaining(self) -> int:
        """Tokens still to compute before the next one can be sampled."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_alike(self) -> int:
        """Of the tokens still to compute those of one kind, the prompt's or the reply's: a device may compute
        the two in different ways, and a reply that is computed again is to come out as before."""
        in_prompt = self.prompt_length - self.num_begun - self.num_computed
        return in_prompt if 0 < in_prompt < self.num_remaining else self.num_remaining

    @property
    def num_reusable(self) -> int:
        """Tokens that may come from the cache: the last one is computed, for the logits after it."""
        return min(self.reuse_limit, len(self.token_ids) - 1)


@dataclass(eq=False)
class Chunk(Generic[Owner]):
    """Tokens start .. start + count - 1 of a sequence are computed in this step, and after them `draft`: a
    guess at those that will follow, whose keys and values count only as far as it proves right."""

    sequence: TokenSequence[Owner]
    start: int
    count: int
    draft: list[int] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return self.count + len(self.draft)

    @property
    def is_of_prompt(self) -> bool:
        """Chunks end where the prompt does, or what of it is computed as a reply."""
        return self.start < self.sequence.prompt_length - self.sequence.num_begun

    @property
    def is_last(self) -> bool:
        """After this chunk the next token can be sampled."""
        return self.start + self.count == len(self.sequence.token_ids)


@dataclass
class Batch(Generic[Owner]):
    """One step. `copies` (source pages, target pages: one of each pool), and those of slots, come first, all
    read before any is written."""

    chunks: list[Chunk[Owner]]
    copies: list[tuple[list[int], list[int]]]
    state_copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return sum(chunk.num_rows for chunk in self.chunks)

    @property
    def rotated_for(self) -> int:
        """Of its long sequences, which are all rotated for as many tokens; 0: there are none."""
        return max((chunk.sequence.rotated_for for chunk in self.chunks), default=0)
