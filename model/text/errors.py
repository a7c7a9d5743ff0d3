"""What the text layer reports when a prompt cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PromptTooLongError(ValueError):
    """A prompt that does not fit the context even after every message that may be dropped is dropped."""


class TemplateError(ValueError):
    """A chat template that refuses these messages, fails, or goes beyond its limits of time or size."""


class TokenizerError(ValueError):
    """A tokenizer whose own rules fail on a text."""


@contextmanager
def rust_panics_as(kind: type[ValueError], what: str) -> Iterator[None]:
    """Raise `kind` in place of what libraries written in Rust raise when they give up.

    tokenizers raises a bare Exception for its own errors, and every such library a PanicException, which is a
    BaseException and would end the thread that meets it.
    """
    try:
        yield
    except (ValueError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise kind(f"{what}: {' '.join(str(error).split())[:300]}") from None
