"""What a bot is to write a reply from: its view of the session, and how to sample.

Knows no running reply.
"""

from __future__ import annotations

from collections.abc import Callable

from model import SamplingParams

from ..errors import BadRequest, NotFound
from ..sampling import ADVISED, Changes, effective
from ..storage import tree
from ..storage.schema import Bot, Message, Session
from ..storage.store import Store
from .bot_view import bot_view
from .reply_job import ReplyPlan


class Planner:
    """For all sessions of `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def plan(self, session: Session, speaker: Bot, message: Message, *, continues: bool = False) -> ReplyPlan:
        """Of the reply that is to become `message`, or to go on with it."""
        bots = {bot["id"]: bot for bot in self._store.known_bots()}
        view = bot_view(session, bots, speaker, tree.path(session, message["parent"]))
        params = self._params(session, speaker, view.stop)
        return ReplyPlan(session["id"], message, view, params, continues, speaker.get("adapter", ""),
                         speaker.get("engine"))

    def bot(self, bot_id: str) -> Bot:
        """Raises NotFound."""
        try:
            return self._store.bots.get(bot_id)
        except NotFound:
            raise NotFound("This bot does not exist any more.", hint="Choose another one to speak.") from None

    def bot_in(self, session: Session, bot_id: str) -> Bot:
        """Raises BadRequest if it is not in the session, NotFound if it is gone."""
        if all(entry["id"] != bot_id for entry in session["bots"]):
            raise BadRequest("This bot is not in the session.", hint="Add it first.")
        return self.bot(bot_id)

    def _params(self, session: Session, speaker: Bot,
                stop: tuple[str, ...]) -> Callable[[Changes], SamplingParams]:
        """How to sample, by what the authors of the model advise. Keeps nothing else of the session."""
        preset = None if session["preset"] == ADVISED else self._store.preset_sampling(session["preset"])
        own, changed = speaker["sampling"], session["sampling"]
        return lambda advice: effective(advice if preset is None else preset, changed, own, stop)
