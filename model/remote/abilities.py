"""What an engine can do with one of its models, found out by asking it: a few requests for a token each.

None of what anybody wrote is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from model.engine.request import SamplingParams
from model.language_model import CONTEXT, CONTINUE, LOGPROBS, RANK
from model.remote.connection import ANSWER_SECONDS, Connection
from model.remote.fields import ALL, DIALECTS, NARROW, sampling_fields
from model.remote.problems import EngineProblem, named

GO_ON_FIELDS = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM and SGLang want to be told; others take an assistant's message at the end for begun, or never do."""
ECHO_FIELDS = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
_SAID = [{"role": "user", "content": "Say the alphabet."}]
_MAX_CONTEXT = 1 << 26


@dataclass(frozen=True)
class Abilities:
    """`dialect`: which fields it takes. `answers_as`: the model that its answers name, "" if none does.

    go_on_fields  what makes it go on with a message; None: nothing does
    echoes        whether it tells how likely each token of a text is
    max_seq_len   None: it does not tell
    prompt_tokens of a message of one short sentence; 0: it does not tell
    cannot        what it cannot do -> why, as a sentence
    """

    dialect: str = ALL
    answers_as: str = ""
    go_on_fields: Mapping[str, Any] | None = None
    echoes: bool = False
    max_seq_len: int | None = None
    prompt_tokens: int = 0
    cannot: Mapping[str, str] = field(default_factory=dict)


async def ask(connection: Connection, model: str) -> Abilities:
    """Raises EngineProblem if there is no such model, or if it does not answer at all."""
    all_models = await connection.models()
    listed = next((one for one in all_models if one["id"] == model), None)
    if listed is None:
        there = ", ".join(one["id"][:100] for one in all_models[:3]) or "none"
        raise EngineProblem(f"{named(connection.address)} has no model {model[:200]} any more; it has {there}"
                            f"{' and others' if len(all_models) > 3 else ''}.")
    dialect, reply = await _first_answer(connection, model)
    told_as = reply.get("model")
    tokens = _prompt_tokens(reply)
    go_on, echoes, max_seq_len = await asyncio.gather(
        _ways_to_go_on(connection, model, dialect, tokens), _echoes(connection, model),
        _context_length(connection, model, listed))
    engine = named(connection.address)
    cannot = {CONTEXT: f"{engine} counts the tokens of what it is sent, and nothing is sent only to be "
                       "counted: how full the context is, is an estimate.",
              LOGPROBS: f"{engine} is not asked how likely the tokens of its replies are, so that they "
                        "cannot be looked at."}
    if go_on is None:
        cannot[CONTINUE] = f"{engine} begins a new message where it should go on with one, so that replies " \
                           "cannot be continued."
    if not echoes:
        cannot[RANK] = f"{engine} does not tell how likely a text is, so that the model cannot decide who " \
                       "speaks."
    return Abilities(dialect, told_as if isinstance(told_as, str) else "", go_on, echoes, max_seq_len, tokens,
                     cannot)


async def _first_answer(connection: Connection, model: str) -> tuple[str, dict[str, Any]]:
    problem: EngineProblem | None = None
    for dialect in DIALECTS:
        try:
            return dialect, await _streamed(connection, _request(model, dialect))
        except EngineProblem as error:
            problem = problem or error
            if error.status not in (400, 422) and not error.hung_up:  # as mlx-lm does where others refuse
                break
    assert problem is not None
    raise problem


