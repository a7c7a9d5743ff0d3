"""The place of the loaded model: leases, switches, cancelling, idleness, and that memory comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model.catalogue.listing import Catalogue
from model.catalogue.places import Place, found_at
from model.config import EngineConfig
from model.engine.request import EngineClosed
from model.files import ModelLoadError
from model.kernels.build.library import REPOSITORY
from model.machine import resident_memory
from model.slot.model_slot import ModelSlot
from model.slot.state import ASLEEP, EMPTY, READY, WAITING, LeaseGivenUp, NoModel, SlotBusy
from tests.engine.test_engine import wait_until
from tests.helpers.fake_model import FakeModel
from tests.helpers.gguf_models import Type, write_llama
from tests.helpers.text_samples import qwen_folder
from tests.helpers.tiny_models import TINY, random_tensors, write_model

ENGINE = EngineConfig(device="cpu", threads=1)


class Loads:
    """A loader by hand: each load waits for `go_on`, if it is clear, calling progress meanwhile."""

    def __init__(self):
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()
        self.error: BaseException | None = None
        self.models: list[FakeModel] = []
        self.configs: list[EngineConfig] = []

    def __call__(self, path, config, *, name, progress, report):
        self.began.set()
        self.configs.append(config)
        progress("Loading", 0.25)
        while not self.go_on.wait(0.005):
            progress("Loading", 0.5)
        if self.error is not None:
            raise self.error
        model = FakeModel()
        model.called = name
        self.models.append(model)
        return model


@pytest.fixture
def loads():
    return Loads()


@pytest.fixture
def slot(tmp_path, loads):
    for name in ("one", "two"):
        write_model(tmp_path / name)
    slot = ModelSlot(loads, Catalogue([Place("x", tmp_path)], ENGINE), ENGINE)
    slot.ids = {entry.found.name: entry.found.id for entry in slot.catalogue.look()}
    yield slot
    loads.go_on.set()
    slot.close()


def loaded(slot, name="one"):
    slot.load(slot.ids[name])
    return slot.wait()


def in_thread(work):
    """What `work` returns or raises, once it ends."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(60)
        assert outcome, "it still waits"
        return outcome[0]

    return result


def test_one_model_takes_the_place_of_another(slot, loads):
    assert slot.state.phase == EMPTY and not slot.will_answer
    assert loaded(slot).name == "one" and slot.state.phase == READY
    version = slot.state.version
    assert loaded(slot, "two").name == "two" and slot.state.version > version
    assert [model.called for model in loads.models] == ["one", "two"]
    assert loads.models[0].closed and not loads.models[1].closed
    assert slot.model is loads.models[1]
    slot.unload()
    assert slot.wait().phase == EMPTY and loads.models[1].closed and slot.model is None


def test_a_switch_waits_for_whoever_uses_the_old_model_and_newcomers_get_the_new_one(slot, loads):
    loaded(slot)
    first = slot.lease()
    assert first.wait() is loads.models[0]
    slot.load(slot.ids["two"])
    wait_until(lambda: slot.state.phase == WAITING)
    told = []
    second = slot.lease()
    waiting = in_thread(lambda: second.wait(told.append))
    wait_until(lambda: told)
    assert not loads.models[0].closed
    first.release()
    assert waiting() is loads.models[1] and loads.models[0].closed
    assert told[0].coming_name == "two" and {state.phase for state in told} <= {"waiting", "loading"}
    second.release()
    second.release()
    slot.unload()
    assert slot.wait().phase == EMPTY


def test_a_cancel_in_front_of_the_loading_keeps_the_old_model(slot, loads):
    loaded(slot)
    lease = slot.lease()
    lease.wait()
    slot.load(slot.ids["two"])
    wait_until(lambda: slot.state.phase == WAITING)
    slot.cancel()
    state = slot.wait()
    assert (state.phase, state.name, state.coming_name) == (READY, "one", "") and "cancelled" in state.problem
    assert not loads.models[0].closed
    with slot.glance() as model:
        assert model is loads.models[0]
    lease.release()


def test_a_cancel_while_it_loads_leaves_none_and_says_so(slot, loads):
    loaded(slot)
    loads.go_on.clear()
    loads.began.clear()
    slot.load(slot.ids["two"])
    assert loads.began.wait(60)
    waiting = in_thread(slot.lease().wait)
    slot.cancel()
    state = slot.wait()
    assert state.phase == EMPTY and "cancelled" in state.problem and slot.model is None
    assert isinstance(waiting(), NoModel)
    loads.go_on.set()
    assert loaded(slot).phase == READY


@pytest.mark.parametrize("error", [ModelLoadError("the file is cut off"), MemoryError(),
                                   KeyError("a secret")])
