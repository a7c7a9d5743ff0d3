"""python -m model.inspect: what a model is, what it takes, and everything that stands in its way at once."""

import numpy as np
import pytest

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.inspect import inspect_model
from model.inspect.__main__ import main
from tests.helpers.gguf_files import write_gguf
from tests.helpers.gguf_models import Type, metadata_of, write_llama
from tests.helpers.gguf_vocabularies import bpe_metadata, sentencepiece_metadata
from tests.helpers.text_samples import CHATML_BYTES, LLAMA_SP, write_chat_model
from tests.helpers.tiny_models import TINY, random_tensors


@pytest.fixture
def gguf_file(tmp_path):
    vocabulary = sentencepiece_metadata(LLAMA_SP)
    config = TINY | {"vocab_size": len(vocabulary["tokenizer.ggml.tokens"])}
    template = {"tokenizer.chat_template": "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"}
    write_llama(tmp_path / "m.gguf", config, random_tensors(config), Type.Q8_0, **vocabulary, **template,
                **{"general.sampling.temp": 0.5, "general.sampling.top_k": 20})
    return tmp_path / "m.gguf"


def rows_of(report):
    """Lines by their heading."""
    rows, heading = {}, ""
    for name, text in report.rows:
        heading = name or heading
        rows.setdefault(heading, []).append(text)
    return rows


def without_free_memory(line):
    """What other programs leave changes from moment to moment."""
    return line.partition("  of ")[0]


def test_a_gguf_file_is_told_by_family_layers_types_memory_and_text(gguf_file):
    report = inspect_model(gguf_file, EngineConfig(device="cpu"))
    rows = rows_of(report)
    assert not report.problems
    assert rows["family"][0].startswith("llama, 2 layers, ") and "context 256" in rows["family"][0]
    assert rows["layers"][0].startswith("2 x Layer(")
    assert "num heads 2, num kv heads 1, head dim 32" in rows["layers"][0]
    assert any(line.startswith("Q8_0") and line.endswith("8.5 bits a number") for line in rows["types"])
    assert "times as much" in rows["widening"][0]
    assert rows["sampling"] == ["as the model's authors advise: repetition_penalty 1.0, top_k 20, top_p 1.0, "
                                "min_p 0.0, temperature 0.5"]
    assert "</s> (2)" in rows["tokens"][0] and "characters, from m.gguf" in rows["template"][0]


def test_the_memory_is_what_loading_says_it_takes(gguf_file):
    report = inspect_model(gguf_file, EngineConfig(device="cpu"))
    heard = []
    load_engine(gguf_file, EngineConfig(device="cpu"), report=heard.append).close()
    assert list(map(without_free_memory, rows_of(report)["memory"])) == list(map(without_free_memory, heard))


def test_a_folder_is_told_as_well(tmp_path):
    folder = write_chat_model(tmp_path / "folder")
    rows = rows_of(inspect_model(folder, EngineConfig(device="cpu")))
    assert rows["weights"][0].startswith("float32; in memory f32")
    assert rows["types"][0].startswith("float32")


def test_everything_that_is_not_supported_is_named_at_once(tmp_path, capsys):
    metadata = metadata_of(TINY) | bpe_metadata(CHATML_BYTES, "klingon") | {"general.architecture": "mamba9"}
    grids = {f"blk.{i}.ffn_up.weight": (16, np.zeros((4, 66), np.uint8)) for i in range(5)}
    grids["blk.0.ffn_down.weight"] = (34, np.zeros((4, 54), np.uint8))
    path = write_gguf(tmp_path / "m.gguf", metadata, grids)
    problems = inspect_model(path).problems
    names = ", ".join(f"blk.{index}.ffn_up.weight" for index in range(3))
    assert problems[0] == f"type IQ2_XXS of {names} and 2 more has no kernels"
    assert problems[1] == "type TQ1_0 of blk.0.ffn_down.weight has no kernels"
    assert "'mamba9'" in problems[2] and "'klingon'" in problems[3] and len(problems) == 4
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.count("cannot be loaded: ") == 4


def test_a_path_without_a_model_and_a_good_one_end_with_the_right_code(tmp_path, gguf_file, capsys):
    assert main([str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().out
    assert main([str(gguf_file)]) == 0
    assert "stops at </s> (2)" in capsys.readouterr().out
