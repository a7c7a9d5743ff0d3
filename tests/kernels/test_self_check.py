"""The trial of a GPU's kernels at load: right ones pass, wrong ones are named. The CPU plays the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.kernels.errors import KernelCheckError
from model.kernels.self_check import check_kernels
from tests.helpers.kernel_libraries import GPUS, ON_GPU, opened


@pytest.fixture(params=[*GPUS, ON_GPU])
def gpu(request: pytest.FixtureRequest) -> Any:
    with opened(request) as ops:
        yield getattr(ops, "bare", ops)


def test_right_kernels_pass(gpu):
    check_kernels(gpu)


def after(change: Callable[..., None], operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, and then something that spoils one of its arguments."""
    def run(*arguments: Any) -> Any:
        result = operation(*arguments)
        change(*arguments)
        return result
    return run


@pytest.mark.parametrize(("name", "change", "said"), [
    ("linear", lambda x, weight, out, *_: out[-1].mul_(1.1), "a product of 1 rows is off by 10.0%"),
    ("linear", lambda x, weight, out, *_: out[8:].fill_(torch.nan), "a product of 9 rows is off by nan%"),
    ("multiply_dequantized", lambda x, weight, out, *_: out.zero_(), "a product of 70 rows is off by 100"),
    ("linear_rope_write_kv", lambda *a: a[2][1].zero_(), "the projection of queries is off"),
    ("linear_rope_write_kv", lambda *a: a[-4][0, 1].mul_(2), "the projection of keys is off"),
    ("rope_write_kv", lambda qkv, *_: qkv[33].zero_(), "the rotation of queries"),
    ("rope_write_kv", lambda *a: a[6][2].zero_(), "attention is off"),
    ("prompt_attention", lambda *a: a[5][0].zero_(), "the attention of a prompt is off"),
    ("prompt_layers", lambda x, *_: x[3].zero_(), "the layer of a prompt is off"),
    ("prompt_layers", lambda x, layers, *_: layers[0].attention.v_cache[1].zero_(), "values of a prompt is"),
    ("sample", lambda logits, rows: rows, "")])
def test_wrong_kernels_are_named(gpu, monkeypatch, name, change, said):
    monkeypatch.setattr(gpu, name, after(change, getattr(gpu, name)))
    if name == "sample":
        monkeypatch.setattr(gpu, name, lambda logits, rows: torch.tensor([1, 2, 3]))
        said = r"sampling chose the tokens \[1, 2, 3\]; expected"
    with pytest.raises(KernelCheckError, match=said):
        check_kernels(gpu)
