"""What a model's file or folder holds and would take here, without loading it: python -m model.inspect PATH.

Everything that cannot be loaded is named at once, not only the first of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from model.advice import advice_of_folder, advice_of_gguf
from model.config import EngineConfig
from model.devices import default_prefill_chunk
from model.files import ModelLoadError
from model.formats.gguf import GgufFile
from model.formats.gguf_parts import find_gguf
from model.formats.gguf_weights import GgufReader
from model.formats.plain import PlainReader
from model.formats.weights import WeightReader
from model.loading import load_tokenizer
from model.machine import free_memory, readable_size
from model.memory.spread import spread
from model.model_config import ModelConfig
from model.model_path import find_model
from model.network.opening import open_for
from model.network.place import Place
from model.network.weights import weight_infos
from model.text.tokenizer import Tokenizer

_MAX_NAMES = 3


@dataclass
class Report:
    """Lines as a table for people, and what stands in the way of loading."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, *lines: str) -> None:
        self.rows += [(name if index == 0 else "", line) for index, line in enumerate(lines)]

    def lines(self) -> list[str]:
        found = [f"{name:<10}{text}".rstrip() for name, text in self.rows]
        return found + [f"cannot be loaded: {problem}" for problem in self.problems]


def inspect_model(path: Path, engine: EngineConfig | None = None) -> Report:
    """Read headers and the tokenizer of a model; nothing is allocated for its weights.

    What is the model's fault is no error but a problem of the report.
    """
    engine, report = engine or EngineConfig(), Report()
    try:
        path = find_model(path)
        file = find_gguf(path)
        report.add("model", str(file or path))
        gguf = None if file is None else GgufFile(file)
    except ModelLoadError as error:
        report.problems.append(str(error))
        return report
    if gguf is not None:
        _tell_tensors(report, [(t.name, t.type.name, t.nbytes, t.rows * t.shape[-1])
                               for t in gguf.tensors.values()])
        _tell_unsupported_types(report, gguf)
    advice = advice_of_folder(path) if gguf is None else advice_of_gguf(gguf.metadata)
    if advice:
        values = ", ".join(f"{name} {value}" for name, value in advice.items())
        report.add("sampling", f"as the model's authors advise: {values}")
    try:
        config, reader = open_for(path, engine)
        _tell_config(report, config)
        _tell_weights(report, config, reader, engine)
    except ModelLoadError as error:
        _add_problem(report, error)
    try:
        _tell_text(report, load_tokenizer(file or path))
    except ModelLoadError as error:
        _add_problem(report, error)
    return report


def _add_problem(report: Report, error: ModelLoadError) -> None:
    """Unless it is told already, as a tensor's type is."""
    if "has type" not in str(error) or not report.problems:
        report.problems.append(str(error))


def _tell_tensors(report: Report, tensors: list[tuple[str, str, int, int]]) -> None:
    """(name, type, bytes, numbers) of each."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for _, kind, nbytes, count in tensors:
        sizes[kind] += nbytes
        counts[kind] += 1
        numbers[kind] += count
    total = sum(sizes.values())
    report.add("file", f"{readable_size(total)} of tensors, {sum(numbers.values()):,} numbers")
    report.add("types", *(f"{kind:<8}{readable_size(size):>10}  {counts[kind]:>5} tensors  "
                          f"{size * 8 / max(1, numbers[kind]):.4g} bits a number"
                          for kind, size in sizes.most_common()))


def _tell_unsupported_types(report: Report, gguf: GgufFile) -> None:
    names: dict[str, list[str]] = defaultdict(list)
    for tensor in gguf.tensors.values():
        if not tensor.type.is_supported:
            names[tensor.type.name].append(tensor.name)
    for kind, found in names.items():
        more = f" and {len(found) - _MAX_NAMES:,} more" if len(found) > _MAX_NAMES else ""
        report.problems.append(f"type {kind} of {', '.join(found[:_MAX_NAMES])}{more} has no kernels")


def _tell_config(report: Report, config: ModelConfig) -> None:
    spec = config.spec
    report.add("family", f"{config.architecture}, {spec.num_layers} layers, {spec.num_parameters:,} "
                         f"parameters, {spec.vocab_size:,} tokens, context {spec.max_positions:,}")
    layers = Counter(described(layer) for layer in spec.layers)
    report.add("layers", *(f"{count} x {text}" for text, count in layers.items()))


def described(part: Any) -> str:
    """A dataclass of a Spec in words: what differs from its defaults."""
    if not is_dataclass(part):
        if isinstance(part, tuple):
            return f"{len(part)} numbers"
        return f"{part:.6g}" if isinstance(part, float) else str(part)
    told = [f"{item.name.replace('_', ' ')} {described(getattr(part, item.name))}" for item in fields(part)
            if item.default is MISSING or getattr(part, item.name) != item.default]
    return f"{type(part).__name__}({', '.join(told)})"


def _tell_weights(report: Report, config: ModelConfig, reader: WeightReader, engine: EngineConfig) -> None:
    if isinstance(reader, PlainReader):
        tensors = reader.folder.tensors.items()
        _tell_tensors(report, [(name, str(info.dtype).removeprefix("torch."), info.nbytes,
                                info.nbytes // info.dtype.itemsize) for name, info in tensors])
    infos = weight_infos(reader, config, engine.exact, keeps_groups=True)
    sizes: Counter[str] = Counter()
    for info in infos:
        sizes[info.kind] += info.nbytes
    kinds = ", ".join(f"{kind} {readable_size(size)}" for kind, size in sizes.most_common())
    report.add("weights", f"{reader.describe()}; in memory {kinds}")
    if isinstance(reader, GgufReader):
        _tell_widening(report, reader, sum(info.nbytes for info in infos))
    host = Place.on_host(cast(Any, None), free_memory())
    chunk = engine.prefill_chunk or default_prefill_chunk(host.device)
    plan, _ = spread(config, engine, infos, [host], chunk, 0, has_disk=True)
    report.add("memory", *plan.lines(), *([plan.warning] if plan.warning else []))


def _tell_widening(report: Report, reader: GgufReader, in_memory: int) -> None:
    """How much more memory the matrices take than in the file."""
    stored = sum(t.nbytes for t in reader.gguf.tensors.values() if len(t.shape) > 1)
    report.add("widening", f"matrices take {readable_size(stored)} in the file, {readable_size(in_memory)} "
                           f"in memory: {in_memory / max(1, stored):.2f} times as much")


def _tell_text(report: Report, tokenizer: Tokenizer) -> None:
    template = tokenizer.settings.template
    report.add("template", "none: plain `Name: text` lines" if template is None else
               f"{len(template):,} characters, from {tokenizer.settings.template_file}")
    ends = ", ".join(f"{tokenizer.token_text(i)} ({i:,})" for i in sorted(tokenizer.eos_ids))
    bos = "no BOS" if not tokenizer.with_bos([]) else f"BOS {tokenizer.with_bos([])[0]:,}"
    report.add("tokens", f"{tokenizer.vocab_size:,}; {bos}; stops at {ends or 'none'}")
