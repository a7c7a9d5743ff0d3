"""What a step is: its input, the sizes of what it needs, and the rows of the buffers it is computed in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class PromptRows:
    """The rows first .. last - 1 of a step are those of sequence `index`, which has `num_keys` keys then."""

    index: int
    first: int
    last: int
    num_keys: int


@dataclass(frozen=True)
class StepInput:
    """One step for S sequences with T new tokens together. Shapes as the kernels want them.

    Steps of the same T and S must be the same tensors with new contents: steps are recorded by these
    two and by has_adapters.
    """

    token_ids: Tensor     # int32 [T]
    positions: Tensor     # int32 [T]: rows of rope_tables()
    slot_mappings: tuple[Tensor, ...]  # of each cache group int64 [T]: page * PAGE_SIZE + offset; negative:
                                       # not written
    block_tables: tuple[Tensor, ...]   # of each cache group int32 [S, max_pages]
    cu_seqlens: Tensor    # int32 [S + 1]
    seq_lens: Tensor      # int32 [S]
    state_slots: Tensor   # int32 [S]: where each sequence's state lies; negative: it is padding
    row_slots: Tensor     # int32 [T]: where the state after a row is to lie as well; negative: nowhere
    row_adapters: Tensor  # int32 [T]: which adapter a row is computed with; negative: none
    prompts: tuple[PromptRows, ...] = ()  # the last sequences, if they have many rows: known on the host
    has_adapters: bool = False  # some row has one: only then row_adapters is looked at

    def without_prompts(self) -> StepInput:
        """The sequences in front of the prompts."""
        rows, sequences = self.prompts[0].first, self.prompts[0].index
        return replace(
            self, token_ids=self.token_ids[:rows], positions=self.positions[:rows],
            slot_mappings=tuple(slots[:rows] for slots in self.slot_mappings),
            block_tables=tuple(table[:sequences] for table in self.block_tables),
            cu_seqlens=self.cu_seqlens[:sequences + 1], seq_lens=self.seq_lens[:sequences],
            state_slots=self.state_slots[:sequences], row_slots=self.row_slots[:rows],
            row_adapters=self.row_adapters[:rows], prompts=())


@dataclass(frozen=True)
class Sizes:
    """What is allocated for a model besides its weights."""

    max_seq_len: int   # the largest position + 1
    max_tokens: int    # the largest T of a step
    num_pages: tuple[int, ...]  # of each cache group
    page_size: int
    cache: str         # a key of CACHE_KINDS
    num_slots: int = 0  # states, of layers that keep one
    has_adapters: bool = False
    copy_bytes: int = 0  # at each place, for weights that prompts are multiplied by in float16


@dataclass(frozen=True)
class Rows:
    """The rows first .. last - 1 of every buffer, which stay where they are."""

    buffers: dict[str, Tensor]  # float32 [max_tokens * width]
    hidden_size: int
    first: int
    last: int
    adapters: Tensor | None = None  # int32 [rows], see StepInput; None: no row of the step has one

    @property
    def hidden(self) -> Tensor:
        return self.of("hidden", self.hidden_size)

    @property
    def normed(self) -> Tensor:
        """What a branch reads, where the norm before it is not the product's."""
        return self.of("normed", self.hidden_size)

    @property
    def branch(self) -> Tensor:
        """What a branch gives, where something is done to it before it is added."""
        return self.of("branch", self.hidden_size)

    def of(self, name: str, width: int) -> Tensor:
        """float32 [rows, width] of a layer that uses so much of a row; rows lie side by side."""
        return self.buffers[name][self.first * width:self.last * width].view(-1, width)
