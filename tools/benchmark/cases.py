"""What is measured on the engine: reading prompts, and decoding behind a context or in a batch.

Knows tokens and seconds; nothing of limits, peers or tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from model.engine.engine import Engine
from model.engine.request import FailedEvent, FinishedEvent, RequestStats, SamplingParams
from model.sizes import PAGE_SIZE


@dataclass(frozen=True)
class Case:
    """`prompt` tokens are read; or, with prompt 0, `steps` tokens are decoded for each of `batch` requests
    that have `context` tokens."""

    prompt: int = 0
    context: int = 0
    batch: int = 1
    steps: int = 0

    def __str__(self) -> str:
        if self.prompt:
            return f"prompt of {self.prompt:,}"
        together = f", {self.batch} together" if self.batch > 1 else ""
        return f"decode at {self.context:,}{together}"

    def kind(self) -> Case:
        """The same whatever the number of steps."""
        return replace(self, steps=min(self.steps, 1))

    @property
    def length(self) -> int:
        """Tokens that a request has at its end."""
        return self.prompt + 1 if self.prompt else max(self.context, 1) + self.steps + 1

    @property
    def cache_tokens(self) -> int:
        """Room in the cache for all requests at once, in whole pages: none must wait for another."""
        return self.batch * -(-self.length // PAGE_SIZE) * PAGE_SIZE


@dataclass(frozen=True)
class Run:
    """One measurement of a case."""

    tokens_per_second: float
    first_token_seconds: float  # decoding: with the context in the cache


def make_cases(prompts: list[int], contexts: list[int], batches: list[int], steps: int) -> list[Case]:
    """Prompts; one request behind each context; batches of requests without one."""
    single = [Case(context=context, steps=steps) for context in contexts]
    batched = [Case(batch=batch, steps=steps) for batch in batches if batch > 1 or 0 not in contexts]
    return [Case(prompt=prompt) for prompt in prompts] + single + batched


class Runner:
    """Runs cases on an engine. A context is read once: later runs find it in the prefix cache."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._contexts: dict[Case, list[list[int]]] = {}

    def prepare(self, case: Case) -> None:
        """Have what is measured recorded, and the context in the cache."""
        if case.prompt:
            self._generate([self._random(min(case.prompt, 64))], 1)
        else:
            self._contexts[case] = [self._random(max(case.context, 1)) for _ in range(case.batch)]
            self._generate(self._contexts[case], 2)

    def run(self, case: Case) -> Run:
        """Measure a case that was prepared."""
        if case.prompt:
            (stats,) = self._generate([self._random(case.prompt)], 1)
            return Run(case.prompt / stats.prompt_seconds, stats.seconds_to_first_token)
        stats = self._generate(self._contexts[case], case.steps + 1)
        return Run(sum(s.tokens_per_second for s in stats), max(s.seconds_to_first_token for s in stats))

    def _random(self, length: int) -> list[int]:
        """Never the same twice, so that the prefix cache does not answer."""
        return torch.randint(3, self._engine.model_config.spec.vocab_size, (length,)).tolist()

    def _generate(self, prompts: list[list[int]], new_tokens: int) -> list[RequestStats]:
        """Run the prompts together to exactly `new_tokens` each."""
        params = SamplingParams(temperature=0.0, max_new_tokens=new_tokens)
        requests = [self._engine.submit(prompt, params, frozenset()) for prompt in prompts]
        stats = []
        for request in requests:
            for event in request.events():
                if isinstance(event, FailedEvent):
                    raise RuntimeError(event.message)
                if isinstance(event, FinishedEvent):
                    stats.append(event.stats)
        return stats
