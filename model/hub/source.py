"""What somebody asks for: owner/name, owner/name:Q4_K_M or owner/name:FILE.gguf. Nothing is asked here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.files import ModelLoadError

MAX_SOURCE = 400
_SITE = re.compile(r"https://huggingface\.co/|hf\.co/")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_FILE = re.compile(r"[\w+. -]+(/[\w+. -]+){0,8}")
_MAX_FILE = 250


class HubError(ModelLoadError):
    """It cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """`wanted` is a quantization or a file, "" for what suits best."""

    repo: str
    wanted: str = ""

    @property
    def owner(self) -> str:
        return self.repo.partition("/")[0]

    @property
    def name(self) -> str:
        return self.repo.partition("/")[2]


def parse_source(text: str) -> Source:
    """Raises HubError."""
    text = text.strip()
    repo, _, wanted = _SITE.sub("", text, count=1).rstrip("/").partition(":")
    if len(text) > MAX_SOURCE or not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise HubError(f"{text[:100]!r} names no model of a hub; expected owner/name, owner/name:Q4_K_M or "
                       "owner/name:FILE.gguf")
    if wanted and not is_safe(wanted):
        raise HubError(f"{wanted[:100]!r} is neither a quantization, such as Q4_K_M, nor a file")
    return Source(repo, wanted)


def is_safe(path: str) -> bool:
    """Whether a hub's file may have this path below a folder of ours."""
    return len(path) <= _MAX_FILE and _FILE.fullmatch(path) is not None and not any(
        part.startswith(".") or part.endswith((".", " ")) or part != part.strip() for part in path.split("/"))
