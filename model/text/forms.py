"""What the rest of a reply must look like, as a constraint of the engine: a form, calls of tools, thoughts
first.

Knows prompts and tokenizers; nothing of engines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from model.text.calls.matching import CallCompiler, UntilCall
from model.text.constraint import AfterThought, ConstraintCompiler, TokenMatcher

if TYPE_CHECKING:
    from model.text.calls.styles import CallStyle
    from model.text.calls.toolbox import Toolbox
    from model.text.constraint import Constraint
    from model.text.messages import Prompt
    from model.text.tokenizer import Tokenizer

Form = TokenMatcher | AfterThought | UntilCall


class Forms:
    """Of one model. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._compiler = ConstraintCompiler(tokenizer, vocab_size)
        self._calls = CallCompiler(self._compiler, tokenizer)

    def of(self, constraint: Constraint, prompt: Prompt | None) -> Form:
        """For one reply to `prompt` (None: for what follows a text). Raises ValueError if it cannot be
        used."""
        return self._after_thought(self._compiler.matcher(constraint), prompt)

    def of_calls(self, constraint: Constraint | None, prompt: Prompt, style: CallStyle,
                 tools: Toolbox) -> Form:
        """For one reply that may, or must, call tools; if it does not, it has the form of `constraint`.
        Raises ValueError for what cannot be used."""
        if not tools.must_call and constraint is None:
            return self._calls.free(style, tools, prompt)
        answer = None
        if not tools.must_call and constraint is not None:
            if constraint.kind != "json_schema":
                raise ValueError("beside tools a reply can be held to a JSON schema only")
            answer = json.loads(constraint.source)
        matcher = self._calls.whole(style, tools, answer)
        return matcher if style.name == "harmony" else self._after_thought(matcher, prompt)

    def close(self) -> None:
        """End the process in which constraints are tried, and let go of what was compiled."""
        self._compiler.close()

    def _after_thought(self, matcher: TokenMatcher, prompt: Prompt | None) -> Form:
        """`matcher` from the end of a thought on, if there must be one; harmony's grammar of calls has its
        own."""
        mark = prompt.think_format.mark_before_answer(prompt.at) if prompt is not None else ""
        return AfterThought(matcher, mark, self._tokenizer) if mark else matcher
