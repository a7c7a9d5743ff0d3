"""Logits of checkpoints that other tools wrote, against references that are not ours.

Slices of gptqmodel's files lie in tests/data/checkpoints (its README says how they were cut). With
`--checkpoints DIR` every folder X below DIR with an X.dequant_fp32_reference.safetensors beside it is checked
as well; formats that cannot be read must be refused by name.

Error is max|a - b| / max|b|: under 1e-3 with float32 activations, under 2e-2 with two int8 planes.
(One plane alone, 8 bits, gives 3e-2 to 5e-2 on these random models, whatever the number of columns that share
a scale; 10 bits give 1e-2, 12 bits 3e-3.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.files import ModelLoadError
from model.formats.gptq import GptqReader
from model.formats.safetensors_reader import TensorFolder
from tests.formats.test_formats import weight_of
from tests.helpers.tiny_models import dequantize_gptq

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
SLICES = sorted(path.parent for path in DATA.glob("*/expected.safetensors"))
LIMIT_EXACT, LIMIT_INT8 = 1e-3, 2e-2
REFERENCE = ".dequant_fp32_reference.safetensors"


def compare(folder: Path, expected: dict[str, torch.Tensor], exact: bool, limit: float) -> None:
    """The error of each prompt's logits, and greedy tokens; near-ties may flip with int8 activations only."""
    engine = load_engine(folder, EngineConfig(exact=exact, cache="fp32" if exact else "fp16"))
    try:
        for name in sorted(key for key in expected if key.startswith("in")):
            want = expected[f"logits_{name}"][0]
            got = engine.logits(expected[name][0].tolist())
            error = float((got - want).abs().max() / want.abs().max())
            assert error < limit, f"{folder.name} {name}: {error:.2e}"
            flipped = got.argmax(-1) != want.argmax(-1)
            top = want.topk(2).values
            margin = ((top[:, 0] - top[:, 1]) / want.abs().max())[flipped]
            assert not exact or not flipped.any()
            assert (margin < 2 * limit).all(), f"{folder.name} {name}: a clear choice was lost"
    finally:
        engine.close()


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "int8"])
@pytest.mark.parametrize("folder", SLICES, ids=lambda path: path.name)
def test_a_slice_of_a_tools_checkpoint_gives_the_expected_logits(folder: Path, exact: bool):
    compare(folder, load_file(folder / "expected.safetensors"), exact, LIMIT_EXACT if exact else LIMIT_INT8)


@pytest.mark.parametrize(("source", "module", "bits", "n", "k", "group_size", "version"), [
    ("gptq_v1_w3g64", "self_attn.k_proj", 3, 64, 256, 64, 1),
    ("gptq_v1_w4g128_sym", "mlp.down_proj", 4, 256, 704, 128, 1),
    ("gptq_v2_w4g64_act_asym", "self_attn.v_proj", 4, 64, 256, 64, 2),
])
def test_a_module_of_a_tools_checkpoint_is_unpacked_as_bit_by_bit(
        tmp_path: Path, source: str, module: str, bits: int, n: int, k: int, group_size: int, version: int):
    name = f"{source}.{module}"
    tensors = load_file(DATA / "modules.safetensors")
    (tmp_path / "model.safetensors").write_bytes((DATA / "modules.safetensors").read_bytes())
    settings = {"bits": bits, "group_size": group_size,
                "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}
    matrix = GptqReader(TensorFolder(tmp_path), settings).matrix(name, n, k)
    assert np.array_equal(weight_of(matrix), dequantize_gptq(tensors, name, bits, version))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "reference" in metafunc.fixturenames:
        root = metafunc.config.getoption("--checkpoints")
        found = sorted(Path(root).rglob(f"*{REFERENCE}")) if root else []
        found = [path for path in found if path.with_name(path.name.removesuffix(REFERENCE)).is_dir()]
        metafunc.parametrize("reference", found, ids=lambda path: path.name.removesuffix(REFERENCE))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "int8"])
def test_a_whole_checkpoint_gives_the_logits_of_its_reference(reference: Path, exact: bool):
    folder = reference.with_name(reference.name.removesuffix(REFERENCE))
    try:
        compare(folder, load_file(reference), exact, LIMIT_EXACT if exact else LIMIT_INT8)
    except ModelLoadError as error:
        assert "supported: GGUF files, GPTQ" in str(error)
        pytest.skip(str(error))
