"""One run of the quantizer: check, read the calibration text, choose bits, quantize, write, report."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.machine import return_freed_memory
from model.model_config import ModelConfig
from model.quantize.bits import Choice, choose_bits
from model.quantize.calibration import Batch
from model.quantize.layers import Walk, Way, check_sizes, linear_groups, quantize_layers_round
from model.quantize.measuring import Measurement
from model.quantize.progress import ProgressBar
from model.quantize.report import ReportedLayer, write_report
from model.quantize.settings import QuantizeOptions
from model.quantize.source import Source, open_source
from model.quantize.text import Progress, read_batches
from model.quantize.work import Records, Work
from model.quantize.writer import check_target, put_in_place, quantization_config, write_model


def _print(line: str) -> None:
    print(line, flush=True)


@torch.inference_mode()
def quantize_folder(folder: Path, target: Path, options: QuantizeOptions,
                    progress: Progress = _print) -> None:
    """Read the model of `folder`, write its quantized version as `target`.

    What is done is kept in TARGET.partial until then, so that the same call goes on after one that broke off.
    The target appears whole or not at all.

    Raises ModelLoadError or ValueError if the model or an option does not fit, FileExistsError if the
    target exists or an unfinished run with other settings does, OSError if something cannot be written.
    """
    started = time.monotonic()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder, target = Path(folder), Path(target)
    if folder.resolve() == target.resolve():
        raise ValueError(f"source and target are both {folder}; choose another target")
    source = open_source(folder, rounds=not options.needs_text)
    if not options.has_mixed_bits:
        check_sizes(source.config, options.grid.bits)
    check_target(target, options.overwrite)
    progress(_title(source.config, options))
    batches = read_batches(source, options, progress) if options.needs_text else []
    return_freed_memory()  # of the tokenizer's offsets and words, hundreds of megabytes for a long text
    work = Work(target, _settings(source, options, batches))
    try:
        bits = _choose_bits(source, batches, options, work.walk("measured"), progress) \
            if options.has_mixed_bits else {}
        records = work.walk("layers")
        _quantize_layers(source, batches, options, bits, records, progress)
        size = _write(work.folder / "model", source, options, bits, records)
        put_in_place(work.folder / "model", target)
    except BaseException:
        if work.is_empty:
            work.remove()
        else:
            progress(f"what is done is kept in {work.folder}; the same command goes on from there")
        raise
    work.remove()
    progress(f"{target}: {size / 1e6:.1f} MB in {time.monotonic() - started:.0f} s")


def _choose_bits(source: Source, batches: list[Batch], options: QuantizeOptions, records: Records,
                 progress: Progress) -> dict[str, int]:
    """Of each linear, by what was measured on the float model."""
    total, done = source.config.spec.num_layers, len(records.read())
    measurement = Measurement(source, batches, records.states, options.grid, options.method == "gptq")
    with ProgressBar("measuring", 2 * total, 2 * done) as bar:
        for index, found in measurement.layers(done, bar.step):
            records.add(index, {"choices": {name: [[choice.bits, choice.nbytes, choice.error]
                                                   for choice in own] for name, own in found.items()}})
    choices = {name: [Choice(*numbers) for numbers in own]
               for record in records.read() for name, own in record["choices"].items()}
    for name, own in choices.items():
        if not own:
            raise ValueError(f"{name} fills whole words with no number of bits; GPTQ cannot hold it")
    chosen = choose_bits(choices, _budget(source, options, set(choices)))
    count = Counter(choice.bits for choice in chosen.values())
    taken = sum(choice.nbytes for choice in chosen.values())
    progress("bits of linears: " + ", ".join(f"{count[bits]} x {bits}" for bits in sorted(count))
             + f"; {8 * taken / _num_weights(source.config):.2f} bits a weight")
    return {name: choice.bits for name, choice in chosen.items()}


def _budget(source: Source, options: QuantizeOptions, linears: set[str]) -> int:
    """Bytes that the linears may take together."""
    if options.bits_per_weight is not None:
        return int(options.bits_per_weight * _num_weights(source.config) / 8)
    assert options.target_bytes is not None
    others = sum(info.nbytes for name, info in source.reader.folder.tensors.items()
                 if name.removesuffix(".weight") not in linears)
    if options.target_bytes <= others:
        raise ValueError(f"what is not quantized takes {others / 1e9:.2f} GB alone; the whole model was to "
                         f"take {options.target_bytes / 1e9:.2f}. Allow a larger size.")
    return options.target_bytes - others


def _num_weights(config: ModelConfig) -> int:
    """Of the linears."""
    return sum(group.n * group.k for index in range(config.spec.num_layers)
               for group in linear_groups(config, index))


def _quantize_layers(source: Source, batches: list[Batch], options: QuantizeOptions, bits: Mapping[str, int],
                     records: Records, progress: Progress) -> None:
    """Those that are not done yet."""
    total, done = source.config.spec.num_layers, len(records.read())
    if done:
        progress(f"{done} of {total} layers are done already")
    with ProgressBar("quantizing", 2 * total, 2 * done) as bar:
        if not options.needs_text:
            layers = quantize_layers_round(source, options.grid, done)
        else:
            makes_good = options.method == "gptq"
            way = Way(makes_good, options.correction if makes_good else 0.0, options.awq)
            layers = Walk(source, batches, records.states, options.grid, way, bits).layers(done, bar.step)
        for layer in layers:
            tensors = {f"{name}.{part}": tensor for name, matrix in layer.matrices.items()
                       for part, tensor in matrix.packed().items()}
            record = {"bits": {name: matrix.bits for name, matrix in layer.matrices.items()},
                      "errors": layer.errors}
            records.add(layer.index, record, tensors | layer.changed)
            bar.clear()
            errors = "".join(f"  {_short(name)} {error:.2%}" for name, error in layer.errors.items())
            progress(f"layer {layer.index + 1}/{total}{errors}  {layer.seconds:.1f} s")
            del layer, tensors  # before the next one is made


def _write(folder: Path, source: Source, options: QuantizeOptions, bits: Mapping[str, int],
           records: Records) -> int:
    """The model and the report; returns the bytes of its tensors."""
    shutil.rmtree(folder, ignore_errors=True)
    files = [records.tensors_of(index) for index in range(source.config.spec.num_layers)]
    meta = {"quantizer": ["parlor:1"], "method": options.method, "scale_search": options.grid.search,
            "correction": options.correction, "awq": options.awq}
    size = write_model(folder, source, files, quantization_config(options.grid, bits, meta),
                       options.shard_bytes)
    layers = [ReportedLayer(*({_short(name): value for name, value in record[key].items()}
                              for key in ("bits", "errors"))) for record in records.read()]
    write_report(folder, _title(source.config, options), layers,
                 {"source": source.config.name, "bytes": size, **asdict(options.grid), **meta})
    return size


def _short(module: str) -> str:
    """'q' of 'model.layers.3.self_attn.q_proj'"""
    return module.rpartition(".")[2].removesuffix("_proj")


def _settings(source: Source, options: QuantizeOptions, batches: list[Batch]) -> dict[str, Any]:
    """What the result depends on."""
    text = hashlib.sha256()
    for batch in batches:
        text.update(batch.token_ids.numpy().tobytes() + batch.is_text.numpy().tobytes())
    files = sorted({info.path for info in source.reader.folder.tensors.values()})
    return {"source": str(source.folder.resolve()),
            "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
            **asdict(options.grid), "method": options.method, "correction": options.correction,
            "awq": options.awq, "target_bytes": options.target_bytes,
            "bits_per_weight": options.bits_per_weight, "text": text.hexdigest()}


def _title(config: ModelConfig, options: QuantizeOptions) -> str:
    grid, spec = options.grid, config.spec
    group = "one group a column" if grid.group_size == -1 else f"groups of {grid.group_size}"
    inner = spec.layers[0].mlp.intermediate_size
    bits = f"{grid.bits} bits"
    if options.bits_per_weight is not None:
        bits = f"{options.bits_per_weight:g} bits a weight"
    elif options.target_bytes is not None:
        bits = f"{options.target_bytes / 1e9:g} GB"
    return (f"{config.name}: {spec.num_layers} layers of {spec.hidden_size} x {inner} "
            f"-> {bits}, {group}, {'symmetric' if grid.symmetric else 'asymmetric'}"
            f"{', act-order' if grid.act_order else ''}, {options.method}{' with AWQ' * options.awq}")
