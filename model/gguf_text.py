"""A GGUF file's tokenizer and text settings, as model/text has them; its trial in a process with limits.

Knows both formats/ and text/, which know nothing of each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.formats.gguf import GgufFile
from model.formats.gguf_tokenizer import read_text
from model.text.limited_process import ProcessLimits, serve
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer
from model.text.tokenizer_trial import TRIAL_LIMITS, check_tokenizer, problem_of


def tokenizer_of(gguf: GgufFile) -> Tokenizer:
    """Its `settings` hold the chat template. Raises ModelLoadError."""
    text = read_text(gguf)
    settings = TextSettings(
        special_tokens=text.special_tokens, declared_special=frozenset(text.special_tokens.values()),
        add_bos=text.add_bos, add_eos=text.add_eos, bos_token_id=text.bos_token_id,
        eos_token_ids=text.eos_token_ids, template=text.template,
        template_file=gguf.path.name if text.template is not None else "")
    return Tokenizer.from_contents(gguf.path, settings, json=text.json, sentencepiece=text.sentencepiece)


def check_gguf_tokenizer(gguf: GgufFile, limits: ProcessLimits = TRIAL_LIMITS) -> None:
    """As check_tokenizer, where pieces and a map of characters go to sentencepiece, which is C++.

    Of the others this program writes the rules itself; only the vocabulary is the file's.
    """
    if gguf.metadata.get("tokenizer.ggml.model") in ("llama", "t5"):
        check_tokenizer(gguf.path, limits, "model.gguf_text")


def answer(file: Any) -> str:
    """What is wrong with a GGUF file's tokenizer."""
    return problem_of(Path(file), lambda path: tokenizer_of(GgufFile(path)))


if __name__ == "__main__":
    serve(answer)
