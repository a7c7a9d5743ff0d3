"""XVERSE: Llama's layers."""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.llama import uniform

FAMILIES = (Family("xverse", ("XverseForCausalLM",), uniform, gguf=Gguf(("xverse",), interleaved=True)),)
