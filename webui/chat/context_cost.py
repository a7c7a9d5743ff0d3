"""What a session costs the model: how much of it is seen, and how many tokens that takes.

Computed beside the requests that ask: a text on which a tokenizer or a chat template hangs or breaks must
keep nobody from reading the session it stands in, nor any other. A request waits a moment; what is not known
by then, or cannot be known, is a sentence in its place. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..storage.schema import Document, Session

WAIT_SECONDS = 1.0  # a request, for the answer
MAX_RUNNING = 8
MAX_KNOWN = 256
LATER = "What this conversation costs is still being counted."
log = logging.getLogger("parlor.context")


@dataclass
class _Cost:
    """Of one revision of a session, for one model; `found` is set once `done`."""

    stamp: tuple[int, int]
    found: Document = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


class ContextCosts:
    """`compute` is called in a thread of its own, one a session at a time; its result is kept as long as the
    session's revision and the model's `version` are the same."""

    def __init__(self, compute: Callable[[Session], Document], version: Callable[[], int]) -> None:
        self._compute, self._version = compute, version
        self._lock = threading.Lock()
        self._costs: OrderedDict[str, _Cost] = OrderedDict()
        self._running = 0

    def of(self, session: Session) -> Document:
        """What `compute` says of this revision, or {"problem": a sentence} after WAIT_SECONDS at most."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            stamp = (session["revision"], self._version())
            cost = self._begun(session, stamp)
            if cost is None or not cost.done.wait(max(0.0, deadline - time.monotonic())):
                return {"problem": LATER}
            if cost.stamp == stamp:
                return cost.found

    def _begun(self, session: Session, stamp: tuple[int, int]) -> _Cost | None:
        """The session's cost, that of another stamp while it is computed; None where too many are."""
        with self._lock:
            cost = self._costs.get(session["id"])
            if cost and (cost.stamp == stamp or not cost.done.is_set()):
                return cost
            if self._running >= MAX_RUNNING:
                return None
            self._running += 1
            cost = self._costs[session["id"]] = _Cost(stamp)
            self._costs.move_to_end(session["id"])
            if len(self._costs) > MAX_KNOWN:
                self._costs.popitem(last=False)
        threading.Thread(target=self._run, args=(session, cost), name="context", daemon=True).start()
        return cost

    def _run(self, session: Session, cost: _Cost) -> None:
        try:
            cost.found = self._compute(session)
        except ValueError as error:  # what the model says of a conversation that it cannot take
            cost.found = {"problem": f"What this conversation costs cannot be told: {error}"}
        except BaseException:  # a panic of a tokenizer's library is no Exception
            log.exception("the cost of session %s cannot be computed", session["id"])
            cost.found = {"problem": "What this conversation costs cannot be told; Parlor's log says more."}
        finally:
            with self._lock:
                self._running -= 1
            cost.done.set()
