"""What people do in a session: say, let speak, regenerate, continue, stop, edit, delete. The routes call it.

One reply at a time in a session; several bots, or several turns, are a chain of replies. Stop ends the chain
at once; a message that comes while it runs ends it after the reply that is being written ("busy"), unless it
asks to interrupt. Knows no HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from model import CONTINUE, RANK, ModelSlot

from ..errors import BadRequest, Busy, NoModelLoaded, NotFound, NotSaved
from ..ids import check_id
from ..storage import tree
from ..storage.audience import passed_on, with_audience
from ..storage.history import redone, shown_history, undone
from ..storage.recovery import fold_in_all
from ..storage.schema import (
    UNTITLED,
    USER,
    Bot,
    Document,
    Message,
    Session,
    longest_text,
    new_message,
    new_session,
)
from ..storage.store import Store
from .bot_view import user_name
from .chains import Chain, Chains
from .commits import Commits
from .comparing import Column, in_order, new_comparison, with_comparison, with_vote
from .greetings import Beginning, greeted
from .lens import Lens, forked
from .planning import Planner
from .reply_job import ReplyJob, ReplyPlan, Undecided
from .reply_tokens import text_of
from .room import Room
from .title import title_from
from .voices import Voices

HERE = "here"


@dataclass(frozen=True)
class Said:
    """What the user said, and how it is to be answered.

    parent     the message above; HERE is the one that is shown last, None the very beginning
    audience   ids of the bots that are told it, and of its answers; None: all
    bot        who is to answer; None leaves it to the session's turn order
    reply      whether anybody answers
    interrupt  stop a reply that is being written; otherwise it is in the way (Busy)
    begin      the first words of the first answer
    """

    text: str
    parent: str | None = HERE
    bot: str | None = None
    reply: bool = True
    interrupt: bool = False
    audience: list[str] | None = None
    begin: str = ""


class Chat:
    """All sessions of one store in front of the one model that is loaded."""

    def __init__(self, slot: ModelSlot, store: Store) -> None:
        self.slot = slot
        self.store = store
        self.chains = Chains(store.changes.touch)
        self.commits = Commits(store)
        self._locks: dict[str, threading.RLock] = {}
        self.voices = Voices(slot)
        self.lens = Lens(store, self.voices)
        self.planner = Planner(store)
        fold_in_all(store)

    # Sessions

    def session(self, session_id: str) -> Session:
        """The session; a reply that a full disk kept out of it is brought in first, if there is room now."""
        self.commits.try_again(session_id)
        return self.store.session(session_id)

    def create(self, bot_ids: list[str] | None, title: str = "",
               beginning: Beginning | None = None) -> Session:
        """A new session with these bots (None: the first there is); it begins with their greetings."""
        known = {bot["id"]: bot for bot in self.store.known_bots()}
        if bot_ids is None:
            bot_ids = list(known)[:1]
        if any(bot_id not in known for bot_id in bot_ids):
            raise NotFound("One of these bots does not exist any more.")
        bots = [known[bot_id] for bot_id in bot_ids]
        beginning = beginning or Beginning()
        session = {**new_session(bots, title), "user_name": beginning.user_name}
        for bot in bots:
            session = greeted(session, bot, beginning)
        return self.store.add_session(session)

    def delete(self, session_id: str) -> str:
        """Stop what is being written there, keep it, and move the session to the trash."""
        with self._deciding(session_id):
            self.chains.end(session_id, now=True)
            self.chains.wait_until_free(session_id)
            self.commits.try_again(session_id)
            return self.store.delete_session(session_id)

    def change(self, session_id: str, revision: int, edit: Callable[[Session], Session], *,
               touch: bool) -> Session:
        """What `edit` makes of the session; `touch` moves it to the top of the list."""
        before = self._session_to_change(session_id, revision)

        def checked(session: Session) -> Session:
            changed = edit(session)
            is_new = changed["turn_order"] == "model" != before["turn_order"]
            if is_new and (why := self.voices.cannot(None, RANK)):
                raise BadRequest(why, hint="Choose another turn order.")
            return changed

        return self.store.change_session(session_id, revision, checked, touch=touch)

    # Messages

    def say(self, session_id: str, revision: int | None, said: Said) -> tuple[Message, ReplyJob | None]:
        """Append the user's message, durably, and start the answer."""
        with self._deciding(session_id):
            if said.interrupt and self.commits.only_replies_since(session_id, revision):
                revision = None  # what was to be interrupted has just ended
            session = self._session_to_change(session_id, revision)
            if self.chains.of(session_id):
                self.chains.end(session_id, now=said.interrupt)
                if not said.interrupt:
                    raise self._busy(session, "Send it again when the reply is done, or stop that first.")
                self.chains.wait_until_free(session_id)
                session, revision = self.store.session(session_id), None
            self._check_answer(session, said)
            above = session["leaf"] if said.parent == HERE else said.parent
            if above is not None:
                tree.get(session, above)
            message = new_message(USER, user_name(session), said.text, above)
            message = with_audience(session, message, said.audience)
            session = self.store.change_session(session_id, revision, lambda old: _with_said(old, message))
            return message, self._answer(session, said) if said.reply else None

    def next_reply(self, session_id: str, revision: int, bot: str | None, turns: int | None,
                   begin: str = "") -> ReplyJob:
        """Let a bot speak without the user saying anything; several turns make a conversation among bots. The
        first of these replies goes on from the text `begin`."""
        with self._deciding(session_id):
            session = self._free_session(session_id, revision)
            chain = Chain(session_id, turns=(turns or 1) - 1)
            if bot is None:
                room = Room.of(session, self.store, self.slot)
                if room.asks_the_model(room.following):
                    return self._start_undecided(chain, session, lambda: room.going_on() or "", begin)
                bot = room.going_on()
                if session["turn_order"] == "all" and turns is None:
                    chain.planned = [speaker.id for speaker in room.following if speaker.id != bot]
            if bot is None:
                raise BadRequest("No bot in this session can speak.", hint="Add one, or unmute one.")
            return self._start(chain, session, self.planner.bot_in(session, bot), begin=begin)

    def regenerate(self, session_id: str, revision: int, message_id: str | None, bot: str | None,
                   begin: str = "") -> ReplyJob:
        """Another version of a reply, beside it, which goes on from the text `begin`."""
        with self._deciding(session_id):
            session = self._free_session(session_id, revision)
            message = tree.get(session, message_id or session["leaf"])
            if message["author"] == USER:
                raise BadRequest("Only a bot's message can be written again.", hint="Edit yours instead.")
            speaker = self.planner.bot(bot or message["author"])
            session = self._shown_up_to(session, message["parent"])
            return self._start(Chain(session_id), session, speaker, instead=message, begin=begin)

    def go_on(self, session_id: str, revision: int, message_id: str | None) -> ReplyJob:
        """Write on where a reply ended."""
        with self._deciding(session_id):
            session = self._free_session(session_id, revision)
            message = tree.get(session, message_id or session["leaf"])
            if message["author"] == USER:
                raise BadRequest("Only a bot's message can be continued.")
            speaker = self.planner.bot(message["author"])
            if why := self.voices.cannot(speaker.get("engine"), CONTINUE):
                raise BadRequest(why, hint="Regenerate it instead.")
            return self._start(Chain(session_id), session, speaker, continued=message)

    def fork(self, session_id: str, revision: int, message_id: str, index: int, choice: bytes) -> ReplyJob:
        """Another version of a reply beside it: the same up to its token `index`, in place of which comes the
        alternative of these bytes, and what follows that."""
        with self._deciding(session_id):
            session = self._free_session(session_id, revision)
            message = tree.get(session, message_id)
            speaker = self.planner.bot(message["author"])
            if why := self.voices.cannot(speaker.get("engine"), CONTINUE):
                raise BadRequest(why)
            begun = forked(self.lens.known(session_id, message) or [], index, choice)
            fork = new_message(speaker["id"], speaker["name"], text_of(begun), message["parent"])
            fork["thinking"] = message["thinking"]
            if message.get("for") is not None:
                fork["for"] = message["for"]
            session = self._shown_up_to(session, message["parent"])
            plan = self.planner.plan(session, speaker, fork, continues=True)
            return self._begin(Chain(session_id), replace(plan, begun=begun, forks=True))

    def compare(self, session_id: str, revision: int, text: str, columns: list[Column],
                blind: bool) -> tuple[Message, list[ReplyJob]]:
        """Append the user's message and have each column answer it, all at once."""
        with self._deciding(session_id):
            session = self._session_to_change(session_id, revision)
            if self.chains.of(session_id):
                raise self._busy(session, "Wait until it is done, or stop it first.")
            columns = in_order(columns, blind)
            speakers = [column.spoken_by(self.planner.bot(column.bot)) for column in columns]
            self._check_can_write(speakers)
            message = new_message(USER, user_name(session), text, session["leaf"])
            said = _with_said(session, message)
            replies = [_new_reply(said, speaker, message["id"]) for speaker in speakers]
            kept = [column.kept(reply) for column, reply in zip(columns, replies, strict=True)]
            comparison = new_comparison(message["id"], kept, blind)
            session = self.store.change_session(
                session_id, session["revision"],
                lambda old: with_comparison(_with_said(old, message), comparison))
            chain = Chain(session_id)
            jobs = [self._job(chain, self.planner.plan(column.sampled(session), speaker, reply))
                    for column, speaker, reply in zip(columns, speakers, replies, strict=True)]
            self.chains.start(chain, *jobs)
            return message, jobs

    def vote(self, session_id: str, revision: int, comparison_id: str, winner: str) -> Session:
        """The reply that is gone on with; the others stay as its versions."""
        with self._deciding(session_id):
            self._session_to_change(session_id, revision)
            return self.store.change_session(
                session_id, revision, lambda old: with_vote(old, comparison_id, winner))

    def edit_message(self, session_id: str, revision: int, message_id: str, text: str) -> Session:
        """Change a message in place; nothing below it is dropped."""
        def edited(old: Session) -> Session:
            message = {**tree.get(old, message_id), "text": text, "edited": time.time()}
            most = longest_text(message["author"])
            if len(text) > most:
                raise BadRequest(f"The text has {len(text):,} characters; expected at most {most:,}.")
            return tree.with_message(old, message, leaf=old["leaf"])

        with self._deciding(session_id):
            self._session_to_change(session_id, revision)
            self.check_not_written(session_id, message_id)
            session = self.store.change_session(session_id, revision, edited)
            self.lens.forget(session_id, message_id)
            return session

    def pin_message(self, session_id: str, revision: int, message_id: str, pinned: bool) -> Session:
        """A pinned message stays in every bot's view when those round it are left out."""
        def changed(old: Session) -> Session:
            message = {**tree.get(old, message_id), "pinned": pinned}
            return tree.with_message(old, message, leaf=old["leaf"])

        with self._deciding(session_id):
            self._session_to_change(session_id, revision)
            self.check_not_written(session_id, message_id)
            return self.store.change_session(session_id, revision, changed, touch=False)

    def whisper(self, session_id: str, revision: int, message_id: str, audience: list[str] | None) -> Session:
        """From now on the message is for these bots only; None: for all. What bots have said stays."""
        def changed(old: Session) -> Session:
            message = with_audience(old, tree.get(old, message_id), audience)
            return tree.with_message(old, message, leaf=old["leaf"])

        with self._deciding(session_id):
            self._session_to_change(session_id, revision)
            self.check_not_written(session_id, message_id)
            return self.store.change_session(session_id, revision, changed, touch=False)

    def delete_message(self, session_id: str, revision: int, message_id: str) -> tuple[Session, str]:
        """The session without it, and the id of the step that undo() takes."""
        with self._deciding(session_id):
            self._session_to_change(session_id, revision)
            self.check_not_written(session_id, message_id)
            session = self.store.change_session(
                session_id, revision, lambda old: tree.without_message(old, message_id)[0])
            self.lens.forget(session_id, message_id)
            return session, shown_history(session)["undo"]["id"]

    def undo(self, session_id: str, revision: int, step: str | None = None) -> tuple[Session, Document]:
        """The session before its latest change, or without the change `step`; and what was undone, as
        shown_history() says it. Raises NotFound; Busy while a reply is written."""
        return self._step(session_id, revision, "redo", lambda old: undone(old, step))

    def redo(self, session_id: str, revision: int) -> tuple[Session, Document]:
        """Do again what was undone last; as undo()."""
        return self._step(session_id, revision, "undo", redone)

    def _step(self, session_id: str, revision: int, goes_to: str,
              edit: Callable[[Session], Session]) -> tuple[Session, Document]:
        with self._deciding(session_id):
            session = self._session_to_change(session_id, revision)
            if self.chains.of(session_id):
                raise self._busy(session, "Stop the reply first, or wait until it is done.")
            session = self.store.change_session(session_id, revision, edit, touch=False)
            return session, shown_history(session)[goes_to]

    def hold(self, session_id: str, seconds: float) -> bool:
        """Somebody is typing: for so long no further reply of a chain begins (0: go on). Whether one may."""
        return self.chains.hold(check_id(session_id, "session"), seconds)

    def stop(self, reply_id: str, *, alone: bool = False) -> None:
        """Stop the reply, and whatever would have followed it, or is written beside it unless `alone`."""
        if alone:
            self.chains.job(reply_id).stop()
            return
        self.chains.end(self.chains.job(reply_id).plan.session_id, now=True)

    def answer_now(self, reply_id: str) -> None:
        """End the thought of a reply, so that its answer begins. Raises BadRequest if it is in none."""
        if not self.chains.job(reply_id).answer_now():
            raise BadRequest("This reply is not thinking.",
                             hint="Models of other engines cannot be told to answer.")

    def check_not_written(self, session_id: str, message_id: str) -> None:
        """Raises Busy if a reply is being written there, or hangs on it."""
        chain = self.chains.of(session_id)
        written = [job.plan.message for job in chain.jobs] if chain else []
        if any(message_id in (message["id"], message["parent"]) for message in written):
            session = self.store.session(session_id)
            raise self._busy(session, "Stop the reply before changing what it hangs on.")

    # Inside

    def _deciding(self, session_id: str) -> threading.RLock:
        """Held while something is decided about a session, never while a reply is written."""
        return self._locks.setdefault(check_id(session_id, "session"), threading.RLock())

    def _shown_up_to(self, session: Session, leaf: str | None) -> Session:
        """So that what is written below `leaf` is shown from then on."""
        if session["leaf"] == leaf:
            return session
        return self.store.change_session(session["id"], session["revision"],
                                         lambda old: {**old, "leaf": leaf}, touch=False)

    def _answer(self, session: Session, said: Said) -> ReplyJob | None:
        if said.bot:
            return self._start(Chain(session["id"]), session, self.planner.bot(said.bot), begin=said.begin)
        room = Room.of(session, self.store, self.slot)
        if room.asks_the_model(room.among(said.audience)):
            return self._start_undecided(Chain(session["id"]), session,
                                         lambda: room.answering(said.text, said.audience)[0], said.begin)
        ids = room.answering(said.text, said.audience)
        if not ids:
            return None
        chain = Chain(session["id"], planned=ids[1:])
        return self._start(chain, session, self.planner.bot(ids[0]), begin=said.begin)

    def _start(self, chain: Chain, session: Session, speaker: Bot, *, continued: Message | None = None,
               instead: Message | None = None, begin: str = "") -> ReplyJob:
        """`instead`: the reply beside which this one stands as another version; `begin`: its first words."""
        if begin and (why := self.voices.cannot(speaker.get("engine"), CONTINUE)):
            raise BadRequest(why, hint="Let it begin by itself.")
        message = continued or {**_new_reply(session, speaker, session["leaf"], instead), "text": begin}
        continues = continued is not None or begin != ""
        plan = self.planner.plan(session, speaker, message, continues=continues)
        if message["text"]:
            plan = replace(plan, begun=self.lens.known(session["id"], message))
        return self._begin(chain, plan)

    def _start_undecided(self, chain: Chain, session: Session, choose: Callable[[], str],
                         begin: str = "") -> ReplyJob:
        """Begin a reply of the bot whose id `choose` finds, beside the request; `begin`: its first words."""
        blank = new_message("", "", begin, session["leaf"])

        def decide() -> ReplyPlan:
            try:
                speaker = self.planner.bot(choose())
            except NotFound as error:
                raise ValueError(error.message) from None
            reply = _new_reply(session, speaker, blank["parent"])
            plan = self.planner.plan(session, speaker, {**reply, "id": blank["id"], "text": begin},
                                     continues=begin != "")
            return replace(plan, begun=None) if begin else plan

        return self._begin(chain, Undecided(session["id"], blank, decide))

    def _begin(self, chain: Chain, plan: ReplyPlan | Undecided) -> ReplyJob:
        job = self._job(chain, plan)
        self.chains.start(chain, job)
        return job

    def _job(self, chain: Chain, plan: ReplyPlan | Undecided) -> ReplyJob:
        return ReplyJob(plan, self.voices.lease, self.store, self.commits, self.lens,
                        lambda done: self.chains.after(chain, done, lambda: self._follow(chain)))

    def _follow(self, chain: Chain) -> ReplyJob | None:
        session = self.store.session(chain.session_id)
        if chain.planned:
            return self._start(chain, session, self.planner.bot(chain.planned.pop(0)))
        if chain.turns <= 0:
            return None
        chain.turns -= 1
        room = Room.of(session, self.store, self.slot)
        if room.asks_the_model(room.following):
            return self._start_undecided(chain, session, lambda: room.going_on() or "")
        bot = room.going_on()
        return self._start(chain, session, self.planner.bot(bot)) if bot else None

    def _session_to_change(self, session_id: str, revision: int | None) -> Session:
        """The session if `revision` is its own, and every reply is in it."""
        self.session(session_id)
        for refused in self.commits.waiting_in(session_id):
            raise NotSaved(f"The last reply is not saved yet: {refused.why}",
                           hint="Make room on the disk or mend its permissions, then try again.")
        return self.store.change_session(session_id, revision, lambda session: session)

    def _free_session(self, session_id: str, revision: int) -> Session:
        session = self._session_to_change(session_id, revision)
        if self.chains.of(session_id):
            raise self._busy(session, "Wait until it is done, or stop it first.")
        self._check_can_write(self._bots_of(session))
        return session

    def _check_answer(self, session: Session, said: Said) -> None:
        """Before the message is saved: whatever would keep it from being answered."""
        if said.reply:
            self._check_can_write(self._bots_of(session))
            if said.bot:
                self.planner.bot_in(session, said.bot)
                if said.audience is not None and said.bot not in said.audience:
                    raise BadRequest("The bot that is to answer is not among those whom the message is for.")

    def _bots_of(self, session: Session) -> list[Bot]:
        ids = {entry["id"] for entry in session["bots"]}
        return [bot for bot in self.store.known_bots() if bot["id"] in ids]

    def _check_can_write(self, bots: list[Bot]) -> None:
        self.chains.check_space()
        if not self.voices.will_answer(bots):
            raise NoModelLoaded("No model is loaded.", hint="Choose one in the menu of models.")

    def _busy(self, session: Session, hint: str) -> Busy:
        chain = self.chains.of(session["id"])
        name = (chain.jobs[0].plan.message["name"] if chain and chain.jobs else "") or "A bot"
        return Busy(f"{name} is still writing in this session.", hint=hint, current=session)


def _new_reply(session: Session, speaker: Bot, parent: str | None, instead: Message | None = None) -> Message:
    """A reply that is yet to be written, for whom the message is that it answers; another version, `instead`,
    for whom the first one is."""
    blank = new_message(speaker["id"], speaker["name"], "", parent)
    if instead is not None and instead["author"] == speaker["id"]:
        audience = instead.get("for")
    else:
        audience = passed_on(session, tree.path(session, parent), speaker["id"])
    return blank if audience is None else {**blank, "for": audience}


def _with_said(session: Session, message: Message) -> Session:
    """The session with the user's message; the first one for all also names a session that has no name."""
    changed: dict[str, Any] = tree.with_message(session, message, leaf=message["id"])
    first = message.get("for") is None and (session["title"] == UNTITLED or not any(
        other["author"] == USER and other.get("for") is None for other in session["messages"]))
    if session["title_is_auto"] and first:
        changed["title"] = title_from(message["text"]) or session["title"]
    return changed
