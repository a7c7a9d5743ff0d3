"""One generation request: how it is to be sampled, and the events it sends back.

SamplingParams is the one place of every sampling default and range; the page, the API and the command
line read them from here. The engine thread writes events; exactly one reader takes them out. Knows nothing
of HTTP, sessions or text templates: tokens in, events out.
"""

from __future__ import annotations

import dataclasses
import queue
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from model.kernels.stages import SAMPLERS, STAGES_OF_LOGITS


def _param(default: Any, low: float, high: float, step: float, group: str, label: str, help_: str) -> Any:
    """A numeric field with its range; the page builds its sliders from this metadata."""
    return field(default=default, metadata={"min": low, "max": high, "step": step, "group": group,
                                            "label": label, "help": help_})


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen.

    What `samplers` names is done in its order: penalties and DRY act on the logits, the others cut the
    distribution; random numbers keyed by (seed, position) pick from what is left.
    """

    repetition_penalty: float = _param(1.0, 1.0, 2.0, 0.01, "penalties", "Repetition penalty",
                                       "Makes tokens seen lately less likely; 1 is off.")
    repetition_range: int = _param(1024, 0, 1 << 20, 16, "penalties", "Repetition range",
                                   "How many tokens back repetition counts; 0 is the whole context.")
    repetition_decay: int = _param(0, 0, 1 << 20, 16, "penalties", "Repetition decay",
                                   "Beyond the range the penalty fades to nothing over this many tokens.")
    presence_penalty: float = _param(0.0, -2.0, 2.0, 0.01, "penalties", "Presence penalty",
                                     "Lowers every token the reply has used already, once.")
    frequency_penalty: float = _param(0.0, -2.0, 2.0, 0.01, "penalties", "Frequency penalty",
                                      "Lowers a token more each time the reply has used it.")
    temperature: float = _param(0.8, 0.0, 5.0, 0.01, "sampling", "Temperature",
                                "Higher is bolder; 0 always takes the likeliest token.")
    top_k: int = _param(0, 0, 1000, 1, "sampling", "Top-k", "Keep at most this many tokens; 0 is off.")
    top_p: float = _param(0.95, 0.0, 1.0, 0.01, "sampling", "Top-p",
                          "Keep the likeliest tokens that add up to this share; 1 is off.")
    min_p: float = _param(0.05, 0.0, 1.0, 0.01, "sampling", "Min-p",
                          "Drop tokens below this share of the likeliest one; 0 is off.")
    typical_p: float = _param(1.0, 0.0, 1.0, 0.01, "sampling", "Typical",
                              "Keep tokens about as surprising as expected, up to this share; 1 is off.")
    top_n_sigma: float = _param(0.0, 0.0, 10.0, 0.01, "samplers", "Top-n-sigma",
                                "Keep tokens whose logit lies at most this many standard deviations "
                                "below the largest; 0 is off.")
    dynatemp_range: float = _param(0.0, 0.0, 5.0, 0.01, "samplers", "Dynamic temperature",
                                   "Lets the temperature vary by this much: lower where the model is sure, "
                                   "higher where it is not; 0 is off.")
    dynatemp_exponent: float = _param(1.0, 0.0, 10.0, 0.01, "samplers", "Dynamic temperature, exponent",
                                      "Above 1 the temperature rises only where the model is very unsure.")
    xtc_probability: float = _param(0.0, 0.0, 1.0, 0.01, "samplers", "XTC probability",
                                    "How often the likeliest tokens are left out in favour of a less likely "
                                    "one; 0 is off.")
    xtc_threshold: float = _param(0.1, 0.001, 1.0, 0.001, "samplers", "XTC threshold",
                                  "Of the tokens of at least this probability XTC leaves the least likely; "
                                  "above 0.5 it does nothing.")
    dry_multiplier: float = _param(0.0, 0.0, 100.0, 0.01, "samplers", "DRY multiplier",
                                   "Makes tokens less likely that would repeat a longer sequence; 0 is off.")
    dry_base: float = _param(1.75, 1.0, 8.0, 0.01, "samplers", "DRY base",
                             "How much more each further token of a repeated sequence counts.")
    dry_allowed_length: int = _param(2, 1, 1000, 1, "samplers", "DRY allowed length",
                                     "Repeated sequences that are shorter are not penalized.")
    dry_penalty_last_n: int = _param(-1, -1, 1 << 20, 1, "samplers", "DRY range",
                                     "How many tokens back DRY looks; -1 is the whole context, 0 is off.")
    dry_sequence_breakers: tuple[str, ...] = field(default=("\n", ":", '"', "*"), metadata={
        "group": "samplers", "label": "DRY sequence breakers", "max_items": 64, "max_length": 40,
        "help": "Texts that end what DRY takes for one sequence."})
    mirostat: int = _param(0, 0, 2, 2, "samplers", "Mirostat",
                           "2 keeps the surprise of the text even, in place of all other cuts; 0 is off.")
    mirostat_tau: float = _param(5.0, 0.0, 20.0, 0.1, "samplers", "Mirostat tau",
                                 "How surprising each token is to be, in bits.")
    mirostat_eta: float = _param(0.1, 0.0, 1.0, 0.01, "samplers", "Mirostat eta",
                                 "How fast mirostat corrects itself.")
    samplers: tuple[str, ...] = field(default=SAMPLERS, metadata={
        "group": "samplers", "label": "Order of the samplers", "max_items": len(SAMPLERS),
        "choices": SAMPLERS, "first": STAGES_OF_LOGITS,
        "help": "What is done to the probabilities, in this order; penalties and dry come first, and what is "
                "left out is not done."})
    guidance_scale: float = _param(1.0, 0.0, 10.0, 0.05, "guidance", "Guidance",
                                   "Above 1 the reply keeps away from what the model would say after the "
                                   "negative prompt; 1 is off. Two prompts are read for it.")
    negative_prompt: str = field(default="", metadata={
        "group": "guidance", "label": "Negative prompt", "max_length": 8000,
        "help": "What guidance leads away from: it stands in the place of the system prompt and the persona. "
                "Empty: the same without them."})
    max_new_tokens: int = _param(512, 1, 1 << 20, 1, "length", "Most tokens in a reply",
                                 "The reply is cut here if it has not ended by itself.")
    min_new_tokens: int = _param(0, 0, 1 << 20, 1, "length", "Fewest tokens in a reply",
                                 "The model may not end its reply before this many.")
    seed: int | None = field(default=None, metadata={
        "min": 0, "max": (1 << 53) - 1, "step": 1, "group": "length", "label": "Seed",
        "empty": "random", "help": "The same seed and settings give the same reply; empty is random."})
    reasoning_effort: str = field(default="", metadata={
        "group": "thinking", "label": "Effort", "choices": ("", "none", "low", "medium", "high"),
        "help": "How much the model is told to think, if its template can tell it."})
    thinking_budget: int | None = field(default=None, metadata={
        "min": 0, "max": 1 << 20, "step": 1, "group": "thinking", "label": "Most tokens of a thought",
        "empty": "none",
        "help": "The thought is closed here, and the answer begins; empty is no limit."})
    stop: tuple[str, ...] = field(default=(), metadata={
        "group": "length", "label": "Stop strings", "max_items": 16, "max_length": 200,
        "help": "The reply ends before any of these."})
    logit_bias: dict[int, float] = field(default_factory=dict, metadata={
        "group": "advanced", "label": "Logit bias", "max_items": 1024, "min": -100.0, "max": 100.0,
        "help": "Added to the logits of single tokens, by token id."})
    banned_tokens: tuple[int, ...] = field(default=(), metadata={
        "group": "advanced", "label": "Banned tokens", "max_items": 1024,
        "help": "Token ids that are never chosen."})

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))  # a text is one stop string, not its letters
        for name, spec in PARAMETER_SPECS.items():
            check_parameter(name, getattr(self, name), spec)

    def branches(self, n: int) -> list[SamplingParams]:
        """The settings of `n` replies: the same but for the seed, which counts up."""
        if n == 1:
            return [self]
        most = PARAMETER_SPECS["seed"]["max"]
        first = secrets.randbelow(most) if self.seed is None else self.seed
        return [dataclasses.replace(self, seed=(first + index) % (most + 1)) for index in range(n)]


def check_parameter(name: str, value: Any, spec: dict[str, Any]) -> None:
    """Raise ValueError unless `value` has the type and lies in the range that `spec` gives."""
    kind = spec["type"]
    if name == "mirostat" and value == 1:
        raise ValueError("mirostat is 1; expected 2, or 0 for none: its first version is not supported")
    if kind in ("int", "float"):
        if value is None and spec["nullable"]:
            return
        number = isinstance(value, int) or (kind == "float" and isinstance(value, float))
        if isinstance(value, bool) or not number or not spec["min"] <= value <= spec["max"]:
            wanted = "a whole number" if kind == "int" else "a number"
            raise ValueError(f"{name} is {value!r}; expected {wanted} from {spec['min']} to {spec['max']}")
        return
    if kind == "choice":
        if value not in spec["choices"]:
            wanted = ", ".join(choice or "an empty text" for choice in spec["choices"])
            raise ValueError(f"{name} is {value!r:.60}; expected one of {wanted}")
        return
    if kind == "text":
        if not isinstance(value, str) or len(value) > spec["max_length"]:
            raise ValueError(f"{name} is {value!r:.60}; expected a text of at most {spec['max_length']:,} "
                             "characters")
        return
    if len(value) > spec["max_items"]:
        raise ValueError(f"{name} has {len(value)} entries; at most {spec['max_items']} are possible")
    if kind == "strings":
        for text in value:
            if not isinstance(text, str) or not 0 < len(text) <= spec["max_length"]:
                raise ValueError(f"{name} holds {text!r}; expected 1 to {spec['max_length']} characters")
        return
    if kind == "names":
        for text in value:
            if text not in spec["choices"] or list(value).count(text) > 1:
                raise ValueError(f"{name} holds {text!r}; expected {', '.join(spec['choices'])}, each once")
        act_on_logits = [text in STAGES_OF_LOGITS for text in value]
        if act_on_logits != sorted(act_on_logits, reverse=True):
            raise ValueError(f"{name} is {', '.join(value)}; expected {' and '.join(STAGES_OF_LOGITS)} "
                             "before the others, since they act on logits")
        return
    for token_id in value:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id <= MAX_TOKEN_ID:
            raise ValueError(f"{name} holds {token_id!r}; expected token ids, 0 to {MAX_TOKEN_ID}")
    if name == "logit_bias":
        for token_id, bias in value.items():
            is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
            if not is_number or not spec["min"] <= bias <= spec["max"]:
                raise ValueError(f"logit_bias of token {token_id} is {bias!r}; "
                                 f"expected a number from {spec['min']} to {spec['max']}")


def _specs() -> dict[str, dict[str, Any]]:
    kinds = {"float": "float", "int": "int", "int | None": "int", "tuple[str, ...]": "strings",
             "dict[int, float]": "bias", "tuple[int, ...]": "tokens", "str": "text"}
    special = {"samplers": "names", "reasoning_effort": "choice"}
    return {f.name: {"name": f.name, "type": special.get(f.name) or kinds[f.type],
                     "nullable": "None" in f.type,
                     "default": f.default if f.default is not dataclasses.MISSING else {}, **f.metadata}
            for f in dataclasses.fields(SamplingParams)}


MAX_TOKEN_ID = (1 << 31) - 1
"""Kernels take ids as int32; one beyond a model's vocabulary has no effect."""