def test_a_model_that_cannot_be_loaded_says_why_and_whoever_waits_hears_it(slot, loads, error):
    loads.error = error
    loads.go_on.clear()
    slot.load(slot.ids["two"])
    waiting = in_thread(slot.lease().wait)
    loads.go_on.set()
    state = slot.wait()
    assert state.phase == EMPTY and state.problem.startswith("two was not loaded: ")
    assert "secret" not in state.problem
    assert str(waiting()) == state.problem
    loads.error = None
    assert loaded(slot).problem == ""


def test_what_is_wrong_with_a_file_is_found_while_the_old_model_is_still_there(slot, loads, tmp_path):
    loaded(slot)
    (tmp_path / "two" / "model.safetensors").write_bytes(b"broken")
    state = loaded(slot, "two")
    assert (state.phase, state.name) == (READY, "one") and "two was not loaded" in state.problem
    assert len(loads.models) == 1 and not loads.models[0].closed
    with pytest.raises(ModelLoadError):
        slot.load("0" * 16)


def test_a_model_that_does_not_fit_into_what_the_old_one_gives_back_is_refused(slot, loads, monkeypatch):
    loaded(slot)
    monkeypatch.setattr(slot.catalogue, "free_bytes", lambda: 0)
    state = loaded(slot, "two")
    assert state.phase == READY and "smaller model" in state.problem
    monkeypatch.setattr(type(slot), "held_bytes", 1 << 40)
    assert loaded(slot, "two").name == "two"


def test_options_of_the_start_hold_for_the_first_model_and_suit_the_others(tmp_path, loads):
    write_model(tmp_path / "one")
    write_model(tmp_path / "short", max_position_embeddings=64)
    engine = EngineConfig(device="cpu", threads=1, max_seq_len=128, draft=tmp_path / "small")
    slot = ModelSlot(loads, Catalogue([Place("x", tmp_path)], engine), engine)
    by_name = {entry.found.name: entry for entry in slot.catalogue.look()}
    slot.load_first(by_name["one"].found, lambda what, share: None, print)
    assert slot.wait().name == "one"
    slot.load(by_name["short"].found.id)
    assert slot.wait().name == "short"
    slot.load(by_name["one"].found.id)
    assert slot.wait().name == "one"
    assert [config.max_seq_len for config in loads.configs] == [128, 64, 128]
    assert [config.draft for config in loads.configs] == [engine.draft, None, engine.draft]
    slot.close()


def test_a_model_is_loaded_again_with_another_context_or_stays_as_it_is(tmp_path, loads):
    write_model(tmp_path / "one")
    slot = ModelSlot(loads, Catalogue([Place("x", tmp_path)], ENGINE), ENGINE)
    (entry,) = slot.catalogue.look()
    slot.load(entry.found.id)
    first = slot.wait() and slot.model
    slot.load(entry.found.id, 128)
    assert slot.wait().phase == READY and slot.model is not first and first.closed
    assert [config.max_seq_len for config in loads.configs] == [None, 128]
    slot.load(entry.found.id, 512)
    assert "was made for 256 tokens at most" in slot.wait().problem and slot.state.phase == READY
    slot.unload(sleep=True)
    wait_until(lambda: slot.state.phase == ASLEEP)
    lease = slot.lease()
    lease.wait()
    lease.release()
    assert loads.configs[-1].max_seq_len == 128, "asleep or not"
    slot.close()
    named = ModelSlot(loads, Catalogue([], ENGINE), ENGINE)  # nobody has looked for it: it was named
    named.load_first(entry.found, lambda what, share: None, print)
    assert named.wait().phase == READY and named.has(entry.found.id) and not named.has("f" * 16)
    assert named.catalogue.entry(entry.found.id) is None, "asking changes nothing"
    named.load(entry.found.id, 64)
    assert named.wait().phase == READY and loads.configs[-1].max_seq_len == 64
    named.close()


def test_rounding_is_for_float_weights_and_leaves_quantized_models_as_they_are(tmp_path, loads):
    write_model(tmp_path / "plain")
    write_llama(tmp_path / "packed.gguf", TINY, random_tensors(TINY), Type.Q8_0)
    engine = EngineConfig(device="cpu", threads=1, quantize=4)
    slot = ModelSlot(loads, Catalogue([Place("x", tmp_path)], engine), engine)
    by_name = {entry.found.name: entry for entry in slot.catalogue.look()}
    assert [entry.problem for entry in by_name.values()] == ["", ""]
    for name in ("plain", "packed"):
        slot.load(by_name[name].found.id)
        assert slot.wait().name == name
    assert [config.quantize for config in loads.configs] == [4, None]
    slot.close()


def test_one_change_at_a_time(slot, loads):
    loads.go_on.clear()
    slot.load(slot.ids["one"])
    for change in (slot.unload, lambda: slot.load(slot.ids["two"])):
        with pytest.raises(SlotBusy, match="one is being loaded"):
            change()
    loads.go_on.set()
    assert slot.wait().name == "one"


