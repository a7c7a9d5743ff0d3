"""One run of the quantizer: check, read the calibration text, quantize, write, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from model.quantize.calibration import load_encoder, make_windows, split_documents
from model.quantize.gptq import GridOptions
from model.quantize.layers import QuantizedLayer, check_sizes, quantize_layers_gptq, quantize_layers_round
from model.quantize.source import LlamaConfig, ModelSourceError, TensorFolder, read_config
from model.quantize.writer import FolderWriter, quantization_config

REPOSITORY = Path(__file__).parents[2]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeOptions:
    """How a run is made. The grid's options are those of the file; the rest is the way there."""

    grid: GridOptions = field(default_factory=GridOptions)
    method: str = "gptq"             # or "round"
    calibration: Path | None = None  # None: the source's calibration.txt, else Parlor's own texts
    samples: int = 128
    seq_len: int = 512
    correction: float = 0.5          # share of the earlier layers' errors that is made good
    threads: int | None = None
    shard_bytes: int = 4_000_000_000
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("gptq", "round"):
            raise ValueError(f"method is {self.method!r}; expected 'gptq' or 'round'")
        ranges = (("samples", 1, 1 << 20), ("seq_len", 16, 1 << 20), ("shard_bytes", 1 << 16, 1 << 45))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if not 0 <= self.correction <= 1:
            raise ValueError(f"correction is {self.correction}; expected a share from 0 to 1")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ValueError(f"threads is {self.threads}; expected 1 to 1024")
        if self.method == "round" and self.grid.act_order:
            raise ValueError("act-order is an order of GPTQ's error propagation; rounding has none")


def _print(line: str) -> None:
    print(line, flush=True)


@torch.inference_mode()
def quantize_folder(source: Path, target: Path, options: QuantizeOptions,
                    progress: Progress = _print) -> None:
    """Read the model of `source`, write its quantized version as `target`.

    Raises ModelSourceError or ValueError if the model or an option does not fit, FileExistsError if the
    target exists, OSError if it cannot be written. The target appears whole or not at all.
    """
    started = time.monotonic()
    source, target = Path(source), Path(target)
    if options.threads:
        torch.set_num_threads(options.threads)
    config, raw_config = read_config(source)
    tensors = TensorFolder(source)
    check_sizes(config, options.grid.bits)
    if source.resolve() == target.resolve():
        raise ValueError(f"source and target are both {source}; choose another target")
    grid = options.grid
    progress(f"{source}: {config.num_layers} layers of {config.hidden_size} x {config.intermediate_size} "
             f"-> {grid.bits} bits, {_group_text(grid)}, {'symmetric' if grid.symmetric else 'asymmetric'}"
             f"{', act-order' if grid.act_order else ''}, {options.method}")
    with FolderWriter(target, options.overwrite, options.shard_bytes) as writer:
        packed = set()
        for layer in _with_progress(_layers(source, tensors, config, options, progress), config, progress):
            for name, matrix in layer.matrices.items():
                packed.add(f"{name}.weight")
                writer.add({f"{name}.{part}": tensor for part, tensor in matrix.packed().items()})
        for name in tensors.names():
            if name not in packed:
                writer.add({name: tensors.load(name)})
        section = quantization_config(grid, {"quantizer": ["parlor:1"], "method": options.method,
                                             "scale_search": grid.search})
        writer.write_json("config.json", {**raw_config, "quantization_config": section})
        writer.write_json("quantize_config.json", section)
        writer.copy_companions(source)
    progress(f"{target}: {writer.total_bytes / 1e6:.1f} MB in {time.monotonic() - started:.0f} s")


def _group_text(grid: GridOptions) -> str:
    return "one group a column" if grid.group_size == -1 else f"groups of {grid.group_size}"


def _layers(source: Path, tensors: TensorFolder, config: LlamaConfig, options: QuantizeOptions,
            progress: Progress) -> Iterator[QuantizedLayer]:
    if options.method == "round":
        return quantize_layers_round(tensors, config, options.grid)
    windows = read_windows(source, config, options, progress)
    return quantize_layers_gptq(tensors, config, windows, options.grid, options.correction)


def read_windows(source: Path, config: LlamaConfig, options: QuantizeOptions, progress: Progress) -> Tensor:
    """The calibration text as token ids, int64 [windows, length]; says what was taken."""
    name, text = calibration_text(source, options.calibration)
    encoder = load_encoder(source)
    documents = split_documents(encoder.encode(text), encoder.bos_token_id)
    windows = make_windows(documents, options.samples, min(options.seq_len, config.max_seq_len))
    if int(windows.max()) >= config.vocab_size:
        raise ModelSourceError(f"the tokenizer gives token {int(windows.max())}, but config.json has a "
                               f"vocab_size of {config.vocab_size}; do they belong together?")
    count, length = windows.shape
    progress(f"calibration: {name}, {windows.numel():,} tokens in {count} windows of {length}")
    if windows.numel() < config.intermediate_size:
        progress(f"note: fewer tokens than the {config.intermediate_size} inputs of down_proj; "
                 "a longer text would give a better result")
    return windows


def calibration_text(source: Path, path: Path | None) -> tuple[str, str]:
    """What the text is called, and the text. Without a file: the prose and the code of this repository."""
    if path is None and (source / "calibration.txt").is_file():
        path = source / "calibration.txt"
    if path is None:
        own = [REPOSITORY / "README.md"]
        for folder in ("model", "webui", "tools"):
            own += sorted((REPOSITORY / folder).rglob("*.py"))
        text = "\n".join(file.read_text(encoding="utf-8") for file in own if file.is_file())
        return "Parlor's own README and sources (give --calibration FILE for text like the model's)", text
    try:
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def _with_progress(layers: Iterator[QuantizedLayer], config: LlamaConfig,
                   progress: Progress) -> Iterator[QuantizedLayer]:
    """One line a layer: the relative error of each output, the time, what is left."""
    started = time.monotonic()
    for layer in layers:
        done = layer.index + 1
        left = (time.monotonic() - started) / done * (config.num_layers - done)
        errors = "".join(f"  {site} {error:.2%}" for site, error in layer.errors.items())
        progress(f"layer {done}/{config.num_layers}{errors}  {layer.seconds:.1f} s, about {left:.0f} s left")
        yield layer
