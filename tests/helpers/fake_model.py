"""A ChatModel without weights: replies by script, with delays, progress and failures that tests control.

Same surface as model.ChatModel. The reply follows from the last user message:

    code / markdown / table / think / emoji / xss / long / empty / name / spaces   a scripted sample
    fail                         text, then ReplyFailed          (fail at once: before any text)
    crash                        text, then an exception
    refuse                       start() raises ValueError
    think aloud                  a think block, then text
    temperature                  says what it was asked to sample with
    view                         the messages as the model sees them
    clock N                      N tokens, each the time at which it was made (monotonic milliseconds)
    anything else                an echo, made of the words of the message and the seed
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from model import (
    LOGPROBS,
    ChatMessage,
    ContextFit,
    PromptPart,
    PromptProgress,
    PromptView,
    ReplyDone,
    ReplyFailed,
    RequestStats,
    SamplingParams,
    ScoredToken,
    TextDelta,
)
from model.engine.tally import Tally
from model.files import ModelLoadError
from model.text.messages import joined
from tests.helpers.fake_next_token import HISTORY, FakeReading, next_token

CODE = """Here is a function:

```python
def dark_seconds(hours, beam_degrees=2):
    night = hours * 3600
    return night * (360 - beam_degrees) / 360
```

It takes `hours` and gives seconds."""
MARKDOWN = """# A heading

