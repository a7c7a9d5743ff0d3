"""What a bot would be sent if it spoke now: the whole prompt, part by part, with what each takes.

Changes nothing and has nothing computed. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading

from model import EngineClosed, ModelSlot, NoModel, PromptView, thinking_variables

from ..errors import BadRequest
from ..sampling import effective
from ..storage import tree
from ..storage.schema import USER, Document, Session
from ..storage.store import Store
from .bot_view import BotView, bot_view
from .room import Room
from .voices import Voices

MAX_AT_ONCE = 4  # templates and tokenizers may take long, and each holds a thread of the server
log = logging.getLogger("parlor.prompt")


class Inspector:
    """Of all sessions of `store`."""

    def __init__(self, slot: ModelSlot, store: Store, voices: Voices) -> None:
        self._slot, self._store, self._voices = slot, store, voices
        self._free = threading.BoundedSemaphore(MAX_AT_ONCE)

    def prompt(self, session: Session, bot_id: str | None, message_id: str | None) -> Document:
        """Of the next reply of this bot (None: of the one that spoke last, else the first); or of the reply
        `message_id`, were it written again now. `problem` is a sentence where there is nothing to show.

        Raises NotFound, BadRequest.
        """
        room = Room.of(session, self._store, self._slot)
        path = room.path
        if message_id is not None:
            message = tree.get(session, message_id)
            if message["author"] == USER:
                raise BadRequest("Only for what a bot wrote there was a prompt.")
            bot_id, path = message["author"], tree.path(session, message["parent"])
        if bot_id is None:
            speakers = [speaker.id for speaker in room.speakers]
            bot_id = room.last_speaker if room.last_speaker in room.bots else next(iter(speakers), None)
        speaker = room.bots.get(bot_id or "")
        if speaker is None:
            raise BadRequest("There is no such bot (any more).", hint="Choose another one.")
        view = bot_view(session, room.bots, speaker, path)
        known = {"bot": speaker["id"], "name": speaker["name"], "problem": "", "model": "", "host": ""}
        if not self._free.acquire(blocking=False):
            return known | {"problem": "Several prompts are being looked at already. Try again in a moment."}
        try:
            preset = self._store.preset_sampling(session["preset"])
            params = effective(preset, session["sampling"], speaker["sampling"])
            with self._voices.glance(speaker.get("engine")) as model:
                info = model.info()
                found = model.inspect(view.messages, params.max_new_tokens, reply_name=view.speaker,
                                      adapter=speaker.get("adapter") or None,
                                      variables=thinking_variables(params.reasoning_effort))
                guide = view.guide(params, found.fit.first_index)
                against = guide and model.inspect(
                    [one.message for one in guide], params.max_new_tokens, reply_name=view.speaker,
                    adapter=speaker.get("adapter") or None,
                    variables=thinking_variables(params.reasoning_effort))
            known |= {"model": info["name"], "host": info["host"], "max_new_tokens": params.max_new_tokens}
            return known | _shown(view, found) | {"guide": _guide(against) if against else None}
        except NoModel as error:
            return known | {"problem": f"What {speaker['name']} would be sent cannot be told now: {error}"}
        except (ValueError, EngineClosed) as error:
            return known | {"problem": f"{error}"}
        except BaseException:  # a panic of a tokenizer's library is no Exception
            log.exception("the prompt of session %s cannot be shown", session["id"])
            return known | {"problem": "The prompt cannot be shown; Parlor's log says more."}
        finally:
            self._free.release()


def _guide(found: PromptView) -> Document:
    """What guidance leads away from."""
    parts = [{"kind": "template" if part.index is None else "turn", "text": part.text,
              "tokens": part.num_tokens} for part in found.parts]
    return {"parts": parts, "prompt_tokens": found.fit.prompt_tokens}


def _shown(view: BotView, found: PromptView) -> Document:
    """The prompt as the page gets it."""
    fit, parts, before, cut = found.fit, [], 0, None
    for number, part in enumerate(found.parts):
        if part.index is None:
            kind = "answer" if number == len(found.parts) - 1 else "template"
            parts.append({"kind": kind, "text": part.text, "tokens": part.num_tokens})
        else:
            one = view.shown[part.index]
            parts.append({"kind": one.kind, "text": part.text, "tokens": part.num_tokens, "message": one.id,
                          "name": one.name, "pinned": one.message.pinned})
        chars = found.cached_chars
        if chars is not None and cut is None and (before + len(part.text) > chars):
            cut = {"part": number, "chars": chars - before}
        before += len(part.text)
    first, left_out = view.memory(fit.first_index)
    return {"parts": parts, "prompt_tokens": fit.prompt_tokens, "max_seq_len": fit.max_seq_len or None,
            "about": not fit.is_exact, "is_template": found.is_template, "first_message": first,
            "left_out": left_out, "before": view.before, "others": view.others,
            "shortened": fit.is_shortened, "cached_tokens": found.cached_tokens, "read_from": cut}
