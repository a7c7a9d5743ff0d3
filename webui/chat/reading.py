"""A model reads something for somebody who waits: beside other requests, and only as long as somebody does.

Knows neither sessions nor HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model import EngineClosed, LanguageModel, LeaseGivenUp, NoModel, ReplyDone, ReplyFailed, RunningReply

from ..errors import BadRequest, EngineFailed, NoModelLoaded, ReaderGone
from ..storage.schema import Document
from .voices import Voices

GLANCE_SECONDS = 0.1


@contextmanager
def borrowed(voices: Voices, engine: Document | None, is_gone: Callable[[], bool]) -> Iterator[LanguageModel]:
    """That model once it is there, for the time of the block, unless `is_gone` says that nobody waits.

    Raises BadRequest for a ValueError within, NoModelLoaded, ReaderGone.
    """
    lease = voices.lease(engine)
    try:
        yield lease.wait(lambda _state: lease.give_up() if is_gone() else None)
    except LeaseGivenUp:
        raise ReaderGone("Nobody waits for this.") from None
    except (EngineClosed, NoModel) as error:
        raise NoModelLoaded(f"{error}") from None
    except ValueError as error:
        raise BadRequest(f"{error}") from None
    finally:
        lease.release()


def events_of(reply: RunningReply, is_gone: Callable[[], bool]) -> Iterator[object]:
    """Its events; it is cancelled once `is_gone` says so. Raises EngineFailed, ReaderGone."""
    done = threading.Event()
    threading.Thread(target=_cancel_if_gone, args=(reply, is_gone, done), daemon=True).start()
    try:
        for event in reply.events():
            if isinstance(event, ReplyFailed):
                raise EngineFailed(event.message)
            if isinstance(event, ReplyDone) and event.finish_reason == "cancelled":
                raise ReaderGone("Nobody waits for this.")
            yield event
    finally:
        done.set()


def _cancel_if_gone(reply: RunningReply, is_gone: Callable[[], bool], done: threading.Event) -> None:
    while not done.wait(GLANCE_SECONDS):
        if is_gone():
            reply.cancel()
            return
