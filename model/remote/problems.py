"""What goes wrong with another engine, as a sentence that names it, and no secret of its address.

`problem_of` knows the openai library's exceptions by what they carry, so that nothing is imported for it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from model.files import readable
from model.remote.address import EngineAddress

MAX_SAID = 300
_OVERFLOW = ("context length", "context_length", "maximum context", "context size", "exceeds the available",
             "too long", "max_total_tokens", "max_input_tokens", "maximum model length", "max_seq_len",
             "max_num_tokens",                                                  # TensorRT-LLM
             "`max_new_tokens` must be <=", "`inputs` must have less than")     # TGI


class EngineProblem(ValueError):
    """An engine did not do what it was asked; a sentence that names it.

    status    of its answer; 0 where there was none
    overflow  the prompt is too long for it
    hung_up   it closed the connection instead of answering, or took none
    """

    def __init__(self, message: str, status: int = 0, overflow: bool = False, hung_up: bool = False) -> None:
        super().__init__(message)
        self.status, self.overflow, self.hung_up = status, overflow, hung_up


def problem_of(error: Exception, address: EngineAddress) -> EngineProblem:
    """Of what the client library raised."""
    response = getattr(error, "response", None)
    if response is None:
        return EngineProblem(f"{named(address)} cannot be reached: {_cause(error, address)}. Is it running?",
                             hung_up=True)
    status = response.status_code
    said = said_by(getattr(error, "body", None), address)
    told = f": {said}" if said else ""
    if 300 <= status < 400:
        target = readable(response.headers.get("location", ""))[:MAX_SAID]
        return EngineProblem(f"{named(address)} sends its callers on to {target or 'another address'}, where "
                             "the text would not go unasked. Give that address instead.", status)
    if status in (401, 403):
        return EngineProblem(f"{named(address)} refuses the key{told}", status)
    if status == 429:
        wait = readable(response.headers.get("retry-after", ""))[:20]
        later = f" It asks for {wait} seconds." if wait.isdecimal() else ""
        return EngineProblem(f"{named(address)} takes no more requests now{told}.{later}", status)
    overflow = status in (400, 413, 422) and tells_overflow(said)
    return EngineProblem(f"{named(address)} refused the request ({status}){told}" if status < 500 else
                         f"{named(address)} failed ({status}){told}", status, overflow)


def tells_overflow(said: str) -> bool:
    """Whether an engine's words are those of a prompt that is too long."""
    return any(words in said.lower() for words in _OVERFLOW)


def said_by(body: Any, address: EngineAddress) -> str:
    """The words of an error of the engine's, short and without what it was shown in confidence."""
    for name in ("error", "message", "detail", "msg"):
        while isinstance(body, dict) and body.get(name):
            body = body[name]
        if isinstance(body, list) and body:
            body = body[0]
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body, default=str)
    text = " ".join(address.without_secrets(readable(text)).split()).rstrip(".")
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]} …"


def named(address: EngineAddress) -> str:
    return f"The engine {address.name}" if address.name == address.host else \
        f"The engine {address.name} ({address.host})"


def _cause(error: BaseException, address: EngineAddress) -> str:
    """The innermost words: those of the operating system."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    known = os.strerror(error.errno) if isinstance(error, ConnectionError) and error.errno else \
        getattr(error, "strerror", None)
    words = address.without_secrets(readable(known or str(error)))
    return " ".join(words.split()).rstrip(".")[:MAX_SAID] or type(error).__name__
