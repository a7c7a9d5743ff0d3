"""The unquantized model that is read: its settings and its tensors, one at a time.

Config and safetensors are read by the engine's own readers, so what can be quantized can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.families.names import located
from model.files import ModelLoadError, read_json
from model.formats.checkpoint import open_checkpoint
from model.formats.plain import PlainReader
from model.formats.safetensors_reader import read_tensor
from model.model_config import ModelConfig
from model.network.modules import layer_modules
from model.network.norm_weights import NO_WEIGHTS
from model.network.weights import table_module, weight_infos
from model.quantize.decoder import MIXTURE, normed, what_is_missing


@dataclass(frozen=True)
class Source:
    """A float model whose layers are attention and mlps, or experts if their weights are only rounded."""

    folder: Path
    config: ModelConfig
    raw_config: dict[str, Any]  # config.json as it stands; the target's has a section more
    reader: PlainReader

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Hidden states before the first layer: int64 [...] -> float32 [..., hidden_size]. Only the rows that
        are asked for are read."""
        spec = self.config.spec
        name = table_module(self.reader, self.config) + ".weight"
        info = self.reader.folder.check(name, (spec.vocab_size, spec.hidden_size),
                                        (torch.float16, torch.bfloat16, torch.float32))
        row = replace(info, shape=(spec.hidden_size,), nbytes=info.nbytes // spec.vocab_size)
        found, places = token_ids.unique(return_inverse=True)
        rows = torch.stack([read_tensor(replace(row, offset=info.offset + token_id * row.nbytes)).float()
                            for token_id in found.tolist()])
        hidden = rows[places] * spec.embedding_scale
        return hidden if spec.embedding_norm is None else normed(hidden, spec.embedding_norm, NO_WEIGHTS)


def open_source(folder: Path, rounds: bool = False) -> Source:
    """Read config.json and headers, and check every matrix. `rounds`: no text goes through the layers.

    Raises ModelLoadError if the model is none, is quantized already, or has layers of other kinds.
    """
    config = ModelConfig.from_folder(folder)
    part = what_is_missing(config.spec)
    if part is not None and not (rounds and part == MIXTURE):
        but = " but by --method round" if part == MIXTURE else ""
        raise ModelLoadError(f"{config.name} is of the family {config.architecture} and has {part}, which "
                             f"cannot be quantized yet{but}; expected layers of attention and an mlp each")
    method = None if config.quantization is None else config.quantization.get("quant_method", "unknown")
    reader = open_checkpoint(folder, config) if method is None else None
    if type(reader) is not PlainReader:  # quantize_config.json alone also makes it a quantized one
        raise ModelLoadError(f"{folder} is quantized already ({method or 'quantize_config.json'}); "
                             "quantize its original bf16, fp16 or fp32 version")
    config = replace(config, names=located(config.names, reader.has_tensor))
    weight_infos(reader, config, exact=True)
    stacked = next((name for index in range(config.spec.num_layers)
                    for group in layer_modules(config.spec, config.names, index) for name in group.modules
                    if "#" in name), None)
    if stacked is not None:
        raise ModelLoadError(f"{folder}: {stacked.partition('#')[0]} holds all experts of a layer; GPTQ "
                             "files have them one by one. --quantize 4 rounds them whenever it is loaded")
    return Source(folder, config, read_json(folder / "config.json"), reader)