MAX_LOGPROBS = 20
"""Alternatives that can be asked for at each token."""

PARAMETER_SPECS = _specs()
"""Name -> {name, type, nullable, default, min, max, step, group, label, help}: what the page shows."""


@dataclass(frozen=True)
class RequestStats:
    """What a request took. Times in seconds, from the monotonic clock."""

    prompt_tokens: int
    cached_tokens: int              # of the prompt, found in the cache
    new_tokens: int                 # the end-of-sequence token is not counted
    seconds_to_first_token: float   # from submit, waiting included; 0 without a token
    prompt_seconds: float           # from the first step to the first token
    decode_seconds: float           # from the first token to the last
    tokens_per_second: float        # of decoding; 0 if there was none
    seed: int
    drafted_tokens: int = 0         # guessed ahead and computed together with others
    accepted_tokens: int = 0        # of those, what sampling chose as well


@dataclass(frozen=True)
class PromptProgress:
    """`done` of `total` prompt tokens are in the cache, `cached` of them without any work."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True)
class TokenLogprob:
    """How likely the model finds a token after those before it: log-softmax of its logits, nothing else.

    Penalties, temperature, cuts, biases and constraints are not in it. `top`: (token id, log-probability) of
    the likeliest tokens there, best first, as many as were asked for. `entropy`: in nats, of all there.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    entropy: float | None = None


