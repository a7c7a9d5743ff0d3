"""A model's description and the reader of its weights, as the engine's options want them."""

from __future__ import annotations

from pathlib import Path

from model.config import EngineConfig
from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.rounded import RoundingReader
from model.formats.weights import WeightReader
from model.model_config import ModelConfig
from model.network.modules import layer_modules


def open_for(path: Path, config: EngineConfig) -> tuple[ModelConfig, WeightReader]:
    """Reads headers only. With `config.quantize` the layers' matrices will be rounded; embeddings stay as
    they are, and the head takes 8 bits as in every quantized model. Raises ModelLoadError."""
    model, reader = open_model(path, config.exact)
    if config.quantize is None:
        return model, reader
    groups = [group for index in range(model.spec.num_layers)
              for group in layer_modules(model.spec, model.names, index)]
    names = {name for group in groups if not group.is_exact for name in group.modules}
    if any(reader.is_quantized(name) for name in names):
        raise ModelLoadError(f"{path.name}: the weights are {reader.describe()} already; --quantize rounds "
                             "float weights. Leave it out.")
    return model, RoundingReader(reader, config.quantize, names)
