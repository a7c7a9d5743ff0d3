"""Calls held to their schemas while they are written: constraints of the engine, for one reply each.

Where a reply may call or not, it is free until it opens a call, and free again after it. Knows tokenizers and
grammars.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model.text.calls.grammar import arguments_grammars, calls_grammar
from model.text.calls.styles import CallStyle
from model.text.calls.toolbox import Toolbox
from model.text.constraint import Constraint, ConstraintCompiler, TokenMatcher

if TYPE_CHECKING:
    from model.text.messages import Prompt
    from model.text.tokenizer import Tokenizer

_KEPT_BYTES = 256  # of what was written: more than any opening or mark has
_KNOWN = 64
log = logging.getLogger(__name__)


class CallCompiler:
    """Constraints for calls. Safe to use from several threads."""

    def __init__(self, compiler: ConstraintCompiler, tokenizer: Tokenizer) -> None:
        self._compiler, self._tokenizer = compiler, tokenizer
        self._loose: dict[str, frozenset[str]] = {}

    def whole(self, style: CallStyle, toolbox: Toolbox, answer: Mapping[str, Any] | None) -> TokenMatcher:
        """For an answer that is calls and nothing else, or else JSON of the schema `answer`. Raises
        ValueError."""
        return self._made(style, toolbox, opened=False, answer=answer)()

    def free(self, style: CallStyle, toolbox: Toolbox, prompt: Prompt) -> UntilCall:
        """For an answer that may call. Raises ValueError."""
        return UntilCall(self._made(style, toolbox, opened=True), style, toolbox.parallel, prompt,
                         self._tokenizer)

    def _made(self, style: CallStyle, toolbox: Toolbox, **options: Any) -> Callable[[], TokenMatcher]:
        source = calls_grammar(style, toolbox, **options)
        loose = self._loose.get(source)
        if loose is None:
            loose = self._find_loose(toolbox)
            if len(self._loose) >= _KNOWN:
                self._loose.clear()
            self._loose[source] = loose
        constraint = Constraint("grammar", calls_grammar(style, toolbox, loose=loose, **options))
        self._compiler.matcher(constraint)  # what is wrong with it shows here, not in the engine
        return lambda: self._compiler.matcher(constraint)

    def _find_loose(self, toolbox: Toolbox) -> frozenset[str]:
        """Names of the tools whose schemas are beyond the grammars. Raises ValueError where one is strict."""
        found = set()
        for tool in toolbox.callable_tools:
            problem = next(filter(None, (self._compiler.problem(Constraint("grammar", source))
                                         for source in arguments_grammars(tool))), "")
            if problem and tool.strict:
                raise ValueError(f"the parameters of {tool.name} cannot be followed: {problem}")
            if problem:
                found.add(tool.name)
                log.warning("the schema of the tool %s cannot be followed, its arguments will be any "
                            "object: %s", tool.name, problem)
        return frozenset(found)


@dataclass(frozen=True)
class _Moment:
    """How far a reply has come. `tail`: the last bytes that were written freely, of `size` since the
    beginning or the last call; `stepped`: the matcher that the last token went to."""

    tail: bytes = b""
    size: int = 0
    thinks: bool = False
    matcher: TokenMatcher | None = None
    stepped: TokenMatcher | None = None
    is_over: bool = False


class UntilCall:
    """A TokenConstraint of the engine: free until a call is opened, then the call's grammar, then free
    again."""

    is_free = False

    def __init__(self, new_matcher: Callable[[], TokenMatcher], style: CallStyle, parallel: bool,
                 prompt: Prompt,
                 tokenizer: Tokenizer) -> None:
        self._new_matcher, self._style, self._parallel = new_matcher, style, parallel
        self._tokenizer = tokenizer
        self._thoughts = prompt.think_format
        opening = b"|".join(re.escape(mark.encode()) for mark in style.openings)
        self._opening = re.compile(opening)
        self._now = _Moment(thinks=prompt.at == "think")
        self._before: list[_Moment] = []

    def fill_mask(self, mask: Any) -> None:
        if self._now.matcher is not None:
            self._now.matcher.fill_mask(mask)
        else:
            mask.fill(-1)

    def accept(self, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            before = self._now
            self._now = self._after(token_id)
            self._before.append(before)

    def take_back(self, count: int) -> None:
        for _ in range(count):
            if self._now.stepped is not None:
                self._now.stepped.take_back(1)
            self._now = self._before.pop()

    def count_possible(self, token_ids: Sequence[int]) -> int:
        count = 0
        while count < len(token_ids) and self._now.matcher is None and not self._now.is_over:
            self.accept(token_ids[count:count + 1])
            count += 1
        matcher = self._now.matcher
        further = matcher.count_possible(token_ids[count:]) if matcher is not None else 0
        self.take_back(count)
        return count + further

    @property
    def is_complete(self) -> bool:
        return self._now.is_over

    def _after(self, token_id: int) -> _Moment:
        now = self._now
        if now.matcher is not None:
            now.matcher.accept([token_id])
            if now.matcher.is_complete:
                return _Moment(stepped=now.matcher, is_over=not self._parallel)
            return replace(now, stepped=now.matcher)
        data = self._tokenizer.token_bytes(token_id) if token_id < self._tokenizer.vocab_size else b""
        tail, size = now.tail + data, now.size + len(data)
        thinks = self._thinks(now, tail, size)
        found = None if thinks else next((match for match in self._opening.finditer(tail)
                                          if match.end() > len(now.tail)), None)  # by this token
        if found and (not self._style.at_start or not self._said(tail[:found.start()], size > len(tail))):
            matcher = self._engaged(tail, found)
            if matcher is not None:
                return _Moment(matcher=matcher)
        return _Moment(tail[-_KEPT_BYTES:], size, thinks)

    def _thinks(self, now: _Moment, tail: bytes, size: int) -> bool:
        """Whether what comes now belongs to a thought."""
        close = self._thoughts.close.encode()
        if now.thinks:
            return close not in tail
        begun = tail.lstrip()
        marks = tuple(mark.strip().encode() for mark in self._thoughts.opens)
        return size == len(tail) and begun.startswith(marks) and close not in tail

    def _said(self, before: bytes, is_cut: bool) -> bool:
        """Whether an answer has begun before an opening; marks of a thought before it are none."""
        _, thought, rest = before.decode(errors="replace").rpartition(self._thoughts.close)
        for mark in self._thoughts.between:
            rest = rest.replace(mark, "")
        return (is_cut and not thought) or bool(rest.strip())

    def _engaged(self, tail: bytes, found: re.Match[bytes]) -> TokenMatcher | None:
        """The matcher, with what is written behind the opening; None if that is no call's beginning."""
        rest = tail[found.start() if self._style.kept else found.end():].decode(errors="replace")
        begun = self._tokenizer.encode_within(rest) if rest else []
        matcher = self._new_matcher()
        if matcher.count_possible(begun) < len(begun):
            return None
        matcher.accept(begun)
        return matcher
