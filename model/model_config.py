"""What a model's files say of it, checked: its family's Spec, the names of its weights, its special tokens.

Knows config.json and GGUF's keys; nothing of tensors. Every number has a range, so that an absurd file is an
error before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.families.fields import Fields
from model.families.gguf_keys import Numbers, config_of, plain
from model.families.names import Names
from model.families.other_models import VECTORS, check_config, check_gguf
from model.families.registry import family_of_config, family_of_gguf
from model.families.spec import DynamicRope, Rope, Spec
from model.files import ModelLoadError, is_there, read_json
from model.model_path import model_name

_OF_VECTORS = "modules.json"
"""What folders of embedding models have besides a model, whose config.json may be that of one that chats."""


@dataclass(frozen=True)
class ModelConfig:
    """`quantization` is the raw block of config.json."""

    name: str
    architecture: str  # the family's name
    spec: Spec
    names: Names
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    quantization: dict[str, Any] | None = None
    is_text_part: bool = False  # of a model that also sees or hears, which is left out
    is_gguf: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read config.json and generation_config.json. Raises ModelLoadError."""
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise ModelLoadError(f"{folder} {what}; expected a folder with config.json, the tokenizer and "
                                 "*.safetensors")
        raw = read_json(folder / "config.json")
        if is_there(folder / _OF_VECTORS):
            raise ModelLoadError(f"{model_name(folder.resolve())} {VECTORS}")
        generation_path = folder / "generation_config.json"
        generation = read_json(generation_path) if is_there(generation_path) else {}
        return cls.from_dict(raw, generation, model_name(folder.resolve()))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], generation: dict[str, Any], name: str) -> ModelConfig:
        """Check the contents of the two files. Raises ModelLoadError."""
        check_config(raw)
        family = family_of_config(raw)
        text = _text_part(Fields(raw))
        spec = _stretched(family.from_config(text))
        quantization = raw.get("quantization_config")
        if quantization is not None and not isinstance(quantization, dict):
            raise text.error("quantization_config", quantization, "an object")
        sees = any(raw.get(key) is not None for key in ("text_config", "vision_config"))
        return cls(name, family.name, spec, family.names,
                   bos_token_id=min(_token_ids(text, "bos_token_id", spec.vocab_size), default=None),
                   eos_token_ids=_token_ids(text, "eos_token_id", spec.vocab_size)
                   | _token_ids(Fields(generation), "eos_token_id", spec.vocab_size),
                   quantization=quantization, is_text_part=sees)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], numbers: Numbers, file: Path) -> ModelConfig:
        """From the keys of a GGUF file.

        numbers  reads a small tensor of RoPE divisors by its name; None where there is none

        Raises ModelLoadError.
        """
        name = file.name
        check_gguf(metadata, name)
        family, gguf = family_of_gguf(metadata.get("general.architecture"), name)
        fields = Fields(config_of(metadata, gguf, numbers, name), name)
        spec = family.from_config(fields)
        if gguf.interleaved:
            spec = _interleaved(spec)
        tokens = {key: plain(metadata.get(f"tokenizer.ggml.{key}")) for key in (
            "bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id")}
        ids = Fields(tokens, name)
        return cls(file.stem, family.name, replace(spec, tied_head=None), gguf.names,
                   bos_token_id=min(_token_ids(ids, "bos_token_id", spec.vocab_size), default=None),
                   eos_token_ids=frozenset().union(*(_token_ids(ids, key, spec.vocab_size) for key in tokens
                                                     if key != "bos_token_id")), is_gguf=True)


def _stretched(spec: Spec) -> Spec:
    """The context that a dynamic RoPE reaches."""
    factors = [rope.long.factor for attention in spec.attentions
               if (rope := attention.rope) is not None and isinstance(rope.long, DynamicRope)]
    return replace(spec, max_positions=int(spec.max_positions * min(factors, default=1.0)))


def _text_part(fields: Fields) -> Fields:
    """The text model's config, which is all of it unless images or sounds belong to the model, too."""
    text = fields.object("text_config")
    if text is None:
        return fields
    shared = ("tie_word_embeddings", "bos_token_id", "eos_token_id")
    return replace(text, raw={**{key: fields.raw[key] for key in shared if key in fields.raw}, **text.raw})


def _interleaved(spec: Spec) -> Spec:
    """The same with RoPE of neighbouring pairs, for files whose queries and keys are in that order."""
    def turned(rope: Rope | None) -> Rope | None:
        return None if rope is None else replace(rope, interleaved=True)

    return replace(spec, layers=tuple(
        layer.with_attention(rope=turned(layer.attention.rope)) if layer.attention is not None else layer
        for layer in spec.layers))


def _token_ids(fields: Fields, key: str, vocab_size: int) -> frozenset[int]:
    """One id, a list of them, or null. An id beyond the vocabulary can never be sampled and is left out."""
    value = fields.raw.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > 1024:
        raise fields.error(key, ids, "at most 1,024 token ids")
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not -1 <= token_id < 1 << 31:
            raise fields.error(key, token_id, f"token ids from 0 to {vocab_size - 1:,}")
    return frozenset(token_id for token_id in ids if 0 <= token_id < vocab_size)
