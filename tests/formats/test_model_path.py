"""What people point at, and what they are told."""

from __future__ import annotations

import sys

import pytest

from model import ModelLoadError, load_model
from model.model_path import find_model
from tests.helpers.text_samples import write_chat_model
from tests.helpers.tiny_models import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_cache(root, *commits, main=None):
    for commit in commits:
        folder = root / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    if main:
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(main)
    return root


def test_a_folder_and_a_gguf_file_are_themselves(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert find_model(tmp_path) == tmp_path
    file = tmp_path / "deeper" / "m.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    assert find_model(file) == file and find_model(file.parent) == file.parent


def test_of_a_hub_cache_the_snapshot_is_loaded_that_main_names(tmp_path):
    other = "f" * 40
    one = hub_cache(tmp_path / "models--a--one", COMMIT)
    assert find_model(one) == one / "snapshots" / COMMIT
    two = hub_cache(tmp_path / "models--a--two", COMMIT, other, main=f"{other}\n")
    assert find_model(two) == two / "snapshots" / other
    with pytest.raises(ModelLoadError, match=f"hub cache with 2 snapshots: {COMMIT}, {other}; give one"):
        find_model(hub_cache(tmp_path / "models--a--three", COMMIT, other))
    (tmp_path / "none" / "snapshots").mkdir(parents=True)
    with pytest.raises(ModelLoadError, match="hub cache with no snapshot; download the model again"):
        find_model(tmp_path / "none")


def test_a_model_is_loaded_from_the_root_of_its_hub_cache(tmp_path):
    write_chat_model(tmp_path / "models--owner--small-model" / "snapshots" / COMMIT)
    with load_model(tmp_path / "models--owner--small-model", device="cpu", threads=1) as llm:
        assert llm.info()["name"] == "small-model"


def test_a_folder_around_models_names_them(tmp_path):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"in a folder of its own: inner\. Give it: -d .*inner"):
        find_model(tmp_path / "outer")
    (tmp_path / "outer" / "second").mkdir()
    (tmp_path / "outer" / "second" / "m.gguf").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"has 2 models: inner, second. Give one of them"):
        find_model(tmp_path / "outer")
    hub_cache(tmp_path / "hub" / "models--a--b", COMMIT)
    with pytest.raises(ModelLoadError, match="in a folder of its own: models--a--b"):
        find_model(tmp_path / "hub")


@pytest.mark.parametrize(("files", "said"), [
    ([], "is empty; expected config.json"),
    (["model.safetensors"], r"has weights \(model.safetensors\) and no config.json; copy it"),
    (["pytorch_model.bin", "notes.txt"], r"only pickled weights \(pytorch_model.bin\).* run code"),
    (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter; load the model that"),
    (["model_index.json"], r"makes images \(diffusers\); expected a model that writes texts"),
    (["readme.txt"], r"no config.json and no .gguf file \(readme.txt\)")])
def test_a_folder_without_a_model_is_told_for_what_it_has(tmp_path, files, said):
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelLoadError, match=said):
        find_model(tmp_path)


def test_a_file_or_a_path_that_is_none_is_told_for_what_it_is(tmp_path):
    folder = write_model(tmp_path / "m")
    with pytest.raises(ModelLoadError, match="is one of a model's files; give the folder, "):
        find_model(folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match="does not exist; expected a folder"):
        find_model(tmp_path / "nothing")
    if sys.platform != "win32":
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        with pytest.raises(ModelLoadError, match="is a link that leads nowhere"):
            find_model(tmp_path / "link")


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    assert find_model(type(tmp_path)("~/m")) == tmp_path / "m"


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path):
    folder = write_chat_model(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no tokenizer; expected .* Copy it from the original model"):
        load_model(folder, device="cpu")
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")
    with pytest.raises(ModelLoadError, match=r"vocab\.json and merges\.txt, an older form\. Make tokenizer"):
        load_model(folder, device="cpu")


