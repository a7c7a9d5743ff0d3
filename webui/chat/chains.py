"""The replies that are being written, one chain a session, and finished ones whose logs tabs may still read.

A chain is what follows one request: one reply, or several by several bots. Thread-safe. Knows nothing of who
speaks next; that is asked of the function that comes with the chain.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import Gone, NotFound, NotSaved, TooMany
from .reply_job import ReplyJob

LOG_SECONDS = 600.0
MAX_LOGS = 256  # of replies that ended
MAX_CHAINS = 64
KNOWN_GONE = 10_000
STOP_SECONDS = 10.0
log = logging.getLogger("parlor.chains")


@dataclass
class Chain:
    """`planned` bots speak next, in that order; after them `turns` more, by turn order."""

    session_id: str
    planned: list[str] = field(default_factory=list)
    turns: int = 0
    ended: bool = False
    held_until: float = 0.0
    job: ReplyJob | None = None


class Chains:
    """`touched` is told the id of a session whose reply began or ended."""

    def __init__(self, touched: Callable[[str], None]) -> None:
        self._touched = touched
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # of what a held chain waits for
        self._chains: dict[str, Chain] = {}
        self._jobs: OrderedDict[str, ReplyJob] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._closing = False

    def of(self, session_id: str) -> Chain | None:
        return self._chains.get(session_id)

    def writing(self, session_id: str) -> dict[str, str] | None:
        """Ids of the reply that is being written in the session, its message and its bot."""
        chain = self._chains.get(session_id)
        return chain.job.info if chain and chain.job else None

    def job(self, reply_id: str) -> ReplyJob:
        """Raises NotFound for an id that never was here, Gone for a reply that ended too long ago."""
        self._forget_old_jobs()
        with self._lock:
            if reply_id in self._jobs:
                return self._jobs[reply_id]
            if reply_id in self._gone:
                raise Gone("This reply ended a while ago; its session has it.")
        raise NotFound("This reply is not known here.", code="unknown_reply")

    def check_space(self) -> None:
        """Raises TooMany if no more replies may begin."""
        if len(self._chains) >= MAX_CHAINS:
            raise TooMany("Too many replies are being written at once.", retry_after=5)

    def start(self, chain: Chain, job: ReplyJob) -> None:
        """Begin the chain's next reply. Raises TooMany if the chain was ended meanwhile."""
        self._forget_old_jobs()
        with self._lock:
            if self._closing or chain.ended:
                raise TooMany("Parlor is shutting down." if self._closing else "The chain has ended.",
                              retry_after=5)
            self._jobs[job.id] = job
            chain.job = job
            self._chains[chain.session_id] = chain
        try:
            job.start()
        except BaseException:  # the system has no thread left
            with self._lock:
                del self._jobs[job.id], self._chains[chain.session_id]
            raise
        self._touched(chain.session_id)

    def after(self, chain: Chain, job: ReplyJob,
              follow: Callable[[], ReplyJob | None]) -> dict[str, str] | None:
        """The reply is committed: what follows it, or nothing, and then the session is free."""
        following = None
        try:
            if not job.failed:
                self._wait_while_held(chain, job)
            if not (chain.ended or job.stopped or job.failed or self._closing):
                following = follow()
        except TooMany:
            pass  # it was ended in this very moment
        except BaseException:  # a panic in a tokenizer's library is no Exception
            log.exception("the chain of session %s ends early", chain.session_id)
        if following is not None:
            return following.info
        with self._lock:
            self._chains.pop(chain.session_id, None)
        self._touched(chain.session_id)
        return None

    def hold(self, session_id: str, seconds: float) -> bool:
        """Let the chain wait before its next reply, from now on for `seconds`. False if nothing follows."""
        with self._lock:
            chain = self._chains.get(session_id)
            if chain is None or chain.ended or not (chain.planned or chain.turns):
                return False
            chain.held_until = time.monotonic() + seconds
            self._changed.notify_all()
            return True

    def end(self, session_id: str, *, now: bool) -> None:
        """Nothing follows the reply that is being written; with `now` that one stops too."""
        with self._lock:  # either the next reply has begun and is stopped here, or it does not begin
            chain = self._chains.get(session_id)
            if chain is None:
                return
            chain.ended = True
            job = chain.job
            self._changed.notify_all()
        if now and job:
            job.stop()

    @property
    def number(self) -> int:
        """Of sessions in which a reply is being written."""
        return len(self._chains)

    def end_all(self, *, now: bool) -> None:
        """As end(), in every session."""
        for session_id in list(self._chains):
            self.end(session_id, now=now)

    def wait_until_free(self, session_id: str) -> None:
        """The model ends a stopped reply within a step; one that takes far longer is ended here."""
        chain = self._chains.get(session_id)
        deadline = time.monotonic() + STOP_SECONDS
        while session_id in self._chains and time.monotonic() < deadline:
            time.sleep(0.005)
        if chain and chain.job and session_id in self._chains:
            chain.job.abandon("The model took too long to stop.")
        if session_id in self._chains:
            raise NotSaved("The reply that is being written could not be ended.",
                           hint="Try again in a moment.")

    def close(self, why: str, seconds: float) -> None:
        """End everything and keep what was written, whether or not the model lets go in half of `seconds`."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
            jobs = [chain.job for chain in self._chains.values() if chain.job]
        for job in jobs:
            job.interrupt(why)
        left = _wait_for_end(jobs, seconds / 2)
        for job in left:  # beside each other: each of them waits for the disk
            threading.Thread(target=job.abandon, args=(why,), daemon=True).start()
        _wait_for_end(left, seconds / 2)

    def _wait_while_held(self, chain: Chain, job: ReplyJob) -> None:
        """The reply is kept by now; its tabs hear that it waits."""
        with self._lock:
            told = False
            while not (chain.ended or job.stopped or self._closing):
                left = chain.held_until - time.monotonic()
                if left <= 0:
                    return
                if not told:
                    job.log.append("held", job.kept)
                    told = True
                self._changed.wait(left)

    def _forget_old_jobs(self) -> None:
        oldest = time.monotonic() - LOG_SECONDS
        with self._lock:
            ended = sorted((job.log.ended_at, key) for key, job in self._jobs.items()
                           if job.log.ended_at is not None)
            too_many = max(0, len(ended) - MAX_LOGS)
            for key in [key for at, (when, key) in enumerate(ended) if when < oldest or at < too_many]:
                del self._jobs[key]
                self._gone[key] = None
            while len(self._gone) > KNOWN_GONE:
                self._gone.popitem(last=False)


def _wait_for_end(jobs: list[ReplyJob], seconds: float) -> list[ReplyJob]:
    """Those of `jobs` that have not ended within `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := [job for job in jobs if job.log.ended_at is None]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
