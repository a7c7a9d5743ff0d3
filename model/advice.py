"""How a model's authors advise to sample from it: general.sampling.* of a GGUF file, generation_config.json.

What they leave out is off then: they tried theirs without it. What has no counterpart here, or is out of
range, is left out as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.engine.request import PARAMETER_SPECS, check_parameter
from model.families.gguf_keys import plain
from model.files import ModelLoadError, is_there, read_json

Advice = dict[str, float | int]
"""Fields of SamplingParams; empty where nothing is advised."""

_PREFIX = "general.sampling."
_GGUF = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
         "penalty_repeat": "repetition_penalty", "penalty_last_n": "repetition_range",
         "xtc_probability": "xtc_probability", "xtc_threshold": "xtc_threshold",
         "mirostat": "mirostat", "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta"}
_HUB = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_OFF: Advice = {"repetition_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def advice_of_gguf(metadata: Mapping[str, Any]) -> Advice:
    return _complete({ours: plain(metadata[_PREFIX + theirs]) for theirs, ours in _GGUF.items()
                      if _PREFIX + theirs in metadata})


def advice_of_folder(folder: Path) -> Advice:
    """Of its generation_config.json; nothing where that cannot be read: the loader says why."""
    path = folder / "generation_config.json"
    try:
        values = read_json(path) if is_there(path) else {}
    except ModelLoadError:
        return {}
    if values.get("do_sample") is False:
        return _complete({"temperature": 0.0})
    return _complete({name: values[name] for name in _HUB if name in values})


def _complete(values: dict[str, Any]) -> Advice:
    taken: Advice = {}
    for name, value in values.items():
        spec = PARAMETER_SPECS[name]
        try:
            if isinstance(value, float) and not math.isfinite(value):
                continue
            if spec["type"] == "int" and isinstance(value, float) and value.is_integer():
                value = int(value)
            check_parameter(name, value, spec)
        except ValueError:
            continue
        if value is not None:
            taken[name] = round(value, 6) if isinstance(value, float) else value  # float32 in the file
    return _OFF | taken if taken else {}
