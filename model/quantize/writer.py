"""The quantized folder: packed linears beside the untouched tensors, config and tokenizer files.

Everything is written into a folder of the run and moved into place at the end, so a new folder under the
target's name is always whole. In a folder that is written over, other files (a README) stay. Tensors
are copied from file to file.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from model.formats.safetensors_reader import TensorInfo, read_header
from model.formats.safetensors_writer import INDEX, write_folder
from model.quantize.gptq import GridOptions
from model.quantize.source import Source

COPIED_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "generation_config.json",
    "LICENSE", "LICENSE.txt", "LICENSE.md",
)


def check_target(target: Path, overwrite: bool) -> None:
    """Raises FileExistsError if the target holds something and may not be replaced."""
    if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; choose another folder or add --overwrite")


def write_model(folder: Path, source: Source, layers: Iterable[Path], section: dict[str, Any],
                shard_bytes: int) -> int:
    """Write the quantized model, and return the bytes of its tensors.

    layers   files with the tensors of each layer, which take the place of the source's
    section  quantization_config
    """
    tensors = _merged(source.reader.folder.tensors, layers)
    folder.mkdir()
    write_folder(folder, tensors, shard_bytes, metadata={"format": "pt"})
    write_json(folder / "config.json", {**source.raw_config, "quantization_config": section})
    write_json(folder / "quantize_config.json", section)
    for name in COPIED_FILES:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    return sum(info.nbytes for info in tensors.values())


def _merged(originals: dict[str, TensorInfo], layers: Iterable[Path]) -> dict[str, TensorInfo]:
    """In the order of the source's names: the four tensors of a quantized module where its weight was."""
    found: dict[str, TensorInfo] = {}
    for path in layers:
        found |= read_header(path)
    merged: dict[str, TensorInfo] = {}
    for name, info in originals.items():
        module = name.removesuffix(".weight")
        if module + ".qweight" in found:
            merged |= {f"{module}.{part}": found[f"{module}.{part}"]
                       for part in ("qweight", "qzeros", "scales", "g_idx")}
        else:
            merged[name] = found.get(name, info)
    return merged


def put_in_place(folder: Path, target: Path) -> None:
    """Move the folder to the target's place, or its files over those that are there."""
    if not target.is_dir() or not any(target.iterdir()):
        if target.exists():
            target.rmdir()
        folder.replace(target)
        return
    for old in (*target.glob("*.safetensors"), target / INDEX):
        if not (folder / old.name).exists():
            old.unlink(missing_ok=True)
    for new in folder.iterdir():
        new.replace(target / new.name)
    folder.rmdir()


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def quantization_config(options: GridOptions, bits: Mapping[str, int],
                        meta: dict[str, Any]) -> dict[str, Any]:
    """The section of config.json, and the whole of quantize_config.json, in gptqmodel's words.

    bits  of linears, where they are not all alike; `dynamic` has those that differ from most
    """
    usual = Counter(bits.values()).most_common(1)[0][0] if bits else options.bits
    dynamic = {rf"+:^{re.escape(name)}$": {"bits": own} for name, own in bits.items() if own != usual}
    return {
        "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
        "bits": usual, "group_size": options.group_size, "sym": options.symmetric,
        "desc_act": options.act_order, "damp_percent": options.damping, "true_sequential": True,
        "lm_head": False, **({"dynamic": dynamic} if dynamic else {}), "meta": meta,
    }
