"""All other engines that somebody has named: what models they have, and any of these as a model.

Asks an engine for its list only when somebody looks at the list, and for more only when one of its models is
chosen. Thread-safe. Light to import: all that talks to engines comes with the first question.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from model.engine.request import EngineClosed
from model.files import readable
from model.remote.address import BadAddress, EngineAddress, shown_name
from model.remote.problems import EngineProblem, named
from model.slot.choice import Progress, Report
from model.slot.state import LOADING, LeaseGivenUp, NoModel, SlotState

if TYPE_CHECKING:
    from model.remote.background import Background
    from model.remote.connection import Connection
    from model.remote.remote_model import RemoteModel

REST_SECONDS = 2.0  # after a look at all lists, before the next
MAX_ENGINES = 32
MAX_MODELS = 1_000  # of one engine
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineState:
    """What is known of one engine. `is_fixed`: named at the start, so that it cannot be removed. `problem`:
    why its list could not be read."""

    address: EngineAddress
    is_fixed: bool = False
    is_read: bool = False
    models: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Offer:
    """A model of an engine, as a choice; see Choice."""

    engine_id: str
    model: str
    engine: str  # its name
    host: str
    url: str
    engines: Engines = field(repr=False, compare=False)
    takes_memory: bool = False

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.engine_id}\0{self.model}".encode(errors="replace")).hexdigest()[:16]

    @property
    def name(self) -> str:
        return readable(shown_name(self.model, self.engine))

    def prepare(self, held_bytes: int, progress: Progress) -> Callable[[Progress, Report], RemoteModel]:
        """Ask it; there is nothing to be loaded then."""
        model = self.engines.open(self, progress, anew=True)
        return lambda told, report: model


class FirstOffer:
    """The first model of an engine's list, whichever that is, as a choice; until it is asked it is called
    like the engine."""

    takes_memory = False

    def __init__(self, engines: Engines, address: EngineAddress) -> None:
        self._engines, self._address = engines, address
        self._offer: Offer | None = None

    @property
    def id(self) -> str:
        return self._offer.id if self._offer else ""

    @property
    def name(self) -> str:
        return self._offer.name if self._offer else self._address.name

    def prepare(self, held_bytes: int, progress: Progress) -> Callable[[Progress, Report], RemoteModel]:
        """Read the list, and ask its first model."""
        self._offer = self._engines.first_of(self._address, progress)
        return self._offer.prepare(held_bytes, progress)


class Engines:
    """`fixed`: those that were named at the start."""

    def __init__(self, fixed: Iterable[EngineAddress] = ()) -> None:
        self._background: Background | None = None
        self._lock = threading.Lock()
        self._states: dict[str, EngineState] = {}
        self._connections: dict[str, Connection] = {}
        self._models: dict[str, RemoteModel] = {}
        self._looking: threading.Thread | None = None
        self._looked = -REST_SECONDS
        self._closed = False
        self.version = 0
        """Counts up with every change of which engines there are."""
        for address in fixed:
            self._states[address.id] = EngineState(address, is_fixed=True)

    # -- which there are

    def known(self) -> list[EngineState]:
        """What is known; nobody is asked."""
        with self._lock:
            return list(self._states.values())

    def begin_look(self, anew: bool = False) -> None:
        """Read their lists beside, unless that has just been done. `anew`: even then."""
        with self._lock:
            rests = not anew and time.monotonic() - self._looked < REST_SECONDS and all(
                state.is_read for state in self._states.values())
            if self._states and self._looking is None and not rests and not self._closed:
                self._looking = threading.Thread(target=self._look, name="engines' lists", daemon=True)
                self._looking.start()

    @property
    def is_looking(self) -> bool:
        return self._looking is not None

    def look(self) -> list[EngineState]:
        """Read all lists now, and wait for it."""
        self.begin_look(anew=True)
        thread = self._looking
        if thread is not None:
            thread.join()
        return self.known()

    def add(self, address: EngineAddress) -> None:
        """One more, or another key or name for one that was added. Raises BadAddress."""
        with self._lock:
            if address.id in self._states:
                self._change(address.id, address)
                return
            if len(self._states) >= MAX_ENGINES:
                raise BadAddress(f"There are {MAX_ENGINES} engines already. Remove one first.")
            self._states[address.id] = EngineState(address)
            self._forget(address.id)

    def change(self, engine_id: str, address: EngineAddress) -> None:
        """Have an engine at another address, or by another key or name; a model of it that is loaded goes on
        there. Raises BadAddress, KeyError for none."""
        with self._lock:
            if address.id != engine_id and address.id in self._states:
                raise BadAddress(f"{address.url} is an engine already.")
            self._change(engine_id, address)

    def remove(self, engine_id: str) -> None:
        """What it writes just now ends. Raises BadAddress for one of the start, KeyError for none."""
        with self._lock:
            if self._states[engine_id].is_fixed:
                raise BadAddress("This engine was named when Parlor was started; leave it out there.")
            del self._states[engine_id]
            self._forget(engine_id)

    def close(self) -> None:
        """End everything that is said to engines. Safe to call twice."""
        with self._lock:
            self._closed = True
            background = self._background
        if background is not None:
            background.close()

    # -- their models

    def offer(self, model_id: str) -> Offer | None:
        """The model of this id, if a list that was read has it."""
        return next((offer for state in self.known() for offer in self.offers(state) if offer.id == model_id),
                    None)

    def offers(self, state: EngineState) -> list[Offer]:
        """The models of an engine's list."""
        return [self._offer(state.address, entry["id"]) for entry in state.models]

    def offer_of(self, engine_id: str, model: str) -> Offer:
        """A model by its name, whether or not a list has it. Raises NoModel if there is no such engine."""
        with self._lock:
            state = self._states.get(engine_id)
        if state is None:
            raise NoModel(f"The engine of {model} is not known here any more. Add it again in the menu of "
                          "models, or give the bot another model.")
        return self._offer(state.address, model)

    def first(self) -> FirstOffer:
        """Of the engine that was named first. There must be one."""
        return FirstOffer(self, self.known()[0].address)

    def first_of(self, address: EngineAddress, progress: Progress) -> Offer:
        """Reads the engine's list. Raises EngineProblem, EngineClosed, or what `progress` raises."""
        progress(f"Asking {address.host}", 0.0)
        background = self._begun()
        with self._lock:
            connection = self._connection(address.id)
        models = background.run(connection.models(), lambda: progress(f"Asking {address.host}", 0.1))
        if not models:
            raise EngineProblem(f"{named(address)} has no model.")
        return self._offer(address, models[0]["id"])

    def lease(self, engine_id: str, model: str) -> RemoteLease:
        return RemoteLease(self, engine_id, model)

    def opened(self, offer: Offer) -> RemoteModel | None:
        """The model, if it was asked already and has not failed since."""
        with self._lock:
            return self._models.get(offer.id)

    def open(self, offer: Offer, progress: Progress, *, anew: bool = False) -> RemoteModel:
        """The model, once its engine has been asked what it can do. Whoever calls waits, and `progress` is
        called meanwhile. Raises EngineProblem, NoModel, EngineClosed, or what `progress` raises."""
        known = self.opened(offer)
        if known is not None and not anew:
            return known
        what = f"Asking {offer.host}"
        progress(what, 0.0)
        background = self._begun()
        from model.remote.abilities import ask
        from model.remote.remote_model import RemoteModel

        with self._lock:
            connection = self._connection(offer.engine_id)
        found = background.run(ask(connection, offer.model), lambda: progress(what, 0.5))
        model = RemoteModel(connection, background, offer.model, found,
                            broken=lambda: self._drop(offer.id, model))
        with self._lock:
            self._models[offer.id] = model
        return model

    # -- inside

    def _offer(self, address: EngineAddress, model: str) -> Offer:
        return Offer(address.id, model, address.name, address.host, address.url, self)

    def _begun(self) -> Background:
        """The thread that talks to engines. Raises EngineProblem without the library, EngineClosed."""
        from model.remote.background import Background
        from model.remote.connection import check_installed

        check_installed()
        with self._lock:
            if self._closed:
                raise EngineClosed("Parlor is shutting down.")
            if self._background is None:
                self._background = Background()
            return self._background

    def _connection(self, engine_id: str) -> Connection:
        """Called with the lock."""
        from model.remote.connection import Connection

        if engine_id not in self._states:
            raise NoModel("This engine is not known here any more.")
        if engine_id not in self._connections:
            self._connections[engine_id] = Connection(self._states[engine_id].address)
        return self._connections[engine_id]

    def _change(self, engine_id: str, address: EngineAddress) -> None:
        """Called with the lock. It keeps its place in the list."""
        if self._states[engine_id].is_fixed:
            raise BadAddress(f"{address.host} was named when Parlor was started; it is changed there.")
        fresh = {engine_id: (address.id, EngineState(address))}
        self._states = dict(fresh.get(known, (known, state)) for known, state in self._states.items())
        connection = self._connections.pop(engine_id, None)
        if connection is not None:
            self._connections[address.id] = connection
            assert self._background is not None  # who made the connection
            self._background.begin(connection.use(address), lambda is_broken: None)
        self._models.clear()
        self.version += 1

    def _forget(self, engine_id: str) -> None:
        """Called with the lock."""
        self.version += 1
        connection = self._connections.pop(engine_id, None)
        self._models.clear()  # those of other engines are asked again
        if connection is not None and self._background is not None:
            self._background.begin(connection.close(), lambda is_broken: None)

    def _drop(self, model_id: str, model: RemoteModel) -> None:
        with self._lock:
            if self._models.get(model_id) is model:
                del self._models[model_id]

    def _look(self) -> None:
        try:
            try:
                self._begun().run(self._read_all())
            except EngineProblem as error:
                for state in self.known():
                    self._keep(state, (), str(error))
        except EngineClosed:
            pass
        except BaseException:
            log.exception("the lists of engines could not be read")
        finally:
            with self._lock:
                self._looked = time.monotonic()
                self._looking = None

    async def _read_all(self) -> None:
        import asyncio

        await asyncio.gather(*(self._read(state) for state in self.known()))

    async def _read(self, state: EngineState) -> None:
        try:
            with self._lock:
                connection = self._connection(state.address.id)
            models = tuple((await connection.models())[:MAX_MODELS])
            self._keep(state, models, "" if models else f"{named(state.address)} has no model.")
        except (EngineProblem, NoModel) as error:
            self._keep(state, (), str(error))

    def _keep(self, state: EngineState, models: tuple[Mapping[str, Any], ...], problem: str) -> None:
        with self._lock:
            if self._states.get(state.address.id) is state:
                self._states[state.address.id] = replace(state, is_read=True, models=models, problem=problem)


class RemoteLease:
    """One use of a model of an engine, as Lease is of the one that is loaded."""

    def __init__(self, engines: Engines, engine_id: str, model: str) -> None:
        self._engines, self._engine_id, self._model = engines, engine_id, model
        self.is_given_up = False

    def wait(self, told: Callable[[SlotState], None] = lambda _state: None) -> RemoteModel:
        """Raises LeaseGivenUp, and as Engines.open does."""
        offer = self._engines.offer_of(self._engine_id, self._model)
        said = ""

        def progress(what: str, share: float) -> None:
            nonlocal said
            if self.is_given_up:
                raise LeaseGivenUp
            if what != said:
                said = what
                told(SlotState(LOADING, coming_name=offer.name, what=what))

        return self._engines.open(offer, progress)

    def release(self) -> None:
        """Nothing is held."""

    def give_up(self) -> None:
        """Let wait() end."""
        self.is_given_up = True