Some *emphasis*, some **weight**, a [link](https://example.org/page) and `code`.

1. first
2. second
   - nested

> A quotation.

It costs $5 and $10, not mathematics. Inline math: \\(a^2 + b^2\\)."""
TABLE = """| name | rows |
|---|---:|
| alpha | 12 |
| beta | 7 |

That was a table."""
EMOJI = "Grüße 👩‍👩‍👧‍👦 und 🏳️‍🌈, 你好世界, שלום, नमस्ते. Fin 🎉"
XSS = """<script>window.__xss = 1</script><img src=x onerror="window.__xss = 1">
[click](javascript:window.__xss=1)
<svg onload="window.__xss = 1"></svg> ![pixel](https://evil.example/pixel.png)
<iframe src="https://evil.example"></iframe>
<a href="data:text/html,<script>window.__xss=1</script>">data</a>
<form action="https://evil.example"><input name=q></form>
<style>body { background: url(https://evil.example/x) }</style> `<script>window.__xss = 1</script>`"""
THINK = "The user asks.\nI should be brief.\n\n- one\n- two"
SAMPLES = {"code": CODE, "markdown": MARKDOWN, "table": TABLE, "emoji": EMOJI, "xss": XSS, "empty": "",
           "spaces": "  \n  surrounded by space  \n\n"}
SEQ_LEN = 2048
CLOCK = "\0clock"


class FakeReply:
    """Events with `delay` seconds a token; cancel() is seen within a millisecond."""

    def __init__(self, model: FakeModel, fit: ContextFit, script: list[tuple[str, str]],
                 params: SamplingParams, failure: str, tells_tokens: bool = False) -> None:
        self.first_index = fit.first_index
        self.prompt_tokens = fit.prompt_tokens
        self.is_shortened = fit.is_shortened
        self.prompt_digest = ""
        self._model = model
        self._script = script
        self._params = params
        self._failure = failure
        self._tells_tokens = tells_tokens
        self._cancelled = threading.Event()
        self._at = 0
        self._answers_now = False

    def answer_now(self) -> bool:
        thinks = [channel for channel, _ in self._script[self._at:]][:1] == ["think"]
        self._answers_now = self._answers_now or thinks
        return thinks

    def cancel(self) -> None:
        self._cancelled.set()

    def events(self) -> Iterator[Any]:
        model = self._model
        with model.lock:
            model.running += 1
        started = time.monotonic()
        try:
            yield from self._prompt()
            first, count, reason = None, 0, "eos"
            for channel, text in self._script:
                self._at += 1
                if self._cancelled.wait(model.delay) or not self._pass_gate():
                    break
                if self._answers_now and channel == "think":
                    continue
                if text == CLOCK:
                    text = f" {time.monotonic() * 1000:.1f}"
                if count >= self._params.max_new_tokens:
                    reason = "length"
                    break
                count += 1
                first = first or time.monotonic()
                if self._tells_tokens:
                    yield scored(text)
                yield TextDelta(text, channel, count)
            if self._cancelled.is_set():
                reason = "cancelled"
            elif self._failure == "fail":
                yield ReplyFailed("The engine ran out of pages.")
                return
            elif self._failure == "crash":
                raise RuntimeError("a secret path /home/someone/model.bin")
            yield ReplyDone(reason, self._stats(started, first, count))
        finally:
            with model.lock:
                model.running -= 1

    def _pass_gate(self) -> bool:
        """Wait until the gate is open; False if the reply was cancelled meanwhile."""
        while not self._model.gate.wait(0.005):
            if self._cancelled.is_set():
                return False
        return True

    def _prompt(self) -> Iterator[PromptProgress]:
        steps, total = self._model.prompt_steps, self.prompt_tokens
        for step in range(steps):
            if self._cancelled.wait(self._model.prompt_delay):
                return
            yield PromptProgress(total * (step + 1) // steps, total, total // 2)

    def _stats(self, started: float, first: float | None, count: int) -> RequestStats:
        now = time.monotonic()
        first = first or now
        seconds = max(now - first, 1e-6)
        seed = self._params.seed if self._params.seed is not None else 4711
        return RequestStats(prompt_tokens=self.prompt_tokens, cached_tokens=self.prompt_tokens // 2,
                            new_tokens=count, seconds_to_first_token=first - started,
                            prompt_seconds=first - started, decode_seconds=seconds,
                            tokens_per_second=count / seconds, seed=seed)


class FakeTokenizer:
    """One token a word."""

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        return [1] * add_bos + [2 + hash(word) % 500 for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


class FakeModel:
    """`delay` seconds a token, `prompt_steps` progress events of `prompt_delay` seconds each.

    While `gate` is clear no token comes, so that a test can look at a reply that is surely being written.
    """

    def __init__(self, *, delay: float = 0.0, prompt_steps: int = 2, prompt_delay: float = 0.0,
                 max_seq_len: int = SEQ_LEN) -> None:
        self.delay = delay
        self.prompt_steps = prompt_steps
        self.prompt_delay = prompt_delay
        self.max_seq_len = max_seq_len
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()
        self.running = 0
        self.started: list[dict[str, Any]] = []
        self.ranked: list[tuple[list[tuple[str, str]], list[str]]] = []
        self.scored: list[dict[str, Any]] = []
        self.looked: list[dict[str, Any]] = []
        self.scripts: list[str] = []  # replies to give next, before all else
        self.rank_error: Exception | None = None
        self.closed = False
        self.advice: dict[str, float] = {}
        self.cannot: dict[str, str] = {}
        self.fingerprint = "f1a7" * 4
        self.numerics = {"isa": "avx2", "kernels": "kernels-1", "cache": "fp16"}
        self.adapters: list[str] = []
        self.thinks, self.efforts = False, ()
        self.problem: str | None = None
        self.seconds_in_step = 0.0
        self.done = Tally()
        self.tokenizer = FakeTokenizer()

    def info(self) -> dict[str, Any]:
        return {"name": "fake-1M", "architecture": "Llama", "quantization": "4-bit GPTQ g64",
                "num_parameters": 1_000_000, "weight_bytes": 700_000, "cache_bytes": 8 << 20,
                "cache_tokens": 4 * self.max_seq_len, "device": "cpu", "isa": "avx2", "threads": 2,
                "max_seq_len": self.max_seq_len, "max_positions": 32_768, "chat_template": True,
                "vocab_size": 512, "advice": self.advice, "adapters": self.adapters, "thinks": self.thinks,
                "efforts": list(self.efforts), "host": "",
                "fingerprint": self.fingerprint, "numerics": self.numerics,
                "adapter_fingerprints": {name: f"files of {name}" for name in self.adapters},
                "cannot": self.cannot}

    def check_adapter(self, path: Path) -> None:
        if "other" in path.name:
            raise ModelLoadError(f"{path.name} is another model's")

    def load_adapter(self, name: str, path: Path) -> None:
        self.check_adapter(path)
        self.adapters.append(name)

    def unload_adapter(self, name: str) -> None:
        if name not in self.adapters:
            raise ValueError(f"There is no adapter {name!r}.")
        self.adapters.remove(name)

    def status(self) -> dict[str, Any]:
        return {"running": self.running, "waiting": 0, "pages_used": 3, "pages_total": 256,
                "memory_bytes": 123 << 20, "problem": self.problem,
                "seconds_in_step": self.seconds_in_step}

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def fit(self, messages: list[ChatMessage], max_new_tokens: int, reply_name: str = "",
            reply_prefix: str = "", shorten: bool = False,
            variables: dict[str, Any] | None = None) -> ContextFit:
        """Like the real one: a leading system message stays, the oldest turns go in steps of a quarter."""
        sizes = [self.count_tokens(message.content) + 4 * (message.role != "system" or not message.follows)
                 for message in messages]
        budget = max(self.max_seq_len - min(max_new_tokens, self.max_seq_len // 2), 1)
        system = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        total, first, step = sum(sizes), system, self.max_seq_len // 4
        if total > budget:
            goal = budget - (step - (total - budget) % step) % step
            while total > goal and first < len(messages) - 1:
                total -= 0 if messages[first].pinned else sizes[first]
                first += 1
        return ContextFit(first if first > system else 0, total, self.max_seq_len, shorten and total > budget)

    def start(self, messages: list[ChatMessage], params: SamplingParams, *, reply_name: str = "",
              reply_prefix: str = "", reply_thinking: str = "", shorten: bool = False,
              **asked_for: Any) -> FakeReply:
        fit = self.fit(messages, params.max_new_tokens, shorten=shorten)
        messages = joined(messages)
        self.started.append({"messages": messages, "params": params, "name": reply_name,
                             "prefix": reply_prefix, "thinking": reply_thinking, **asked_for})
        if (adapter := asked_for.get("adapter")) and adapter not in self.adapters:
            raise ValueError(f"There is no adapter {adapter!r} beside fake-1M; none is loaded.")
        asked = next((m.content for m in reversed(messages) if m.role == "user"), "")
        if "refuse" in asked:
            raise ValueError("The prompt needs 9,000 tokens; the context holds 2,048.")
        failure = "fail" if "fail" in asked else "crash" if "crash" in asked else ""
        script = [] if "at once" in asked else self._script(asked, messages, params, reply_name, reply_prefix)
        reply = FakeReply(self, fit, script, params, failure, asked_for.get("logprobs") is not None)
        prompt = f"{[(m.role, m.content) for m in messages]} {reply_name} {reply_prefix}"
        reply.prompt_digest = f"{zlib.crc32(prompt.encode()):016x}"
        return reply

    def inspect(self, messages: list[ChatMessage], max_new_tokens: int, reply_name: str = "",
                adapter: str | None = None, variables: dict[str, Any] | None = None) -> PromptView:
        """`[role] text` lines; half of them are in the cache."""
        fit = self.fit(messages, max_new_tokens, shorten=True)
        kept = [index for index, message in enumerate(messages)
                if message.role == "system" or message.pinned or index >= fit.first_index]
        parts = []
        for index in kept:
            mark = f"[{messages[index].role}] "
            parts += [PromptPart(mark, None, 4),
                      PromptPart(messages[index].content, index, self.count_tokens(messages[index].content))]
        parts.append(PromptPart(f"[assistant] {reply_name}: ", None, 2))
        fit = replace(fit, prompt_tokens=sum(part.num_tokens for part in parts))
        text = "".join(part.text for part in parts)
        return PromptView(tuple(parts), fit, fit.prompt_tokens // 2, len(text) // 2)

    def scored_reply(self, messages: list[ChatMessage], reply: str, **asked_for: Any) -> FakeReply:
        """Its tokens are those that such a reply is written in."""
        self.scored.append({"messages": joined(messages), "reply": reply, **asked_for})
        fit = self.fit(messages, 1, shorten=True)
        return FakeReply(self, fit, pieces(reply), SamplingParams(max_new_tokens=100_000), "", True)

    def next_token(self, messages: list[ChatMessage], params: SamplingParams,
                   **asked_for: Any) -> FakeReading:
        """The same whatever was said, with as many tokens written as the reply has so far."""
        self.looked.append({"messages": joined(messages), "params": params, **asked_for})
        if why := self.cannot.get(LOGPROBS):
            raise ValueError(why)
        written = len(asked_for["reply_tokens"]) + bool(asked_for["reply_prefix"])
        return FakeReading(self, self.fit(messages, 1).prompt_tokens, next_token(min(written, len(HISTORY))))

    def rank_speakers(self, transcript: list[tuple[str, str]], names: list[str]) -> list[float]:
        """The one named last in the transcript wins; otherwise the first."""
        if self.rank_error:
            raise self.rank_error
        self.ranked.append((transcript, names))
        said = transcript[-1][1].casefold() if transcript else ""
        return [float(said.rfind(name.casefold())) - 0.001 * index for index, name in enumerate(names)]

    def tally(self) -> Tally:
        return self.done

    def close(self) -> None:
        self.closed = True

    def _script(self, asked: str, messages: list[ChatMessage], params: SamplingParams, name: str,
                prefix: str) -> list[tuple[str, str]]:
        if self.scripts:
            return pieces(self.scripts.pop(0))
        if prefix:
            return pieces(" And so it goes on, a little further.")
        if "think" in asked:
            return pieces(THINK, "think") + pieces("After thinking: yes.")
        if "name" in asked:
            return pieces(f"{name}: My name is {name}.")
        if "temperature" in asked:
            return pieces(f"temperature {params.temperature} top_p {params.top_p} seed {params.seed}")
        if "view" in asked:
            return pieces("\n".join(f"[{m.role}] {m.content}" for m in messages))
        if clock := re.search(r"clock (\d+)", asked):
            return [("text", CLOCK)] * int(clock[1])
        if "long" in asked:
            return pieces(" ".join(f"word{number}" for number in range(400)))
        for key, text in SAMPLES.items():
            if key in asked:
                return pieces(text)
        return pieces(self._echo(asked, params))

    @staticmethod
    def _echo(asked: str, params: SamplingParams) -> str:
        """The same seed, or temperature 0, gives the same text."""
        chosen = params.seed if params.seed is not None else random.getrandbits(32)
        seed = 0 if params.temperature == 0 else chosen
        words = asked.split() or ["nothing"]
        picker = random.Random(f"{seed} {asked}")
        return f"You said: {' '.join(words[:12])}. " + " ".join(picker.choice(words) for _ in range(8)) + "."


def scored(text: str) -> ScoredToken:
    """A token with a share of 1/2; "alpha" had 1/4, "beta" 1/8, the reply's end 1/16."""
    def one(text: str, halvings: int, **more: Any) -> ScoredToken:
        return ScoredToken(zlib.crc32(text.encode()), text, -halvings * math.log(2), text.encode(), **more)

    space = " " if text.startswith(" ") else ""
    top = (one(text, 1), one(f"{space}alpha", 2), one(f"{space}beta", 3), one("<end>", 4, is_control=True))
    return one(text, 1, top=top, entropy=1.2)


def pieces(text: str, channel: str = "text") -> list[tuple[str, str]]:
    """About a token each: a word with the space before it, never half a character."""
    return [(channel, piece) for piece in re.findall(r"\s*\S{1,8}|\s+$", text)]
