"""From a model's folder or file to a ChatModel. Light to import: torch and tokenizers come with the call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.advice import Advice, advice_of_folder, advice_of_gguf
from model.chat_model import ChatModel
from model.config import EngineConfig
from model.files import ModelLoadError
from model.formats.gguf_parts import find_gguf
from model.model_config import ModelConfig
from model.model_path import find_model
from model.text.messages import ChatMessage

if TYPE_CHECKING:
    from model.text.chat_template import PromptFormat
    from model.text.tokenizer import Tokenizer


def load_model(path: str | Path, config: EngineConfig | None = None, *, name: str = "",
               progress: Callable[[str, float], None] | None = None,
               report: Callable[[str], None] | None = None, **options: Any) -> ChatModel:
    """Load a GGUF file, or a folder: config.json, the weights, a tokenizer and, if there is one, a template.

    config   how the engine is to run
    name     what it is called; without one its file or folder says
    options  fields of EngineConfig by their names, instead: load_model(path, device="cpu", cache="q8")

    `report(line)` is called with the table of what memory it will take, then `progress(what, share)` while it
    loads. Raises ModelLoadError with what is wrong and what to do, ValueError for an option out of its range.
    """
    path = find_model(Path(path))
    config = replace(config or EngineConfig(), **options)
    if config.draft is not None:
        config = replace(config, draft=find_model(Path(config.draft)))
    file = find_gguf(path)
    if file is None:
        ModelConfig.from_folder(path)  # what is wrong there is told at once
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(_load_text, file or path, config.draft)
        from model.engine.loading import load_engine  # takes seconds, for torch
        tokenizer, prompt_format, advice = loading.result()
    try:
        engine = load_engine(file or path, config, progress, report=report, name=name)
        return ChatModel(engine, tokenizer, prompt_format, advice)
    except BaseException:
        prompt_format.close()
        raise


def _load_text(path: Path, draft: Path | None) -> tuple[Tokenizer, PromptFormat, Advice]:
    """What turns messages into tokens, and how to sample. The chat template's process runs when this
    returns."""
    from model.text.chat_template import ChatTemplate, PlainFormat

    tokenizer, advice = _tokenizer_and_advice(path)
    if draft is not None:
        _check_draft_tokens(tokenizer, draft)
    settings = tokenizer.settings
    prompt_format: PromptFormat = PlainFormat(tokenizer)
    if settings.template is not None:
        where = path if path.is_file() else path / settings.template_file
        prompt_format = ChatTemplate(settings.template, str(where), tokenizer)
    if path.is_dir():
        try:
            _check_vocabulary(tokenizer, prompt_format, path)
        except BaseException:
            prompt_format.close()
            raise
    return tokenizer, prompt_format, advice


def load_tokenizer(path: Path) -> Tokenizer:
    """Of a folder or a GGUF file."""
    return _tokenizer_and_advice(path)[0]


def _tokenizer_and_advice(path: Path) -> tuple[Tokenizer, Advice]:
    file = find_gguf(path)
    if file is not None:
        from model.formats.gguf import GgufFile
        from model.gguf_text import check_gguf_tokenizer, tokenizer_of
        gguf = GgufFile(file)
        check_gguf_tokenizer(gguf)
        return tokenizer_of(gguf), advice_of_gguf(gguf.metadata)
    from model.text.settings import TextSettings
    from model.text.tokenizer import Tokenizer
    from model.text.tokenizer_trial import check_tokenizer
    check_tokenizer(path)
    settings = TextSettings.from_folder(path, ModelConfig.from_folder(path))
    return Tokenizer.load(path, settings), advice_of_folder(path)


def _check_vocabulary(tokenizer: Tokenizer, prompt_format: PromptFormat, path: Path) -> None:
    """Raises ModelLoadError if every prompt would have a token for which there are no weights."""
    size = ModelConfig.from_folder(path).spec.vocab_size
    prompt = prompt_format.prompt([ChatMessage("user", "Hello")])
    beyond = {token_id for token_id in tokenizer.with_bos(tokenizer.encode_masked(prompt.text, prompt.hidden))
              if token_id >= size}
    if beyond:
        names = ", ".join(f"{tokenizer.token_text(token_id)} ({token_id:,})" for token_id in sorted(beyond))
        raise ModelLoadError(f"{path}: each prompt has the token {names:.200}, and the weights have only "
                             f"{size:,} tokens. Copy the tokenizer's files and the chat template from the "
                             "model that the weights are of.")


def _check_draft_tokens(tokenizer: Tokenizer, draft: Path) -> None:
    if difference := tokenizer.first_difference(load_tokenizer(draft)):
        raise ModelLoadError(f"The draft model in {draft} has other tokens than the model: {difference}. "
                             "Use a smaller model of the same family, or none.")
