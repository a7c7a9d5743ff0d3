"""A stored reply generated once more from its record: the same tokens, or the first that differs and why.

The model writes it as a request beside the others, from the prompt as the session gives it now; what is kept
with the message (see record.py) tells whether model, kernels and prompt are those of then. Nothing is kept of
it. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from model import PromptProgress, RunningReply, ScoredToken, TextDelta

from ..errors import BadRequest, Problem, ReaderGone
from ..ids import new_id
from ..sampling import recorded
from ..storage.schema import USER, Document, Message
from ..storage.token_files import ReplyToken
from .event_log import EventLog
from .own_name import OwnNameFilter
from .reading import borrowed, events_of
from .record import TokensDigest
from .reply_tokens import NUM_OTHERS, as_written, piece, reply_token, tokens_within
from .voices import Voices

if TYPE_CHECKING:
    from .reply_job import ReplyPlan

CUT = ("cancelled", "interrupted", "error")
"""How replies end that would have gone on."""
MAX_AFTER = 40  # tokens that are written behind the first that differs
BEFORE, BEHIND = 160, 120  # characters that are shown before and behind it
STATS_SECONDS = 0.1
log = logging.getLogger("parlor.replay")


def begun_with(message: Message, tokens: Sequence[ReplyToken] | None) -> tuple[Message, list[ReplyToken]]:
    """The message as it was when the model began to write, and the tokens from which exactly it went on.

    tokens  of the whole reply, if they are known

    Raises BadRequest for what cannot be generated again.
    """
    record = message.get("record", {})
    if message["author"] == USER:
        raise BadRequest("Only what a bot wrote can be generated again.")
    if record.get("host"):
        raise BadRequest(f"A model behind another engine wrote this reply ({record['host']}): which one "
                         "exactly and how it computed is not known here, so it cannot be replayed.")
    if "sampling" not in message or message.get("seed") is None:
        raise BadRequest("No model wrote this message here, or its seed was not kept: there is nothing from "
                         "which it could be generated again.")
    if message.get("edited") and "tokens" not in record:
        raise BadRequest("This text was edited, and what the model wrote was not kept: there is nothing to "
                         "compare with.")
    if "begun" not in record:
        return {**message, "text": "", "thinking": ""}, []
    count = record.get("begun_tokens", 0)
    if count and (tokens is None or message.get("edited")):
        raise BadRequest("This reply goes on from single tokens of another one, which are not kept any more.")
    begun = {**message, "text": message["text"][:record["begun"]],
             "thinking": message["thinking"][:record.get("begun_thought", 0)]}
    return begun, list(tokens or ())[:count]


def begin_replay(voices: Voices, plan: ReplyPlan, message: Message, tokens: list[ReplyToken] | None,
                 is_gone: Callable[[], bool]) -> EventLog:
    """Its events: progress of the prompt, stats, at last "done" with what came of it, or "error".

    plan     from `begun_with`
    message  as it is stored, with its `tokens` where they are known
    is_gone  tells whether nobody waits for it any more
    """
    events = EventLog()
    run = _Replay(voices, plan, message, tokens, events)

    def work() -> None:
        try:
            events.end("done", run.compared(is_gone))
        except Problem as error:
            events.end("error", {"message": error.message})
        except BaseException:  # a panic in a tokenizer's library is no Exception
            error_id = new_id()
            log.exception("the replay of message %s failed (error %s)", message["id"], error_id)
            events.end("error", {"message": "Something broke inside Parlor; its log says more under "
                                            f"{error_id}."})

    threading.Thread(target=work, name="replay", daemon=True).start()
    return events


@dataclass
class _Written:
    """What the model writes this time; `text` and `thinking` are whole, with what the reply began with."""

    text: str
    thinking: str
    tokens: list[ReplyToken] = field(default_factory=list)
    digest: TokensDigest = field(default_factory=TokensDigest)
    cached: int = 0


class _Replay:
    def __init__(self, voices: Voices, plan: ReplyPlan, message: Message, known: list[ReplyToken] | None,
                 events: EventLog) -> None:
        self._voices, self._plan, self._message, self._events = voices, plan, message, events
        self._record: Document = message.get("record", {})
        self._known = None if message.get("edited") else known
        self._count: int | None = self._record.get("count", message.get("new_tokens"))
        self._is_cut = message.get("finish_reason") in CUT

    def compared(self, is_gone: Callable[[], bool]) -> Document:
        plan, record = self._plan, self._record
        if record:
            plan = replace(plan, adapter=record.get("adapter", ""))
        params, unknown = recorded(self._message["sampling"], self._message["seed"])
        prefix, tokens = as_written(plan.begun or ()) if plan.forks else (plan.message["text"], [])
        with borrowed(self._voices, None, is_gone) as model:
            info = model.info()
            reply = model.start(plan.view.messages, params, reply_name=plan.view.speaker, reply_prefix=prefix,
                                reply_tokens=tokens, reply_thinking=plan.message["thinking"], shorten=True,
                                logprobs=NUM_OTHERS, adapter=plan.adapter or None,
                                against=plan.view.against(params.negative_prompt))
            written = self._read(reply, is_gone)
        facts = self._facts(info, reply, written, plan.adapter, unknown)
        return self._outcome(written) | {"facts": facts, "edited": bool(self._message.get("edited")),
                                         "cut": self._is_cut, "seed": self._message["seed"]}

    def _read(self, reply: RunningReply, is_gone: Callable[[], bool]) -> _Written:
        """Until it ends, or has differed for a while, or is as long as one that was cut."""
        begun = self._plan.message
        written = _Written(begun["text"], begun["thinking"])
        shown = OwnNameFilter(self._plan.view.speaker, continues=bool(begun["text"]))
        told, enough, differs_at = 0.0, False, None
        try:
            for event in events_of(reply, is_gone):
                if enough:
                    continue  # what comes before the model has heard of it
                if isinstance(event, ScoredToken):
                    enough = self._is_cut and written.digest.count == self._count
                    if not enough:
                        written.tokens.append(reply_token(event))
                        written.digest.take(event)
                elif isinstance(event, TextDelta):
                    if event.channel == "think":
                        written.thinking += event.text
                    else:
                        written.text += shown.feed(event.text)
                    if differs_at is None and not self._agrees(written):
                        differs_at = written.digest.count
                    enough = differs_at is not None and written.digest.count >= differs_at + MAX_AFTER
                    if time.monotonic() - told >= STATS_SECONDS:
                        told = time.monotonic()
                        self._events.append("stats", {"tokens": written.digest.count, "of": self._count})
                elif isinstance(event, PromptProgress):
                    self._events.append("progress", {"done": event.done, "total": event.total,
                                                     "cached": event.cached})
                    written.cached = event.cached
                if enough:
                    reply.cancel()
        except ReaderGone:
            if not enough:
                raise
        written.text += shown.finish()
        return written

    def _agrees(self, written: _Written) -> bool:
        """With what is stored, so far. Of an edited text that cannot be said."""
        return bool(self._message.get("edited")) or (
            self._message["text"].startswith(written.text)
            and self._message["thinking"].startswith(written.thinking)) or (
            self._is_cut and written.text.startswith(self._message["text"]))

    def _outcome(self, written: _Written) -> Document:
        digest, message = self._record.get("tokens"), self._message
        if digest is not None:
            is_same = (written.digest.count, written.digest.hexdigest()) == (self._count, digest)
        elif self._is_cut:
            is_same = written.text.startswith(message["text"]) and message["thinking"] in written.thinking
        else:
            is_same = (written.text, written.thinking) == (message["text"], message["thinking"])
        difference = None if is_same or message.get("edited") else self._difference(written)
        return {"identical": is_same, "by": "text" if digest is None else "tokens",
                "tokens": written.digest.count if digest is None or is_same else self._count,
                "difference": difference}

    def _difference(self, written: _Written) -> Document | None:
        """The first token that differs; None if it cannot be found: the same text was in other tokens."""
        channel = "text" if written.thinking == self._message["thinking"] else "thinking"
        old, new = (text.encode() for text in (self._message[channel], getattr(written, channel)))
        offset = len(self._plan.message[channel].encode())
        now = _placed(tokens_within(written.tokens, new[offset:]) or [], offset)
        known = _placed(self._known or [], 0) if channel == "text" else {}
        at = _first_difference(old, new, known, now, offset)
        if at >= len(old) and (at >= len(new) or self._is_cut):
            return None
        return {"channel": channel, "index": sum(start < at for start in now),
                "before": old[:at].decode(errors="ignore")[-BEFORE:],
                **_both_sides(old[at:], new[at:], known.get(at), now.get(at))}

    def _facts(self, info: Mapping[str, Any], reply: RunningReply, written: _Written, adapter: str,
               unknown: list[str]) -> list[Document]:
        """Of all that decides which tokens come: what it was then, what it is now, and whether that is the
        same; None where it cannot be known."""
        record, message = self._record, self._message
        then_on, now_on = record.get("on", {}), info["numerics"]
        same_files = record["model"] == info["fingerprint"] if record.get("model") else None
        facts = [_fact("model", message.get("model", ""), info["name"],
                       same_files or message.get("model") == info["name"]),
                 _fact("files", record.get("model", ""), info["fingerprint"], same_files)]
        if record.get("adapter") or adapter:
            files = info["adapter_fingerprints"].get(adapter, "")
            facts.append(_fact("adapter", record.get("adapter", ""), adapter,
                               record["adapter_files"] == files if record.get("adapter_files") else None))
        for name in dict.fromkeys([*now_on, *then_on]):
            then, now = then_on.get(name, ""), now_on.get(name, "")
            facts.append(_fact(name, then, now, then == now if then_on else None))
        then_tokens, now_tokens = message.get("prompt_tokens"), reply.prompt_tokens
        same_prompt = None if then_tokens == now_tokens else False
        if record.get("prompt"):
            same_prompt = record["prompt"] == reply.prompt_digest
        facts.append(_fact("prompt", then_tokens, now_tokens, same_prompt))
        if "amx" in (then_on.get("isa"), now_on.get("isa")) and same_prompt:
            # What was in the cache of earlier replies had been computed token by token, not as a prompt.
            facts.append(_fact("cached", message.get("cached_tokens"), written.cached,
                               message.get("cached_tokens") == written.cached))
        if record.get("told_to_answer"):
            facts.append(_fact("answer", True, False, False))
        facts.append(_fact("sampling", "", ", ".join(unknown), None if unknown else True))
        return facts


def _fact(what: str, then: object, now: object, same: bool | None) -> Document:
    return {"what": what, "then": then, "now": now, "same": same}


def _placed(tokens: Sequence[ReplyToken], offset: int) -> dict[int, ReplyToken]:
    """Each by the byte at which it begins."""
    return dict(zip(accumulate((len(token.data) for token in tokens), initial=offset), tokens, strict=False))


def _first_difference(old: bytes, new: bytes, known: Mapping[int, ReplyToken], now: Mapping[int, ReplyToken],
                      offset: int) -> int:
    """The byte at which the first token begins that differs."""
    at = offset
    while at in known and at in now and known[at].data == now[at].data:
        at += len(now[at].data)
    if at in known or at >= len(old):
        return at
    common = next((index for index, (was, is_now) in enumerate(zip(old, new, strict=False)) if was != is_now),
                  min(len(old), len(new)))
    return max((start for start in now if start <= common), default=common)


def _both_sides(old: bytes, new: bytes, known: ReplyToken | None, now: ReplyToken | None) -> Document:
    """What came there then and what comes now: the token, its log-probability then and now, and what follows.
    `below`: a bound of one that was not among those that were told."""
    then_data = known.data if known else b""
    if not then_data and now is not None and old:
        then_data = max((other.data for other in now.others if other.data and old.startswith(other.data)),
                        key=len, default=b"")
    now_data = now.data if now else b""
    return {"then": {**_side(then_data, old), "was": known.logprob if known else None,
                     **_told("is", then_data, now, ends=not old)},
            "now": {**_side(now_data, new), "is": now.logprob if now else None,
                    **_told("was", now_data, known, ends=not new)}}


def _side(data: bytes, rest: bytes) -> Document:
    shown = piece(data) if data else None
    return {"token": shown, "ended": not rest, "rest": rest.decode(errors="replace")[:BEHIND]}


def _told(name: str, data: bytes, there: ReplyToken | None, ends: bool) -> Document:
    """How likely `data`, or the reply's end, was found in the place of `there`."""
    if there is None or not (data or ends):
        return {name: None}
    found = [other.logprob for other in there.others if (other.data == data if data else not other.is_text)]
    if found:
        return {name: found[0]}
    return {name: None, "below": there.others[-1].logprob} if there.others else {name: None}
