"""What a reply must look like (a JSON schema, a regular expression, one of some texts) as masks over tokens.

The grammars are llguidance's, which is imported when the first constraint is used. Knows tokenizers; nothing
of engines but the shape of a mask.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from model.text.errors import rust_panics_as
from model.text.limited_process import Gone, LimitedProcess, OverTime, ProcessLimits

if TYPE_CHECKING:
    from model.text.tokenizer import Tokenizer

_MAX_SOURCE = 1 << 16   # characters of a schema, a pattern, or all choices together
_MAX_GRAMMAR = 1 << 20  # of our own grammars, which hold many schemas
_CACHED = 16           # compiled constraints

# What a constraint may use, in llguidance's fuel: about 2 to 5 us a unit. `(a{1000}){1000}` takes millions.
_FUEL_AT_START = 200_000
_FUEL_A_TOKEN = 100_000
_TRIAL = ProcessLimits(seconds=5.0, memory_bytes=1 << 30)


@dataclass(frozen=True)
class Constraint:
    """Made by `json_schema`, `regex` or `choice`; whether it makes sense shows when it is used. The kind
    "grammar" is that of calls/grammar.py."""

    kind: str
    source: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Constraint:
        """JSON of this schema: an object, or its text. Raises ValueError if it is no JSON object."""
        try:
            parsed = json.loads(schema) if isinstance(schema, str) else schema
            if not isinstance(parsed, Mapping):
                raise ValueError(f"it is {type(parsed).__name__}, expected an object")
            return cls("json_schema", _checked(json.dumps(parsed), "the JSON schema"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the JSON schema cannot be used: {error}") from None

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """The whole reply matches; the syntax is that of Rust's regex: no look-around, no back-references."""
        return cls("regex", _checked(pattern, "the regular expression"))

    @classmethod
    def choice(cls, texts: Iterable[str]) -> Constraint:
        """Exactly one of these. Raises ValueError if there is none, or an empty one."""
        found = [texts] if isinstance(texts, str) else list(texts)
        if not found or not all(isinstance(text, str) and text for text in found):
            raise ValueError(f"the choices are {found!r:.200}; expected one or more texts, none of them "
                             "empty")
        return cls("choice", _checked(json.dumps(found), "the choices"))


def _checked(source: str, what: str) -> str:
    if not isinstance(source, str) or not 0 < len(source) <= _MAX_SOURCE:
        size = len(source) if isinstance(source, str) else type(source).__name__
        raise ValueError(f"{what} has {size} characters; expected 1 to {_MAX_SOURCE:,}")
    return source


class ConstraintCompiler:
    """Constraints for one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, limits: ProcessLimits = _TRIAL) -> None:
        """`vocab_size`: the model's, as many bits as a mask has (rounded up to whole words)."""
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._lock = threading.Lock()
        self._tokens: Any = None
        self._compiled = lru_cache(_CACHED)(self._compile)
        self._trial = LimitedProcess("model.text.constraint_worker", limits)

    def matcher(self, constraint: Constraint) -> TokenMatcher:
        """A fresh one, for one reply. Raises ValueError if the constraint makes no sense or needs too much.

        Takes up to some seconds, in the caller's thread: the engine's only sees constraints that begin well.
        """
        with self._lock, _panics():
            return TokenMatcher(self._compiled(constraint).deep_copy())

    def problem(self, constraint: Constraint) -> str:
        """Why it cannot be used, as far as its beginning tells; "" if it can."""
        if len(constraint.source) > _MAX_GRAMMAR:
            return f"it has {len(constraint.source):,} characters; at most {_MAX_GRAMMAR:,} are possible"
        try:
            return self._trial.ask({"kind": constraint.kind, "source": constraint.source})
        except OverTime as error:
            return str(error)
        except Gone:
            return "it needs more memory than constraints get"

    def close(self) -> None:
        """End the process in which constraints are tried, and let go of what was compiled."""
        self._trial.close()
        with self._lock:
            self._compiled.cache_clear()
            self._tokens = None

    def _compile(self, constraint: Constraint) -> Any:
        """The grammar, which has been tried in a process with limits: some take minutes and gigabytes."""
        problem = self.problem(constraint)
        if not problem:
            from llguidance import LLTokenizer

            if self._tokens is None:
                self._tokens = LLTokenizer(_TokenTable(self._tokenizer, self._vocab_size),
                                           eos_token=sorted(self._tokenizer.eos_ids) or None)
            matcher = compiled(constraint, self._tokens, self._spelt)
            problem = matcher.get_error() if matcher.is_error() else first_problem(matcher)
        if problem:
            raise ValueError(f"the {constraint.kind} constraint cannot be used: {_one_line(problem)}")
        return matcher


    def _spelt(self, text: str) -> str:
        """A control token in a grammar: by its id, or by its letters where the vocabulary has none."""
        token_id = self._tokenizer.token_id(text)
        return f"<[{token_id}]>" if token_id in self._tokenizer.control_ids else json.dumps(text)


