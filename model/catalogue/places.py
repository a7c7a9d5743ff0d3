"""Where models lie: a folder of Parlor's own, and those of other programs, which are only read.

Only names are looked at; a model is a GGUF file (its first part, if split) or a folder with config.json.
Links are followed, into circles only so far; what takes too long to look through is left at that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.files import ModelLoadError, is_there, read_json, readable
from model.formats.gguf_parts import find_gguf, first_part, is_gguf, stem
from model.model_path import find_model, model_name

OWN_FOLDER = "Models folder"
MAX_DEPTH = 4
MAX_ENTRIES = 20_000
"""Of one place, files that are no model's counted."""
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_MANIFEST = 1 << 20
_PEFT = "adapter_config.json"
_ADAPTER_KEY = b"general.type" + (8).to_bytes(4, "little") + (7).to_bytes(8, "little") + b"adapter"
"""A key of GGUF with a text for its value."""
_FIRST_BYTES = 1 << 16


@dataclass(frozen=True)
class Place:
    """`kind` says how models are kept there: plain | hub | ollama."""

    label: str
    path: Path
    kind: str = "plain"


@dataclass(frozen=True)
class Found:
    """A model that may be there. `problem` says why it cannot be one, if that is known already."""

    name: str
    label: str  # of its place
    path: Path
    where: str  # its path below the place, for people
    problem: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "where", "problem"):
            object.__setattr__(self, name, readable(getattr(self, name)))

    @property
    def id(self) -> str:
        """Sixteen hex digits, the same as long as it lies there under this name."""
        return hashlib.sha256(f"{self.path}\0{self.name}".encode(errors="surrogatepass")).hexdigest()[:16]


def known_places(models: Path, home: Path | None = None,
                 variables: Mapping[str, str] = os.environ) -> list[Place]:
    """`models`, and the folders of other programs that exist: where their variables say, or as usual."""
    home = home or Path.home()

    def told(variable: str, usual: Path) -> Path:
        return Path(variables[variable]).expanduser() if variables.get(variable) else usual

    hugging_face = told("HF_HOME", home / ".cache" / "huggingface") / "hub"
    others = [Place("Hugging Face", told("HF_HUB_CACHE", hugging_face), "hub"),
              Place("LM Studio", home / ".lmstudio" / "models"),
              Place("LM Studio", home / ".cache" / "lm-studio" / "models"),
              Place("Ollama", told("OLLAMA_MODELS", home / ".ollama" / "models"), "ollama")]
    return [Place(OWN_FOLDER, models), *(place for place in others if _is_folder(place.path))]


def models_in(place: Place) -> list[Found]:
    """What is found there, by name. A place that cannot be read has none."""
    search = {"plain": _in_folders, "hub": _in_hub_cache, "ollama": _in_ollama}[place.kind]
    found = {one.id: one for one in search(place)}
    return sorted(found.values(), key=lambda one: (one.name.casefold(), one.where))


def found_at(path: Path, label: str) -> Found:
    """The model at a path that somebody gave; what is wrong with it the loader says."""
    path = path.absolute()
    file = None
    with contextlib.suppress(ModelLoadError):
        path = find_model(path)
        file = find_gguf(path)
    return Found(model_name(path.resolve()) if file is None else stem(file), label, path, path.name)


class _Walk:
    """Looks into folders down to MAX_DEPTH, each real one once."""

    def __init__(self) -> None:
        self._left = MAX_ENTRIES
        self._seen: set[Path] = set()

    def entries(self, folder: Path) -> list[Path]:
        """Sorted; [] where nothing can be read, where it was looked already, or after too many."""
        try:
            real = folder.resolve()
            if real in self._seen:
                return []
            self._seen.add(real)
            found = []
            for path in folder.iterdir():
                self._left -= 1
                if self._left < 0:
                    break
                found.append(path)
            return sorted(found)
        except (OSError, RuntimeError):  # no rights; links in a circle
            return []


def _in_folders(place: Place) -> Iterator[Found]:
    yield from _below(_Walk(), place, place.path, MAX_DEPTH)


