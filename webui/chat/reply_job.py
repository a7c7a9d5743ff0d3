"""One reply: prompt -> model -> text -> event log and journal -> the session's file.

Runs in a thread of its own until the model is done; tabs only read its log. However it ends - done, stopped,
failed, the server going down - what was written so far is committed with the reason on the message, and
the log's last event comes after that. Knows nothing of HTTP, and not who speaks next.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model import (
    LOGPROBS,
    EngineClosed,
    LanguageModel,
    Lease,
    LeaseGivenUp,
    PromptProgress,
    RemoteLease,
    ReplyDone,
    ReplyFailed,
    SamplingParams,
    ScoredToken,
    SlotState,
    TextDelta,
)

from ..ids import new_id
from ..sampling import Changes, as_json
from ..storage.journal import Journal
from ..storage.schema import (
    MAX_ERROR,
    MAX_MODEL_NAME,
    MAX_REPLY,
    MAX_REPLY_NUMBER,
    REPLY_NUMBERS,
    Document,
    Message,
)
from ..storage.store import Store
from ..storage.token_files import ReplyToken
from .bot_view import BotView
from .commits import Commits
from .event_log import EventLog
from .lens import Lens
from .own_name import OwnNameFilter
from .record import TokensDigest, record_of
from .reply_tokens import NUM_OTHERS, TokenRecorder, as_written
from .thought import Thought

STATS_SECONDS = 0.25
log = logging.getLogger("parlor.reply")


@dataclass(frozen=True)
class ReplyPlan:
    """What is to be written. For a continued reply `message` is the one on disk, with its text.

    params   how to sample, by what the authors of the model advise that is to write it
    adapter  the name of the LoRA adapter that the bot wants; empty: none
    engine   {id, model} of another engine, by which this bot speaks; None: by the model that is loaded
    begun    the tokens of the text that is there; None where they are not known
    forks    it goes on from exactly these
    """

    session_id: str
    message: Message
    view: BotView
    params: Callable[[Changes], SamplingParams]
    continues: bool = False
    adapter: str = ""
    engine: Document | None = None
    begun: Sequence[ReplyToken] | None = ()
    forks: bool = False


@dataclass(frozen=True)
class Undecided:
    """A reply whose speaker is yet to be found: that takes the model, so the reply's own thread does it.

    message  has its id and its parent; author and name are empty
    decide   the plan with that message; raises ValueError with a sentence, or anything
    """

    session_id: str
    message: Message
    decide: Callable[[], ReplyPlan]


class ReplyJob:
    """`lease_of`: of the model that is loaded, or of another engine's. `lens`: keeps the tokens. `next_turn`
    is called once, after the commit, and says which reply follows: that goes into `done`."""

    def __init__(self, plan: ReplyPlan | Undecided,
                 lease_of: Callable[[Document | None], Lease | RemoteLease], store: Store, commits: Commits,
                 lens: Lens, next_turn: Callable[[ReplyJob], dict[str, str] | None]) -> None:
        self.id = new_id()
        self.plan = plan
        self.log = EventLog()
        self.stopped = False
        self._why_interrupted = ""
        self.failed = False
        self.kept: dict[str, Any] = {}  # the message as it was committed, and the session's revision since
        self._lease_of = lease_of
        self._lease = lease_of(plan.engine if isinstance(plan, ReplyPlan) else None)
        self._made_with: dict[str, Any] = {"model": "", "sampling": {}}  # as the message tells it
        self._store = store
        self._commits = commits
        self._lens = lens
        self._recorder: TokenRecorder | None = None
        self._record: Callable[[], Document] | None = None  # once it is known
        self._next_turn = next_turn
        self._reply: Any = None
        self._journal: Journal | None = None
        self._lock = threading.Lock()  # text, thinking and who finishes
        self._finishing = False
        self._text = plan.message["text"]
        self._thinking = plan.message["thinking"]
        self._shortened: str | None = None  # the message of which the model sees only a part
        self._is_full = False  # no longer text can be kept
        self._filter = _own_name_filter(plan) if isinstance(plan, ReplyPlan) else None
        self._prompt: dict[str, int] = {}
        self._started = time.monotonic()
        self._first_token: float | None = None
        self._last_stats = 0.0
        self._thought = Thought()
        self._was_told_to_answer = False

    @property
    def info(self) -> dict[str, str | None]:
        """`bot` is None until it is known."""
        message = self.plan.message
        return {"reply_id": self.id, "message_id": message["id"], "bot": message["author"] or None}

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"reply-{self.id}", daemon=True).start()

    def stop(self) -> None:
        """Ask the model to end; what is there is kept. Any thread, any time."""
        self.stopped = True
        self._lease.give_up()
        reply = self._reply
        if reply is not None:
            reply.cancel()

    def answer_now(self) -> bool:
        """Have the model end its thought, so that the answer begins. False if it is in none."""
        reply = self._reply
        told = reply is not None and reply.answer_now()
        self._was_told_to_answer = self._was_told_to_answer or told
        return told

    def interrupt(self, why: str) -> None:
        """Like stop(), but it was not the user who wanted it: `why` goes onto the message."""
        self._why_interrupted = why
        self.stop()

    def abandon(self, why: str) -> None:
        """End now, without waiting for the model to let go."""
        self.interrupt(why)
        self._finish("interrupted", error=why)

    def _run(self) -> None:
        try:
            model = self._lease.wait(self._tell_loading)
            is_decided = isinstance(self.plan, ReplyPlan)
            plan = self._decided()
            if plan is None:
                return self._finish("cancelled")
            if plan.engine is not None and not is_decided:
                model = self._model_of(plan)
            info = model.info()
            params = plan.params(info.get("advice", {}))
            self._made_with = {"model": info["name"][:MAX_MODEL_NAME], "sampling": as_json(params)}
            self._open_journal(plan)
            message = plan.message
            self.log.append("start", {
                **self.info, "session_id": plan.session_id, "name": plan.view.speaker,
                "parent": message["parent"], "continues": plan.continues, "text": message["text"],
                "for": message.get("for")})
            self._generate(plan, params, model)
        except LeaseGivenUp:
            self._finish("interrupted" if self._why_interrupted else "cancelled", error=self._why_interrupted)
        except (ValueError, EngineClosed) as error:  # what the model says of a request that it cannot take
            self._give_up(str(error))
        except BaseException:  # a panic in a tokenizer's library is no Exception
            self._give_up(self._log_fault())
        finally:
            self._lease.release()

    def _model_of(self, plan: ReplyPlan) -> LanguageModel:
        """That of the bot that was chosen, in place of the one that chose it."""
        self._lease.release()
        self._lease = self._lease_of(plan.engine)
        if self.stopped:
            self._lease.give_up()
        return self._lease.wait(self._tell_loading)

    def _tell_loading(self, state: SlotState) -> None:
        """The model is on its way: the tabs see how far it is."""
        self.log.append("loading", {"name": state.coming_name or state.name, "share": round(state.share, 3)})

    def _give_up(self, why: str) -> None:
        reply = self._reply
        if reply is not None:
            reply.cancel()  # the model would write on for nobody
        self._finish("error", error=why)

    def _log_fault(self) -> str:
        """The sentence for a fault of ours, under which the log says what it was."""
        error_id = new_id()
        log.exception("reply %s failed (error %s)", self.id, error_id)
        return f"Something broke inside Parlor; its log says more under {error_id}."

    def _decided(self) -> ReplyPlan | None:
        """The plan, once it is known who speaks; None if nobody wants to know any more."""
        plan = self.plan.decide() if isinstance(self.plan, Undecided) else self.plan
        with self._lock:
            if self._finishing or (self.stopped and plan is not self.plan):
                return None
            self.plan = plan
            self._filter = self._filter or _own_name_filter(plan)
            return plan

    def _generate(self, plan: ReplyPlan, params: SamplingParams, model: LanguageModel) -> None:
        view, info, digest = plan.view, model.info(), None
        prefix, tokens = as_written(plan.begun or ()) if plan.forks else (plan.message["text"], [])
        tells_tokens = not info["cannot"].get(LOGPROBS)
        if tells_tokens and plan.begun is not None:
            self._recorder, digest = TokenRecorder(plan.begun), TokensDigest()
        reply = model.start(view.messages, params, reply_name=view.speaker, reply_prefix=prefix,
                            reply_tokens=tokens, reply_thinking=plan.message["thinking"], shorten=True,
                            logprobs=NUM_OTHERS if self._recorder else None, adapter=plan.adapter or None,
                            against=view.against(params.negative_prompt))
        self._reply = reply
        self._record = lambda: record_of(plan, info, reply, digest)
        if reply.is_shortened:
            self._shortened = view.message_ids[-1]
        if self.stopped:
            reply.cancel()
        for event in reply.events():
            if isinstance(event, TextDelta):
                self._take_text(event)
            elif isinstance(event, ScoredToken):
                if self._recorder is not None and digest is not None:
                    self._recorder.take(event)
                    digest.take(event)
            elif isinstance(event, PromptProgress):
                self._prompt = {"done": event.done, "total": event.total, "cached": event.cached}
                self.log.append("progress", self._prompt)
            elif isinstance(event, ReplyFailed):
                return self._finish("error", error=event.message)
            elif isinstance(event, ReplyDone):
                if self._is_full:
                    return self._finish("length", stats=event.stats)
                if event.finish_reason == "cancelled" and self._why_interrupted:
                    return self._finish("interrupted", stats=event.stats, error=self._why_interrupted)
                return self._finish(event.finish_reason, stats=event.stats)
        return self._finish("error", error="The model ended without saying why.")

    def _take_text(self, delta: TextDelta) -> None:
        text = delta.text.encode("utf-8", "replace").decode()
        if self._first_token is None:
            self._first_token = time.monotonic()
        if self._thought.take(delta):
            self.log.append("thought", self._thought.numbers(self.plan.message))
        if delta.channel == "think":
            self._write("think", text)
        else:
            self._write("text", text)
        now = time.monotonic()
        if now - self._last_stats >= STATS_SECONDS:
            self._last_stats = now
            tokens, elapsed = delta.num_tokens_so_far, now - self._first_token
            rate = round((tokens - 1) / elapsed, 2) if tokens > 1 and elapsed > 0 else None
            self.log.append("stats", {
                "new_tokens": tokens, "tokens_per_second": rate, "prompt_tokens": self._prompt.get("total"),
                "seconds_to_first_token": round(self._first_token - self._started, 4)})

    def _write(self, channel: str, text: str) -> None:
        with self._lock:
            if self._finishing:
                return
            if channel == "text":
                text = self._filter.feed(text)[:MAX_REPLY - len(self._text)]
                self._text += text
            else:
                text = text[:MAX_REPLY - len(self._thinking)]
                self._thinking += text
            if MAX_REPLY in (len(self._text), len(self._thinking)) and self._reply is not None:
                self._is_full = True
                self._reply.cancel()
            if not text:
                return
            self.log.append(channel, {"text": text})
            self._note_in_journal(channel, text)

    def _note_in_journal(self, channel: str, text: str) -> None:
        journal = self._journal
        if journal is None:
            return
        try:
            journal.text(channel, text)
        except OSError as error:  # the commit at the end decides
            log.warning("the journal of reply %s cannot be written: %s", self.id, error)

    def _open_journal(self, plan: ReplyPlan) -> None:
        message = {**plan.message, **self._made_with}
        if plan.continues:
            message["continues"] = True
        try:
            self._journal = Journal(self._store.journal_path(self.id), self._store.disk)
            self._journal.begin(plan.session_id, message)
        except OSError as error:  # the first line is missing, so that no other may follow
            log.warning("no journal for reply %s: %s", self.id, error)
            if self._journal is not None:
                self._journal.close()
            self._journal = None

    def _finish(self, reason: str, *, stats: Any = None, error: str = "") -> None:
        """Commit, then tell. Whoever comes first does it; the others find it done.

        Tabs and session wait for this: whatever goes wrong here, the log ends and the session is free.
        """
        with self._lock:
            if self._finishing:
                return
            self._finishing = True
        try:
            self._conclude(reason, stats, error)
        except BaseException:
            self._conclude_without(error or self._log_fault())
        self._let_go()

    def _let_go(self) -> None:
        """The job is kept for its log; what the reply was made from is not needed any more."""
        self._reply = self._journal = self._recorder = self._record = None
        self._text = self._thinking = ""
        if isinstance(self.plan, ReplyPlan):
            self.plan = replace(self.plan, view=replace(self.plan.view, shown=[]), begun=())

    def _conclude_without(self, error: str) -> None:
        """Where the ordinary end failed: the text with the error, and none of the numbers."""
        self.failed = True
        plan, partial, revision = self.plan, None, None
        try:
            if isinstance(plan, ReplyPlan):
                partial = {**plan.message, "text": self._text, "thinking": self._thinking,
                           "finish_reason": "error", "error": error[:MAX_ERROR]}
                revision, _problem = self._commit({**partial, "continues": plan.continues})
        except BaseException:
            self._log_fault()
        finally:
            self._next_turn(self)
            self.log.end("error", {"message": error, "partial": partial, "revision": revision})

    def _conclude(self, reason: str, stats: Any, error: str) -> None:
        tail = self._filter.finish()[:MAX_REPLY - len(self._text)] if self._filter else ""
        if tail:
            self._text += tail
            self.log.append("text", {"text": tail})
        if isinstance(self.plan, Undecided):  # nobody spoke: there is nothing to keep
            self._tell(None, self._store.session(self.plan.session_id)["revision"], error)
            return
        message = self._final_message(self.plan, reason, stats, error)
        revision, problem = self._commit(message)
        message.pop("continues", None)
        self._lens.keep(self.plan.session_id, message,
                        self._recorder.tokens_of(message["text"]) if self._recorder else None)
        self._tell(message, revision, error or problem)

    def _tell(self, message: Message | None, revision: int | None, problem: str) -> None:
        """The last event, after what follows has begun."""
        self.failed = bool(problem)
        self.kept = {"message": message, "revision": revision}
        following = self._next_turn(self)
        if problem:
            self.log.end("error", {"message": problem, "partial": message, "revision": revision})
        else:
            self.log.end("done", {**self.kept, "next": following})

    def _final_message(self, plan: ReplyPlan, reason: str, stats: Any, error: str) -> Message:
        message = {**plan.message, "text": self._text, "thinking": self._thinking,
                   **self._made_with, "finish_reason": reason, "error": error[:MAX_ERROR]}
        message |= self._thought.numbers(plan.message)
        message.pop("record", None)  # of what it goes on from
        if self._record is not None:
            message["record"] = self._record()
            if self._was_told_to_answer:
                message["record"]["told_to_answer"] = True
        if self._shortened is not None:
            message["shortened"] = self._shortened
        if stats is not None:
            numbers = {name: getattr(stats, name) for name in REPLY_NUMBERS}
            message |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        if plan.continues:
            message["continues"] = True
            for name in ("new_tokens", "decode_seconds", "drafted_tokens", "accepted_tokens"):
                if stats is not None and plan.message.get(name):
                    message[name] = min((message[name] or 0) + plan.message[name], MAX_REPLY_NUMBER)
        return message

    def _commit(self, message: Message) -> tuple[int | None, str]:
        """Journal first, then the session; the session's new revision, and what went wrong as a sentence."""
        if self._journal is not None:
            try:
                self._journal.end(message)
            except (OSError, ValueError) as error:
                log.warning("the end of reply %s is not in its journal: %s", self.id, error)
            self._journal.close()
        try:
            return self._commits.add(self.plan.session_id, self.id, message)
        except BaseException:
            log.exception("reply %s could not be committed", self.id)
            return None, "The reply could not be kept; Parlor's log says more."


def _own_name_filter(plan: ReplyPlan) -> OwnNameFilter:
    return OwnNameFilter(plan.view.speaker, continues=bool(plan.message["text"]))
