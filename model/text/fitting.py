"""Which messages of a conversation go into a prompt: the system's, pinned ones, and as many of the last as
the context has room for.

Sizes are counted message by message, the prompt as a whole at the end. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Any

from model.text.context import first_kept, token_budget
from model.text.errors import PromptTooLongError
from model.text.messages import LEFT_OUT, ChatMessage, Prompt, joined, shortened

if TYPE_CHECKING:
    from model.text.calls.toolbox import Toolbox
    from model.text.chat_template import PromptFormat
    from model.text.tokenizer import Tokenizer

_SAMPLE = "It was a clear night, and the two of them talked for hours about nothing in particular. "


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits, unless even its last message is too long; see ContextFit."""

    prompt: Prompt
    token_ids: list[int]
    first_index: int
    is_shortened: bool
    seen: dict[int, ChatMessage]  # by their numbers: the system's, pinned ones, those from first_index on


class Fitting:
    """For one model and the length of its context.

    step  bytes, about a quarter of the context: what is left out grows by so much at once, so that what is
          cached stays of use
    """

    def __init__(self, tokenizer: Tokenizer, prompt_format: PromptFormat, max_seq_len: int) -> None:
        self._tokenizer, self._format, self._max_seq_len = tokenizer, prompt_format, max_seq_len
        self._overhead = self._message_overhead()
        bytes_per_token = len(_SAMPLE) / max(1, tokenizer.count(_SAMPLE))
        self.step = max(1, int(max_seq_len / 4 * bytes_per_token))

    def fitted(self, messages: list[ChatMessage], max_new_tokens: int, reply_name: str,
               reply_prefix: str, reply_thinking: str, shorten: bool,
               variables: Mapping[str, Any] | None = None, tools: Toolbox | None = None,
               more: int = 0) -> Fitted:
        """The prompt with as many of the last messages as leave room for a reply.

        shorten  where even the last message alone is too long, its beginning and its end
        more     tokens that follow the prompt
        Raises TemplateError if the chat template refuses them.
        """
        num_system = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        system, turns = messages[:num_system], messages[num_system:]
        budget = token_budget(self._max_seq_len, max_new_tokens) - more
        begun = self._tokenizer.count(reply_prefix) + self._tokenizer.count(reply_thinking)
        stays = [*system, *(turn for turn in turns if turn.pinned)]
        room = budget - sum(map(self.size, stays)) - begun - self._overhead
        lengths = [len(m.content.encode(errors="replace")) for m in turns]
        is_shortened = False
        while True:
            first = first_kept(lambda index: 0 if turns[index].pinned else self.size(turns[index]), lengths,
                               [m.role == "user" for m in turns], room, self.step)
            seen = dict(enumerate(system)) | {num_system + index: turn for index, turn in enumerate(turns)
                                              if index >= first or turn.pinned}
            prompt = self._format.prompt(joined(seen.values()), reply_name, reply_prefix, reply_thinking,
                                         variables, tools)
            token_ids = self.token_ids(prompt)
            over = len(token_ids) - budget
            if shorten and first == len(turns) - 1 and len(token_ids) + more >= self._max_seq_len:
                shorter = self._shorter(turns[-1], over)
                if shorter is not None:
                    turns[-1], is_shortened = shorter, True
                    continue
            if over <= 0 or first >= len(turns) - 1:
                return Fitted(prompt, token_ids, num_system + first if first else 0, is_shortened, seen)
            room -= over  # sizes are estimates; let more go

    def guide_ids(self, fitted: Fitted, system: Sequence[ChatMessage] | None, begun: Sequence[int],
                  reply_name: str, reply_prefix: str, reply_thinking: str,
                  variables: Mapping[str, Any] | None = None,
                  tools: Toolbox | None = None) -> list[int] | None:
        """Of the prompt of `fitted` with other system messages, else the same, and `begun` behind it; None
        where those are None."""
        if system is None:
            return None
        turns = dropwhile(lambda message: message.role == "system", fitted.seen.values())
        prompt = self._format.prompt(joined([*system, *turns]), reply_name, reply_prefix, reply_thinking,
                                     variables, tools)
        return [*self.token_ids(prompt), *begun]

    def longer_by(self, system: Sequence[ChatMessage], messages: Sequence[ChatMessage]) -> int:
        """Tokens that the prompt with these system messages has more than that of `messages`, about."""
        own = takewhile(lambda message: message.role == "system", messages)
        return max(0, sum(map(self.size, system)) - sum(map(self.size, own)))

    def _shorter(self, message: ChatMessage, over: int) -> ChatMessage | None:
        """`message` with about `over` tokens less; None if it has no more than that."""
        tokens = self._tokenizer.count(message.content)
        length = int(len(message.content) * 0.98 * (tokens - over) / max(1, tokens)) - len(LEFT_OUT)
        return shortened(message, length) if length > 0 else None

    def token_ids(self, prompt: Prompt) -> list[int]:
        """Of the whole prompt, BOS included where it is added."""
        token_ids = self._tokenizer.encode_masked(prompt.text, prompt.hidden)
        return self._tokenizer.with_bos(token_ids) if prompt.add_bos else token_ids

    def size(self, message: ChatMessage) -> int:
        """Tokens that a message takes in a prompt, about."""
        return self._tokenizer.count(message.content) + (1 if message.follows else self._overhead)

    def _message_overhead(self) -> int:
        """Tokens that the format puts around one message, rounded up; tried out on a short conversation."""
        pair = [ChatMessage("user", "a"), ChatMessage("assistant", "a")]
        short, long = (len(self.token_ids(self._format.prompt([*pair * n, pair[0]]))) for n in (1, 3))
        return max(1, -(-(long - short) // 4) - 1)

    def check_length(self, num_tokens: int, whole: bool = False, has_pins: bool = False) -> None:
        """Raises PromptTooLongError unless a reply's first token has room, ValueError for an empty prompt."""
        limit = self._max_seq_len
        if num_tokens >= limit:
            parts = "" if whole else " even without the messages that can be left out"
            way = ("Shorten it, unpin messages" if has_pins else "Shorten it") if whole else \
                ("Shorten the last message or the system prompt, unpin messages" if has_pins else
                 "Shorten the last message or the system prompt")
            raise PromptTooLongError(
                f"The prompt needs {num_tokens:,} tokens{parts}; the context holds {limit:,}, the reply "
                f"included. {way}, or load the model with a larger --max-seq-len.")
        if num_tokens == 0:
            raise ValueError("the prompt is empty; expected at least one character")
