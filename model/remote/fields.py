"""A request in OpenAI's words: how to sample, what was said, what may be called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from model.engine.request import PARAMETER_SPECS, SamplingParams
from model.language_model import CannotDo
from model.text.calls.toolbox import AUTO, REQUIRED, Toolbox
from model.text.constraint import Constraint
from model.text.messages import ChatMessage

_SAMPLERS = [name for name, spec in PARAMETER_SPECS.items() if spec["group"] == "samplers"]
"""By llama.cpp's names. Few engines know them, so only what is changed is sent."""
MAX_STOPS = 4
"""More are not taken everywhere; all are looked for here, too."""

ALL, NARROW, STANDARD, LEAST = "all", "narrow", "standard", "least"
DIALECTS = (ALL, NARROW, STANDARD, LEAST)
"""Of engines that refuse what they do not know: every field; the same where values that mean "off" are none
(mlx-lm wants top_k from 0 on, TGI top_p below 1); OpenAI's alone; and hardly any."""
_BELOW_ONE = 0.9999


def sampling_fields(params: SamplingParams, dialect: str, seed: int) -> dict[str, Any]:
    """What is off is said to be off: engines have defaults of their own."""
    if dialect == LEAST:
        return {"max_completion_tokens": params.max_new_tokens}
    fields: dict[str, Any] = {
        "max_tokens": params.max_new_tokens, "temperature": params.temperature, "top_p": params.top_p,
        "seed": seed, "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty, "stream_options": {"include_usage": True}}
    if params.stop:
        fields["stop"] = list(params.stop[:MAX_STOPS])
    bias = {str(token): value for token, value in params.logit_bias.items()}
    bias |= {str(token): -100.0 for token in params.banned_tokens}
    if bias:
        fields["logit_bias"] = bias
    if dialect in (ALL, NARROW):  # the same by the names that vLLM, llama.cpp and others have for it
        fields |= {"top_k": params.top_k or -1, "min_p": params.min_p, "typical_p": params.typical_p,
                   "repetition_penalty": params.repetition_penalty,
                   "repeat_penalty": params.repetition_penalty,
                   "repeat_last_n": params.repetition_range or -1}
        fields |= {name: list(value) if isinstance(value, tuple) else value for name in _SAMPLERS
                   if (value := getattr(params, name)) != PARAMETER_SPECS[name]["default"]}
        if params.min_new_tokens:
            fields["min_tokens"] = params.min_new_tokens
    if dialect == NARROW:
        fields |= {"top_k": params.top_k, "top_p": min(params.top_p, _BELOW_ONE)}
    return fields


def message_fields(messages: Iterable[ChatMessage], begun: str = "") -> list[dict[str, Any]]:
    """`begun`: an assistant's message that is to be gone on with. Thoughts of the past are not sent."""
    sent: list[dict[str, Any]] = []
    for message in messages:
        fields: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            fields["tool_calls"] = [
                {"id": call.id or f"call_{index}", "type": "function", "function": {
                    "name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)}}
                for index, call in enumerate(message.calls)]
        if message.role == "tool":
            fields["tool_call_id"] = message.call_id or "call_0"
        sent.append(fields)
    return [*sent, {"role": "assistant", "content": begun}] if begun else sent


def tool_fields(tools: Toolbox | None) -> dict[str, Any]:
    if tools is None:
        return {}
    choice: Any = tools.choice if tools.choice in (AUTO, REQUIRED) else \
        {"type": "function", "function": {"name": tools.choice}}
    fields: dict[str, Any] = {"tools": tools.as_json(), "tool_choice": choice}
    return fields if tools.parallel else fields | {"parallel_tool_calls": False}


def variable_fields(variables: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a chat template is told: vLLM, SGLang and llama.cpp pass it on."""
    if not variables:
        return {}
    effort = variables.get("reasoning_effort")
    return {"chat_template_kwargs": dict(variables)} | ({"reasoning_effort": effort} if effort else {})


def form_fields(constraint: Constraint | None) -> dict[str, Any]:
    """Raises CannotDo for what OpenAI's protocol has no words for."""
    if constraint is None:
        return {}
    if constraint.kind != "json_schema":
        raise CannotDo(f"Another engine cannot be held to a {constraint.kind}, only to a JSON schema.")
    return {"response_format": {"type": "json_schema", "json_schema": {
        "name": "reply", "strict": True, "schema": json.loads(constraint.source)}}}
