"""Which text a model is calibrated on: a file, the source's own, or this program's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.files import ModelLoadError
from model.quantize.calibration import Batch, make_batches, tokenize_documents
from model.quantize.decoder import longest_piece
from model.quantize.settings import QuantizeOptions
from model.quantize.source import Source
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer
from model.text.tokenizer_trial import check_tokenizer

REPOSITORY = Path(__file__).parents[2]

Progress = Callable[[str], None]


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
