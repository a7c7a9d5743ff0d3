"""The starter's sentencepiece tokenizer: 4,096 pieces, byte fallback, one symbol a role."""

import json
import re
from pathlib import Path
from random import Random

import sentencepiece

from tools.starter.corpus import document, facts
from tools.starter.corpus.render import BOS, CHAT_TEMPLATE, EOS, ROLE_TOKENS

VOCAB_SIZE = 4096
NUMBER_END = re.compile(r"(?<=\d)(?=[^\w\s])")  # cut there: "20." shall not become one piece
KNOWN_WORD_COPIES = 400  # enough for a merge of its own among the invented names
SPECIAL = re.compile("(" + "|".join(re.escape(token) for token in (BOS, EOS, *ROLE_TOKENS.values())) + ")")


def known_words() -> list[str]:
    """The words of the fact tables: each is to become one piece, or few."""
    tables = [facts.CAPITALS, facts.OPPOSITES, facts.SOUNDS, facts.BABIES, facts.COLOUR_OF, facts.FACTS]
    tables.append(facts.MAKES)
    words = {word for table in tables for pair in table.items() for text in pair for word in text.split()}
    words |= {word for row in facts.TRANSLATIONS.values() for text in row for word in text.split()}
    words |= {word for home in facts.HOMES.values() for word in home.split()}
    words |= {str(number) for number in range(21)}
    return sorted(words | set(facts.EMOJI_OF.values()))


def train_tokenizer(path: Path, seed: int, num_documents: int = 12000) -> None:
    """Train on the corpus and write `path`. Texts stay as they are: no normalization, no space in front."""
    rng = Random(seed)
    lines = [form for word in known_words() for form in (f" {word}", word)] * KNOWN_WORD_COPIES
    for _ in range(num_documents):
        for part in SPECIAL.split(document(rng).text):
            if part and not SPECIAL.fullmatch(part):
                lines.extend(line for line in NUMBER_END.sub("\n", part).split("\n") if line)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(path.with_suffix("")),
        vocab_size=VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        split_digits=False,  # so that 0 to 20 are pieces of their own, and sums are a table
        character_coverage=0.9995,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=list(ROLE_TOKENS.values()),
        num_threads=2,
        minloglevel=2,
        max_sentence_length=8192,
    )
    path.with_suffix(".vocab").unlink(missing_ok=True)


class Encoder:
    """Rendered text -> token ids, special tokens by their ids."""

    def __init__(self, path: Path) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.special = {token: self.pieces.piece_to_id(token) for token in (BOS, EOS, *ROLE_TOKENS.values())}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in SPECIAL.split(text):
            if part in self.special:
                ids.append(self.special[part])
            elif part:
                ids.extend(self.pieces.encode(part))
        return ids


def write_tokenizer_config(folder: Path, encoder: Encoder) -> None:
    """tokenizer_config.json as transformers reads it, with the chat template."""
    decoder = {
        str(number): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, number in {"<unk>": 0, **encoder.special}.items()
    }
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "sp_model_kwargs": {},
        "model_max_length": 2048,
        "additional_special_tokens": list(ROLE_TOKENS.values()),
        "added_tokens_decoder": decoder,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
