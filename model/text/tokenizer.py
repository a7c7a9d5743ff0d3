"""A model's tokenizer: text <-> token ids, with BOS and EOS by the model's own settings.

tokenizer.json, or what tiktoken.model comes to, is read by tokenizers, tokenizer.model by sentencepiece;
where a folder has several, tokenizer.json counts, as with transformers. Control tokens (`<s>`, `<|im_end|>`)
in text are recognised only where the caller trusts the text. Safe to use from several threads. Knows nothing
of messages or templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, is_there
from model.text.detokenizer import Detokenizer
from model.text.json_backend import JsonBackend
from model.text.masking import Mask
from model.text.sentencepiece_backend import SentencePieceBackend
from model.text.settings import TextSettings
from model.text.thinking import think_format
from model.text.tiktoken_file import tokenizer_json

_ALWAYS_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_MARKUP = re.compile(r"[<\[].+[>\]]", re.DOTALL)

# Ends of a turn that some folders forget to list as EOS.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|endoftext|>",
                "<|end_of_text|>", "<|eot|>")
_MAX_CONTROL = 1024           # characters
_MAX_CONTROL_PARTS = 1 << 26  # the squares of their lengths; 6,000 tokens like <unused123> have a million
_ANCHOR = "\x02"  # a character that no tokenizer joins to what follows it
_CACHED_TEXTS = 4096  # a chat's messages are counted, and searched for control tokens, at every turn


class Tokenizer:
    """Text <-> token ids of one model."""

    def __init__(self, backend: JsonBackend | SentencePieceBackend, settings: TextSettings) -> None:
        self._backend = backend
        self.settings = settings
        self.vocab_size = len(backend.token_bytes)
        self.control_ids = backend.control_ids
        self._marks = think_format(settings.template)
        shown = frozenset(token_id for token_id in backend.control_ids
                          if any(self._text(token_id) in mark for mark in self._marks.marks))
        self._hidden = frozenset(
            token_id for token_id in backend.control_ids - shown
            if token_id in backend.special_ids or self._text(token_id) in settings.declared_special
            or _ALWAYS_CONTROL.fullmatch(self._text(token_id)))
        prefix, suffix = backend.prefix_ids, backend.suffix_ids
        self.bos_id = self._id_of("bos_token", settings.bos_token_id)
        self.eos_ids = self._find_eos()
        if settings.add_bos is not None:
            prefix = [self.bos_id] if settings.add_bos and self.bos_id is not None else []
        if settings.add_eos is not None:
            eos = self._id_of("eos_token", None)
            suffix = [eos] if settings.add_eos and eos is not None else []
        self._prefix, self._suffix = list(prefix), list(suffix)
        self.special_tokens = self._template_tokens()
        _check_control([self._text(token_id) for token_id in self.control_ids])
        self.control_parts = _parts([self._text(token_id) for token_id in self.control_ids])
        """(proper beginnings, proper ends, greatest length) of the control tokens' texts."""
        self._inspect = lru_cache(_CACHED_TEXTS)(partial(_inspected, backend))  # not self: a cycle stays long

    @classmethod
    def load(cls, folder: Path, settings: TextSettings | None = None) -> Tokenizer:
        """The tokenizer of a model folder. Raises ModelLoadError if there is none or it cannot be read."""
        settings = settings or TextSettings.from_folder(folder)
        is_control = _control_test(settings)
        if is_there(folder / "tokenizer.json"):
            return cls(JsonBackend(folder / "tokenizer.json", is_control, settings.legacy is False), settings)
        if is_there(folder / "tokenizer.model"):
            return cls(SentencePieceBackend(folder / "tokenizer.model", settings.added_tokens,
                                            settings.legacy is not False, is_control), settings)
        if is_there(folder / "tiktoken.model"):
            return cls.from_contents(folder / "tiktoken.model", settings,
                                     json=tokenizer_json(folder / "tiktoken.model", settings))
        raise ModelLoadError(f"{folder}: no tokenizer; expected tokenizer.json or tokenizer.model beside the "
                             f"weights. {_what_to_do(folder)}")

    @classmethod
    def from_contents(cls, path: Path, settings: TextSettings, *, json: dict[str, Any] | None = None,
                      sentencepiece: bytes | None = None) -> Tokenizer:
        """Of what a tokenizer.json or a tokenizer.model would hold, made from the file `path`.

        Raises ModelLoadError if it cannot be read.
        """
        is_control = _control_test(settings)
        if json is not None:
            return cls(JsonBackend(path, is_control, False, json), settings)
        return cls(SentencePieceBackend(path, {}, True, is_control, sentencepiece), settings)

    def encode(self, text: str, add_bos: bool | None = None, add_eos: bool | None = None,
               control: bool = True) -> list[int]:
        """Token ids of `text`; BOS and EOS as the model has it, unless said.

        control=False: text that looks like a control token stays text.
        """
        _check_text(text)
        if control:
            ids = self._backend.encode(text, {})
        else:
            mask = Mask([text], self)
            ids = self._backend.encode(mask.hide(text), mask.hidden)
        prefix = self._prefix if add_bos is None else self._wanted(add_bos, self._prefix, self.bos_id)
        suffix = self._suffix if add_eos is None else self._wanted(add_eos, self._suffix,
                                                                   self._id_of("eos_token", None))
        return [*prefix, *ids, *suffix]

    def encode_within(self, text: str, control: bool = False) -> list[int]:
        """Token ids of `text` as it stands in the middle of another: nothing is put in front of it.

        Text that looks like a control token stays text, unless `control`. Where the vocabulary cannot spell
        all of it, the ids of what comes before that.
        """
        head = self.encode(_ANCHOR, add_bos=False, add_eos=False, control=False)
        ids = self.encode(_ANCHOR + text, add_bos=False, add_eos=False, control=control)
        rest, data = ids[len(head):], text.encode()
        if ids[:len(head)] == head and b"".join(map(self.token_bytes, rest)) == data:
            return rest
        if control:
            return self.encode(text, add_bos=False, add_eos=False)
        return self._spelt(data)  # normalizers that drop the anchor, vocabularies that do not know it

    def ids_of(self, tokens: Iterable[bytes]) -> list[int] | None:
        """The ids of tokens by their bytes; None if one of them is no token that texts are made of."""
        ids = [self._by_bytes.get(data) for data in tokens]
        return None if None in ids else ids  # type: ignore[return-value]

    def _spelt(self, data: bytes) -> list[int]:
        """The longest tokens that spell `data` from its start, as far as there are any."""
        ids, at = [], 0
        while at < len(data):
            sizes = range(min(self._longest_token, len(data) - at), 0, -1)
            token_id = next((self._by_bytes[data[at:at + size]] for size in sizes
                             if data[at:at + size] in self._by_bytes), None)
            if token_id is None:
                break
            ids.append(token_id)
            at += len(self.token_bytes(token_id))
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {data: token_id for token_id, data in enumerate(self._backend.token_bytes)
                if data and token_id not in self.control_ids}

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._by_bytes), default=0)

    def encode_masked(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        """Token ids of a rendered prompt whose messages were hidden by a Mask; no BOS or EOS is added."""
        _check_text(text)
        return self._backend.encode(text, hidden)

    def with_bos(self, token_ids: list[int]) -> list[int]:
        """`token_ids` after BOS, if the model wants it."""
        return [*self._prefix, *token_ids]

    def decode(self, token_ids: Iterable[int], skip_control: bool = True) -> str:
        """The text of token ids."""
        stream = Detokenizer(self._backend.token_bytes, self._hidden if skip_control else frozenset(),
                             self._backend.strips_leading_space)
        return "".join([stream.push(token_id) for token_id in token_ids]) + stream.finish()

    def detokenizer(self, shown: Iterable[str] = ()) -> Detokenizer:
        """A stream for text that goes on after a prompt: its leading space stays. `shown`: control tokens
        that are not hidden in it."""
        return Detokenizer(self._backend.token_bytes, self._hidden - {self.token_id(text) for text in shown})

    def control_spans(self, text: str) -> list[tuple[int, int]]:
        """Where control tokens would be recognised in `text`: (start, end) in characters."""
        return self._inspect(text)[1]

    def count(self, text: str) -> int:
        """How many tokens `text` has, without BOS and EOS."""
        return self._inspect(text)[0]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, a control token's name included."""
        return self._backend.token_bytes[token_id]

    def token_text(self, token_id: int) -> str:
        """The same as text; U+FFFD where it is only a part of a character."""
        return self._text(token_id) if token_id < self.vocab_size else ""

    def first_difference(self, other: Tokenizer) -> str:
        """What is not the same in another tokenizer's tokens, in words; "" if all are."""
        if self.vocab_size != other.vocab_size:
            return f"there are {self.vocab_size:,} tokens and {other.vocab_size:,}"
        pairs = zip(self._backend.token_bytes, other._backend.token_bytes, strict=True)
        return next((f"token {token_id} is {ours!r} and {theirs!r}"
                     for token_id, (ours, theirs) in enumerate(pairs) if ours != theirs), "")

    def token_id(self, text: str) -> int | None:
        """The id of the token written `text`."""
        return self._backend.ids.get(text)

    @staticmethod
    def _wanted(add: bool, by_model: list[int], token_id: int | None) -> list[int]:
        if not add:
            return []
        return by_model or ([] if token_id is None else [token_id])

    def _text(self, token_id: int) -> str:
        return self._backend.token_bytes[token_id].decode(errors="replace")

    def _id_of(self, name: str, otherwise: int | None) -> int | None:
        token_id = self._backend.ids.get(self.settings.special_tokens.get(name, ""))
        if token_id is None and otherwise is not None and otherwise < self.vocab_size:
            token_id = otherwise
        return token_id if token_id is not None else self._backend.default_ids.get(name)

    def _find_eos(self) -> frozenset[int]:
        """Every token that ends a reply: the folder's, the tokenizer's own, and well-known ends of a turn;
        but for one that closes a thought (gpt-oss writes <|end|> after it)."""
        own = self._id_of("eos_token", None)
        known = {self._backend.ids[text] for text in _END_OF_TURN if text in self._backend.ids}
        found = self.settings.eos_token_ids | (known & self.control_ids) | {i for i in [own] if i is not None}
        return found - {self._backend.ids.get(self._marks.close)}

    def _template_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, ...: what templates are given; "" for one that there is not."""
        tokens = {"bos_token": "", "eos_token": ""} | self.settings.special_tokens
        if self.bos_id is not None:
            tokens["bos_token"] = self._text(self.bos_id)
        eos = self._id_of("eos_token", min(self.eos_ids, default=None))
        if eos is not None:
            tokens["eos_token"] = self._text(eos)
        return tokens


def _control_test(settings: TextSettings) -> Callable[..., bool]:
    """is_control(text, special=False): whether a token belongs to the model's format, not to texts."""
    def is_control(text: str, special: bool = False) -> bool:
        in_template = bool(_MARKUP.fullmatch(text)) and text in (settings.template or "")
        return bool(special or text in settings.declared_special or in_template
                    or _ALWAYS_CONTROL.fullmatch(text))

    return is_control


def _what_to_do(folder: Path) -> str:
    """Where a folder has neither tokenizer.json nor tokenizer.model."""
    if is_there(folder / "vocab.json") and is_there(folder / "merges.txt"):
        return ("It has vocab.json and merges.txt, an older form. Make tokenizer.json of them with "
                "transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)")
    return "Copy it from the original model; those who quantize models often leave it out."


def _check_text(text: str) -> None:
    """Raises ValueError for half a surrogate pair, as JavaScript has it of a text cut inside an emoji."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text has half a character, U+{ord(text[error.start]):04X}, at "
                         f"{error.start:,}; expected whole ones") from None


def _inspected(backend: JsonBackend | SentencePieceBackend, text: str) -> tuple[int, list[tuple[int, int]]]:
    _check_text(text)
    return backend.inspect(text)


def _check_control(texts: list[str]) -> None:
    """Their beginnings and ends are kept, which is as many characters as the square of their lengths."""
    longest, total = max(map(len, texts), default=0), sum(len(text) ** 2 for text in texts)
    if longest > _MAX_CONTROL or total > _MAX_CONTROL_PARTS:
        raise ModelLoadError(f"the tokenizer has {len(texts):,} control tokens of up to {longest:,} "
                             f"characters; at most {_MAX_CONTROL:,} are possible. Download it again.")


def _parts(texts: Iterable[str]) -> tuple[frozenset[str], frozenset[str], int]:
    cuts = [(text[:at], text[at:]) for text in texts for at in range(1, len(text))]
    heads, tails = frozenset(head for head, _ in cuts), frozenset(tail for _, tail in cuts)
    return heads, tails, max(map(len, heads), default=0)
