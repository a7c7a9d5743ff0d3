"""Which files of a hub's model are wanted here: one quantization that fits this machine, or a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from model.formats.gguf_parts import first_part, stem
from model.hub.source import HubError, Source
from model.machine import readable_size

_LABEL = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d(?:_\w+)?|TQ\d_\d|BF16|F16|FP16|F32|MXFP4(?:_\w+)?))$",
                    re.IGNORECASE)
_BEST = ("Q4_K_M", "Q4_K_S", "UD-Q4_K_XL", "Q4_K_L", "MXFP4", "MXFP4_MOE", "Q4_0", "IQ4_XS", "IQ4_NL", "Q4_1",
         "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0")
"""The first of these that fits; of what fits otherwise the largest."""
_FOLDER_FILES = re.compile(r"[^/]+\.(json|safetensors|model|jinja)|merges\.txt|vocab\.txt")
_OTHER_COPIES = ("consolidated",)
"""The same weights once more, as their authors have them."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
FOLDER = "safetensors"
_BESIDE = 1.1
"""Memory over the file's size: what is widened, and a short context."""
_LEAST_BESIDE = 600 << 20


@dataclass(frozen=True)
class HubFile:
    """`digest`: (algorithm, hexadecimal) of its contents, "sha256" or "git" for a blob of git."""

    path: str
    size: int
    digest: tuple[str, str]


@dataclass(frozen=True)
class Variant:
    """What is downloaded together. `label` is a quantization, the name of a file, or FOLDER."""

    label: str
    files: tuple[HubFile, ...]

    @property
    def is_folder(self) -> bool:
        """Whether all of them together are loaded, not the first one."""
        return self.label == FOLDER

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def fits(self, free_bytes: int) -> bool:
        """About: only its header, once it is here, tells."""
        return max(self.size * _BESIDE, self.size + _LEAST_BESIDE) <= free_bytes


def variants(files: Sequence[HubFile]) -> list[Variant]:
    """All that can be had, the smallest first. Raises HubError if there is nothing."""
    ggufs: dict[str, list[HubFile]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        if path.suffix == ".gguf" and not path.name.startswith(("mmproj", "imatrix")):
            ggufs.setdefault(str(first_part(path)), []).append(file)
    found = [Variant(_label(first), tuple(sorted(parts, key=lambda file: file.path)))
             for first, parts in ggufs.items()]
    names = {file.path for file in files}
    weights = [file for file in files if re.fullmatch(r"[^/]+\.safetensors", file.path)
               and not file.path.startswith(_OTHER_COPIES)]
    if not found and weights and "config.json" in names:
        beside = [file for file in files if _FOLDER_FILES.fullmatch(file.path) and file not in weights
                  and not file.path.endswith(".safetensors")]
        found = [Variant(FOLDER, (*sorted(beside, key=lambda file: file.path), *weights))]
    if not found:
        pickles = any(name.endswith(_PICKLES) for name in names)
        raise HubError("It has only pickled weights, which can run code when they are opened. Take another "
                       "copy of the model, of GGUF or safetensors." if pickles else
                       "It has neither GGUF files nor safetensors with a config.json.")
    labels = [variant.label for variant in found]
    named = [variant if labels.count(variant.label) == 1 else
             Variant(PurePosixPath(variant.files[0].path).name, variant.files) for variant in found]
    return sorted(named, key=lambda variant: variant.size)


def choose(found: Sequence[Variant], source: Source, free_bytes: int) -> Variant:
    """What `source` names, or else what suits this machine. Raises HubError with what there is."""
    listed = ", ".join(f"{variant.label} ({readable_size(variant.size)})" for variant in found[:30])
    if source.wanted:
        wanted = source.wanted.lower()
        named = [variant for variant in found if variant.label.lower() == wanted or any(
            wanted in (file.path.lower(), PurePosixPath(file.path).name.lower()) for file in variant.files)]
        if len(named) != 1:
            what = "no" if not named else "more than one"
            raise HubError(f"{source.repo} has {what} {source.wanted}; it has {listed}")
        return named[0]
    fitting = [variant for variant in found if variant.fits(free_bytes)]
    if not fitting:
        raise HubError(f"Nothing of {source.repo} fits into the {readable_size(free_bytes)} of memory that "
                       f"are free; it has {listed}. Take a smaller model, or name one of these all the same: "
                       f"{source.repo}:{found[0].label}")
    labels = {variant.label.upper(): variant for variant in fitting}
    best = next((labels[label] for label in _BEST if label in labels), None)
    has_best = any(variant.label.upper() == _BEST[0] for variant in found)
    if best is None or (has_best and best.label.upper() != _BEST[0]):
        return fitting[-1]  # the best one does not fit: the largest that does
    return best


def _label(first: str) -> str:
    match = _LABEL.search(stem(PurePosixPath(first)))
    return match[1].upper().replace("FP16", "F16") if match else PurePosixPath(first).name
