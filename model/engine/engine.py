"""The engine: one thread that owns the model, takes requests, and sends their events.

Any thread may call submit, logits, status and close; only the engine's own thread touches the scheduler,
the cache and the kernels once the model is loaded. Without work it sleeps in the queue.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from model.devices import (
    describe_devices,
    failure_text,
    let_go,
    memory_in_use,
)
from model.engine.adapter_changes import AdapterChange, AdapterChanges
from model.engine.ahead import Steps
from model.engine.job import Job, prompt_tokens, sampled_sequence, scored_sequence
from model.engine.loaded_adapters import NO_ADAPTER, AdapterKey, LoadedAdapters
from model.engine.logprobs import LogitScores, PromptLogprobs, Scores
from model.engine.origin import Origin
from model.engine.page_pool import PagePool
from model.engine.prefix_cache import PrefixCache
from model.engine.request import (
    MAX_LOGPROBS,
    EngineClosed,
    FailedEvent,
    Request,
    SamplingParams,
    SequenceBreaks,
    TokenConstraint,
    TokenLogprob,
)
from model.engine.rotation import Rotation
from model.engine.runner import Runner, Sampled
from model.engine.scheduler import Scheduler
from model.engine.sequence_states import SequenceStates
from model.engine.sequences import Batch, TokenSequence
from model.engine.speculation import Drafter, Speculator
from model.engine.state_pool import StatePool
from model.engine.tally import Tally
from model.memory.plan import MemoryPlan
from model.network.transformer import Transformer

log = logging.getLogger(__name__)

_MAX_SEED = 1 << 53
_GLANCE_SECONDS = 1.0
"""A step with a part of a prompt may take as long on a slow machine; whoever asks can do without."""
_CLOSED = "the engine is closed"
_GONE = ("The engine has stopped after a fault in it; Parlor's log says more. Nothing can be written until "
         "Parlor is started again.")


class Engine:
    """A loaded model. Make one with `load_engine`."""

    def __init__(self, transformer: Transformer, prefill_chunk: int, plan: MemoryPlan, quantization: str,
                 drafter: Drafter | None, adapters: Sequence[str] = (),
                 origin: Origin | None = None) -> None:
        self._adapters = LoadedAdapters(adapters)
        self._origin = origin or Origin()
        self._adapter_changes = AdapterChanges(self._adapters, transformer.adapters, self._origin)
        self.model_config = transformer.config
        self.max_seq_len = plan.max_seq_len
        self.plan = plan
        self._quantization = quantization
        self._places = [stage.place for stage in transformer.stages]
        self._weight_bytes, self._step_bytes = transformer.weights.nbytes, transformer.weights.step_bytes
        self._cache = PrefixCache([PagePool(part.num_pages, part.reach) for part in plan.caches])
        states: SequenceStates[Job] | None = SequenceStates(StatePool(plan.num_slots)) \
            if plan.num_slots else None
        self._scheduler: Scheduler[Job] = Scheduler(
            self._cache, prefill_chunk, rotation=Rotation.of(transformer.config.spec), states=states)
        self._runner = Runner(transformer, self._scheduler.max_running, plan.max_seq_len)
        self._steps = Steps(self._runner, self._scheduler, lambda: not self._inbox.empty())
        self._speculator = Speculator(drafter) if drafter is not None else None
        self._inbox: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._closing = False
        self._problem: str | None = None
        self._tally = Tally()
        self._turn_began: float | None = None  # of what the thread does now; None: it sleeps
        self._lock = threading.Lock()  # orders submit against close, so that no request is left unanswered
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # -- called by any thread

    def submit(self, token_ids: list[int], params: SamplingParams, eos_token_ids: frozenset[int], *,
               logprobs: int | None = None, constraint: TokenConstraint | None = None,
               adapter: str | None = None, breaks: SequenceBreaks | None = None,
               guide: list[int] | None = None, goes_on: bool = False) -> Request:
        """Queue a request; read its events from the result.

        logprobs    tell how likely each token is, and this many of the likeliest, 0 to MAX_LOGPROBS
        constraint  what the tokens must look like; this request's alone. The reply ends where it is complete
        adapter     the name of the one that it is computed with
        breaks      where what DRY takes for a repetition ends; None: nowhere
        guide       another prompt for the same reply: where params.guidance_scale is not 1 each token is
                    chosen by guided() of the logits after both
        goes_on     the prompt ends within a reply: its last token is computed as those of replies are, for
                    it may be the only one, and a way for prompts is made for many (docs/architecture.md)

        Raises ValueError if the prompt is empty, too long or has ids outside the vocabulary, if there is no
        such adapter, or no room for both prompts; EngineClosed when the engine is closed or gone.
        """
        self._check_tokens(token_ids, self.max_seq_len - 1)
        _check_logprobs(logprobs)
        if params.guidance_scale == 1:
            guide = None
        elif guide is None:
            raise ValueError(f"guidance_scale is {params.guidance_scale}, but there is no guide; expected "
                             "its prompt")
        limit = self.max_seq_len if guide is None else self._limit_of_pair(token_ids, guide)
        key = self._adapter_key(adapter)
        seed = secrets.randbelow(_MAX_SEED) if params.seed is None else params.seed
        request = Request(list(token_ids), params, frozenset(eos_token_ids), seed, self._wake)
        request.guide = list(guide or ())
        self._put(sampled_sequence(request, limit, logprobs, constraint, key, breaks, int(goes_on)))
        return request

    def logits(self, token_ids: list[int], first: int = 0, adapter: str | None = None) -> Tensor:
        """float32 [len(token_ids) - first, vocab_size]: row i is about the token after token_ids[first + i].

        Waits until it is computed, in turn with other requests. Raises ValueError as submit does,
        RuntimeError if the computation failed.
        """
        request, scores = self.begin_logits(token_ids, first, adapter)
        self._wait(request)
        return scores.logits

    def begin_logits(self, token_ids: list[int], first: int = 0,
                     adapter: str | None = None) -> tuple[Request, LogitScores]:
        """Queue what `logits` waits for; what is before `first` may come from the cache. They are found as
        those of `begin_score` are. Raises as `logits` does."""
        self._check_tokens(token_ids, self.max_seq_len)
        if not 0 <= first < len(token_ids):
            raise ValueError(f"first is {first}; expected 0 to {len(token_ids) - 1}")
        scores = LogitScores(len(token_ids), first, self.model_config.spec.vocab_size)
        return self._begin(token_ids, scores, self._adapter_key(adapter)), scores

    def score(self, token_ids: list[int], num_top: int = 0) -> list[TokenLogprob]:
        """How likely each token but the first is after those before it, and `num_top` alternatives there.

        Waits until it is computed, in turn with other requests. Raises as `logits` does.
        """
        request, scores = self.begin_score(token_ids, num_top)
        self._wait(request)
        return scores.found

    def begin_score(self, token_ids: list[int], num_top: int = 0, adapter: str | None = None,
                    first: int = 0) -> tuple[Request, PromptLogprobs]:
        """Queue what `score` waits for; only tokens behind the one at `first` are scored, and what is before
        it may come from the cache. All is found once the request's last event has come, unless that says that
        it was cancelled or has failed. Raises as `submit` does, but the prompt may fill the context."""
        self._check_tokens(token_ids, self.max_seq_len)
        _check_logprobs(num_top)
        scores = PromptLogprobs(token_ids, num_top, first)
        return self._begin(token_ids, scores, self._adapter_key(adapter)), scores

    def _begin(self, token_ids: list[int], scores: Scores, adapter: AdapterKey) -> Request:
        request = Request(list(token_ids), SamplingParams(), frozenset(), 0, self._wake)
        self._put(scored_sequence(request, scores, adapter))
        return request

    def _wait(self, request: Request) -> None:
        last = None
        try:
            for event in request.events():
                last = event
        except BaseException:  # the wait was interrupted
            request.cancel()
            raise
        if isinstance(last, FailedEvent):
            raise RuntimeError(last.message)

    def num_cached(self, token_ids: list[int], adapter: str | None = None) -> int | None:
        """How many tokens of its beginning a prompt of these would take from the cache if it began now; None
        where a step takes so long that nobody should wait for the answer. Raises as `submit` does for an
        adapter that is not there, and EngineClosed."""
        sequence = TokenSequence(None, token_ids, len(token_ids), reuse_limit=len(token_ids) - 1,
                                 adapter=self._adapter_key(adapter))
        question = _CacheQuestion(sequence)
        self._put(question)
        try:
            return question.answers.get(timeout=_GLANCE_SECONDS)
        except queue.Empty:
            return None

    def describe(self) -> dict[str, Any]:
        """What is loaded; does not change."""
        return {"name": self.model_config.name, "architecture": self.model_config.architecture,
                "fingerprint": self._origin.fingerprint, "adapter_fingerprints": self._origin.adapters,
                "numerics": self._origin.numerics,
                "quantization": self._quantization,
                "adapters": self._adapters.names, "num_parameters": self.model_config.spec.num_parameters,
                "weight_bytes": self._weight_bytes, "step_bytes": self._step_bytes,
                "cache_bytes": self.plan.cache_bytes, "cache_tokens": self.plan.cache_tokens,
                "cache_by_layers": self.plan.cache_by_layers,
                "device": describe_devices(self._places),
                "isa": self._places[0].ops.isa, "threads": self._places[0].ops.threads}

    def status(self) -> dict[str, Any]:
        """What goes on now; a glance from outside, so the numbers may be of different moments. `problem`: why
        the engine is gone, as a sentence, or None. `seconds_in_step`: for how long the present step has been
        going on."""
        began = self._turn_began
        return {"problem": self._problem,
                "seconds_in_step": 0.0 if began is None else monotonic() - began,
                "running": sum(not one.is_guide for one in list(self._scheduler.running)),
                "waiting": len(self._scheduler.waiting),
                "pages_used": self._cache.num_used, "pages_total": self._cache.num_pages,
                **memory_in_use(self._places)}

    def tally(self) -> Tally:
        """What it has done so far; its own thread goes on counting."""
        return self._tally

    def close(self) -> None:
        """Fail what still runs, end the thread and let go of the model. Safe to call twice."""
        with self._lock:
            self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check_tokens(self, token_ids: list[int], limit: int, name: str = "the prompt") -> None:
        if not token_ids:
            raise ValueError(f"{name} is empty; expected at least one token")
        if len(token_ids) > limit:
            raise ValueError(f"{name} has {len(token_ids):,} tokens; at most {limit:,} fit, since the "
                             f"context is {self.max_seq_len:,} tokens")
        vocab_size = self.model_config.spec.vocab_size
        if not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
            raise ValueError(f"{name} holds ids from {min(token_ids)} to {max(token_ids)}; expected "
                             f"0 to {vocab_size - 1:,}")

    def _limit_of_pair(self, token_ids: list[int], guide: list[int]) -> int:
        """How long the first may become beside its guide."""
        self._check_tokens(guide, self.max_seq_len - 1, "the prompt of the guide")
        limit = self._scheduler.longest_pair((len(token_ids), len(guide)), self.max_seq_len)
        if limit <= len(token_ids):
            raise ValueError(
                f"the prompt has {len(token_ids):,} tokens and that of its guide {len(guide):,}; the cache "
                f"({self.plan.cache_tokens:,} tokens) cannot hold both and a reply. Shorten them, or set "
                "guidance_scale to 1")
        return limit

    @property
    def guided_seq_len(self) -> int:
        """Tokens of a prompt with its reply, if its guide is as long; 0 where there can be none."""
        return self._scheduler.longest_pair((1, 1), self.max_seq_len)

    def check_adapter(self, path: Path) -> None:
        """Raise ModelLoadError unless it fits the model, or EngineClosed. Reads headers only."""
        self._adapter_changes.check(path)

    def load_adapter(self, name: str, path: Path) -> None:
        """Load a LoRA adapter beside the model, for requests from now on; waits for it. What runs goes on.

        Raises ModelLoadError (what is wrong with it, or it does not fit), ValueError if the name cannot be
        one, is there already, or there are as many as can be; EngineClosed.
        """
        self._adapter_changes.load(name, path, self._put)

    def unload_adapter(self, name: str) -> None:
        """No request may name it from now on; those that have it keep it to their end. Raises ValueError if
        there is none of this name."""
        self._adapter_changes.unload(name, self.model_config.name, self._put)

    def _adapter_key(self, name: str | None) -> AdapterKey:
        return NO_ADAPTER if name is None else self._adapters.key(name, self.model_config.name)

    def _put(self, sequence: _Message) -> None:
        with self._lock:
            if self._closing:
                raise EngineClosed(self._problem or _CLOSED)
            self._inbox.put(sequence)

    def _wake(self) -> None:
        self._inbox.put(None)

    # -- the engine's thread: whatever goes wrong in it, each request gets a last event, for its reader waits

    def _run(self) -> None:
        try:
            while True:
                self._receive()
                self._turn_began = monotonic()
                if self._closing:
                    return
                self._drop_cancelled()
                if self._scheduler.has_work:
                    self._step()
                else:
                    self._steps.forget()
        except BaseException:  # not of a request: the books of the engine itself are in disorder
            log.exception("the engine ends")
            self._problem = _GONE
        finally:
            with self._lock:
                self._closing = True
            left = [*self._scheduler.requests, *self._arrived()]
            for sequence in left:
                message = self._problem or "The model was closed before the reply was complete."
                sequence.owner.request.put(FailedEvent(message))
            self._scheduler.clear()
            self._adapter_changes.close()
            del self._runner, self._steps, self._speculator  # weights and caches
            let_go(self._places)

    def _receive(self) -> None:
        """Take what has come in; sleep only when there is nothing else to do."""
        self._adapter_changes.let_go(self._scheduler.requests, self._runner)
        sleeps = not self._scheduler.has_work
        if sleeps:
            self._turn_began = None
        for sequence in self._arrived(wait=sleeps):
            if not self._adapters.is_there(sequence.adapter):
                self._fail(sequence, "The adapter that this was to be written with has just been unloaded.")
                continue
            with self._answering(sequence):
                self._scheduler.add(sequence)
        self._adapter_changes.let_go(self._scheduler.requests, self._runner)

    def _arrived(self, wait: bool = False) -> Iterator[TokenSequence[Job]]:
        """What is in the inbox; with `wait` from the first wake-up on."""
        while True:
            try:
                sequence = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if isinstance(sequence, _CacheQuestion):
                sequence.answer(self._scheduler)
            elif isinstance(sequence, AdapterChange):
                self._adapter_changes.make(sequence, self._runner)
            elif sequence is not None:
                yield sequence

    @contextmanager
    def _answering(self, sequence: TokenSequence[Job]) -> Iterator[None]:
        """What goes wrong with one request ends that one, and nothing else. A library written in Rust raises
        what is no Exception."""
        try:
            yield
        except BaseException as error:
            log.exception("a request failed")
            self._fail(sequence, failure_text(error))

    def _drop_cancelled(self) -> None:
        for sequence in self._scheduler.requests:
            if reason := sequence.owner.request.cancelled:
                self._finish(sequence, reason)

    def _step(self) -> None:
        batch: Batch[Job] | None = None
        try:
            batch = self._steps.plan(self._speculator)
            now = monotonic()
            for chunk in batch.chunks:
                chunk.sequence.owner.started = chunk.sequence.owner.started or now
            found = self._steps.run(batch)
            if self._speculator is not None:
                self._speculator.computed(batch, self._steps.seconds)
            self._scheduler.computed(batch)
            self._tally.step_tokens.add(batch.num_rows)
            for sequence in dict.fromkeys(chunk.sequence.pair[0] for chunk in batch.chunks):
                with self._answering(sequence):
                    sequence.owner.report_prompt(sequence)
            for chunk in batch.chunks:
                if chunk.is_last and chunk.sequence.owner.scores is not None:
                    self._tally.add_prompt(*prompt_tokens(chunk.sequence))
                    self._finish(chunk.sequence, "length")
            for sampled in found:
                if not sampled.sequence.owner.num_new:
                    self._tally.add_prompt(*prompt_tokens(sampled.sequence))
                with self._answering(sampled.sequence):
                    self._continue(sampled)
        except BaseException as error:
            log.exception("a step failed")
            scheduler = self._scheduler
            failed = [c.sequence.pair[0] for c in batch.chunks] if batch else scheduler.requests
            for sequence in failed:
                if sequence in scheduler:
                    self._fail(sequence, failure_text(error))
            scheduler.undo_admissions()

    def _continue(self, sampled: Sampled) -> None:
        """Take the tokens that were sampled, and see whether the reply ends with one of them."""
        sequence = sampled.sequence
        if sampled.error:
            self._fail(sequence, sampled.error)
            return
        if self._speculator is not None and sampled.chunk.draft:
            self._speculator.checked(sampled.chunk, sampled.tokens)
        before = len(sequence.token_ids)
        end = error = ""
        try:
            for token_id, logprob in zip_longest(sampled.tokens, sampled.logprobs):
                if token_id < 0:
                    error = "No token is possible: all are banned, or the logits are not numbers."
                if error or (end := self._take(sequence, token_id, logprob)):
                    break
        except ValueError as problem:  # of the request's own constraint
            error = str(problem)
        accepted = min(len(sequence.token_ids) - before, len(sampled.tokens) - 1)
        sequence.owner.num_accepted += accepted
        self._scheduler.accept(sampled.chunk, accepted)
        if error:
            self._fail(sequence, error)
        elif end:
            self._finish(sequence, end)

    def _take(self, sequence: TokenSequence[Job], token_id: int, logprob: TokenLogprob | None) -> str:
        """Append one token; the reason if the reply ends with it."""
        job, request = sequence.owner, sequence.owner.request
        if token_id in request.eos_token_ids:
            return "eos"
        before = job.last_token
        job.append(sequence, token_id, logprob)
        self._tally.add_token(job.last_token - (before or job.submitted), is_first=not before)
        if job.num_new == request.params.max_new_tokens:
            return "length"
        if len(sequence.token_ids) == job.limit:
            return "context"
        return "eos" if job.constraint is not None and job.constraint.is_complete else ""

    def _finish(self, sequence: TokenSequence[Job], reason: str) -> None:
        with self._answering(sequence):
            self._scheduler.remove(sequence)
            self._forget(sequence)
            sequence.owner.finish(sequence, reason, self._tally)

    def _fail(self, sequence: TokenSequence[Job], message: str) -> None:
        """Answer it, whether or not it can be taken out of the books; if not, the engine ends."""
        try:
            if sequence in self._scheduler:
                self._scheduler.discard(sequence)
            self._forget(sequence)
        finally:
            self._tally.finished["failed"] += 1
            sequence.owner.request.put(FailedEvent(message))

    def _forget(self, sequence: TokenSequence[Job]) -> None:
        if self._speculator is not None:
            self._speculator.forget(sequence.owner)


@dataclass(eq=False)
class _CacheQuestion:
    """How much of a sequence is in the cache; the engine's thread answers."""

    sequence: TokenSequence[Any]
    answers: queue.SimpleQueue[int | None] = field(default_factory=queue.SimpleQueue)

    def answer(self, scheduler: Scheduler[Any]) -> None:
        try:
            self.answers.put(scheduler.num_cached(self.sequence))
        except Exception:  # in the thread that everybody's replies wait for
            log.exception("what is in the cache cannot be told")
            self.answers.put(None)


_Message = TokenSequence[Any] | _CacheQuestion | AdapterChange


def _check_logprobs(count: int | None) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)
                              or not 0 <= count <= MAX_LOGPROBS):
        raise ValueError(f"logprobs is {count!r}; expected a whole number from 0 to {MAX_LOGPROBS}, or None")
