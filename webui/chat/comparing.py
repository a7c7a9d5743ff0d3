"""Several replies to one message, written side by side by different bots, presets, models or seeds, and the
vote for one of them. The replies are ordinary versions; a session keeps who wrote which and which one won.

    comparisons: [{id, created, question, blind, winner, columns: [{message, bot, preset, seed, engine?}]}]

`question` is the message that was answered, `winner` the id of a column's message, or null. Pure functions.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from model import PARAMETER_SPECS

from ..errors import BadRequest, NotFound
from ..ids import new_id
from ..storage import tree
from ..storage.schema import MAX_COLUMNS, MAX_COMPARISONS, Bot, Document, Message, Session

MIN_COLUMNS = 2


@dataclass(frozen=True)
class Column:
    """Who answers, and how.

    preset       the id of one; None: as the session samples
    seed         None: the session's, or a random one
    has_engine   whether `engine` counts, {id, model} or None (the loaded model); else the bot's own does
    """

    bot: str
    preset: str | None = None
    seed: int | None = None
    has_engine: bool = False
    engine: Document | None = None

    def sampled(self, session: Session) -> Session:
        """The session as this column samples. Of what the session itself says, a preset leaves how long a
        reply may be."""
        sampling, preset = session["sampling"], session["preset"]
        if self.preset is not None:
            preset = self.preset
            sampling = {name: value for name, value in sampling.items()
                        if PARAMETER_SPECS[name]["group"] == "length"}
        if self.seed is not None:
            sampling = {**sampling, "seed": self.seed}
        return {**session, "sampling": sampling, "preset": preset}

    def spoken_by(self, bot: Bot) -> Bot:
        """The bot with the model of this column."""
        return {**bot, "engine": self.engine} if self.has_engine else bot

    def kept(self, message: Message) -> Document:
        """As the session keeps it."""
        column = {"message": message["id"], "bot": self.bot, "preset": self.preset, "seed": self.seed}
        return {**column, "engine": self.engine} if self.has_engine else column


def in_order(columns: list[Column], blind: bool) -> list[Column]:
    """As they are shown: at random where nobody is to know who is who. Raises BadRequest for their number."""
    if not MIN_COLUMNS <= len(columns) <= MAX_COLUMNS:
        raise BadRequest(f"columns has {len(columns)} entries; expected {MIN_COLUMNS} to {MAX_COLUMNS}.")
    return random.SystemRandom().sample(columns, len(columns)) if blind else columns


def new_comparison(question: str, columns: list[Document], blind: bool) -> Document:
    return {"id": new_id(), "created": time.time(), "question": question, "blind": blind, "winner": None,
            "columns": columns}


def with_comparison(session: Session, comparison: Document) -> Session:
    """The session with one more; the oldest goes where there are too many."""
    return {**session, "comparisons": [*session.get("comparisons", []), comparison][-MAX_COMPARISONS:]}


def with_vote(session: Session, comparison_id: str, winner: str) -> Session:
    """The message `winner` has won, and is shown from now on with what follows it. Raises NotFound."""
    known = session.get("comparisons", [])
    found = next((one for one in known if one["id"] == comparison_id), None)
    if found is None or all(column["message"] != winner for column in found["columns"]):
        raise NotFound("This was not compared in this session.")
    tree.get(session, winner)
    voted = [{**one, "winner": winner} if one is found else one for one in known]
    return {**session, "comparisons": voted, "leaf": tree.newest_descendant(session, winner)}
