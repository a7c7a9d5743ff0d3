"""From the path that a user gave to the folder or file with the model, or what to do instead.

People point at what they see: the root of a hub cache, a folder around the model's own, one of its files.
Only names are looked at here; what is inside the files is others' business.
"""

from __future__ import annotations

from pathlib import Path

from model.files import ModelLoadError, is_there
from model.formats.gguf_parts import is_gguf

_MAX_SEEN = 1000  # entries of a folder; a model's has some dozens
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def find_model(path: Path) -> Path:
    """A .gguf file, or a folder that has a model in it: `path`, or its snapshot if it is a hub cache's root.

    Raises ModelLoadError for anything else, with what to do.
    """
    try:
        return _found(path.expanduser())
    except (OSError, RuntimeError) as error:  # no rights to look; no home to expand
        reason = getattr(error, "strerror", None) or error
        raise ModelLoadError(f"{path} cannot be opened: {reason}") from None


def _found(path: Path) -> Path:
    if path.is_file():
        if is_gguf(path):
            return path
        what = "one of a model's files" if (path.parent / "config.json").exists() else "no GGUF file"
        raise ModelLoadError(f"{path} is {what}; give the folder, {path.parent}, or a .gguf file")
    if not path.is_dir():
        what = "is a link that leads nowhere" if path.is_symlink() else \
            "is neither a file nor a folder" if is_there(path) else "does not exist"
        raise ModelLoadError(f"{path} {what}; expected a folder with config.json, the tokenizer and "
                             "*.safetensors, or a .gguf file")
    if (path / "snapshots").is_dir() and not is_there(path / "config.json"):
        return _snapshot(path)
    if not _has_model(path):
        raise ModelLoadError(f"{path} {_what_it_has(path)}")
    return path


def model_name(folder: Path) -> str:
    """What a folder's model is called: the folder's name, or the one in a hub cache, not its snapshot's."""
    root = folder.parent.parent
    if folder.parent.name == "snapshots" and root.name.startswith("models--"):
        return root.name.rpartition("--")[2]
    return folder.name


def adapter_name(path: Path) -> str:
    """What an adapter is called if nobody says: as its folder, or its file without .gguf."""
    path = path.absolute()
    return model_name(path) if not is_gguf(path) else path.name.removesuffix(".gguf")


def _has_model(folder: Path) -> bool:
    return is_there(folder / "config.json") or any(folder.glob("*.gguf"))


def _snapshot(root: Path) -> Path:
    """Of `models--owner--name`: the snapshot that `main` names, or the only one."""
    snapshots = sorted(path for path in (root / "snapshots").iterdir() if path.is_dir())[:_MAX_SEEN]
    main = root / "refs" / "main"
    name = main.read_bytes()[:100].decode(errors="replace").strip() if main.is_file() else ""
    chosen = [path for path in snapshots if path.name == name] or snapshots
    if len(chosen) != 1:
        found = "no snapshot" if not chosen else f"{len(chosen)} snapshots: {_names(chosen)}"
        raise ModelLoadError(f"{root} is a hub cache with {found}; "
                             f"{'give one of them' if chosen else 'download the model again'}")
    if not _has_model(chosen[0]):
        raise ModelLoadError(f"{chosen[0]} {_what_it_has(chosen[0])}")
    return chosen[0]


def _what_it_has(folder: Path) -> str:
    """Of a folder without config.json: what is there instead, and what to do."""
    if is_there(folder / "adapter_config.json"):
        return ("is a LoRA adapter; load the model that it was made for, and this beside it: "
                f"--lora NAME={folder}")
    if is_there(folder / "model_index.json"):
        return "makes images (diffusers); expected a model that writes texts"
    entries = sorted(folder.iterdir())[:_MAX_SEEN]
    nested = [sub for sub in entries if sub.is_dir() and _has_model(sub)]
    caches = [sub for sub in entries if sub.name.startswith("models--") and (sub / "snapshots").is_dir()]
    if nested or caches:
        found = nested or caches
        what = "has a model in a folder of its own" if len(found) == 1 else f"has {len(found)} models"
        return f"{what}: {_names(found)}. Give {'it' if len(found) == 1 else 'one of them'}: -d {found[0]}"
    weights = [path for path in entries if path.suffix == ".safetensors"]
    pickles = [path for path in entries if path.suffix in _PICKLES]
    if weights:
        return (f"has weights ({_names(weights)}) and no config.json; copy it from the model that they were "
                "made of (EXL2 and GPTQ folders need it as well)")
    if pickles:
        return (f"has only pickled weights ({_names(pickles)}), which can run code when they are opened; "
                "download the model's *.safetensors, or a .gguf file")
    if not entries:
        return "is empty; expected config.json, the tokenizer and *.safetensors, or a .gguf file"
    return (f"has no config.json and no .gguf file ({_names(entries)}); expected a folder as Hugging Face's "
            "save_pretrained writes it")


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (" ..." if len(paths) > 5 else "")