def test_an_idle_model_is_let_go_and_comes_back_when_it_is_asked_for(tmp_path, loads):
    write_model(tmp_path / "one")
    slot = ModelSlot(loads, Catalogue([Place("x", tmp_path)], ENGINE), ENGINE, idle_seconds=0.05)
    [entry] = slot.catalogue.look()
    slot.ids = {"one": entry.found.id}
    loaded(slot)
    lease = slot.lease()
    first = lease.wait()
    lease.release()
    wait_until(lambda: slot.state.phase == ASLEEP)
    assert first.closed and slot.will_answer and slot.state.name == "one"
    with pytest.raises(NoModel), slot.glance():
        pass
    assert slot.state.phase == ASLEEP, "a glance wakes nothing"
    lease = slot.lease()
    second = lease.wait()
    assert second is not first and not second.closed, "while it is used it is not idle"
    lease.release()
    slot.close()


def test_a_lease_that_is_given_up_waits_no_more(slot, loads):
    loads.go_on.clear()
    slot.load(slot.ids["one"])
    lease = slot.lease()
    waiting = in_thread(lease.wait)
    lease.give_up()
    assert isinstance(waiting(), LeaseGivenUp)
    lease.release()


def test_closing_answers_everybody_who_waits(slot, loads):
    loaded(slot)
    lease = slot.lease()
    lease.wait()
    slot.load(slot.ids["two"])
    wait_until(lambda: slot.state.phase == WAITING)
    waiting = in_thread(slot.lease().wait)
    slot.close()
    assert isinstance(waiting(), EngineClosed)
    assert all(model.closed for model in loads.models)
    with pytest.raises(SlotBusy):
        slot.load(slot.ids["one"])
    lease.release()
    slot.close()


def test_the_first_model_is_heard_of_on_the_way_and_in_the_end(tmp_path, loads):
    slot = ModelSlot(loads, Catalogue([], ENGINE), ENGINE)
    found = found_at(write_model(tmp_path / "one"), "given")
    loads.go_on.clear()
    heard = []
    slot.load_first(found, lambda what, share: heard.append((what, share)), print)
    with pytest.raises(SlotBusy, match="one is being loaded"):
        slot.check_free()
    lease = slot.lease()
    waiting = in_thread(lease.wait)
    loads.go_on.set()
    assert waiting() is loads.models[0], "who asks meanwhile waits for it"
    lease.release()
    assert (slot.state.phase, slot.state.id, slot.state.name) == (READY, found.id, "one")
    assert heard[0] == ("Loading", 0.25)
    slot.close()


def test_a_first_model_that_cannot_be_loaded_is_told_to_everybody_who_waits(tmp_path, loads):
    slot = ModelSlot(loads, Catalogue([], ENGINE), ENGINE)
    loads.error = ModelLoadError("it is odd")
    loads.go_on.clear()
    slot.load_first(found_at(write_model(tmp_path / "one"), "given"), lambda what, share: None, print)
    waiting = in_thread(slot.lease().wait)
    loads.go_on.set()
    assert "one was not loaded: it is odd" in str(waiting())
    assert (slot.wait().phase, slot.state.problem) == (EMPTY, "one was not loaded: it is odd")
    slot.close()


@pytest.mark.skipif(os.name == "nt", reason="memory as Linux counts it")
def test_what_a_loader_had_when_it_failed_or_was_cancelled_goes(slot, loads):
    """64 MB each time."""
    def failing(path, config, *, name, progress, report):
        held = bytearray(64 << 20)
        held[::4096] = b"x" * len(held[::4096])
        loads(path, config, name=name, progress=progress, report=report)
        raise ModelLoadError("no")

    slot._local._load = failing
    loaded(slot)
    memory = resident_memory()
    for _ in range(5):
        assert loaded(slot).phase == EMPTY
        loads.go_on.clear()
        slot.load(slot.ids["one"])
        wait_until(lambda: slot.state.share == 0.5)
        slot.cancel()
        assert slot.wait().phase == EMPTY
        loads.go_on.set()
    assert resident_memory() - memory < 64 << 20


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="memory as Linux counts it")
def test_loading_and_unloading_twenty_times_gives_all_memory_back(tmp_path: Path):
    """30 MB of weights; what one load leaves behind would be 600 MB after twenty. In a process of its own: in
    this one memory comes and goes by what other tests have left."""
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 1024,
             "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
    write_model(qwen_folder(tmp_path / "model"), **sizes)
    result = subprocess.run([sys.executable, "-m", "tests.helpers.slot_memory", str(tmp_path), "20"],
                            cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["more_bytes"] < 24 << 20
