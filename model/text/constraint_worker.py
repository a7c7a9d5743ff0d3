"""Tries constraints, as a limited process: what takes too much time or memory ends it, and nothing else.

A grammar is compiled alike for every vocabulary, so the bytes are enough of one here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from model.text.constraint import Constraint, compiled, first_problem
from model.text.limited_process import serve


class _Bytes:
    """A vocabulary of the 256 bytes and an end, as llguidance wants it."""

    is_tokenizer_wrapper = True
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (256,)
    bos_token_id, eos_token_id = None, 256

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@cache
def _tokens() -> Any:
    from llguidance import LLTokenizer

    return LLTokenizer(_Bytes())


def answer(request: dict[str, str]) -> str:
    """What is wrong with the constraint {"kind", "source"}; "" if nothing is."""
    try:
        matcher = compiled(Constraint(request["kind"], request["source"]), _tokens())
        return matcher.get_error() if matcher.is_error() else first_problem(matcher)
    except ImportError:
        return "it needs the package llguidance: pip install -r requirements-web.txt"
    except BaseException as error:  # a Rust panic, too
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    serve(answer)
