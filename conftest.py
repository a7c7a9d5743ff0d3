"""The options of the test suite: a device to test on, and where other tools' checkpoints lie.

Of several processes (pytest -n) each takes its share of the cores for torch, which is imported after this.
"""

from __future__ import annotations

import os

import pytest

if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--checkpoints", metavar="DIR", default=None,
                     help="also check the logits of every checkpoint below DIR that has a "
                          "X.dequant_fp32_reference.safetensors beside it")
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu",
                     help="cuda: only the tests that run on a GPU, and there")
    parser.addoption("--isa", choices=("plain", "avx2", "avx_vnni", "avx512", "amx"), default=None,
                     help="test as if this were the best instruction set of the CPU: better ones are hidden, "
                          "AVX-VNNI, AVX-512 and AMX are emulated where there are none")


def pytest_configure(config: pytest.Config) -> None:
    if isa := config.getoption("--isa"):
        from tests.emulated_isa import be_a_machine_with

        be_a_machine_with(isa)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow tests first, or one process would wait for another's last at the end. With --device cuda leave
    the tests that no GPU has a part in to the CPU's run.
    """
    items.sort(key=lambda item: "slow" not in item.keywords)
    if config.getoption("--device") == "cuda":
        chosen = [item for item in items if "on_gpu" in item.name]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
