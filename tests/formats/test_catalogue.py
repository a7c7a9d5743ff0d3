"""The catalogue of models: where it finds them, what it says of them, and that nothing there can hurt it."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from model.catalogue.listing import Catalogue
from model.catalogue.places import MAX_DEPTH, Place, adapters_below, found_at, known_places, models_in
from model.config import EngineConfig
from model.files import ModelLoadError
from model.loading import load_model
from tests.helpers.gguf_models import write_llama
from tests.helpers.text_samples import qwen_folder
from tests.helpers.tiny_models import TINY, random_tensors, write_model

ENGINE = EngineConfig(device="cpu", threads=1)


def write_file(path, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_llama(path, TINY, random_tensors(TINY), **metadata)
    return path


def names(folder, kind="plain"):
    return [one.name for one in models_in(Place("x", folder, kind))]


def looked(*places, extra=()):
    catalogue = Catalogue(places, ENGINE, extra)
    return catalogue, {entry.found.name: entry for entry in catalogue.look()}


def test_files_and_folders_are_found_where_people_put_them(tmp_path):
    write_file(tmp_path / "One-Q4.gguf")
    write_file(tmp_path / "owner" / "two" / "Two.gguf")
    write_file(tmp_path / "owner" / "two" / "mmproj-Two.gguf")
    write_model(tmp_path / "owner" / "Three")
    (tmp_path / "notes.txt").write_text("not a model")
    (tmp_path / ".hidden").mkdir()
    write_file(tmp_path / ".hidden" / "Four.gguf")
    assert names(tmp_path) == ["One-Q4", "Three", "Two"]
    assert names(tmp_path / "nowhere") == []


def test_a_split_model_is_one_and_a_missing_part_is_told(tmp_path):
    for part in (1, 2):
        (tmp_path / f"Big-0000{part}-of-00003.gguf").write_bytes(b"GGUF")
    assert names(tmp_path) == ["Big"]
    _, entries = looked(Place("x", tmp_path))
    assert "Big-00003-of-00003.gguf" in entries["Big"].problem
    (tmp_path / "Big-00001-of-00003.gguf").unlink()
    assert names(tmp_path) == ["Big"]


def test_a_hub_caches_snapshots_are_found_by_the_models_name(tmp_path):
    root = tmp_path / "models--owner--Some-Model"
    for commit in ("aaa", "bbb"):
        write_model(root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbb")
    (tmp_path / "datasets--owner--data" / "snapshots" / "ccc").mkdir(parents=True)
    found = models_in(Place("Hugging Face", tmp_path, "hub"))
    assert [(one.name, one.path.name) for one in found] == [("Some-Model", "bbb")]


def test_ollamas_manifests_name_their_blobs(tmp_path):
    digest = "ab" * 32
    blob = write_file(tmp_path / "blobs" / f"sha256-{digest}")
    tags = tmp_path / "manifests" / "registry.ollama.ai"
    layers = [{"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "00" * 32},
              {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}]
    for tag, text in (("library/tiny/1b", json.dumps({"layers": layers})), ("someone/odd/latest", "{"),
                      ("someone/up/x", json.dumps({"layers": [layers[1] | {"digest": "sha256:../../x"}]})),
                      ("library/gone/1b",
                       json.dumps({"layers": [layers[1] | {"digest": "sha256:" + "cd" * 32}]}))):
        path = tags / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _, entries = looked(Place("Ollama", tmp_path, "ollama"))
    assert entries["tiny:1b"].found.path == blob and entries["tiny:1b"].problem == ""
    assert "no valid JSON" in entries["someone/odd:latest"].problem
    assert "names no model" in entries["someone/up:x"].problem
    assert "not there" in entries["gone:1b"].problem


def test_a_model_is_called_as_the_catalogue_calls_it(tmp_path):
    folder = write_model(qwen_folder(tmp_path / "q"), vocab_size=1024)
    with load_model(folder, ENGINE, name="tiny:1b") as model:
        assert model.info()["name"] == "tiny:1b"


def test_the_folders_of_other_programs_are_listed_where_they_exist(tmp_path):
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    (tmp_path / ".lmstudio" / "models").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    found = known_places(tmp_path / "models", home=tmp_path, variables={})
    assert [place.label for place in found] == ["Models folder", "LM Studio", "Ollama"]


def test_the_folders_of_other_programs_lie_where_their_variables_say(tmp_path):
    for folder in (".ollama/models", "disk/ollama", "disk/hf/hub", "disk/cache"):
        (tmp_path / folder).mkdir(parents=True)
    variables = {"HF_HOME": str(tmp_path / "disk" / "hf"), "OLLAMA_MODELS": str(tmp_path / "disk" / "ollama")}
    found = known_places(tmp_path / "models", home=tmp_path, variables=variables)
    assert [place.path for place in found[1:]] == [tmp_path / "disk/hf/hub", tmp_path / "disk/ollama"]
    variables["HF_HUB_CACHE"] = str(tmp_path / "disk" / "cache")
    found = known_places(tmp_path / "models", home=tmp_path, variables=variables)
    assert found[1].path == tmp_path / "disk/cache"


def test_what_it_says_is_what_loading_finds(tmp_path):
    write_file(tmp_path / "One.gguf")
    catalogue, entries = looked(Place("x", tmp_path))
    entry = entries["One"]
    assert entry.headers is not None and entry.headers.config.architecture == "llama"
    assert entry.headers.quantization == "GGUF F32"
    assert entry.size_bytes == (tmp_path / "One.gguf").stat().st_size
    plan = entry.plan(ENGINE, catalogue.free_bytes())
    assert plan.max_seq_len == TINY["max_position_embeddings"]
    folder = write_model(qwen_folder(tmp_path / "q"), vocab_size=1024)
    told = catalogue.add(found_at(folder, "given"))
    with load_model(folder, ENGINE) as model:
        assert told.plan(ENGINE, 1 << 40).weight_bytes == model.info()["weight_bytes"]
        assert told.plan(ENGINE, 1 << 40).cache_bytes == model.info()["cache_bytes"]


def test_what_does_not_fit_says_what_would(tmp_path):
    write_file(tmp_path / "One.gguf")
    _, entries = looked(Place("x", tmp_path))
    with pytest.raises(ModelLoadError, match="Use a smaller model"):
        entries["One"].plan(ENGINE, 1 << 20)
    with pytest.raises(ModelLoadError, match="--max-seq-len 256"):
        entries["One"].plan(EngineConfig(device="cpu", max_seq_len=4096), 1 << 40)


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path):
    path = write_file(tmp_path / "One.gguf")
    catalogue, entries = looked(Place("x", tmp_path))
    version = catalogue.version
    again = {entry.found.name: entry for entry in catalogue.look()}
    assert again["One"] is entries["One"] and catalogue.version == version
    path.write_bytes(b"GGUF\0\0\0\0")
    assert "version 0" in {entry.found.name: entry for entry in catalogue.look()}["One"].problem
    assert catalogue.version > version
    path.unlink()
    assert catalogue.look() == [] and catalogue.entry(entries["One"].found.id) is None


def test_ids_stay_and_differ(tmp_path):
    write_file(tmp_path / "a" / "One.gguf")
    write_file(tmp_path / "b" / "One.gguf")
    first, second = models_in(Place("x", tmp_path))
    assert first.id != second.id and len(first.id) == 16
    assert {one.id for one in models_in(Place("x", tmp_path))} == {first.id, second.id}


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of Unix")
def test_hostile_places_are_looked_through_and_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    (tmp_path / "text.gguf").write_text("<html>not found</html>")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "adapter").mkdir()
    os.mkfifo(tmp_path / "adapter" / "adapter_config.json")
    deep = tmp_path
    for _ in range(MAX_DEPTH + 1):
        deep = deep / "deeper"
    write_file(deep / "Deep.gguf")
    write_file(tmp_path / "Good.gguf")
    catalogue, entries = looked(Place("x", tmp_path))
    assert set(entries) == {"pipe", "zero", "gone", "pickled", "text", "folder", "Good"}
    for name, entry in entries.items():
        assert (entry.problem == "") == (name == "Good"), entry.problem
        assert "\n" not in entry.problem and "Traceback" not in entry.problem
    assert not catalogue.is_looking
    assert adapters_below(Place("x", tmp_path)) == [tmp_path / "adapter"]  # loading tells what is wrong


@pytest.mark.skipif(sys.platform != "linux", reason="where names may hold any bytes")
def test_names_that_are_no_text_are_listed_as_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xff\xfe.gguf"))
    path.write_bytes(b"GGUF\0\0\0\0")
    (tmp_path / "Other.gguf").write_bytes(b"GGUF\0\0\0\0")
    _, entries = looked(Place("x", tmp_path))
    assert set(entries) == {"M??", "Other"} and "M??.gguf: is GGUF version 0" in entries["M??"].problem
    for entry in entries.values():
        json.dumps([entry.found.name, entry.found.where, entry.problem], ensure_ascii=False).encode()


def test_a_model_that_comes_while_places_are_looked_through_stays(tmp_path, monkeypatch):
    write_file(tmp_path / "Late.gguf")
    catalogue = Catalogue([Place("x", tmp_path / "nowhere")], ENGINE)
    late = []

    def meanwhile(_place):
        late.append(catalogue.add(found_at(tmp_path / "Late.gguf", "x")))
        return []

    monkeypatch.setattr("model.catalogue.listing.models_in", meanwhile)
    assert [entry.found.name for entry in catalogue.look()] == ["Late"]
    assert catalogue.entry(late[0].found.id).is_read


def test_a_place_that_fails_in_an_unforeseen_way_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("model.catalogue.listing.models_in", lambda _place: 1 / 0)
    catalogue = Catalogue([Place("x", tmp_path)], ENGINE)
    assert catalogue.look() == [] and not catalogue.is_looking


def test_whoever_asks_is_answered_at_once_while_headers_are_read(tmp_path, monkeypatch):
    write_file(tmp_path / "One.gguf")
    reading, go_on = threading.Event(), threading.Event()
    catalogue = Catalogue([Place("x", tmp_path)], ENGINE)
    machine = catalogue._known_machine()
    really = machine.headers

    def slowly(path):
        reading.set()
        go_on.wait(60)
        return really(path)

    monkeypatch.setattr(machine, "headers", slowly)
    catalogue.entries()
    assert reading.wait(60)
    [entry] = catalogue.entries()
    assert catalogue.is_looking and not entry.is_read
    with pytest.raises(ModelLoadError, match="not read yet"):
        entry.plan(ENGINE, 1 << 40)
    go_on.set()
    assert catalogue.look()[0].is_read
