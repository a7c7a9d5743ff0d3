"""GGUF files of families whose tensors the converter renames or reorders, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.family_models import write_family
from tests.helpers.gguf_families import Tensors, write_gguf_family
from tests.helpers.tiny_engine import load

SIZES = {"block_count": 4, "context_length": 512, "embedding_length": 64, "feed_forward_length": 80,
         "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6}
GEMMA4 = SIZES | {
    "attention.key_length": 32, "attention.key_length_swa": 16, "attention.sliding_window": 20,
    "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "rope.dimension_count": 32,
    "attention.shared_kv_layers": 0, "final_logit_softcapping": 4.0, "embedding_length_per_layer_input": 0,
    "attention.sliding_window_pattern": [True, True, True, False]}
SMALL = GEMMA4 | {
    "block_count": 6, "feed_forward_length": [80, 80, 80, 80, 160, 160], "attention.shared_kv_layers": 2,
    "attention.sliding_window_pattern": [True, False] * 3, "embedding_length_per_layer_input": 8}


def assert_same_logits(path: Path, model: torch.nn.Module) -> None:
    token_ids = torch.randint(0, 96, (1, 100), generator=torch.Generator().manual_seed(2))
    engine = load(path, prefill_chunk=32, exact=True, cache="fp32")
    try:
        with torch.no_grad():
            want = model(token_ids, use_cache=False).logits[0]
        got = engine.logits(token_ids[0].tolist())
        assert float((got - want).abs().max() / want.abs().max()) < 1e-4
    finally:
        engine.close()


def of_router(tensors: Tensors) -> Tensors:
    """A router's own numbers have names that the converter gives by itself."""
    def renamed(name: str) -> str:
        layer = name.split(".")[2] if ".layers." in name else ""
        return {"router.scale": f"blk.{layer}.ffn_gate_inp.scale",
                "router.per_expert_scale": f"blk.{layer}.ffn_down_exps.scale"}.get(
                    ".".join(name.split(".")[-2:]), name)

    return {renamed(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(("variant", "keys"), [
    ("gemma 4", GEMMA4 | {"attention.head_count_kv": [2, 2, 2, 1]}),
    ("gemma 4 small", SMALL),
    ("gemma 4 mixture", GEMMA4 | {"expert_count": 5, "expert_used_count": 2,
                                  "expert_feed_forward_length": 24})])
def test_gemma_4_has_the_logits_of_transformers(tmp_path: Path, variant: str, keys: dict[str, Any]):
    """Heads by layer, values that are keys, inputs of layers, shared keys, experts beside the mlp."""
    model = write_family(tmp_path / "folder", variant)
    file = write_gguf_family(tmp_path / "m.gguf", model, "gemma4", keys, of_router,
                             {"rope_freqs.weight": [1.0] * 4 + [1e30] * 12})
    assert_same_logits(file, model)
