"""Which replica a request goes to: the one that has the beginning of its conversation in its cache.

Ray's own routers do something else: PrefixCacheAffinityRouter compares texts, so that all who talk to one
persona crowd on one replica (and needs Ray's LLM extra); hashing an id spreads 64 conversations over two
replicas worse than 60 to 40 once in six times.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

SESSION_HEADER = "x-session-id"
MAX_REMEMBERED = 1 << 16   # conversations
_BEGINNING = 256           # characters of a text that is written on
_SYSTEM = ("system", "developer")


class ConversationRouter(RequestRouter):
    """A conversation stays where it began, as long as that replica lives and has a row left; a new one begins
    where fewest requests are under way, and of those where fewest conversations are. `session_id` of the
    handle tells conversations apart; "" is none.

    What is under way is counted here, from the choice on: what replicas tell of themselves is late, and of
    64 requests at once 40 went to one of two by that.
    """

    def initialize_state(self, **_: Any) -> None:
        self._homes: OrderedDict[str, ReplicaID] = OrderedDict()  # the least recently used one first
        self._counts: Counter[ReplicaID] = Counter()              # conversations of each replica
        self._under_way: dict[str, tuple[PendingRequest, ReplicaID]] = {}

    async def choose_replicas(self, candidate_replicas: list[RunningReplica],
                              pending_request: PendingRequest | None = None) -> list[list[RunningReplica]]:
        """One after the other, until one is not full."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # where all are full
        asked = pending_request.metadata
        self._under_way = {name: (request, replica) for name, (request, replica) in self._under_way.items()
                           if name != asked.internal_request_id and not request.future.cancelled()}
        load = Counter(replica for _, replica in self._under_way.values())
        home = self._homes.get(asked.session_id)
        ranks = sorted(candidate_replicas, key=lambda one: (
            one.replica_id != home, load[one.replica_id], self._counts[one.replica_id]))
        self.on_request_routed(pending_request, ranks[0].replica_id, None)
        return [[replica] for replica in ranks]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, _: Any) -> None:
        """The last replica that reads a conversation has its cache."""
        asked = pending_request.metadata
        self._under_way[asked.internal_request_id] = pending_request, replica_id
        if not asked.session_id:
            return
        if asked.session_id in self._homes:
            self._counts[self._homes.pop(asked.session_id)] -= 1
        elif len(self._homes) == MAX_REMEMBERED:
            self._counts[self._homes.popitem(last=False)[1]] -= 1
        self._homes[asked.session_id] = replica_id
        self._counts[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._under_way.pop(internal_request_id, None)


def conversation_of(headers: Mapping[str, str], body: bytes) -> str:
    """What all requests of a conversation have in common: the id that its program sends as x-session-id, or
    else how it begins (instructions and the first message); "" if it does not begin."""
    if given := headers.get(SESSION_HEADER):
        return given
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    turns = _first_of(fields, "messages", "input", "prompt") if isinstance(fields, dict) else None
    if not turns:
        return ""
    beginning = [fields.get("system"), fields.get("instructions"), _beginning(turns)]
    return hashlib.sha256(json.dumps(beginning).encode()).hexdigest()


def _first_of(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _beginning(turns: Any) -> Any:
    if isinstance(turns, str):
        return turns[:_BEGINNING]
    if not isinstance(turns, list):
        return None
    if not isinstance(turns[0], dict):  # texts, or token ids
        return [_beginning(turns[0])] if isinstance(turns[0], str) else turns[:_BEGINNING]
    first = next((index for index, turn in enumerate(turns)
                  if not (isinstance(turn, dict) and turn.get("role") in _SYSTEM)), 0)
    return turns[:first + 1]