async def _streamed(connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
    """The `model` and the `usage` of a reply that comes as replies do later."""
    found: dict[str, Any] = {}
    async for chunk in connection.stream_chat(request):
        found |= {name: chunk[name] for name in ("model", "usage") if chunk.get(name)}
    return found


async def _ways_to_go_on(connection: Connection, model: str, dialect: str,
                         tokens: int) -> dict[str, Any] | None:
    """A letter that is gone on with makes a prompt longer by one token; as a message of its own, with the
    marks around it and the beginning of another, by more."""
    if not tokens:
        return None
    for extra in ((GO_ON_FIELDS, {}) if dialect in (ALL, NARROW) else ({},)):
        messages = [*_SAID, {"role": "assistant", "content": "A"}]
        try:
            reply = await _streamed(connection, {**_request(model, dialect), "messages": messages, **extra})
        except EngineProblem:
            continue
        longer = _prompt_tokens(reply)
        if longer and longer - tokens <= 1:
            return dict(extra)
    return None


async def _echoes(connection: Connection, model: str) -> bool:
    texts = ["A: Hello.\nB:", "A: Hello.\nC:"]
    try:
        reply = await connection.complete({"model": model, "prompt": texts, **ECHO_FIELDS}, ANSWER_SECONDS)
        scores_after(reply, texts, len("A: Hello.\n"))
        return True
    except (EngineProblem, ValueError, TypeError, AttributeError, LookupError):
        return False


def scores_after(reply: Mapping[str, Any], texts: list[str], start: int) -> list[float]:
    """Of each text that was echoed: the log-probability of all after its first `start` characters.

    Raises ValueError, TypeError, AttributeError or LookupError if that is not what has come.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != len(texts):
        raise ValueError("not every text has an answer")
    scores = [0.0] * len(texts)
    for place, choice in enumerate(choices):
        index = choice.get("index", place)
        logprobs = choice.get("logprobs") or {}
        offsets, values = _offsets(logprobs, choice.get("text")), logprobs.get("token_logprobs") or []
        ends = [*offsets[1:], None]
        counted = [value for offset, end, value in zip(offsets, ends, values, strict=True)
                   if offset < len(texts[index]) and (end is None or end > start)]
        if not counted or len(counted) == len(values) or not all(
                isinstance(value, int | float) for value in counted):
            raise ValueError("there are no log-probabilities of the text")
        scores[index] = float(sum(counted))
    return scores


def _offsets(logprobs: Mapping[str, Any], text: Any) -> list[int]:
    """Where each token begins. SGLang says -1 of all: there it follows from the tokens, if they make up the
    text. Raises as scores_after() does."""
    offsets = logprobs.get("text_offset") or []
    if any(offset < 0 for offset in offsets):
        tokens = logprobs["tokens"]
        if "".join(tokens) != text:
            raise ValueError("there are no log-probabilities of the text")
        return [0, *accumulate(map(len, tokens[:-1]))]
    return offsets


async def _context_length(connection: Connection, model: str, listed: Mapping[str, Any]) -> int | None:
    """Tokens of its context, from its list of models or where engines tell it otherwise."""
    found = [_at(listed, "max_model_len"), _at(listed, "context_length"), _at(listed, "meta", "n_ctx"),
             _at(listed, "context_window")]
    if not any(map(_is_length, found)):
        props, info, running, loaded, lm_studio, kobold = await asyncio.gather(*map(connection.fact, (
            "/props", "/info", "/api/ps", "/v1/model", "/api/v0/models",
            "/api/extra/true_max_context_length")))
        found = [_at(props, "default_generation_settings", "n_ctx"),             # llama.cpp
                 _at(info, "max_total_tokens"),                                  # TGI
                 _at(kobold, "value"),                                           # KoboldCpp
                 _at(loaded, "parameters", "max_seq_len"),                       # tabbyAPI
                 *(_at(one, "context_length") for one in _list_at(running, "models")
                   if model in (_at(one, "name"), _at(one, "model"))),           # Ollama
                 *(_at(one, "loaded_context_length") for one in _list_at(lm_studio, "data")
                   if _at(one, "id") == model)]                                  # LM Studio
    return next((length for length in found if _is_length(length)), None)


def _request(model: str, dialect: str) -> dict[str, Any]:
    params = SamplingParams(max_new_tokens=1, temperature=0.0, top_p=1.0, top_k=0)
    return {"model": model, "messages": _SAID, **sampling_fields(params, dialect, 1)}


def _prompt_tokens(reply: Mapping[str, Any]) -> int:
    tokens = _at(reply, "usage", "prompt_tokens")
    return tokens if _is_length(tokens) else 0


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_CONTEXT


def _list_at(found: Any, name: str) -> list[Any]:
    listed = _at(found, name)
    return listed if isinstance(listed, list) else []


def _at(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
