"""The replies that are being written, one chain a session, and finished ones whose logs tabs may still read.

A chain is what follows one request: one reply, several by several bots, or several side by side. Thread-safe.
Knows nothing of who speaks next; that is asked of the function that comes with the chain.
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
    """`planned` bots speak next, in that order; after them `turns` more, by turn order. `jobs` are being
    written now: one, unless replies are compared."""

    session_id: str
    planned: list[str] = field(default_factory=list)
    turns: int = 0
    ended: bool = False
    held_until: float = 0.0
    jobs: list[ReplyJob] = field(default_factory=list)


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

    def writing(self, session_id: str) -> list[dict[str, str | None]]:
        """Of each reply that is being written in the session: its id, its message's and its bot's."""
        chain = self._chains.get(session_id)
        return [job.info for job in chain.jobs] if chain else []

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

    def start(self, chain: Chain, *jobs: ReplyJob) -> None:
        """Begin the chain's next reply, or some side by side. Raises TooMany if the chain was ended
        meanwhile."""
        self._forget_old_jobs()
        with self._lock:
            if self._closing or chain.ended:
                raise TooMany("Parlor is shutting down." if self._closing else "The chain has ended.",
                              retry_after=5)
            self._jobs |= {job.id: job for job in jobs}
            chain.jobs = list(jobs)
            self._chains[chain.session_id] = chain
        for job in jobs:
            try:
                job.start()
            except BaseException:  # the system has no thread left
                self._give_up(chain, jobs[jobs.index(job):])
                raise
        self._touched(chain.session_id)

    def _give_up(self, chain: Chain, jobs: tuple[ReplyJob, ...]) -> None:
        """These have not begun; those before them end by themselves."""
        with self._lock:
            chain.ended = True
            chain.jobs = [job for job in chain.jobs if job not in jobs]
            for job in jobs:
                del self._jobs[job.id]
            if not chain.jobs:
                self._chains.pop(chain.session_id, None)

    def after(self, chain: Chain, job: ReplyJob,
              follow: Callable[[], ReplyJob | None]) -> dict[str, str] | None:
        """The reply is committed: what follows it; or nothing, and then the session is free, unless others
        are still written beside it."""
        with self._lock:
            if len(chain.jobs) > 1:
                chain.jobs = [other for other in chain.jobs if other is not job]
                return None
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
            jobs = chain.jobs
            self._changed.notify_all()
        if now:
            for job in jobs:
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
        if chain and session_id in self._chains:
            for job in chain.jobs:
                job.abandon("The model took too long to stop.")
        if session_id in self._chains:
            raise NotSaved("The reply that is being written could not be ended.",
                           hint="Try again in a moment.")

    def close(self, why: str, seconds: float) -> None:
        """End everything and keep what was written, whether or not the model lets go in half of `seconds`."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
            jobs = [job for chain in self._chains.values() for job in chain.jobs]
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
