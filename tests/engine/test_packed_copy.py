"""model/memory/packed_copy.py: weights that stay on disk compute what they compute in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.engine import loading
from model.engine.engine import Engine
from model.files import ModelLoadError
from model.formats.gptq import GptqReader
from model.kernels.build.library import REPOSITORY
from model.memory import old_copies, packed_copy
from model.memory.plan import MemoryPlan
from model.memory.spread import spread
from tests.helpers.adapters import random_products, write_peft
from tests.helpers.family_models import write_family
from tests.helpers.gguf_models import Type, write_llama
from tests.helpers.tiny_engine import load, prompt, quantized_model, tokens
from tests.helpers.tiny_models import TINY, random_tensors

FAMILIES = ("gemma 3n", "deepseek 3", "qwen 3 moe", "qwen 3.5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "parlor" / "packed"


def from_disk(path: Path, **changes: Any) -> Engine:
    """As if a third of the weights did not fit: plans for models of kilobytes always find enough."""
    def planned(*arguments: Any, has_disk: bool) -> tuple[MemoryPlan, list[int]]:
        assert has_disk
        plan, num_layers = spread(*arguments)
        return replace(plan, disk_bytes=plan.weight_bytes // 3), num_layers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "spread", planned)
        return load(path, max_seq_len=64, **changes)


def in_memory(path: Path) -> torch.Tensor:
    """The logits that it computes ordinarily."""
    engine = load(path, max_seq_len=64)
    found = logits(engine)
    engine.close()
    return found


def model_of(folder: Path, kind: str) -> Path:
    """A GGUF file of 4 bits, embeddings and head among them, or a folder."""
    if kind != "gguf":
        write_family(folder, kind)
        return folder
    path = folder.with_suffix(".gguf")
    write_llama(path, TINY, random_tensors(TINY), Type.Q4_0)
    return path


def logits(engine: Engine) -> torch.Tensor:
    return engine.logits(prompt(40))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A model's folder, and what it computes in memory."""
    folder = quantized_model(tmp_path_factory.mktemp("whole") / "model")
    return folder, in_memory(folder)


@pytest.mark.parametrize("kind", ["gguf", *FAMILIES])
def test_weights_on_disk_compute_the_same_bits(tmp_path: Path, cache: Path, kind: str):
    """As they are written, and read again; some of them are in memory."""
    path = model_of(tmp_path / "model", kind)
    expected = in_memory(path)
    for _ in range(2):
        mapped = from_disk(path)
        assert 0 < mapped.plan.disk_bytes < mapped.plan.weight_bytes
        assert torch.equal(logits(mapped), expected)
        mapped.close()
    (copy,) = cache.iterdir()
    assert copy.stat().st_size > mapped.plan.weight_bytes * 0.9


