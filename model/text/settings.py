"""What a model folder's JSON files say about its text: special tokens, BOS and EOS, the chat template.

Reads files only; knows neither how text is encoded nor how a template is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, is_there, read_json, read_text
from model.model_config import ModelConfig

_MAX_TEMPLATE = 1 << 20
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class AddedToken:
    """A token outside the vocabulary file; lstrip, rstrip: it takes the white space before or after it."""

    token_id: int
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class TextSettings:
    """Settings of one model folder; None where the folder does not say."""

    special_tokens: dict[str, str] = field(default_factory=dict)  # "bos_token" -> "<s>", ...
    added_tokens: dict[str, AddedToken] = field(default_factory=dict)  # by text
    declared_special: frozenset[str] = frozenset()                     # texts that are said to be special
    add_bos: bool | None = None
    add_eos: bool | None = None
    legacy: bool | None = None
    tokenizer_class: str | None = None
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = frozenset()
    template: str | None = None
    template_file: str = ""

    @classmethod
    def from_folder(cls, folder: Path, model: ModelConfig | None = None) -> TextSettings:
        """Read what is there; BOS and EOS ids are those of `model`, config.json and generation_config.json.

        Raises ModelLoadError for a file that cannot be read.
        """
        config = _read_optional(folder / "tokenizer_config.json")
        special = _special_tokens(_read_optional(folder / "special_tokens_map.json") | config)
        added, declared = _added_tokens(config, _read_optional(folder / "added_tokens.json"))
        template, template_file = _template(folder, config)
        return cls(special_tokens=special, added_tokens=added,
                   declared_special=declared | frozenset(special.values()) | _extra_special(config),
                   add_bos=_flag(config, "add_bos_token"), add_eos=_flag(config, "add_eos_token"),
                   legacy=_flag(config, "legacy"), tokenizer_class=_text_of(config.get("tokenizer_class")),
                   bos_token_id=model.bos_token_id if model else None,
                   eos_token_ids=model.eos_token_ids if model else frozenset(),
                   template=template, template_file=template_file)


def _read_optional(path: Path) -> dict[str, Any]:
    """The object in a file, or {} where there is no file."""
    return read_json(path) if is_there(path) else {}


def _text_of(token: Any) -> str | None:
    """A token is written as its text, or as an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    texts = {name: _text_of(config.get(name)) for name in _SPECIAL_NAMES}
    return {name: text for name, text in texts.items() if text is not None}


def _extra_special(config: dict[str, Any]) -> frozenset[str]:
    """additional_special_tokens (transformers 4) and extra_special_tokens (5; a list or an object)."""
    found: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        found += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return frozenset(text for text in map(_text_of, found) if text)


def _added_tokens(config: dict[str, Any],
                  added_file: dict[str, Any]) -> tuple[dict[str, AddedToken], frozenset[str]]:
    """(text -> token, texts said to be special) from added_tokens.json and added_tokens_decoder."""
    added = {text: AddedToken(token_id) for text, token_id in added_file.items()
             if isinstance(token_id, int) and not isinstance(token_id, bool)}
    declared = set()
    decoder = config.get("added_tokens_decoder")
    for token_id, token in (decoder if isinstance(decoder, dict) else {}).items():
        text = _text_of(token)
        if text and token_id.isdecimal() and len(token_id) < 20:
            flags = token if isinstance(token, dict) else {}
            added[text] = AddedToken(int(token_id), flags.get("lstrip") is True, flags.get("rstrip") is True)
            if flags.get("special"):
                declared.add(text)
    return added, frozenset(declared)


def _flag(config: dict[str, Any], name: str) -> bool | None:
    value = config.get(name)
    return value if isinstance(value, bool) else None


def _template(folder: Path, config: dict[str, Any]) -> tuple[str | None, str]:
    """(source, file it is from); a file of its own comes before the key in tokenizer_config.json."""
    own = folder / "chat_template.jinja"
    if is_there(own):
        source, where = read_text(own, _MAX_TEMPLATE), own.name
    else:
        data, where = _read_optional(folder / "chat_template.json"), "chat_template.json"
        if "chat_template" not in data:
            data, where = config, "tokenizer_config.json"
        source = data.get("chat_template")
    if isinstance(source, list):  # named templates: [{"name", "template"}, ...]
        named = [t.get("template") for t in source if isinstance(t, dict) and t.get("name") == "default"]
        source = named[0] if named else None
    if source is not None and (not isinstance(source, str) or len(source) > _MAX_TEMPLATE):
        raise ModelLoadError(f"{folder / where}: chat_template is no text of up to 1 MiB.")
    return source, where if source is not None else ""