def compiled(constraint: Constraint, tokens: Any, spelt: Callable[[str], str] = json.dumps) -> Any:
    """A new LLMatcher; what is wrong with the constraint is told by its `get_error`. `spelt`: control tokens
    as grammars have them."""
    from llguidance import LLMatcher, LLParserLimits

    if constraint.kind == "json_schema":
        grammar = LLMatcher.grammar_from_json_schema(constraint.source)
    elif constraint.kind == "regex":
        grammar = LLMatcher.grammar_from_regex(constraint.source)
    elif constraint.kind == "grammar":
        from model.text.calls.grammar import with_specials
        grammar = LLMatcher.grammar_from_lark(with_specials(constraint.source, spelt))
    else:
        texts = " | ".join(map(json.dumps, json.loads(constraint.source)))
        grammar = LLMatcher.grammar_from_lark(f"start: {texts}")
    limits = LLParserLimits(initial_lexer_fuel=_FUEL_AT_START, step_lexer_fuel=_FUEL_A_TOKEN)
    return LLMatcher(tokens, grammar, log_level=0, limits=limits)


def first_problem(matcher: Any) -> str:
    """What goes wrong as soon as the grammar is used: with all that is forced at its start; "" if nothing."""
    first = matcher.deep_copy()
    if first.consume_tokens(first.compute_ff_tokens()):
        first.compute_bitmask()
    return first.get_error() if first.is_error() else ""


class TokenMatcher:
    """How far one reply has come in its constraint. A TokenConstraint of the engine."""

    is_free = False

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill_mask(self, mask: Any) -> None:
        with _panics():
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            self._check(not self._matcher.is_error())

    def accept(self, token_ids: Sequence[int]) -> None:
        with _panics():
            self._check(self._matcher.consume_tokens(list(token_ids)))

    def take_back(self, count: int) -> None:
        with _panics():
            self._check(count == 0 or self._matcher.rollback(count))

    def count_possible(self, token_ids: Sequence[int]) -> int:
        with _panics():
            return self._matcher.validate_tokens(list(token_ids))

    @property
    def is_complete(self) -> bool:
        return self._matcher.is_stopped()

    def _check(self, went_well: bool) -> None:
        if not went_well:
            raise ValueError(f"The constraint cannot be followed: {_one_line(self._matcher.get_error())}")


class AfterThought:
    """A constraint that begins when the model has thought: with what follows a mark in its reply. A
    TokenConstraint of the engine."""

    is_free = False

    def __init__(self, matcher: TokenMatcher, mark: str, tokenizer: Tokenizer) -> None:
        self._matcher, self._mark, self._tokenizer = matcher, mark.encode(), tokenizer
        self._thought = bytearray()
        self._begun = False
        self._steps: list[tuple[int, int]] = []  # of each token: its bytes of thought, the matcher's tokens

    def fill_mask(self, mask: Any) -> None:
        if self._begun:
            self._matcher.fill_mask(mask)
            return
        words = mask.view("uint32")
        words.fill(0xFFFFFFFF)
        for token_id in self._tokenizer.eos_ids:  # there would be no answer
            if token_id < 32 * len(words):
                words[token_id // 32] &= 0xFFFFFFFF ^ (1 << token_id % 32)

    def accept(self, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            if self._begun:
                self._matcher.accept([token_id])
                self._steps.append((0, 1))
            else:
                self._think(token_id)

    def take_back(self, count: int) -> None:
        for size, num_matched in [self._steps.pop() for _ in range(count)]:
            self._matcher.take_back(num_matched)
            if size:
                del self._thought[-size:]
                self._begun = False

    def count_possible(self, token_ids: Sequence[int]) -> int:
        count = 0
        while count < len(token_ids) and not self._begun and token_ids[count] not in self._tokenizer.eos_ids:
            self.accept(token_ids[count:count + 1])
            count += 1
        after = self._matcher.count_possible(token_ids[count:]) if self._begun else 0
        self.take_back(count)
        return count + after

    @property
    def is_complete(self) -> bool:
        return self._begun and self._matcher.is_complete

    def _think(self, token_id: int) -> None:
        data = self._tokenizer.token_bytes(token_id) if token_id < self._tokenizer.vocab_size else b""
        self._thought += data
        start = max(0, len(self._thought) - len(data) - len(self._mark))
        at = self._thought.find(self._mark, start)
        answer = b"" if at < 0 else bytes(self._thought[at + len(self._mark):])
        begun = self._tokenizer.encode_within(answer.decode(errors="replace")) if answer.strip() else []
        self._matcher.accept(begun)
        self._steps.append((len(data), len(begun)))
        self._begun = at >= 0


class _TokenTable:
    """A vocabulary as llguidance wants it; https://github.com/guidance-ai/llguidance (TokenizerWrapper)."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        known = min(tokenizer.vocab_size, vocab_size)
        unused = [b"<|unused %d|>" % token_id for token_id in range(known, vocab_size)]
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(known)] + unused
        special = tokenizer.control_ids | tokenizer.eos_ids | {*range(known, vocab_size)}
        self.special_token_ids = sorted(token_id for token_id in special if token_id < vocab_size)
        self.bos_token_id = tokenizer.bos_id
        self.eos_token_id = min(tokenizer.eos_ids, default=vocab_size - 1)

    def __call__(self, text: bytes | str) -> list[int]:
        """Token ids of a fragment that goes on after others."""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return self._tokenizer.encode_within(text)


def _panics() -> AbstractContextManager[None]:
    return rust_panics_as(ValueError, "The constraint cannot be followed")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
