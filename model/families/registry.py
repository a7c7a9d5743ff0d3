"""Every family: each module of this folder that has FAMILIES. Finds the one that a config names."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import model.families
from model.config import shown
from model.families.family import Family, Gguf
from model.files import ModelLoadError

AROUND_TEXT = tuple(f"{name}ForConditionalGeneration" for name in (
    "AyaVision", "Cohere2Vision", "Exaone4_5_", "FastVlm", "InternVL", "LightOnOcr", "Llava", "LlavaNext",
    "LlavaOnevision", "Mistral3", "Qwen2Audio", "VideoLlama3", "VipLlava", "Voxtral"))
"""See or hear beside a text model of any family, which `text_config` tells."""


@functools.cache
def families() -> tuple[Family, ...]:
    """By name."""
    modules = (importlib.import_module(f"model.families.{found.name}")
               for found in pkgutil.iter_modules(model.families.__path__))
    return tuple(sorted((family for module in modules for family in getattr(module, "FAMILIES", ())),
                        key=lambda family: family.name))


def family_named(name: str) -> Family:
    """By `Family.name`."""
    return next(family for family in families() if family.name == name)


def family_of_config(raw: dict[str, Any]) -> Family:
    """By `architectures`, or by model_type where there is none. Raises ModelLoadError."""
    names, by_name = raw.get("architectures"), {family.name: family for family in families()}
    text = raw.get("text_config")
    if isinstance(names, list) and names:
        known = {name: family for family in families() for name in family.architectures}
        found, key = names[0], "architectures"
        if found in AROUND_TEXT and isinstance(text, dict) and (text.get("model_type") in by_name
                                                                or found not in known):
            found, known, key = text.get("model_type"), by_name, "text_config.model_type"
    else:
        found, known, key = raw.get("model_type"), by_name, "architectures"
    if isinstance(found, str) and found in known:
        return known[found]
    raise ModelLoadError(f"config.json: {key} is {shown(found)}; expected one of these families: "
                         f"{_first_of_each(by_name)}")


def family_of_gguf(architecture: Any, source: str) -> tuple[Family, Gguf]:
    """By general.architecture. Raises ModelLoadError."""
    known = {name: (family, family.gguf) for family in families() if family.gguf
             for name in family.gguf.architectures}
    if isinstance(architecture, str) and architecture in known:
        return known[architecture]
    raise ModelLoadError(f"{source}: general.architecture is {shown(architecture)}; "
                         f"expected one of {_first_of_each(known)}")


def _first_of_each(names: Iterable[str]) -> str:
    """In a sentence that can be read: a name stands for those that begin with it, as qwen for qwen3_moe."""
    first: list[str] = []
    for name in sorted(names):
        if not first or not name.startswith(first[-1]):
            first.append(name)
    return f"{', '.join(first)} (and most that are named after these; docs/models.md has all)"
