"""LoRA adapters beside a model: which of their matrices belongs to which Linear.

All of it is checked before anything loads. An adapter names modules as Hugging Face does or as GGUF does, and
so does the model. A Linear's modules are listed by network/modules.py under either's names, with its outputs
in the same order, so that any adapter fits any file of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.config import shown
from model.families.names import Names, variants
from model.families.registry import family_named
from model.families.spec import Attention, Dense, LatentAttention, StateMixer
from model.files import ModelLoadError
from model.formats.adapter import AdapterFile, AdapterModule
from model.formats.adapter_files import open_adapter
from model.kernels.lora import LoraSegment, check_segments
from model.model_config import ModelConfig
from model.network.modules import Group, Piece, mixer_modules, mlp_modules
from model.network.place import Place

SetAdapter = Callable[[int, Sequence[LoraSegment], int], bool]
"""Linear.set_adapter."""
_MAX_RANK = 256
_BYTES = 4
"""A number at most: matrices of different types beside one weight become float32."""


@dataclass(frozen=True)
class _Part:
    """Some outputs of a Linear."""

    module: AdapterModule
    first: int         # of the Linear's outputs
    rows: list[int]    # of the module's outputs, in the Linear's order


class Adapters:
    """Adapters of one model, by their numbers."""

    @classmethod
    def open(cls, chosen: Sequence[tuple[str, Path]], model: ModelConfig) -> Adapters:
        """(name, path) each. Reads headers only. Raises ModelLoadError, naming tensor and expectation."""
        return cls([name for name, _ in chosen], [_placed(open_adapter(path), model) for _, path in chosen],
                   model)

    def __init__(self, names: list[str], placed: list[dict[str, list[_Part]]], model: ModelConfig) -> None:
        self.names, self._placed, self._model = names, placed, model
        self._linears: dict[str, _Noted] = {}

    @property
    def nbytes(self) -> int:
        """What they take in memory, at most."""
        modules = {id(part.module): part.module for parts in self._placed for some in parts.values()
                   for part in some}
        return sum(_BYTES * (module.down_shape[0] * (module.down_shape[1] + module.up_shape[0]))
                   for module in modules.values())

    def of(self, group: Group) -> list[list[LoraSegment]]:
        """What each adapter adds to the Linear of this group; empty if none adds anything. Reads them."""
        found = [self._read(parts.get(_key(group), [])) for parts in self._placed]
        return found if any(found) else []

    def note(self, group: Group, place: Place, set_adapter: SetAdapter) -> None:
        """There is this Linear, at that place; an adapter may be added to it later."""
        self._linears[_key(group)] = _Noted(place, group.n, group.k, set_adapter)

    def check(self, path: Path) -> None:
        """Raise ModelLoadError unless this is an adapter of the model. Reads headers only."""
        _placed(open_adapter(path), self._model)

    def read(self, path: Path) -> dict[str, list[LoraSegment]]:
        """What a further adapter adds to each Linear, for `put`. Raises ModelLoadError."""
        file = open_adapter(path)
        found = {key: self._read(parts) for key, parts in _placed(file, self._model).items()}
        for key, segments in found.items():
            try:
                check_segments([segments], self._linears[key].n, self._linears[key].k)
            except ValueError as error:
                raise ModelLoadError(f"{file.source}: beside {shown(key)} {error}") from None
        return found

    def put(self, number: int, added: Mapping[str, list[LoraSegment]]) -> bool:
        """The adapter of this number adds this from now on, and nothing where there is nothing. Whether what
        is recorded of steps with adapters is out of date. Between two steps."""
        is_new = False
        for key, linear in self._linears.items():
            with linear.place.active():
                is_new |= linear.set_adapter(number, added.get(key, ()), linear.k)
        return is_new

    def _read(self, parts: list[_Part]) -> list[LoraSegment]:
        read: dict[int, tuple[Tensor, Tensor]] = {}
        for part in parts:
            if id(part.module) not in read:
                read[id(part.module)] = part.module.read()
        return [LoraSegment(part.first, read[id(part.module)][0],
                            read[id(part.module)][1][torch.tensor(part.rows)], part.module.scale)
                for part in parts]


@dataclass(frozen=True)
class _Noted:
    place: Place
    n: int
    k: int
    set_adapter: SetAdapter


def _key(group: Group) -> str:
    return next(iter(group.modules))


def _placed(file: AdapterFile, model: ModelConfig) -> dict[str, list[_Part]]:
    """By the model's name of a Linear's first module."""
    names = _names(file, model)
    left, placed = dict(file.modules), {}
    for own, theirs, turned in _groups(file, model, names):
        parts, first = [], 0
        for piece in theirs.pieces or [Piece(name, range(n)) for name, n in theirs.modules.items()]:
            rows = list(piece.rows)
            module = file.modules.get(piece.module)
            if module is not None:
                _check(file, module, theirs.modules[piece.module], theirs.k, model)
                order = [index - first for index in turned[first:first + len(rows)]] if turned else None
                parts.append(_Part(module, first, [rows[index] for index in order] if order else rows))
                left.pop(piece.module, None)
            first += len(rows)
        if parts:
            placed[_key(own)] = parts
    for name, module in left.items():
        raise ModelLoadError(f"{file.source}: tensor {module.down_name} belongs to {shown(name)}, which is "
                             f"no Linear of attention or of a dense mlp in {model.name}. Adapters of "
                             "embeddings, of the head and of experts are not supported; expected names such "
                             f"as {_example(names, model)}")
    return placed


def _names(file: AdapterFile, model: ModelConfig) -> Names:
    """Those that the adapter's modules have."""
    family = family_named(model.architecture)
    if not file.is_gguf:
        return max(variants(family.names), key=lambda names: sum(
            module.startswith(names.layer.partition("{}")[0]) for module in file.modules))
    if family.gguf is None or file.architecture not in family.gguf.architectures:
        expected = " or ".join(family.gguf.architectures) if family.gguf else "an adapter in PEFT's format"
        raise ModelLoadError(f"{file.source}: general.architecture is {shown(file.architecture)}; "
                             f"{model.name} is {model.architecture}: expected {expected}")
    return family.gguf.names


