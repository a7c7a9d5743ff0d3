"""The place of the one model that is loaded: who uses it, how another one takes its place, when it is let go.

Whoever uses the model holds a Lease. A switch first looks whether the new model can be loaded at all, then
waits for the leases to end (new ones wait for the new model), lets the old one go, loads. Knows no HTTP and
no session.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from model.catalogue.listing import Catalogue, Entry
from model.catalogue.places import Found
from model.chat_model import ChatModel
from model.config import EngineConfig
from model.engine.request import EngineClosed
from model.engine.tally import Tally
from model.files import ModelLoadError, readable
from model.kernels.errors import KernelBuildError
from model.language_model import LanguageModel
from model.remote.engines import Engines
from model.slot.choice import Choice, Progress, Report
from model.slot.heap import close, give_back
from model.slot.local_choice import Loader, LocalChoice, LocalModels
from model.slot.state import (
    ASLEEP,
    BUSY,
    CHECKING,
    EMPTY,
    LOADING,
    READY,
    WAITING,
    LeaseGivenUp,
    NoModel,
    SlotBusy,
    SlotState,
)

_CANCELLED = "Loading was cancelled."
_CHOOSE = "No model is loaded. Choose one in the menu of models."
_NOT_NOW = {EMPTY: "No model is loaded.", ASLEEP: "The model is loaded again with the next message."}
log = logging.getLogger(__name__)


class _Cancelled(Exception):
    """Out of the middle of a loader."""


class ModelSlot:
    """Thread-safe. Changes happen in threads of the slot's own; whoever asks for one is answered at once."""

    def __init__(self, load: Loader, catalogue: Catalogue, engine: EngineConfig, *,
                 engines: Engines | None = None, idle_seconds: float | None = None) -> None:
        """`engines`: other ones, whose models may take the place, too."""
        self.catalogue, self.engines = catalogue, engines or Engines()
        self._local = LocalModels(load, catalogue, engine)
        self._changed = threading.Condition()
        self._state = SlotState()
        self._model: LanguageModel | None = None
        self._choice: Choice | None = None  # what is loaded, or asleep
        self._adapters: dict[str, Path] = {}  # that were loaded beside it, by name
        self._adapters_of = ""                # the id of the model that they are beside
        self._users = 0
        self._done: dict[str, Tally] = {}  # by models that were let go
        self._gate_open = False           # whether a lease may begin
        self._cancelled = False
        self._closed = False
        self._last_used = time.monotonic()
        self._worker: threading.Thread | None = None
        self._idle_seconds = idle_seconds
        if idle_seconds is not None:
            threading.Thread(target=self._watch_idleness, name="idle", daemon=True).start()

    @classmethod
    def holding(cls, model: LanguageModel, engines: Engines | None = None) -> ModelSlot:
        """With this model in it, and nothing of this machine to put in its place."""
        engine = EngineConfig()

        def load(*_: object, **__: object) -> ChatModel:
            raise ModelLoadError("there is no other model")

        slot = cls(load, Catalogue([], engine), engine, engines=engines)
        slot._take(model, None)
        return slot

    # -- looking, from any thread

    @property
    def state(self) -> SlotState:
        return self._state

    @property
    def model(self) -> LanguageModel | None:
        """What is loaded. Only a lease keeps it from being let go."""
        return self._model

    def tallies(self) -> dict[str, Tally]:
        """By the models' names what has been done since the start: of those that were let go, and of the
        present one."""
        with self._changed:
            found = {name: copy.deepcopy(tally) for name, tally in self._done.items()}
            model = self._model
        if model is not None:
            _add(found, model)
        return found

    @property
    def held_bytes(self) -> int:
        """What would be free without the present model, about."""
        model = self._model
        info = model.info() if model is not None else {}
        return info.get("weight_bytes", 0) + info.get("cache_bytes", 0)

    def config_for(self, entry: Entry) -> EngineConfig:
        """How a model of this machine would run."""
        return self._local.config_for(entry)

    def check_free(self) -> None:
        """Raises SlotBusy while a change goes on."""
        with self._changed:
            if self._worker is not None:
                coming = self._state.coming_name
                what = f"{coming} is being loaded" if coming else "the present one is being unloaded"
                raise SlotBusy(f"Another model cannot be taken now: {what}. Cancel that first, or wait.")

    def has(self, model_id: str) -> bool:
        """Whether it can be asked for. The present one can, also if nobody has looked at the list yet."""
        present = self._choice
        return ((isinstance(present, LocalChoice) and present.id == model_id)
                or self.catalogue.entry(model_id) is not None or self.engines.offer(model_id) is not None)

    @property
    def will_answer(self) -> bool:
        """Whether a lease gets a model, now or after some waiting."""
        return self._state.phase != EMPTY

    # -- using

    def lease(self) -> Lease:
        return Lease(self)

    @contextmanager
    def glance(self) -> Iterator[LanguageModel]:
        """The model if it is there now. Raises NoModel."""
        with self._changed:
            model = self._model
            if model is None or not self._gate_open:
                raise NoModel(_NOT_NOW.get(self._state.phase, "The model is being changed."))
            self._users += 1
        try:
            yield model
        finally:
            self._leave(is_use=False)

    # -- adapters beside the model

    def load_adapter(self, name: str, path: Path) -> None:
        """Load a LoRA adapter beside the present model, and again whenever that is loaded again, until it is
        unloaded. Raises NoModel, and what the model's own function raises."""
        with self.glance() as model:
            model.load_adapter(name, path)
            self._note_adapters({**self._adapters, name: path})

    def unload_adapter(self, name: str) -> None:
        """Raises NoModel, and what the model's own function raises."""
        with self.glance() as model:
            model.unload_adapter(name)
            self._note_adapters({other: path for other, path in self._adapters.items() if other != name})

    def _note_adapters(self, adapters: dict[str, Path]) -> None:
        with self._changed:
            self._adapters = adapters
            self._tell(version=self._state.version + 1)

    # -- changing

    def load(self, model_id: str, max_seq_len: int | None = None) -> None:
        """Begin to load a model of the catalogue, with this context if one is named, or of another engine's
        list, in place of the present one.

        Raises ModelLoadError if there is no such model, SlotBusy while another one is on its way.
        """
        present = self._choice
        if isinstance(present, LocalChoice) and present.id == model_id:
            self.catalogue.add(present.found)  # nobody may have looked at the list yet
        choice = self._local.choice(model_id, max_seq_len) or self.engines.offer(model_id)
        if choice is None:
            raise ModelLoadError("this model is not there any more")
        self.begin(choice)

    def begin(self, choice: Choice) -> None:
        """The same for what is no model of a list. Raises SlotBusy."""
        with self._changed:
            self._begin_locked(choice)

    def load_first(self, found: Found, progress: Progress, report: Report) -> None:
        """Begin to load the model that the engine's options were given for; wait() tells what came of it.

        `progress` and `report` hear what the loader says, in its thread.
        """
        def told(what: str, share: float) -> None:
            self._progress(what, share)
            progress(what, share)

        def load() -> None:
            self._take_if_wanted(self._local.load_first(found, told, report), LocalChoice(found, self._local))

        with self._changed:
            self._start_locked(load, LOADING, coming_id=found.id, coming_name=found.name)

    def cancel(self) -> None:
        """Stop what is on its way: in front of the loading the old model stays, after that there is none."""
        with self._changed:
            if self._state.phase in BUSY:
                self._cancelled = True
                self._changed.notify_all()

    def unload(self, *, sleep: bool = False) -> None:
        """Begin to let the model go, once nobody uses it. With `sleep` the next lease loads it again.

        Raises SlotBusy while another one is on its way.
        """
        self._start(lambda: self._unload(sleep), WAITING)

    def close(self) -> None:
        """End what goes on and let the model go; everybody who waits is answered. Safe to call twice."""
        with self._changed:
            self._closed = self._cancelled = True
            self._gate_open = False
            worker = self._worker
            self._changed.notify_all()
        if worker is not None:
            worker.join()
        with self._changed:
            model, self._model = self._model, None
        if model is not None:
            model.close()
        self.engines.close()

    def wait(self) -> SlotState:
        """Until nothing is on its way; what came of it."""
        with self._changed:
            self._changed.wait_for(lambda: self._worker is None)
            return self._state

    # -- inside: leases

    def _enter(self, lease: Lease, told: Callable[[SlotState], None]) -> LanguageModel:
        seen = None
        while True:
            with self._changed:
                while True:
                    if lease.is_given_up:
                        raise LeaseGivenUp
                    if self._closed:
                        raise EngineClosed("Parlor is shutting down.")
                    if self._gate_open and self._model is not None:
                        self._users += 1
                        return self._model
                    if self._state.phase == EMPTY:
                        raise NoModel(self._state.problem or _CHOOSE)
                    if self._state.phase == ASLEEP:
                        self._begin_locked(self._choice)
                    if self._state != seen:
                        break
                    self._changed.wait()
                seen = self._state
            told(seen)

    def _leave(self, *, is_use: bool = True) -> None:
        with self._changed:
            self._users -= 1
            if is_use:
                self._last_used = time.monotonic()
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- inside: changes, one at a time, each in a thread

    def _begin_locked(self, choice: Choice | None) -> None:
        assert choice is not None
        self._start_locked(lambda: self._switch(choice), CHECKING, coming_id=choice.id,
                           coming_name=choice.name)

    def _start(self, work: Callable[[], None], phase: str) -> None:
        with self._changed:
            self._start_locked(work, phase)

    def _start_locked(self, work: Callable[[], None], phase: str, **told: str) -> None:
        if self._closed:
            raise SlotBusy("Parlor is shutting down.")
        self.check_free()
        before = self._state
        self._cancelled = False
        self._tell(phase=phase, what="", share=0.0, problem="", **told)
        self._worker = threading.Thread(target=self._run, args=(work,), name="model slot", daemon=True)
        try:
            self._worker.start()
        except BaseException:  # the system has no thread left
            self._worker = None
            self._tell(**vars(before))
            raise

    def _run(self, work: Callable[[], None]) -> None:
        """However it ends, the slot says what is there, and whoever waits is woken."""
        problem = ""
        try:
            work()
        except _Cancelled:
            problem = _CANCELLED
        except (ModelLoadError, KernelBuildError, ValueError, MemoryError, OSError) as error:
            problem = str(error) or "There is not enough memory."
        except BaseException:
            log.exception("a model could not be loaded")
            problem = "Something broke while it was loaded; Parlor's log says more."
        finally:
            if problem:
                with contextlib.suppress(MemoryError):
                    give_back()
            with self._changed:
                self._settle(readable(problem))
                self._worker = None
                self._changed.notify_all()

    def _settle(self, problem: str) -> None:
        """Say what is there after all that."""
        coming, choice = self._state.coming_name, self._choice
        if problem and coming and problem != _CANCELLED:
            problem = f"{coming} was not loaded: {problem}"
        self._tell(coming_id="", coming_name="", what="", share=0.0, problem=problem)
        if self._model is not None:
            self._gate_open = not self._closed
            name = choice.name if choice else self._model.info()["name"]
            self._tell(phase=READY, id=choice.id if choice else "", name=name)
        elif choice is not None and not problem:
            self._tell(phase=ASLEEP, id=choice.id, name=choice.name)
        else:
            self._choice = None
            self._tell(phase=EMPTY, id="", name="")

    def _switch(self, choice: Choice) -> None:
        get = choice.prepare(self.held_bytes, self._progress)
        self._drain()
        self._let_go(None)
        self._tell(phase=LOADING)
        self._take_if_wanted(get(self._progress, lambda _line: None), choice)

    def _unload(self, sleep: bool) -> None:
        self._drain()
        self._let_go(self._choice if sleep else None)

    def _drain(self) -> None:
        """Wait until nobody uses the model. Raises _Cancelled; then it goes on as if nothing had been."""
        with self._changed:
            self._gate_open = False
            self._tell(phase=WAITING)
            self._changed.wait_for(lambda: self._users == 0 or self._cancelled)
            if self._cancelled:
                raise _Cancelled

    def _let_go(self, asleep: Choice | None) -> None:
        with self._changed:
            model, self._model, self._choice = self._model, None, asleep
            self._tell(version=self._state.version + 1)
        if model is not None:
            close(model)
            with self._changed:
                _add(self._done, model)
            del model
            give_back()

    def _take_if_wanted(self, model: LanguageModel, choice: Choice) -> None:
        """Raises _Cancelled."""
        if self._cancelled:
            close(model)
            del model
            raise _Cancelled
        self._give_adapters(model, choice.id)
        self._take(model, choice)

    def _give_adapters(self, model: LanguageModel, model_id: str) -> None:
        """Those that were beside this very model before. One that cannot be had any more is left out: bots
        that want it say so."""
        if model_id != self._adapters_of:
            self._adapters, self._adapters_of = {}, model_id
        for name, path in list(self._adapters.items()):
            try:
                model.load_adapter(name, path)
            except (ModelLoadError, ValueError) as error:
                log.warning("The adapter %s is not loaded again: %s", name, error)
                del self._adapters[name]

    def _take(self, model: LanguageModel, choice: Choice | None) -> None:
        with self._changed:
            self._model, self._choice = model, choice
            self._last_used = time.monotonic()
            self._tell(version=self._state.version + 1)
            self._settle("")
            self._changed.notify_all()

    def _progress(self, what: str, share: float) -> None:
        """Called by the loader; the way in for a cancel."""
        if self._cancelled:
            raise _Cancelled
        self._tell(what=what, share=share)

    def _tell(self, **changes: object) -> None:
        with self._changed:
            self._state = replace(self._state, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()

    def _watch_idleness(self) -> None:
        assert self._idle_seconds is not None
        with self._changed:
            while not self._closed:
                left = self._last_used + self._idle_seconds - time.monotonic()
                is_idle = self._state.phase == READY and self._users == 0 and self._choice is not None \
                    and self._choice.takes_memory
                if is_idle and left <= 0:
                    with contextlib.suppress(RuntimeError):  # the system has no thread left: later, then
                        self._start_locked(lambda: self._unload(True), WAITING)
                self._changed.wait((left if left > 0 else 1.0) if is_idle else None)


def _add(tallies: dict[str, Tally], model: LanguageModel) -> None:
    tally = model.tally()
    if tally is not None:
        tallies.setdefault(model.info()["name"], Tally()).add_all(tally)


class Lease:
    """One use of the model, by one thread; any thread may give it up."""

    def __init__(self, slot: ModelSlot) -> None:
        self._slot = slot
        self._is_held = False
        self.is_given_up = False

    def wait(self, told: Callable[[SlotState], None] = lambda _state: None) -> LanguageModel:
        """The model, once it is there; `told` hears what is waited for. Until release() it stays.

        Raises NoModel if none is or gets loaded, LeaseGivenUp, EngineClosed when everything ends.
        """
        model = self._slot._enter(self, told)
        self._is_held = True
        return model

    def release(self) -> None:
        """Safe to call twice, or without having got the model."""
        if self._is_held:
            self._is_held = False
            self._slot._leave()

    def give_up(self) -> None:
        """Let wait() end; what is held already stays held."""
        self.is_given_up = True
        self._slot._wake()