@dataclass(frozen=True)
class TokenEvent:
    token_id: int
    logprob: TokenLogprob | None = None  # where it was asked for


@dataclass(frozen=True)
class FinishedEvent:
    reason: str  # eos | length | cancelled | context | stop (the reader found a stop string)
    stats: RequestStats


@dataclass(frozen=True)
class FailedEvent:
    message: str


Event = PromptProgress | TokenEvent | FinishedEvent | FailedEvent


class EngineClosed(RuntimeError):
    """Nothing can be computed any more: the engine was closed, or it is gone after a fault; it says which."""


class TokenConstraint(Protocol):
    """What a request's tokens must look like. One for each request; only the engine's thread uses it.

    It raises ValueError when it cannot go on, which fails the request.
    """

    def fill_mask(self, mask: Any) -> None:
        """Set the bits of the tokens that may come next; int32 numpy [(vocab_size + 31) // 32]."""

    def accept(self, token_ids: Sequence[int]) -> None:
        """These tokens, which the masks allowed, have come."""

    def take_back(self, count: int) -> None:
        """The last `count` tokens have not come after all."""

    def count_possible(self, token_ids: Sequence[int]) -> int:
        """How many of these could come next, one after the other."""

    @property
    def is_free(self) -> bool:
        """Whether any token may come next, and after each of those that `count_possible` has just let pass:
        then no mask is asked for."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow what has come."""