def _groups(file: AdapterFile, model: ModelConfig,
            names: Names) -> Iterator[tuple[Group, Group, list[int] | None]]:
    """Each Linear that may have an adapter: under the model's names, under the adapter's, and which of the
    adapter's outputs each of the model's is, where their order differs."""
    spec, size, is_other = model.spec, model.spec.hidden_size, file.is_gguf != model.is_gguf
    gguf = family_named(model.architecture).gguf
    for index, layer in enumerate(spec.layers):
        prefixes = model.names.layer.format(index), names.layer.format(index)
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention) or (isinstance(mixer, StateMixer) and is_other):
                continue
            pairs = zip(*(mixer_modules(mixer, of, prefix, size)
                          for of, prefix in zip((model.names, names), prefixes, strict=True)), strict=True)
            for number, (own, theirs) in enumerate(pairs):
                is_turned = is_other and gguf is not None and gguf.interleaved and number == 0 \
                    and isinstance(mixer, Attention)
                yield own, theirs, _turned(mixer, own.n, model.is_gguf) if is_turned else None
        if isinstance(layer.mlp, Dense):
            pairs = zip(*(mlp_modules(layer.mlp, of, prefix, size)
                          for of, prefix in zip((model.names, names), prefixes, strict=True)), strict=True)
            yield from ((own, theirs, None) for own, theirs in pairs)


def _turned(attention: Attention, num_outputs: int, to_gguf: bool) -> list[int]:
    """Queries and keys of GGUF have the halves of each head in turn: see Gguf.interleaved."""
    dim, outputs = attention.head_dim, torch.arange(num_outputs)
    num_heads = attention.num_heads + (attention.num_kv_heads if attention.reads_cache_of is None else 0)
    turned = outputs[:num_heads * dim].view(num_heads, *((2, dim // 2) if to_gguf else (dim // 2, 2)))
    return [*turned.transpose(1, 2).flatten().tolist(), *outputs[num_heads * dim:].tolist()]


def _check(file: AdapterFile, module: AdapterModule, n: int, k: int, model: ModelConfig) -> None:
    rank = module.down_shape[0] if module.down_shape else 0
    for name, shape, expected, told in (
            (module.down_name, module.down_shape, (rank, k), f"[rank, {k}]"),
            (module.up_name, module.up_shape, (n, rank), f"[{n}, {rank}]")):
        if shape != expected:
            raise ModelLoadError(f"{file.source}: tensor {name} is {list(shape)}; expected {told} beside "
                                 f"{model.name}. Is the adapter another model's?")
    if not 1 <= rank <= _MAX_RANK:
        raise ModelLoadError(f"{file.source}: tensor {module.down_name} has rank {rank:,}; expected 1 to "
                             f"{_MAX_RANK}")


def _example(names: Names, model: ModelConfig) -> str:
    prefix = names.layer.format(0)
    return ", ".join(prefix + name for name in (*names.qkv, names.o_proj, *names.gate_up, names.down_proj))
