"""One run of the quantizer: check, read the calibration text, quantize, write, report."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.files import ModelLoadError
from model.model_config import ModelConfig
from model.quantize.calibration import Batch, make_batches, tokenize_documents
from model.quantize.decoder import longest_piece
from model.quantize.gptq import GridOptions
from model.quantize.layers import Walk, Way, check_sizes, quantize_layers_round
from model.quantize.progress import ProgressBar
from model.quantize.source import Source, open_source
from model.quantize.work import Records, Work
from model.quantize.writer import check_target, put_in_place, quantization_config, write_model
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer
from model.text.tokenizer_trial import check_tokenizer

REPOSITORY = Path(__file__).parents[2]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class QuantizeOptions:
    """How a run is made. The grid's options are those of the file; the rest is the way there."""

    grid: GridOptions = field(default_factory=GridOptions)
    method: str = "gptq"             # or "round"
    calibration: Path | None = None  # None: the source's calibration.txt, else Parlor's own texts
    samples: int = 64                # times seq_len: how many tokens of it are read
    seq_len: int = 512               # tokens of a document that are read in one piece
    correction: float = 0.5          # share of the earlier layers' errors that is made good
    awq: bool = False                # scale inputs, where the scales can be folded in
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

    @property
    def needs_text(self) -> bool:
        return self.method == "gptq" or self.awq


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
    source = open_source(folder)
    check_sizes(source.config, options.grid.bits)
    check_target(target, options.overwrite)
    progress(_title(source.config, options))
    batches = read_batches(source, options, progress) if options.needs_text else []
    work = Work(target, _settings(source, options, batches))
    try:
        records = work.walk("layers")
        _quantize_layers(source, batches, options, records, progress)
        layers = [records.tensors_of(index) for index in range(source.config.spec.num_layers)]
        shutil.rmtree(work.folder / "model", ignore_errors=True)
        size = write_model(work.folder / "model", source, layers, _section(options), options.shard_bytes)
        put_in_place(work.folder / "model", target)
    except BaseException:
        if work.is_empty:
            work.remove()
        else:
            progress(f"what is done is kept in {work.folder}; the same command goes on from there")
        raise
    work.remove()
    progress(f"{target}: {size / 1e6:.1f} MB in {time.monotonic() - started:.0f} s")


def _quantize_layers(source: Source, batches: list[Batch], options: QuantizeOptions, records: Records,
                     progress: Progress) -> None:
    """Those that are not done yet."""
    total, done = source.config.spec.num_layers, len(records.read())
    if done:
        progress(f"{done} of {total} layers are done already")
    with ProgressBar("layers", 2 * total, 2 * done) as bar:
        if not options.needs_text:
            layers = quantize_layers_round(source, options.grid, done)
        else:
            makes_good = options.method == "gptq"
            way = Way(makes_good, options.correction if makes_good else 0.0, options.awq)
            layers = Walk(source, batches, records.states, options.grid, way).layers(done, bar.step)
        for layer in layers:
            tensors = {f"{name}.{part}": tensor for name, matrix in layer.matrices.items()
                       for part, tensor in matrix.packed().items()}
            records.add(layer.index, {"errors": layer.errors, "seconds": round(layer.seconds, 2)},
                        tensors | layer.changed)
            bar.clear()
            errors = "".join(f"  {_short(name)} {error:.2%}" for name, error in layer.errors.items())
            progress(f"layer {layer.index + 1}/{total}{errors}  {layer.seconds:.1f} s")


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
            "awq": options.awq, "text": text.hexdigest()}


def _section(options: QuantizeOptions) -> dict[str, Any]:
    return quantization_config(options.grid, {"quantizer": ["parlor:1"], "method": options.method,
                                              "scale_search": options.grid.search,
                                              "correction": options.correction, "awq": options.awq})


def _title(config: ModelConfig, options: QuantizeOptions) -> str:
    grid = options.grid
    group = "one group a column" if grid.group_size == -1 else f"groups of {grid.group_size}"
    spec = config.spec
    inner = spec.layers[0].mlp.intermediate_size
    return (f"{config.name}: {spec.num_layers} layers of {spec.hidden_size} x {inner} "
            f"-> {grid.bits} bits, {group}, {'symmetric' if grid.symmetric else 'asymmetric'}"
            f"{', act-order' if grid.act_order else ''}, {options.method}{' with AWQ' * options.awq}")


def read_batches(source: Source, options: QuantizeOptions, progress: Progress) -> list[Batch]:
    """The calibration text as token ids; says what was taken."""
    name, text = calibration_text(source.folder, options.calibration)
    documents = tokenize_documents(text, load_tokenizer(source))
    length = min(options.seq_len, longest_piece(source.config.spec))
    batches = make_batches(documents, options.samples * length, length)
    top, vocab_size = max(int(batch.token_ids.max()) for batch in batches), source.config.spec.vocab_size
    if top >= vocab_size:
        raise ModelLoadError(f"the tokenizer gives token {top}, but config.json has a vocab_size of "
                             f"{vocab_size}; do they belong together?")
    tokens = sum(int(batch.is_text.sum()) for batch in batches)
    pieces = sum(len(batch.token_ids) for batch in batches)
    progress(f"calibration: {name}, {tokens:,} tokens in {pieces} pieces")
    inner = source.config.spec.layers[0].mlp.intermediate_size
    if tokens < inner:
        progress(f"note: that is less than the {inner} inputs of down_proj; "
                 "a longer text would give a better result")
    return batches


def load_tokenizer(source: Source) -> Tokenizer:
    check_tokenizer(source.folder)
    return Tokenizer.load(source.folder, TextSettings.from_folder(source.folder, source.config))


def calibration_text(folder: Path, path: Path | None) -> tuple[str, str]:
    """What the text is called, and the text. Without a file: the prose and the code of this repository."""
    if path is None and (folder / "calibration.txt").is_file():
        path = folder / "calibration.txt"
    if path is None:
        own = [REPOSITORY / "README.md"]
        for part in ("model", "webui", "tools"):
            own += sorted((REPOSITORY / part).rglob("*.py"))
        text = "\n".join(file.read_text(encoding="utf-8") for file in own if file.is_file())
        return "Parlor's own README and sources (give --calibration FILE for text like the model's)", text
    try:
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