class SequenceBreaks(Protocol):
    """Where what DRY takes for a repeated sequence ends. Only the engine's thread uses it."""

    reach: int

    def flags(self, token_ids: Sequence[int], first: int) -> list[int]:
        """For each token from `first` on 1 if it is such a place, else 0; the `reach` before it decide."""


class Request:
    """What `Engine.submit` returns: a handle to read events from and to cancel.

    The engine calls `put`; `cancel` may be called by any thread and takes effect before the next step.
    """

    def __init__(self, prompt: list[int], params: SamplingParams, eos_token_ids: frozenset[int],
                 seed: int, wake: Callable[[], None]) -> None:
        self.prompt, self.params, self.eos_token_ids, self.seed = prompt, params, eos_token_ids, seed
        self.guide: list[int] = []  # the prompt of its guide, if it has one
        self.cancelled = ""  # or why
        self._wake = wake
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._has_reader = False

    def cancel(self, reason: str = "cancelled") -> None:
        """Stop before the next step. The last event is FinishedEvent(reason), or how it ended before."""
        self.cancelled = self.cancelled or reason
        self._wake()

    def put(self, event: Event) -> None:
        """Send an event to the reader; only the engine calls this."""
        self._events.put(event)

    def events(self) -> Iterator[Event]:
        """Every event, from the first on; ends after FinishedEvent or FailedEvent.

        Raises RuntimeError if somebody reads already: an event goes to one reader only.
        """
        if self._has_reader:
            raise RuntimeError("this request's events are read already; a request has one reader")
        self._has_reader = True
        return self._read()

    def _read(self) -> Iterator[Event]:
        while True:
            event = self._events.get()
            yield event
            if isinstance(event, FinishedEvent | FailedEvent):
                return