def test_a_copy_is_written_once_and_nothing_else_is_read_then(
        whole: tuple[Path, torch.Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch):
    folder, expected = whole
    from_disk(folder).close()
    (copy,) = cache.iterdir()
    before = copy.stat().st_ino
    monkeypatch.setattr(GptqReader, "matrix", None)
    again = from_disk(folder)
    assert torch.equal(logits(again), expected)
    again.close()
    assert copy.stat().st_ino == before


def test_a_draft_model_and_adapters_lie_in_memory(whole: tuple[Path, torch.Tensor], tmp_path: Path):
    folder, expected = whole
    products = random_products({"model.layers.0.self_attn.q_proj": (64, 64)})
    adapter = write_peft(tmp_path / "adapter", products)
    in_full = load(folder, max_seq_len=64, adapters=[("a", adapter)])
    adapted = in_full.logits(prompt(40), adapter="a")
    in_full.close()
    assert not torch.equal(adapted, expected)
    for _ in range(2):
        engine = from_disk(folder, draft=folder, adapters=[("a", adapter)])
        assert torch.equal(logits(engine), expected)
        assert torch.equal(engine.logits(prompt(40), adapter="a"), adapted)
        assert len(tokens(engine, prompt(20))) == 20
        engine.close()


def cut(copy: Path, folder: Path) -> None:
    os.truncate(copy, copy.stat().st_size // 2)


def cut_to_nothing(copy: Path, folder: Path) -> None:
    os.truncate(copy, 0)


def flip(copy: Path, folder: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def be_stopped_while_it_is_written(copy: Path, folder: Path) -> None:
    copy.rename(copy.with_name(f"{copy.name}.1.partial"))
    cut(copy.with_name(f"{copy.name}.1.partial"), folder)
    os.utime(copy.with_name(f"{copy.name}.1.partial"), (1, 1))


def change_the_model(copy: Path, folder: Path) -> None:
    os.utime(folder / "model.safetensors", ns=(1, 1))


@pytest.mark.parametrize("damage", [cut, cut_to_nothing, flip, be_stopped_while_it_is_written,
                                    change_the_model])
def test_what_is_no_copy_of_this_model_is_written_anew(
        whole: tuple[Path, torch.Tensor], tmp_path: Path, cache: Path,
        damage: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture):
    folder, expected = tmp_path / "model", whole[1]
    shutil.copytree(whole[0], folder)
    from_disk(folder).close()
    (copy,) = cache.iterdir()
    right = copy.read_bytes()
    damage(copy, folder)
    again = from_disk(folder)
    assert torch.equal(logits(again), expected)
    again.close()
    assert list(cache.iterdir()) == [copy]
    assert (copy.read_bytes() == right) == (damage is not change_the_model)
    assert ("is written anew" in caplog.text) == (damage is flip), "others are deleted in advance"


def test_other_settings_have_a_copy_of_their_own(whole: tuple[Path, torch.Tensor], cache: Path):
    folder, _ = whole
    for changes in ({}, {"exact": True}):
        from_disk(folder, **changes).close()
    assert len(list(cache.iterdir())) == 2


def test_without_room_on_disk_it_says_how_much_is_needed(
        whole: tuple[Path, torch.Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch):
    folder, _ = whole
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50 << 20, total=1 << 40))
    with pytest.raises(ModelLoadError, match=r"on disk needs 64\.\d MiB; 50\.0 MiB are free in .*XDG_CACHE"):
        from_disk(folder)
    assert not list(cache.iterdir())


def test_a_disk_that_fills_up_leaves_no_half_copy(
        whole: tuple[Path, torch.Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch):
    folder, _ = whole

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed_copy._Writer, "finish", full)
    with pytest.raises(ModelLoadError, match="cannot be written or read: No space left on device"):
        from_disk(folder)
    assert not list(cache.iterdir())


# ---- copies that go ----------------------------------------------------------------------------------------


def copied(model: tuple[Path, torch.Tensor], folder: Path) -> Path:
    """The folder of another model, which has a copy now."""
    shutil.copytree(model[0], folder)
    from_disk(folder).close()
    return folder


def change(folder: Path) -> None:
    os.utime(folder / "model.safetensors", ns=(1, 1))


def unplug(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("remove", [shutil.rmtree, change, unplug])
def test_the_copy_of_a_model_that_is_gone_or_has_changed_goes_when_any_is_loaded(
        whole: tuple[Path, torch.Tensor], tmp_path: Path, cache: Path, remove: Callable[[Path], None]):
    kept, gone = (copied(whole, tmp_path / name) for name in ("kept", "gone"))
    assert len(list(cache.iterdir())) == 2
    remove(gone)
    load(kept, max_seq_len=64).close()
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["kept"]


def test_a_copy_that_another_process_uses_or_writes_stays(whole: tuple[Path, torch.Tensor], tmp_path: Path,
                                                          cache: Path):
    """Until that has ended, however it does."""
    gone = copied(whole, tmp_path / "gone")
    (copy,) = cache.iterdir()
    partial = cache / "other-1.partial"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(copy), str(partial)],
                              stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    shutil.rmtree(gone)
    os.utime(partial, (1, 1))
    load(whole[0], max_seq_len=64).close()
    assert sorted(cache.iterdir()) == sorted((copy, partial))
    holder.kill()
    holder.wait()
    load(whole[0], max_seq_len=64).close()
    assert not list(cache.iterdir())


_HOLDER = """
import mmap, sys, time
from pathlib import Path
from model.memory.old_copies import hold
def mapped(path):
    with path.open("rb") as file:
        hold(file)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
memory, partial = mapped(Path(sys.argv[1])), Path(sys.argv[2]).open("w+b")
hold(partial, to_write=True)
print("held", flush=True)
time.sleep(600)
"""


def test_those_not_used_for_longest_go_where_all_would_take_too_much(
        whole: tuple[Path, torch.Tensor], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the disk a quarter is for copies; here three."""
    first, second, third = (copied(whole, tmp_path / name) for name in ("first", "second", "third"))
    for index, path in enumerate(sorted(cache.iterdir())):  # by name
        os.utime(path, ns=(path.stat().st_atime_ns, index + 1))
    size = path.stat().st_size
    from_disk(first).close()  # now it is the last one used
    disk = SimpleNamespace(free=1 << 40, total=int(4 * 3.5 * size))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    copied(whole, tmp_path / "fourth")
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["first", "fourth", "third"]
    disk.total = 1
    from_disk(second).close()
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["second"], "the one that is wanted"
    assert third.exists()


def test_copies_go_where_a_new_one_has_no_room_and_none_where_it_has_none_then_either(
        whole: tuple[Path, torch.Tensor], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    copied(whole, tmp_path / "first")
    size = next(cache.iterdir()).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(
        free=(64 << 20) + size - sum(each.stat().st_size for each in cache.iterdir()) // 2, total=1 << 40))
    with pytest.raises(ModelLoadError, match="on disk needs"):
        old_copies.make_room(cache, 3 * size)
    assert len(list(cache.iterdir())) == 1
    copied(whole, tmp_path / "second")
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["second"]
