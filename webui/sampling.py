"""Which sampling values a reply gets.

Defaults and ranges are SamplingParams' alone; sessions, presets and bots keep only what differs.
In a session "the session says" beats "the preset says" beats "the bot says" beats the default: effective().
What somebody sets on the page is what counts; a bot's values are its own defaults.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from model import PARAMETER_SPECS, SamplingParams, check_parameter

Changes = dict[str, Any]
"""Parameter name -> value, as JSON holds it: only what differs from what lies below."""

_TOKEN_ID = re.compile("0|[1-9][0-9]{0,9}")
DEFAULT_PRESET = "balanced"
ADVISED = "advised"
"""The preset that the authors of the loaded model advise; without any advice it counts as the default one."""
BUILT_IN_PRESETS: tuple[dict[str, Any], ...] = (
    {"id": "balanced", "name": "Balanced", "sampling": {}, "builtin": True},
    {"id": "precise", "name": "Precise", "sampling": {"temperature": 0.3, "top_p": 0.9}, "builtin": True},
    {"id": "creative", "name": "Creative", "builtin": True,
     "sampling": {"temperature": 1.1, "top_p": 1.0, "min_p": 0.08, "repetition_penalty": 1.05}},
    {"id": "greedy", "name": "Greedy", "sampling": {"temperature": 0.0}, "builtin": True},
)


def effective(preset: Changes, session: Changes, bot: Changes,
              extra_stop: tuple[str, ...] = ()) -> SamplingParams:
    """Defaults, over them the bot, the preset, the session; `extra_stop` where `stop` leaves places."""
    values = {**bot, **preset, **session}
    params = SamplingParams(**{name: _to_python(name, value) for name, value in values.items()})
    places = PARAMETER_SPECS["stop"]["max_items"] - len(params.stop)
    added = tuple(text for text in extra_stop if text not in params.stop)[:places]
    return dataclasses.replace(params, stop=params.stop + added)


def check_changes(raw: object, vocab_size: int | None = None) -> Changes:
    """`raw` if it holds known parameters in their ranges. Raises ValueError naming the first that is not.

    vocab_size  of the loaded model, for what is to be set now; what was set for another one may stay: a
                token that a model does not have is not chosen anyway
    """
    if not isinstance(raw, dict):
        raise ValueError("sampling is not an object of parameters")
    for name, value in raw.items():
        if name not in PARAMETER_SPECS:
            raise ValueError(f"{str(name)[:60]!r} is not a sampling parameter; /api/settings has all of them")
        value = _to_python(name, value)
        check_parameter(name, value, PARAMETER_SPECS[name])
        if vocab_size is not None and PARAMETER_SPECS[name]["type"] in ("tokens", "bias"):
            beyond = next((token for token in value if token >= vocab_size), None)
            if beyond is not None:
                raise ValueError(f"{name} holds {beyond}; the tokens of this model are 0 to {vocab_size - 1}")
    return raw


def check_recorded(raw: object) -> None:
    """What a message was once sampled with; parameters that are not known (any more) may be among them."""
    if not isinstance(raw, dict):
        raise ValueError("sampling is not an object of parameters")
    for name, value in raw.items():
        if name in PARAMETER_SPECS:
            check_parameter(name, _to_python(name, value), PARAMETER_SPECS[name])


def recorded(values: Changes, seed: int) -> tuple[SamplingParams, list[str]]:
    """What a message was once sampled with, and the names among it that are not known (any more). Raises
    ValueError as check_recorded does."""
    check_recorded(values)
    known = {name: _to_python(name, value) for name, value in values.items() if name in PARAMETER_SPECS}
    return SamplingParams(**{**known, "seed": seed}), sorted(values.keys() - known.keys())


def as_json(params: SamplingParams) -> Changes:
    """Every value, in the shapes that JSON has."""
    values = {name: list(value) if isinstance(value, tuple) else value
              for name, value in dataclasses.asdict(params).items()}
    values["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    return values


def _to_python(name: str, value: Any) -> Any:
    """From JSON's shapes: lists become tuples, the keys of logit_bias become whole numbers."""
    kind = PARAMETER_SPECS[name]["type"]
    if kind in ("strings", "tokens", "names"):
        if not isinstance(value, list):
            raise ValueError(f"{name} is {value!r}; expected a list")
        return tuple(value)
    if kind == "bias":
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; expected an object of token id and number")
        if not all(_TOKEN_ID.fullmatch(token) for token in value):
            raise ValueError(f"{name} has a key that is not a token id")
        return {int(token): bias for token, bias in value.items()}
    return value
