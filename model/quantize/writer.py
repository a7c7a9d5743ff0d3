"""The quantized folder: packed linears beside the untouched tensors, config and tokenizer files.

Everything is written into a folder beside the target and moved into place at the end, so a new folder under
the target's name is always whole. In a folder that is written over, other files (a README) stay.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.quantize.gptq import GridOptions

COPIED_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "generation_config.json",
    "LICENSE", "LICENSE.txt", "LICENSE.md",
)


class FolderWriter:
    """Collects tensors into shards. Use as a context: leaving it normally puts the folder in place."""

    def __init__(self, target: Path, overwrite: bool, shard_bytes: int) -> None:
        """Raises FileExistsError if the target holds something and may not be replaced."""
        if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} exists already; choose another folder or add --overwrite")
        self.target, self.shard_bytes = target, shard_bytes
        self.folder = target.with_name(target.name + ".partial")
        self._shard: dict[str, Tensor] = {}
        self._shard_size = 0
        self._shard_names: list[list[str]] = []
        self.total_bytes = 0

    def __enter__(self) -> FolderWriter:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if error is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        self._flush()
        self._name_shards()
        if self.target.is_dir() and any(self.target.iterdir()):
            self._replace_files()
        else:
            if self.target.exists():
                self.target.rmdir()
            self.folder.replace(self.target)

    def _replace_files(self) -> None:
        for old in (*self.target.glob("*.safetensors"), self.target / "model.safetensors.index.json"):
            if not (self.folder / old.name).exists():
                old.unlink(missing_ok=True)
        for new in self.folder.iterdir():
            new.replace(self.target / new.name)
        self.folder.rmdir()

    def add(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            size = tensor.numel() * tensor.element_size()
            if self._shard and self._shard_size + size > self.shard_bytes:
                self._flush()
            self._shard[name] = tensor.contiguous()
            self._shard_size += size
            self.total_bytes += size

    def _flush(self) -> None:
        if self._shard:
            path = self.folder / f"shard-{len(self._shard_names)}.safetensors"
            save_file(self._shard, path, metadata={"format": "pt"})
            path.chmod(0o644)  # safetensors makes it readable for its owner only
            self._shard_names.append(list(self._shard))
            self._shard, self._shard_size = {}, 0

    def _name_shards(self) -> None:
        """Only now their number is known, which Hugging Face's names contain."""
        count = len(self._shard_names)
        weight_map = {}
        for number, names in enumerate(self._shard_names):
            file = "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            (self.folder / f"shard-{number}.safetensors").replace(self.folder / file)
            weight_map.update(dict.fromkeys(names, file))
        if count > 1:
            self.write_json("model.safetensors.index.json",
                            {"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map})

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (self.folder / name).write_text(text, encoding="utf-8")

    def copy_companions(self, source: Path) -> None:
        """Tokenizer, chat template, generation settings and licence as they are."""
        for name in COPIED_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, self.folder / name)


def quantization_config(options: GridOptions, meta: dict[str, Any]) -> dict[str, Any]:
    """The section of config.json, and the whole of quantize_config.json, in gptqmodel's words."""
    return {
        "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
        "bits": options.bits, "group_size": options.group_size, "sym": options.symmetric,
        "desc_act": options.act_order, "damp_percent": options.damping, "true_sequential": True,
        "lm_head": False, "meta": meta,
    }
