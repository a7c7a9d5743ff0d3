"""A GGUF file's tokenizer and text settings, as model/text has them.

Knows both formats/ and text/, which know nothing of each other.
"""

from __future__ import annotations

from model.formats.gguf import GgufFile
from model.formats.gguf_tokenizer import read_text
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer


def tokenizer_of(gguf: GgufFile) -> Tokenizer:
    """Its `settings` hold the chat template. Raises ModelLoadError."""
    text = read_text(gguf)
    settings = TextSettings(
        special_tokens=text.special_tokens, declared_special=frozenset(text.special_tokens.values()),
        add_bos=text.add_bos, add_eos=text.add_eos, bos_token_id=text.bos_token_id,
        eos_token_ids=text.eos_token_ids, template=text.template,
        template_file=gguf.path.name if text.template is not None else "")
    return Tokenizer.from_contents(gguf.path, settings, json=text.json, sentencepiece=text.sentencepiece)