def _below(walk: _Walk, place: Place, folder: Path, depth: int) -> Iterator[Found]:
    entries = walk.entries(folder)
    names = {path.name for path in entries}
    files = [path for path in entries if is_gguf(path) and not path.name.startswith("mmproj")
             and not _is_adapter(path)]
    for path in _first_parts(files):
        yield Found(stem(path), place.label, path, _where(path, place))
    if "config.json" in names and not files:
        yield Found(model_name(folder), place.label, folder, _where(folder, place))
        return
    if depth > 0:
        for path in entries:
            if not path.name.startswith(".") and _is_folder(path):
                yield from _below(walk, place, path, depth - 1)


def adapters_below(place: Place) -> list[Path]:
    """LoRA adapters: PEFT's folders and GGUF files."""
    walk, found = _Walk(), []

    def look(folder: Path, depth: int) -> None:
        entries = walk.entries(folder)
        if any(path.name == _PEFT for path in entries):
            found.append(folder)
            return
        found.extend(path for path in entries if is_gguf(path) and _is_adapter(path))
        for path in entries if depth > 0 else ():
            if not path.name.startswith(".") and _is_folder(path):
                look(path, depth - 1)

    look(place.path, MAX_DEPTH)
    return found


def _is_adapter(path: Path) -> bool:
    """Whether a GGUF file says so among its first keys. Whoever opens a pipe waits for ever."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _ADAPTER_KEY in file.read(_FIRST_BYTES)
    except OSError:
        return False


def _first_parts(files: list[Path]) -> list[Path]:
    """One path a model: the first of the parts that are there, so that a missing one is told."""
    firsts: dict[str, Path] = {}
    for path in files:
        firsts.setdefault(first_part(path).name, path)
    return list(firsts.values())


def _in_hub_cache(place: Place) -> Iterator[Found]:
    walk = _Walk()
    for root in walk.entries(place.path):
        if not root.name.startswith("models--"):
            continue
        snapshots = walk.entries(root / "snapshots")
        main = _main_of(root)
        for snapshot in [path for path in snapshots if path.name == main] or snapshots:
            yield from _below(walk, place, snapshot, MAX_DEPTH)


def _main_of(root: Path) -> str:
    try:
        return (root / "refs" / "main").read_bytes()[:100].decode(errors="replace").strip() \
            if (root / "refs" / "main").is_file() else ""
    except OSError:
        return ""


def _in_ollama(place: Place) -> Iterator[Found]:
    """manifests/REGISTRY/NAMESPACE/MODEL/TAG is JSON that names a GGUF file of blobs/."""
    walk = _Walk()
    for registry in walk.entries(place.path / "manifests"):
        for namespace in walk.entries(registry):
            for model in walk.entries(namespace):
                for tag in walk.entries(model):
                    owner = "" if namespace.name == "library" else f"{namespace.name}/"
                    yield _of_manifest(place, tag, f"{owner}{model.name}:{tag.name}")


def _of_manifest(place: Place, manifest: Path, name: str) -> Found:
    try:
        layers = read_json(manifest, _MAX_MANIFEST).get("layers")
        digests = [layer.get("digest") for layer in layers if isinstance(layer, dict)
                   and layer.get("mediaType") == _OLLAMA_MODEL] if isinstance(layers, list) else []
        match = _DIGEST.fullmatch(digests[0]) if digests and isinstance(digests[0], str) else None
        if match is None:
            raise ModelLoadError(f"{manifest.name} names no model. Let Ollama download it again.")
    except ModelLoadError as error:
        return Found(name, place.label, manifest, _where(manifest, place), str(error))
    blob = place.path / "blobs" / f"sha256-{match[1]}"
    problem = "" if is_there(blob) else "Its file is not there. Let Ollama download it again."
    return Found(name, place.label, blob, _where(manifest, place), problem)


def _where(path: Path, place: Place) -> str:
    return path.relative_to(place.path).as_posix() if path != place.path else path.name


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
