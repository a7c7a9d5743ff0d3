"""A model behind another engine, talked to as if it were loaded here.

Nothing of a conversation is sent but by `start`, `go_on` and `rank_speakers`, which somebody has asked for;
what a conversation costs is an estimate, from what the engine counted of earlier prompts.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.engine.request import SamplingParams
from model.language_model import CONTINUE, LOGPROBS, RANK, CannotDo
from model.remote.abilities import ECHO_FIELDS, Abilities, scores_after
from model.remote.address import shown_name
from model.remote.background import Background
from model.remote.connection import FIRST_SECONDS, Connection
from model.remote.fields import form_fields, message_fields, sampling_fields, tool_fields, variable_fields
from model.remote.problems import named
from model.remote.remote_reply import RemoteReply
from model.text.calls.toolbox import Toolbox
from model.text.constraint import Constraint
from model.text.context import ContextFit, first_kept, token_budget
from model.text.detokenizer import whole_text
from model.text.errors import PromptTooLongError
from model.text.messages import LEFT_OUT, ChatMessage, as_messages, joined, shortened
from model.text.prompt_parts import PromptPart, PromptView
from model.text.thinking import thinking_variables

TOKENS_PER_BYTE = 0.3  # of English about 0.22, of program text more; until the engine has counted
MESSAGE_TOKENS = 6     # around each message
_MIN_COUNTED = 200     # bytes of a prompt whose count tells something
_SHARES = (1.0, 0.7, 0.4)
"""Of what should fit: what is sent in turn while the engine says that it does not."""
_SPARE = 32            # this part of a context is left to templates
_MAX_RANKED = 4_000    # characters of a transcript that are read to tell who speaks next


class RemoteModel:
    """What Engines.open returns; see LanguageModel."""

    def __init__(self, connection: Connection, background: Background, model: str, abilities: Abilities,
                 broken: Callable[[], None] = lambda: None) -> None:
        """`broken` is called when the engine could not do what it could before: it is to be asked again."""
        self._connection, self._background = connection, background
        self._model, self._abilities, self._broken = model, abilities, broken
        self._lock = threading.Lock()
        self._tokens_per_byte = TOKENS_PER_BYTE
        self._running = 0
        self._problem = ""

    def start(self, messages: Iterable[ChatMessage], params: SamplingParams | None = None, *,
              reply_name: str = "", reply_prefix: str = "", reply_thinking: str = "", shorten: bool = False,
              whole: bool = False, variables: Mapping[str, Any] | None = None, tools: Toolbox | None = None,
              logprobs: int | None = None, constraint: Constraint | None = None,
              adapter: str | None = None, reply_tokens: Sequence[bytes] = (),
              against: Iterable[ChatMessage] | None = None) -> RemoteReply:
        """Begin the assistant's next message. Raises ValueError: CannotDo, or PromptTooLongError."""
        if adapter is not None:
            raise CannotDo(f"The adapter {adapter!r} lies beside a model of this machine; {self._engine} is "
                           "asked for its own models only.")
        params, turns = params or SamplingParams(), as_messages(messages)
        if params.guidance_scale != 1:
            raise CannotDo(f"{self._engine} knows no guidance; models have it that are loaded here. Set it "
                           "to 1.")
        variables = {**thinking_variables(params.reasoning_effort), **(variables or {})}
        reply_prefix += whole_text(reply_tokens)
        go_on: Mapping[str, Any] = {}
        if reply_prefix or reply_thinking:
            if self._abilities.go_on_fields is None:
                raise CannotDo(self._abilities.cannot[CONTINUE])
            if not reply_prefix:
                raise CannotDo(f"{self._engine} goes on with texts, not with thoughts: regenerate this one.")
            go_on = self._abilities.go_on_fields
        seed = secrets.randbelow(1 << 31) if params.seed is None else params.seed
        fields = {"model": self._model, **go_on, **tool_fields(tools), **variable_fields(variables),
                  **form_fields(constraint)}
        if logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": logprobs}
        shares = (1.0,) if whole else _SHARES
        fits = [self._fitted(turns, params.max_new_tokens, reply_prefix, shorten, share) for share in shares]
        if whole:
            fits = [(dict(enumerate(turns)), ContextFit(0, fits[0][1].prompt_tokens, 0))]
        asked = [replace(params, max_new_tokens=self._room(params.max_new_tokens, fit.prompt_tokens, share))
                 for (_, fit), share in zip(fits, shares, strict=True)]
        requests = [({**fields, **sampling_fields(one, self._abilities.dialect, seed),
                      "messages": message_fields(joined(kept.values()), reply_prefix)}, fit.first_index)
                    for (kept, fit), one in zip(fits, asked, strict=True)]
        sent = sum(map(_bytes, fits[0][0].values()))
        with self._lock:
            self._running += 1
        return RemoteReply(
            self._connection, self._background, requests, params, seed, continues=bool(reply_prefix),
            answers_as=self._abilities.answers_as, prompt_tokens=fits[0][1].prompt_tokens,
            is_shortened=fits[0][1].is_shortened, wants_logprobs=logprobs is not None,
            heard=lambda problem, tokens: self._hear(problem, tokens, sent, len(fits[0][0])))

    def go_on(self, text: str | Sequence[int], params: SamplingParams, *, logprobs: int | None = None,
              constraint: Constraint | None = None, adapter: str | None = None) -> RemoteReply:
        """Raises CannotDo."""
        raise CannotDo(f"{self._engine} is asked for replies in a conversation only; use chat completions.")

    def scored(self, text: str, top: int = 0, adapter: str | None = None) -> RemoteReply:
        """Raises CannotDo."""
        raise CannotDo(f"{self._engine} is not asked how likely a text is.")

    def scored_reply(self, messages: Iterable[ChatMessage], reply: str, *, reply_name: str = "",
                     reply_thinking: str = "", top: int = 0, adapter: str | None = None,
                     variables: Mapping[str, Any] | None = None) -> RemoteReply:
        """Raises CannotDo."""
        raise CannotDo(self._abilities.cannot[LOGPROBS])

    def next_token(self, messages: Iterable[ChatMessage], params: SamplingParams, *, reply_name: str = "",
                   reply_prefix: str = "", reply_thinking: str = "", reply_tokens: Sequence[bytes] = (),
                   adapter: str | None = None, against: Iterable[ChatMessage] | None = None) -> RemoteReply:
        """Raises CannotDo."""
        raise CannotDo(f"{self._engine} tells a few likely tokens at most, too few to try samplers on. What "
                       "comes next is shown of models that are loaded here.")

    def prompt_tokens(self, messages: Iterable[ChatMessage], variables: Mapping[str, Any] | None = None,
                      tools: Toolbox | None = None) -> int:
        """Raises CannotDo."""
        raise CannotDo(f"{self._engine} is not asked to count the tokens of a prompt.")

    def fit(self, messages: Iterable[ChatMessage], max_new_tokens: int, reply_name: str = "",
            reply_prefix: str = "", shorten: bool = False,
            variables: Mapping[str, Any] | None = None) -> ContextFit:
        """Which messages the model would see, about; nothing is sent for it."""
        return self._fitted(as_messages(messages), max_new_tokens, reply_prefix, shorten, 1.0)[1]

    def inspect(self, messages: Iterable[ChatMessage], max_new_tokens: int, reply_name: str = "",
                adapter: str | None = None, variables: Mapping[str, Any] | None = None) -> PromptView:
        """The messages that would be sent, about; the engine puts its own template round them."""
        kept, fit = self._fitted(as_messages(messages), max_new_tokens, "", True, 1.0)
        parts = tuple(PromptPart(message.content, index, self._size(message))
                      for index, message in kept.items())
        return PromptView(parts, fit, is_template=False)

    def rank_speakers(self, transcript: Sequence[tuple[str, str]], names: Sequence[str]) -> list[float]:
        """Log-probability of "Name:" as the beginning of the next line. Raises CannotDo, EngineProblem."""
        if not self._abilities.echoes:
            raise CannotDo(f"{self._abilities.cannot[RANK]} Choose another turn order.")
        lines = [f"{name}: {line}\n" for name, line in transcript]
        while len(lines) > 1 and sum(map(len, lines)) > _MAX_RANKED:
            lines.pop(0)
        head = "".join(lines)[-_MAX_RANKED:]
        texts = [f"{head}{name}:" for name in names]
        request = self._connection.complete({"model": self._model, "prompt": texts, **ECHO_FIELDS},
                                            FIRST_SECONDS)
        reply = self._background.run(request)
        try:
            return scores_after(reply, texts, len(head))
        except (ValueError, TypeError, AttributeError, LookupError):
            raise CannotDo(f"{self._engine} no longer tells how likely a text is. Choose another turn "
                           "order.") from None

    def info(self) -> dict[str, Any]:
        """What is known of it: the engine, its context, what it cannot do."""
        address = self._connection.address
        return {"name": shown_name(self._model, address.name), "host": address.host,
                "architecture": "", "num_parameters": 0, "advice": {}, "vocab_size": None,
                "max_seq_len": self._abilities.max_seq_len,
                "cannot": dict(self._abilities.cannot)}

    def check_adapter(self, path: Path) -> None:
        raise CannotDo(f"Adapters lie beside models of this machine, and {self._engine} is another.")

    def load_adapter(self, name: str, path: Path) -> None:
        self.check_adapter(path)

    def unload_adapter(self, name: str) -> None:
        self.check_adapter(Path(name))

    def status(self) -> dict[str, Any]:
        """What it is doing for us now, and why the last reply failed, if it did."""
        return {"running": self._running, "waiting": 0, "problem": self._problem or None}

    def tally(self) -> None:
        """The engine counts for itself."""

    def close(self) -> None:
        """Nothing: the connection is the engine's, and others may use it."""

    @property
    def _engine(self) -> str:
        return named(self._connection.address)

    def _hear(self, problem: str, tokens: int, sent_bytes: int, messages: int) -> None:
        with self._lock:
            self._running -= 1
            self._problem = problem
            counted = tokens - MESSAGE_TOKENS * messages
            if sent_bytes >= _MIN_COUNTED and counted > 0:
                self._tokens_per_byte = min(2.0, max(0.02, counted / sent_bytes))
        if problem:
            self._broken()

    def _room(self, max_new_tokens: int, prompt_tokens: int, share: float) -> int:
        """How long a reply is asked for. Engines refuse one that does not fit behind its prompt, about which
        is only known here; half of the context is kept free anyhow."""
        limit = self._abilities.max_seq_len
        if limit is None or max_new_tokens <= limit // 2:
            return max_new_tokens
        return max(1, min(max_new_tokens, int(limit * share) - prompt_tokens - limit // _SPARE))

    def _fitted(self, messages: list[ChatMessage], max_new_tokens: int, reply_prefix: str, shorten: bool,
                share: float) -> tuple[dict[int, ChatMessage], ContextFit]:
        """What is sent, by the messages' numbers, and how that fits into `share` of what should."""
        limit = self._abilities.max_seq_len
        num_system = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        system, turns = messages[:num_system], messages[num_system:]
        stays = [*system, *(turn for turn in turns if turn.pinned)]
        fixed = sum(map(self._size, stays)) + int(len(reply_prefix.encode(errors="replace"))
                                                  * self._tokens_per_byte)
        sizes = [0 if turn.pinned else self._size(turn) for turn in turns]
        if limit is None and share == 1.0:
            return dict(enumerate(messages)), ContextFit(0, fixed + sum(sizes), 0, is_exact=False)
        whole = fixed + sum(sizes)
        if limit is not None:  # less than all, where the engine found that even what seemed to fit does not
            whole = min(token_budget(limit, max_new_tokens), whole if share < 1 else limit)
        room = int(whole * share) - fixed
        step = max(1, int((limit or whole) / 4 / self._tokens_per_byte))
        first = first_kept(sizes.__getitem__, [_bytes(turn) for turn in turns],
                           [turn.role == "user" for turn in turns], room, step) if turns else 0
        kept = {index: message for index, message in enumerate(messages)
                if index < num_system or index >= num_system + first or message.pinned}
        is_shortened = False
        if shorten and limit is not None and first == len(turns) - 1 and sizes[first] + fixed >= limit:
            last = turns[first]
            length = int(room / self._tokens_per_byte * len(last.content) / max(1, _bytes(last)))
            if length - len(LEFT_OUT) <= 0:
                raise PromptTooLongError(f"What always stays needs about {fixed:,} tokens; the context holds "
                                         f"{limit:,}, the reply included. Shorten the system prompt"
                                         f"{', or unpin messages' if len(stays) > num_system else ''}.")
            kept[len(messages) - 1] = shortened(last, length - len(LEFT_OUT))
            is_shortened = True
        tokens = fixed + sum(self._size(message) for index, message in kept.items()
                             if index >= num_system and not message.pinned)
        return kept, ContextFit(num_system + first if first else 0, tokens, limit or 0, is_shortened,
                                is_exact=False)

    def _size(self, message: ChatMessage) -> int:
        return int(_bytes(message) * self._tokens_per_byte) + (0 if message.follows else MESSAGE_TOKENS)


def _bytes(message: ChatMessage) -> int:
    return len(message.content.encode(errors="replace"))
