"""From a model's weights to a running engine: the memory plan, the places, the network, a draft model.

Imports torch and what computes; model/loading.py is the light way in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from model.config import EngineConfig
from model.devices import default_prefill_chunk, open_places, told_as_load_errors
from model.engine.draft_loading import DraftFolder
from model.engine.engine import Engine
from model.engine.ngram import NgramDrafter
from model.engine.origin import Origin
from model.engine.speculation import Drafter
from model.formats.checkpoint import files_of
from model.formats.gguf_weights import GgufReader
from model.formats.rounded import RoundingReader
from model.formats.synthetic import SyntheticReader, synthetic_config
from model.formats.weights import WeightReader
from model.machine import physical_cores, readable_size, return_freed_memory
from model.memory.packed_copy import CopyPlace, packed_copy, remove_useless_copies
from model.memory.plan import MemoryPlan
from model.memory.spread import spread
from model.model_config import ModelConfig
from model.network.adapters import Adapters
from model.network.opening import open_for
from model.network.place import Place, WeightStore
from model.network.step import Sizes
from model.network.transformer import Transformer
from model.network.weights import Progress, load_weights, weight_infos
from model.sizes import PAGE_SIZE, step_tokens

Report = Callable[[str], None]
_TOLD_WIDENING = 1.05
"""Of weights in memory over those in the file: from there on it is told."""
_SMALL_MODEL = 256 << 20
"""Bytes of weights below which torch's own threads cost more than they bring while loading."""


def _loading_threads(reader: WeightReader, weight_bytes: int) -> int:
    """Of torch. Its threads wait for each other in a loop: where matrices are read by a few rows, that takes
    longer than what they are for (17 times as long on two busy cores)."""
    reads_rows = isinstance(reader, GgufReader | RoundingReader)
    return 1 if reads_rows or weight_bytes < _SMALL_MODEL else physical_cores()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads within the block; the kernels have a team of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_engine(path: Path, config: EngineConfig | None = None, progress: Progress | None = None,
         places: list[Place] | None = None, report: Report | None = None, name: str = "") -> Engine:
    """Load a model's folder or GGUF file.

    places  where its layers go; None: where `config` says
    report  hears the lines of the memory plan, before anything is loaded
    name    what the model is called; without one its file or folder says

    Raises ModelLoadError (what is wrong with the folder or does not fit), KernelBuildError.
    """
    config = config or EngineConfig()
    remove_useless_copies()
    model, reader = open_for(path, config)
    model = replace(model, name=name or model.name)
    return _assembled(reader, model, config, progress, places, report, path)


def synthetic_engine(shape: str, config: EngineConfig | None = None, progress: Progress | None = None,
                     head_bits: int = 16, places: list[Place] | None = None) -> Engine:
    """A model of random 4-bit weights, for measuring; `shape` is a key of formats/synthetic.py's SHAPES,
    places as in `load_engine`.

    Raises ModelLoadError for an unknown shape or one that does not fit.
    """
    return _assembled(SyntheticReader(head_bits), synthetic_config(shape), config or EngineConfig(),
                      progress, places)


def _assembled(reader: WeightReader, model: ModelConfig, config: EngineConfig,
              progress: Progress | None, places: list[Place] | None,
              report: Report | None = None, path: Path | None = None) -> Engine:
    """path: where the model lies; without one its weights must fit into memory."""
    draft = DraftFolder.open(config.draft, model) if config.draft is not None else None
    adapters = Adapters.open(config.adapters, model)
    weight_infos(reader, model, config.exact)  # what is wrong with the model is told before kernels are built
    places = places or open_places(config, progress)
    infos = weight_infos(reader, model, config.exact, places[0].ops.looks_up_packed)
    chunk = config.prefill_chunk or default_prefill_chunk(places[0].device)
    draft_bytes = draft.nbytes(config, config.max_seq_len or model.spec.max_positions, chunk) if draft else 0
    plan, num_layers = spread(model, config, infos, places, chunk, draft_bytes + adapters.nbytes,
                              has_disk=path is not None)
    lines = [*plan.lines(), *(["of this model its text part alone is loaded"] if model.is_text_part else [])]
    if adapters.names:
        lines.append(f"adapters: {', '.join(adapters.names)}, at most {readable_size(adapters.nbytes)}")
    if config.quantize is not None:
        lines.append(f"float weights are rounded to {config.quantize} bits while they are loaded")
    widening = sum(info.nbytes for info in infos) / max(1, reader.stored_bytes)
    if reader.stored_bytes and widening > _TOLD_WIDENING:
        lines.append(f"the weights take {widening:.2f} times their size in the file")
    if plan.warning:
        lines.append(plan.warning)
    for line in lines if report else ():
        report(line)
    sizes = Sizes(plan.max_seq_len, step_tokens(chunk), tuple(part.num_pages for part in plan.caches),
                  PAGE_SIZE, config.cache, plan.num_slots, bool(adapters.names),
                  plan.copy_bytes // len(places))
    with told_as_load_errors(places), \
            torch_threads(_loading_threads(reader, plan.weight_bytes)):
        homes = places
        if plan.disk_bytes and path is not None:
            store = _packed_copy(path, places[0], reader, model, config, plan, progress)
            homes = [replace(places[0], store=store)]
        transformer = Transformer.load(homes, num_layers, reader, model, sizes, exact=config.exact,
                                       progress=progress, adapters=adapters)
        drafter: Drafter | None = NgramDrafter() if config.speculation else None
        if draft is not None:
            drafter = draft.load(places[-1], config, plan.max_seq_len, chunk, progress)
        quantization = reader.describe()
        del reader
        return_freed_memory()
        return Engine(transformer, chunk, plan, quantization, drafter, adapters.names,
                      Origin.of(path, config, places))


def _packed_copy(path: Path, place: Place, reader: WeightReader, model: ModelConfig, config: EngineConfig,
                 plan: MemoryPlan, progress: Progress | None) -> WeightStore:
    """The model's weights on disk, written first if they are not there."""
    told = progress or (lambda line, share: None)

    def write(store: WeightStore) -> None:
        load_weights([replace(place, store=store)] * model.spec.num_layers, reader, model, config.exact,
                     lambda line, share: told(f"{line}: its packed copy is written", share))

    where = CopyPlace.of(path, files_of(path), f"exact {config.exact}, quantize {config.quantize}")
    return packed_copy(where, plan.weight_bytes, plan.kept_bytes, write, told)
