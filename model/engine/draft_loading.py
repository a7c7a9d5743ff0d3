"""A draft model's folder: checked against the model that it drafts for, its memory counted, then loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.config import EngineConfig
from model.engine.draft_model import DraftModel
from model.engine.page_pool import PagePool
from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.weights import WeightReader
from model.memory.cache_parts import CachePart, cache_parts
from model.memory.plan import rope_bytes_per_position, state_bytes
from model.model_config import ModelConfig
from model.network.place import Place
from model.network.stage import buffer_bytes
from model.network.step import Sizes
from model.network.transformer import Transformer
from model.network.weights import Progress, weight_infos
from model.sizes import LOGIT_ROWS, MAX_RUNNING, PAGE_SIZE

_CONVERSATIONS = 2
"""Of full length, that the draft model keeps; more of shorter ones. Others go on without drafts."""
_SLOTS = 16
"""Of states, where layers keep one: two of each of eight conversations, see draft_model.py."""


@dataclass(frozen=True)
class DraftFolder:
    """A draft model that is not loaded yet."""

    config: ModelConfig
    reader: WeightReader

    @classmethod
    def open(cls, path: Path, main: ModelConfig) -> DraftFolder:
        """Raises ModelLoadError if it cannot be read or cannot have the same tokens."""
        config, reader = open_model(path)
        if config.spec.vocab_size != main.spec.vocab_size:
            raise ModelLoadError(f"The draft model {config.name} has {config.spec.vocab_size:,} tokens and "
                                 f"{main.name} has {main.spec.vocab_size:,}; they must be the very same. Use "
                                 "a smaller model of the same family, or none.")
        return cls(config, reader)

    def nbytes(self, engine: EngineConfig, max_seq_len: int, max_tokens: int) -> int:
        """What it takes when contexts have up to `max_seq_len` tokens."""
        weights = sum(info.nbytes for info in weight_infos(self.reader, self.config, engine.exact))
        context = self._context(max_seq_len)
        spec = self.config.spec
        caches = self._caches(engine, max_seq_len)
        return (weights + sum(part.nbytes for part in caches) + context * rope_bytes_per_position(spec)
                + _SLOTS * state_bytes(spec) + buffer_bytes(spec, max_tokens, LOGIT_ROWS))

    def load(self, place: Place, engine: EngineConfig, max_seq_len: int, max_tokens: int,
             progress: Progress | None) -> DraftModel:
        caches = self._caches(engine, max_seq_len)
        num_slots = _SLOTS if self.config.spec.has_states else 0
        sizes = Sizes(self._context(max_seq_len), max_tokens, tuple(part.num_pages for part in caches),
                      PAGE_SIZE, engine.cache, num_slots)
        transformer = Transformer.load([place], [self.config.spec.num_layers], self.reader, self.config,
                                       sizes, exact=engine.exact, progress=progress)
        pools = [PagePool(part.num_pages, part.reach) for part in caches]
        return DraftModel(transformer, pools, MAX_RUNNING, sizes.max_seq_len, num_slots)

    def _context(self, max_seq_len: int) -> int:
        return min(max_seq_len, self.config.spec.max_positions)

    def _caches(self, engine: EngineConfig, max_seq_len: int) -> list[CachePart]:
        context = self._context(max_seq_len)
        return [part.of_conversation(context).times(_CONVERSATIONS, 1)
                for part in cache_parts(self.config.spec, engine.cache)]
