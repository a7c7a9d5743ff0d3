"""How a model's authors advise to sample: from GGUF's keys and generation_config.json to our parameters."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model import load_model
from model.advice import advice_of_folder, advice_of_gguf
from tests.helpers.text_samples import qwen_folder
from tests.helpers.tiny_models import write_model


@pytest.mark.parametrize(("values", "advised"), [
    ({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": True},
     {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.0}),
    ({"do_sample": False, "temperature": 0.7},
     {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}),
    ({"temperature": "hot", "top_k": 5000, "repetition_penalty": 0.1}, {}),
    ({"eos_token_id": 2}, {}),
    ({"temperature": float("nan"), "top_p": None}, {})])
def test_what_generation_config_advises_is_taken_within_its_range(tmp_path, values, advised):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert advice_of_folder(tmp_path) == advised


def test_what_a_gguf_file_advises_is_taken_by_our_names():
    metadata = {"general.sampling.temp": float(np.float32(0.6)), "general.sampling.top_k": 20,
                "general.sampling.penalty_repeat": 1.05, "general.sampling.penalty_last_n": 64,
                "general.sampling.mirostat": 2, "general.sampling.mirostat_tau": 4.0,
                "general.sampling.xtc_probability": 0.5, "general.sampling.xtc_threshold": 7.0,
                "general.name": "x"}
    assert advice_of_gguf(metadata) == {"temperature": 0.6, "top_k": 20, "top_p": 1.0, "min_p": 0.0,
                                        "repetition_penalty": 1.05, "repetition_range": 64,
                                        "mirostat": 2, "mirostat_tau": 4.0, "xtc_probability": 0.5}
    assert "mirostat" not in advice_of_gguf(metadata | {"general.sampling.mirostat": 1})  # the first version
    assert advice_of_gguf({"general.sampling.temp": -1.0}) == advice_of_gguf({}) == {}


def test_a_file_that_cannot_be_read_advises_nothing(tmp_path):
    (tmp_path / "generation_config.json").write_text("[")
    assert advice_of_folder(tmp_path) == {}


def test_a_loaded_model_tells_it(tmp_path):
    folder = write_model(qwen_folder(tmp_path), vocab_size=1024)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "do_sample": True}))
    with load_model(folder, device="cpu", threads=1) as model:
        assert model.info()["advice"]["temperature"] == 0.7
