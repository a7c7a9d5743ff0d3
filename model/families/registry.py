"""Every family: each module of this folder that has FAMILIES. Finds the one that a config names."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

import model.families
from model.config import shown
from model.families.family import Family, Gguf
from model.files import ModelLoadError


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
    names = raw.get("architectures")
    if isinstance(names, list) and names:
        found, known = names[0], {name: family for family in families() for name in family.architectures}
    else:
        found, known = raw.get("model_type"), {family.name: family for family in families()}
    if isinstance(found, str) and found in known:
        return known[found]
    supported = ", ".join(family.name for family in families())
    raise ModelLoadError(f"config.json: architectures is {shown(found)}; expected one of these families: "
                         f"{supported}")


def family_of_gguf(architecture: Any, source: str) -> tuple[Family, Gguf]:
    """By general.architecture. Raises ModelLoadError."""
    known = {name: (family, family.gguf) for family in families() if family.gguf
             for name in family.gguf.architectures}
    if isinstance(architecture, str) and architecture in known:
        return known[architecture]
    raise ModelLoadError(f"{source}: general.architecture is {shown(architecture)}; "
                         f"expected one of {', '.join(sorted(known))}")
