"""model/devices.py: what is chosen, and what is said where it cannot be had. The GPUs here are played."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from model import devices
from model.config import EngineConfig
from model.files import ModelLoadError
from model.kernels.errors import KernelBuildError, KernelCheckError, KernelError


class FakeCuda:
    """torch.cuda with GPUs of 24 GiB, of which 20 are free."""

    def __init__(self, capabilities: list[tuple[int, int]]) -> None:
        self.capabilities = capabilities
        self.current = 0

    def is_available(self) -> bool:
        return bool(self.capabilities)

    def device_count(self) -> int:
        return len(self.capabilities)

    def get_device_capability(self, device: int | torch.device) -> tuple[int, int]:
        return self.capabilities[device if isinstance(device, int) else device.index]

    def get_device_name(self, device: int | torch.device) -> str:
        return f"Fake {device if isinstance(device, int) else device.index}"

    def device(self, device: torch.device) -> FakeCuda:
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def mem_get_info(self, device: torch.device | None = None) -> tuple[int, int]:
        return 20 << 30, 24 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """machine(capabilities of its GPUs): plays it, and returns the list of the kernels that are loaded."""
    def play(*capabilities: tuple[int, int], cuda: str | None = "13.0", builds: bool = True,
             fails: Exception | None = None) -> list[str]:
        loaded: list[str] = []

        def load(device: str, **_: object) -> SimpleNamespace:
            if device != "cpu" and not builds:
                raise KernelBuildError("No CUDA compiler found.\nAnd much more.")
            loaded.append(device)
            return SimpleNamespace()

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch, "cuda", FakeCuda(list(capabilities)))
        def check(ops: object) -> None:
            if fails:
                raise fails

        monkeypatch.setattr(devices, "load_kernels", load)
        monkeypatch.setattr(devices, "check_kernels", check)
        return loaded

    return play


def test_auto_takes_a_gpu_that_can_be_used(machine):
    loaded = machine((9, 0))
    (place,) = devices.open_places(EngineConfig())
    assert loaded == ["cuda"] and place.device == torch.device("cuda", 0)
    assert place.free_bytes == 20 << 30


@pytest.mark.parametrize(("gpus", "cuda"), [([], "13.0"), ([(9, 0)], None), ([(7, 0)], "13.0")])
def test_auto_takes_the_cpu_otherwise(machine, gpus, cuda):
    loaded = machine(*gpus, cuda=cuda)
    (place,) = devices.open_places(EngineConfig(threads=1))
    assert loaded == ["cpu"] and place.device.type == "cpu"


def test_auto_says_why_a_gpu_is_not_used_for_want_of_a_compiler(machine, caplog):
    loaded = machine((9, 0), builds=False)
    with caplog.at_level(logging.WARNING):
        devices.open_places(EngineConfig(threads=1))
    assert loaded == ["cpu"] and "No CUDA compiler" in caplog.text and "much more" not in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("error", "said"), [
    (KernelCheckError("attention is off by nan%"), "Fake 0 computes wrong results: attention is off by nan%"),
    (torch.AcceleratorError("CUDA error: busy\nadvice"), "Fake 0 cannot be used: CUDA error: busy"),
    (OSError("libx.so: no such file"), "Fake 0 cannot be used: libx.so: no such file")])
def test_a_gpu_that_fails_its_trial_is_told_in_a_line_and_never_used(machine, caplog, error, said):
    loaded = machine((9, 0), fails=error)
    with caplog.at_level(logging.WARNING):
        (place,) = devices.open_places(EngineConfig(threads=1))
    assert loaded == ["cuda", "cpu"] and place.device.type == "cpu"
    (record,) = caplog.records
    assert re.search(said, record.getMessage()) and "\n" not in record.getMessage()
    with pytest.raises(ModelLoadError, match=said + ".* Or use --device cpu"):
        devices.open_places(EngineConfig(device="cuda"))


@pytest.mark.parametrize(("error", "said"), [
    (torch.OutOfMemoryError("Tried to get 2 GiB."), "memory of Fake 0 .*2 GiB.*--cache q8.*--device cpu"),
    (KernelError("linear", 1700, "an illegal access"), "Fake 0 failed .*linear: an illegal.*--device cpu"),
    (torch.AcceleratorError("CUDA error: x\nadvice"), "CUDA error: x. Start again")])
def test_what_a_gpu_says_while_loading_is_a_sentence(machine, error, said):
    machine((9, 0))
    places = devices.open_places(EngineConfig(device="cuda"))
    with pytest.raises(ModelLoadError, match=said), devices.told_as_load_errors(places):
        raise error


def test_a_dead_gpu_is_told_apart_from_other_failures():
    assert "until Parlor is started again" in devices.failure_text(torch.AcceleratorError("CUDA error: x\ny"))
    assert "until Parlor is started again" in devices.failure_text(KernelError("linear", 1700, "illegal"))
    assert devices.failure_text(ValueError("odd")) == "The engine failed: ValueError: odd"
    assert devices.failure_text(KernelError("linear", 1, "a size")).startswith("The engine failed: Kernel")


def test_memory_of_gpus_is_told_beside_that_of_the_process(machine, monkeypatch):
    machine((9, 0), (8, 6))
    places = devices.open_places(EngineConfig(gpu_split=(12, 40)))
    assert devices.memory_in_use(places)["gpu_memory_bytes"] == 2 * (4 << 30)
    assert devices.memory_in_use(places)["gpu_memory_total_bytes"] == 2 * (24 << 30)
    (cpu,) = devices.open_places(EngineConfig(device="cpu", threads=1))
    assert devices.memory_in_use([cpu]).keys() == {"memory_bytes"}

    def dead(device: torch.device) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error")

    monkeypatch.setattr(torch.cuda, "mem_get_info", dead)
    assert devices.memory_in_use(places).keys() == {"memory_bytes"}


@pytest.mark.parametrize(("gpus", "options", "said"), [
    ([], {}, r"No NVIDIA GPU was found.*nvidia-smi.*--device cpu"),
    ([(9, 0)], {"cuda": None}, r"made without CUDA.*pip install.*--device cpu"),
    ([(6, 1)], {}, r"Fake 0 has compute capability 6\.1; expected 7\.5"),
])
def test_cuda_that_cannot_be_had_is_refused_rather_than_replaced(machine, gpus, options, said):
    loaded = machine(*gpus, **options)
    with pytest.raises(ModelLoadError, match=said):
        devices.open_places(EngineConfig(device="cuda"))
    assert not loaded


def test_a_gpu_that_does_not_answer_is_told_in_a_sentence(machine, monkeypatch):
    machine((9, 0))

    def taken(index: int) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: all devices are busy\nadvice")

    monkeypatch.setattr(torch.cuda, "get_device_capability", taken)
    said = r"GPU 0 does not answer: CUDA error: all devices are busy\..*--device cpu"
    with pytest.raises(ModelLoadError, match=said):
        devices.open_places(EngineConfig(device="cuda"))
    assert devices.open_places(EngineConfig(threads=1))[0].device.type == "cpu"


def test_cuda_without_a_compiler_is_an_error(machine):
    machine((9, 0), builds=False)
    with pytest.raises(KernelBuildError):
        devices.open_places(EngineConfig(device="cuda"))


def test_a_split_opens_each_gpu_up_to_its_limit(machine):
    loaded = machine((9, 0), (8, 6))
    places = devices.open_places(EngineConfig(gpu_split=(12, 40)))
    assert loaded == ["cuda", "cuda"]
    assert [place.free_bytes >> 30 for place in places] == [12, 20], "no more than there is"


def test_a_split_over_more_gpus_than_there_are_is_refused(machine):
    machine((9, 0))
    with pytest.raises(ModelLoadError, match="names 2 GPUs; 1 can be seen"):
        devices.open_places(EngineConfig(gpu_split=(12, 12)))


def test_gpus_are_described_by_their_names(machine):
    machine((9, 0), (8, 6))
    places = devices.open_places(EngineConfig(gpu_split=(12, 40)))
    assert devices.describe_devices(places) == "Fake 0 + Fake 1"


def test_gpus_read_prompts_in_longer_chunks():
    assert devices.default_prefill_chunk(torch.device("cpu")) == 512
    assert devices.default_prefill_chunk(torch.device("cuda")) == 2048
