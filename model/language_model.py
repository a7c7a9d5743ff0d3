"""What the pages and protocols need of a model, wherever it runs.

ChatModel is one that is loaded here, remote.RemoteModel one behind another engine. Only shapes: nothing of
either is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from model.engine.request import SamplingParams
    from model.engine.tally import Tally
    from model.reply import ReplyEvent
    from model.text.calls.toolbox import Toolbox
    from model.text.constraint import Constraint
    from model.text.context import ContextFit
    from model.text.messages import ChatMessage
    from model.text.prompt_parts import PromptView

CONTINUE, RANK, LOGPROBS, CONTEXT, CONSTRAINT = "continue", "rank", "logprobs", "context", "constraint"
"""What a model may not be able to do: the keys of info()["cannot"]."""


class CannotDo(ValueError):
    """What was asked for is nothing that this model's engine can do; the sentence says what and why."""


class RunningReply(Protocol):
    """A reply in the making. One thread reads `events`; any thread may `cancel`."""

    first_index: int     # see ContextFit
    prompt_tokens: int
    is_shortened: bool
    prompt_digest: str   # of its tokens; "" where they are not known here

    def cancel(self) -> None: ...

    def answer_now(self) -> bool:
        """Close the thought that goes on. False if there is none, or if its engine cannot be told."""

    def events(self) -> Iterator[ReplyEvent]: ...


class LanguageModel(Protocol):
    """Web threads use it at the same time. What each does is told by ChatModel's functions of these names;
    each may raise CannotDo besides."""

    def start(self, messages: Iterable[ChatMessage], params: SamplingParams | None = None, *,
              reply_name: str = "", reply_prefix: str = "", reply_thinking: str = "", shorten: bool = False,
              whole: bool = False, variables: Mapping[str, Any] | None = None, tools: Toolbox | None = None,
              logprobs: int | None = None, constraint: Constraint | None = None,
              adapter: str | None = None, reply_tokens: Sequence[bytes] = (),
              against: Iterable[ChatMessage] | None = None) -> RunningReply: ...

    def go_on(self, text: str | Sequence[int], params: SamplingParams, *, logprobs: int | None = None,
              constraint: Constraint | None = None, adapter: str | None = None) -> RunningReply: ...

    def scored(self, text: str, top: int = 0, adapter: str | None = None) -> RunningReply: ...

    def scored_reply(self, messages: Iterable[ChatMessage], reply: str, *, reply_name: str = "",
                     reply_thinking: str = "", top: int = 0, adapter: str | None = None,
                     variables: Mapping[str, Any] | None = None) -> RunningReply: ...

    def next_token(self, messages: Iterable[ChatMessage], params: SamplingParams, *, reply_name: str = "",
                   reply_prefix: str = "", reply_thinking: str = "", reply_tokens: Sequence[bytes] = (),
                   adapter: str | None = None,
                   against: Iterable[ChatMessage] | None = None) -> RunningReply:
        """Its events come with one NextToken."""

    def prompt_tokens(self, messages: Iterable[ChatMessage], variables: Mapping[str, Any] | None = None,
                      tools: Toolbox | None = None) -> int: ...

    def fit(self, messages: Iterable[ChatMessage], max_new_tokens: int, reply_name: str = "",
            reply_prefix: str = "", shorten: bool = False,
            variables: Mapping[str, Any] | None = None) -> ContextFit: ...

    def inspect(self, messages: Iterable[ChatMessage], max_new_tokens: int, reply_name: str = "",
                adapter: str | None = None, variables: Mapping[str, Any] | None = None) -> PromptView: ...

    def rank_speakers(self, transcript: Sequence[tuple[str, str]], names: Sequence[str]) -> list[float]: ...

    def info(self) -> dict[str, Any]:
        """At least name, max_seq_len (None: not known), vocab_size (the same), advice, `host` (where text
        goes; "" for this process) and `cannot` (what it cannot do -> why, as a sentence). Of one that is
        loaded here `adapters`, by name, `thinks` (whether its template knows thoughts) and `efforts` (of
        none, low, medium and high, what the template can tell it), and what decides which tokens come, see
        Origin: `fingerprint`, `adapter_fingerprints`, `numerics`."""

    def check_adapter(self, path: Path) -> None: ...

    def load_adapter(self, name: str, path: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def status(self) -> dict[str, Any]: ...

    def tally(self) -> Tally | None:
        """What its engine has done; None where that is another's to tell."""

    def close(self) -> None: ...
