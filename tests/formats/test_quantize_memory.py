"""What quantizing takes in memory: a layer and the sums over its inputs, not the model and not its text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.quantizable_models import make_llama, write_text

ROOT = Path(__file__).parents[2]
SHAPE = {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 64, "num_attention_heads": 8}
INNER = 2560

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is not told")


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Of a small model on a short text, a deep one with large embeddings, and a wide one, in bytes: one
    process, which has taken before what every run takes."""
    folder = tmp_path_factory.mktemp("models")
    make_llama(folder / "small", **SHAPE)
    make_llama(folder / "deep", **SHAPE, num_hidden_layers=8, vocab_size=30000)
    make_llama(folder / "wide", **{**SHAPE, "intermediate_size": INNER, "num_hidden_layers": 1})
    text = write_text(folder / "text.txt")
    names = [str(folder / name) for name in ("small", "small", "deep", "wide")]
    command = [sys.executable, "-m", "tests.helpers.quantize_memory_process", *names, str(text)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *small, deep, wide = json.loads(result.stdout)
    return {"small": max(small), "deep": deep, "wide": wide}


def test_neither_more_layers_nor_larger_embeddings_take_more_memory(peaks):
    """Eight layers instead of two, of 4.5 MB each in the file, and 60 MB of embeddings and head."""
    # The other six layers and the embeddings are 87 MB. An allocator may have given some 30 MB back or not.
    assert peaks["deep"] - peaks["small"] < 40 << 20


def test_what_a_text_makes_on_its_way_takes_less_than_a_layer_and_its_sums(peaks):
    """However long it is: of the 2,048 tokens here the inner numbers of the float model and of the quantized
    one, before and after the activation, would be 100 MB and more; a quarter of them goes through at once."""
    layer, sums = 3 * 2 * 512 * INNER, 4 * INNER * (INNER + 512)
    assert peaks["wide"] - peaks["small"] < layer + sums + (46 << 20)
