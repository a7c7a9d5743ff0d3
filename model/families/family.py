"""What one family is to the loader: how its config is recognised and read, how its files name weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.families.fields import Fields
from model.families.names import GGUF, HUGGING_FACE, Names
from model.families.spec import Spec


@dataclass(frozen=True)
class Gguf:
    """How GGUF files tell the family. Their keys become those of config.json first, see gguf_keys.py.

    architectures  of general.architecture
    interleaved    queries and keys were reordered for RoPE of neighbours, whatever config.json says
    keys           further keys: "attention.scale" -> "attention_multiplier"
    present        keys that are true where the file has a tensor of the name beside them
    complete       from what was found, what config.json says and GGUF does not
    """

    architectures: tuple[str, ...]
    names: Names = GGUF
    interleaved: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: {}


@dataclass(frozen=True)
class Family:
    """One kind of decoder, under the names that config.json has for it."""

    name: str
    architectures: tuple[str, ...]  # of `architectures`
    from_config: Callable[[Fields], Spec]
    names: Names = HUGGING_FACE
    gguf: Gguf | None = None
