"""What the text layer reports when a prompt cannot be used."""

from __future__ import annotations


class PromptTooLongError(ValueError):
    """A prompt that does not fit the context even after every message that may be dropped is dropped."""


class TemplateError(ValueError):
    """A chat template that refuses these messages, fails, or goes beyond its limits of time or size."""
