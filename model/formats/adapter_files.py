"""Find out what kind of LoRA adapter a path is, and read its headers."""

from __future__ import annotations

from pathlib import Path

from model.files import ModelLoadError
from model.formats.adapter import AdapterFile
from model.formats.adapter_gguf import open_gguf_adapter
from model.formats.adapter_peft import open_peft_adapter
from model.formats.gguf_parts import is_gguf


def open_adapter(path: Path) -> AdapterFile:
    """A folder as PEFT saves it, or a GGUF adapter. Reads headers only. Raises ModelLoadError."""
    if path.is_dir():
        return open_peft_adapter(path)
    if path.is_file() and is_gguf(path):
        return open_gguf_adapter(path)
    what = "is neither a folder nor a .gguf file" if path.exists() else "does not exist"
    raise ModelLoadError(f"The adapter {path} {what}; expected a folder with adapter_config.json and "
                         "adapter_model.safetensors, as PEFT saves it, or a GGUF adapter.")
