"""EXL2: modules read bit by bit from what the file holds, a whole model, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.exl2 import Exl2Reader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import QuantizedMatrix
from tests.helpers.tiny_engine import load
from tests.helpers.tiny_models import TINY, linear_sizes, pack_bits, random_tensors, write_model

Tensors = dict[str, torch.Tensor]
MIXED = ((6, 32), (5, 64), (4, 32), (3, 32), (2, 32))
"""Bits and inputs of groups."""
SMALL = ((4, 32), (4, 32), (3, 32))
WIDE = ((8, 32), (5, 32), (5, 32))


def random_module(n: int, groups: tuple[tuple[int, int], ...], seed: int = 0) -> Tensors:
    """What a file holds of a module, its outputs filled up to a multiple of 32."""
    rng = np.random.default_rng(seed)
    columns, k = n + -n % 32, sum(inputs for _, inputs in groups)
    words = [pack_bits(rng.integers(0, 1 << bits, (inputs, columns)), bits) for bits, inputs in groups]
    starts = np.cumsum([0, *map(len, words)])
    described = [number for (bits, _), start in zip(groups, starts, strict=False) for number in (bits, start)]
    scales = pack_bits(rng.integers(0, 16, (len(groups), columns)).T, 4).T
    largest = rng.uniform(0.02, 0.06, len(groups)) * [16 / (1 << bits) for bits, _ in groups]
    parts = {"q_weight": np.concatenate(words), "q_groups": np.array(described, dtype=np.int16),
             "q_scale": scales, "q_scale_max": largest.astype(np.float16),
             "q_invperm": rng.permutation(k).astype(np.int32)}
    return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}


def dequantized(parts: Tensors, n: int) -> np.ndarray:
    """float64 [n, k], one weight after the other: the stream of a group's bits as one large number."""
    words, groups = parts["q_weight"].numpy().view(np.uint32), parts["q_groups"].tolist()
    places, scales = parts["q_invperm"].tolist(), parts["q_scale"].numpy().view(np.uint32)
    k = len(places)
    weight = np.zeros((n, k))
    for output in range(n):
        values: list[float] = []
        for group in range(len(groups) // 2):
            bits, first = groups[2 * group:2 * group + 2]
            last = groups[2 * group + 3] if 2 * group + 3 < len(groups) else len(words)
            stream = sum(int(word) << 32 * i for i, word in enumerate(words[first:last, output]))
            count = min(32 * (last - first) // bits, k - len(values))
            step = (int(scales[group, output // 8]) >> output % 8 * 4 & 15) + 1
            scale = np.float16(step ** 2 * (float(parts["q_scale_max"][group]) / 256))
            values += [((stream >> i * bits & (1 << bits) - 1) - (1 << bits - 1)) * float(scale)
                       for i in range(count)]
        weight[output] = [values[place] for place in places]
    return weight


def weight_of(matrix: Any) -> np.ndarray:
    """float64 [n, k], by the definition of QuantizedMatrix."""
    assert isinstance(matrix, QuantizedMatrix)
    group = torch.arange(matrix.codes.shape[1]) // matrix.group_size
    zeros, scales = matrix.zeros.double()[:, group], matrix.scales.double()[:, group]
    sorted_weight = (matrix.codes.double() - zeros) * scales
    weight = torch.zeros_like(sorted_weight)
    order = torch.arange(len(group)) if matrix.perm is None else matrix.perm.long()
    weight[:, order] = sorted_weight
    return weight.numpy()


def opened(folder: Path, parts: Tensors) -> Exl2Reader:
    save_file({f"m.{name}": part.contiguous() for name, part in parts.items()}, folder / "model.safetensors")
    return Exl2Reader(TensorFolder(folder))


@pytest.mark.parametrize(("groups", "kind", "size"), [
    (MIXED, "q8", 32), (SMALL, "q4", 32), (WIDE, "q8", 32), (((4, 96),), "q4", 96),
    (((5, 128), (5, 64)), "q8", 128)])
@pytest.mark.parametrize("n", [64, 40])
def test_weights_are_those_of_the_streams_of_bits(tmp_path: Path, groups: Any, kind: str, size: int, n: int):
    parts = random_module(n, groups)
    reader, k = opened(tmp_path, {**parts, "bias": torch.ones(n)}), len(parts["q_invperm"])
    info, matrix = reader.matrix_info("m", n, k), reader.matrix("m", n, k)
    assert np.array_equal(weight_of(matrix), dequantized(parts, n))
    assert (info.kind, matrix.group_size, matrix.bias.tolist()) == (kind, size, [1.0] * n)
    kept = 2 if kind == "q4" else 1
    assert info.nbytes == n * k // kept + 4 * n * -(-k // size)


def test_a_weight_by_hand(tmp_path: Path):
    """Code 21 of 5 bits is 5; of a largest scale of 0.5 and step 7, that is 64 / 256: 0.625 at input 3."""
    words = torch.zeros(5, 32, dtype=torch.int32)
    words[0] = 21
    places = torch.tensor([*range(1, 4), 0, *range(4, 32)], dtype=torch.int32)
    parts = {"q_weight": words, "q_groups": torch.tensor([5, 0], dtype=torch.int16),
             "q_scale": torch.full((1, 4), 0x77777777, dtype=torch.int32),
             "q_scale_max": torch.tensor([0.5], dtype=torch.float16), "q_invperm": places}
    weight = weight_of(opened(tmp_path, parts).matrix("m", 32, 32))
    assert weight[0, 3] == 0.625 and weight[0, 0] == -16 * 0.125


def test_a_model_has_the_logits_of_its_weights(tmp_path: Path):
    """Exactly, and as chats compute it; every module with groups of its own, the head of 8 and 5 bits."""
    config = {**TINY, "quantization_config": {"quant_method": "exl2", "bits": 4.0, "head_bits": 6}}
    tensors = random_tensors(config)
    plain = dict(tensors)
    modules = {name: size for layer in range(2) for name, size in linear_sizes(config, layer).items()}
    for index, (name, (n, k)) in enumerate({**modules, "lm_head": (96, 64)}.items()):
        groups = ((5, 32), (4, 32), (3, 32))[:k // 32] if index % 2 else ((4, 32), (2, 32), (2, 32))[:k // 32]
        parts = random_module(n, groups, index)
        plain[name + ".weight"] = torch.from_numpy(dequantized(parts, n)).float()
        del tensors[name + ".weight"]
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    write_model(tmp_path / "exl2", config, tensors)
    write_model(tmp_path / "plain", TINY, plain)
    token_ids = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    want = _logits(tmp_path / "plain", token_ids, exact=True, cache="fp32")
    for tolerance, settings in ((1e-4, {"exact": True, "cache": "fp32"}), (3e-2, {})):
        got = _logits(tmp_path / "exl2", token_ids, **settings)
        assert float((got - want).abs().max() / want.abs().max()) < tolerance
    assert 3.5 < float(open_model(tmp_path / "exl2")[1].describe().split()[2]) < 5.0


def _logits(folder: Path, token_ids: list[int], **settings: Any) -> torch.Tensor:
    engine = load(folder, **settings)
    try:
        return engine.logits(token_ids)
    finally:
        engine.close()


def test_a_folder_without_settings_is_known_by_its_tensors(tmp_path: Path):
    folder = write_model(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors |= {f"lm_head.{name}": part for name, part in random_module(96, SMALL[:2]).items()}
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert open_model(folder)[1].describe().startswith("EXL2 with ")


def groups_of(*numbers: int) -> Any:
    """Instead of 6 0 5 6 4 16 3 20 2 23."""
    return lambda tensor: torch.tensor(numbers, dtype=torch.int16)


@pytest.mark.parametrize(("part", "change", "expected"), [
    ("q_weight", lambda t: t[:-1], "q_groups does not fit"),
    ("q_weight", lambda t: t[:, :32], "expected 64 outputs"),
    ("q_weight", lambda t: t.float(), "expected .*int32"),
    ("q_groups", lambda t: t[:-1], "q_groups"),
    ("q_groups", groups_of(7, 0, 5, 6, 4, 16, 3, 20, 2, 23), "groups of 2, 3"),
    ("q_groups", groups_of(0, 0, 5, 6, 4, 16, 3, 20, 2, 23), "groups of 2, 3"),
    ("q_groups", groups_of(6, 0, 5, 16, 4, 6, 3, 20, 2, 23), "groups of 2, 3"),
    ("q_groups", groups_of(6, 1, 5, 6, 4, 16, 3, 20, 2, 23), "groups of 2, 3"),
    ("q_groups", groups_of(6, 0, 5, 7, 4, 16, 3, 20, 2, 23), "groups of 2, 3"),
    ("q_scale", lambda t: t[:, :-1], r"q_scale.*expected .*\[5, 8\]"),
    ("q_scale_max", lambda t: t * torch.inf, "q_scale_max holds infinity"),
    ("q_invperm", lambda t: t.clamp(max=9), "q_invperm is no order of 192 inputs"),
    ("q_invperm", lambda t: t[:-1], r"q_invperm.*expected .*\[192\]")])
def test_what_does_not_fit_together_is_refused(tmp_path: Path, part: str, change: Any, expected: str):
    parts = random_module(64, MIXED)
    reader = opened(tmp_path, {**parts, part: change(parts[part])})
    with pytest.raises(ModelLoadError, match=expected):
        reader.matrix("m", 64, 192)
