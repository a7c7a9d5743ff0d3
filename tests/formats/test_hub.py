"""Getting a model from a hub, against one on this machine that breaks off in the middle, lies and refuses."""

from __future__ import annotations

import pytest

from model.catalogue.places import Place, models_in
from model.hub.choice import HubFile, choose, variants
from model.hub.client import MAX_TRIES
from model.hub.downloads import CANCELLED, DONE, FAILED, DownloadBusy, Downloads
from model.hub.source import HubError, Source, parse_source
from model.machine import free_memory
from tests.engine.test_engine import wait_until
from tests.helpers.gguf_models import write_llama
from tests.helpers.stand_in_hub import StandInHub
from tests.helpers.tiny_models import TINY, random_tensors, write_model

GIB = 1 << 30
REPO = "owner/Tiny-GGUF"


@pytest.fixture
def hub(tmp_path):
    path = tmp_path / "made.gguf"
    write_llama(path, TINY, random_tensors(TINY))
    hub = StandInHub()
    hub.model = path.read_bytes()
    hub.repos[REPO] = {"Tiny-Q4_K_M.gguf": hub.model, "Tiny-Q8_0.gguf": hub.model + b"\0" * 64,
                       "README.md": b"# Tiny", "mmproj-Tiny-F16.gguf": b"GGUF"}
    with hub.running() as hub.address:
        yield hub


@pytest.fixture
def downloads(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("model.hub.client._SLEEP_SECONDS", (0.0,))
    return Downloads(tmp_path / "models", free_memory, hub.address)


def got(downloads, source):
    downloads.begin(source)
    return downloads.wait()


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_file_that_suits_this_machine_is_downloaded_and_listed(downloads, hub, tmp_path):
    state = got(downloads, REPO)
    assert (state.phase, state.problem, state.done_bytes) == (DONE, "", len(hub.model))
    assert files_below(tmp_path / "models") == ["owner/Tiny-GGUF/Tiny-Q4_K_M.gguf"]
    [found] = models_in(Place("Models folder", tmp_path / "models"))
    assert found.path.read_bytes() == hub.model
    assert (found.id, found.name) == (state.id, state.name) == (found.id, "Tiny-Q4_K_M")


def test_what_broke_off_goes_on_from_there_by_itself(downloads, hub, tmp_path):
    third = len(hub.model) // 3
    hub.break_after = [third, 100, 0, 0, third]
    assert got(downloads, REPO).phase == DONE
    ranges = [number for path, number in hub.requests if "resolve" in path]
    assert ranges == ["", f"bytes={third}-", *[f"bytes={third + 100}-"] * 3, f"bytes={2 * third + 100}-"]
    assert (tmp_path / "models" / REPO / "Tiny-Q4_K_M.gguf").read_bytes() == hub.model


def test_after_too_many_breaks_it_says_so_and_begins_again_where_it_was(downloads, hub, tmp_path):
    hub.break_after = [1000] + [0] * MAX_TRIES
    state = got(downloads, REPO)
    assert state.phase == FAILED and "broke off" in state.problem and "go on from there" in state.problem
    [part] = files_below(tmp_path / "models")
    assert part.endswith(".part") and models_in(Place("x", tmp_path / "models")) == []
    hub.requests.clear()
    again = Downloads(tmp_path / "models", free_memory, hub.address)  # after a restart, too
    assert got(again, REPO).phase == DONE
    assert hub.requests[-1][1] == "bytes=1000-"
    assert files_below(tmp_path / "models") == ["owner/Tiny-GGUF/Tiny-Q4_K_M.gguf"]


def test_a_hub_that_knows_no_ranges_sends_everything_again(downloads, hub, tmp_path):
    hub.break_after, hub.knows_ranges = [1000], False
    assert got(downloads, REPO).phase == DONE
    assert (tmp_path / "models" / REPO / "Tiny-Q4_K_M.gguf").read_bytes() == hub.model


def test_what_is_there_is_not_downloaded_again(downloads, hub):
    got(downloads, REPO)
    hub.requests.clear()
    assert got(downloads, REPO).phase == DONE
    assert not any("resolve" in path for path, _ in hub.requests)


def test_a_wrong_checksum_deletes_what_came(downloads, hub, tmp_path):
    hub.lies.add("Tiny-Q4_K_M.gguf")
    state = got(downloads, REPO)
    assert state.phase == FAILED and "checksum" in state.problem
    assert files_below(tmp_path / "models") == []


def test_a_folder_comes_with_what_belongs_to_it_and_each_small_file_is_checked(downloads, hub, tmp_path):
    folder = write_model(tmp_path / "made")
    hub.repos["owner/plain"] = {name: (folder / name).read_bytes() for name in ("config.json",
                                                                               "model.safetensors")}
    hub.repos["owner/plain"] |= {"tokenizer.json": b"{}", "pytorch_model.bin": b"pickle", "run.py": b"evil()",
                                 "original/model.safetensors": b"x", "consolidated.safetensors": b"x",
                                 "chat_template.jinja": b"{{ messages }}"}
    state = got(downloads, "owner/plain")
    assert state.phase == DONE and state.name == "plain"
    assert files_below(tmp_path / "models") == [f"owner/plain/{name}" for name in (
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json")]
    hub.repos["owner/other"] = dict(hub.repos["owner/plain"])
    hub.lies.add("config.json")
    assert "config.json is not what the hub has" in got(downloads, "owner/other").problem


def test_cancelling_keeps_what_is_there(downloads, hub, tmp_path):
    hub.go_on.clear()
    downloads.begin(REPO)
    wait_until(lambda: downloads.state.done_bytes > 0)
    with pytest.raises(DownloadBusy, match=REPO):
        downloads.begin("owner/another")
    downloads.cancel()
    hub.go_on.set()
    assert downloads.wait().phase == CANCELLED and not downloads.is_running
    hub.requests.clear()
    assert got(downloads, REPO).phase == DONE
    assert hub.requests[-1][1].startswith("bytes=")


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda hub: hub.repos.clear(), "The hub has no owner/Tiny-GGUF"),
    (lambda hub: hub.repos.update({REPO: {"pytorch_model.bin": b"x"}}), "pickled"),
    (lambda hub: hub.repos.update({REPO: {"README.md": b"x"}}), "neither GGUF"),
    (lambda hub: hub.status.update({"Tiny-Q4_K_M.gguf": 403}), "answers with 403"),
    (lambda hub: hub.status.update({"Tiny-Q4_K_M.gguf": 503}), "answers with 503")])
def test_what_cannot_be_had_is_one_sentence(downloads, hub, spoil, said):
    spoil(hub)
    state = got(downloads, REPO)
    assert state.phase == FAILED and said in state.problem and "\n" not in state.problem
    assert not downloads.is_running


def test_a_hub_that_nobody_reaches_is_one_sentence(tmp_path):
    state = got(Downloads(tmp_path / "models", free_memory, "http://127.0.0.1:9"), REPO)
    assert state.phase == FAILED and state.problem.startswith("The hub cannot be asked for owner/Tiny-GGUF")


def test_a_file_in_the_way_and_a_full_disk_are_sentences(downloads, hub, tmp_path, monkeypatch):
    (tmp_path / "models").write_text("a file")
    assert got(downloads, REPO).problem.startswith("It cannot be written")
    (tmp_path / "models").unlink()
    monkeypatch.setattr("model.hub.client._SPARE", 1 << 60)
    assert "the disk of Tiny-GGUF has" in got(downloads, REPO).problem


@pytest.mark.parametrize("text", ["", "name", "owner/", "/name", "owner/na me", "../../etc", "owner/..",
                                  "a/b/c", "owner/name:../x.gguf", "owner/name:/etc/passwd",
                                  "owner/name:.hidden",
                                  "http://evil.example/owner/name", "owner/name:a\\b", "x" * 500])
def test_only_names_of_a_hub_are_asked_for(downloads, hub, text):
    with pytest.raises(HubError):
        downloads.begin(text)
    assert hub.requests == []


def test_what_is_asked_for_may_be_written_as_the_hubs_page_has_it():
    assert parse_source("https://huggingface.co/owner/name") == Source("owner/name")
    assert parse_source(" owner/name:Q4_K_M ") == Source("owner/name", "Q4_K_M")
    assert parse_source("owner/name:Q4/x-00001-of-00002.gguf").wanted == "Q4/x-00001-of-00002.gguf"


def test_a_hub_cannot_name_files_outside_the_folder(downloads, hub, tmp_path):
    paths = ("../../up-Q4_K_M.gguf", "/etc/x-Q4_K_M.gguf", "a\\b-Q4_K_M.gguf", ".ssh/x-Q4_K_M.gguf")
    hub.repos[REPO] = dict.fromkeys(paths, b"GGUF")
    assert "neither GGUF" in got(downloads, REPO).problem
    assert files_below(tmp_path) == ["made.gguf"]


def file(path, gib):
    return HubFile(path, int(gib * GIB), ("sha256", "0" * 64))


FILES = [file("M-Q2_K.gguf", 3), file("M-Q3_K_M.gguf", 4), file("M-Q4_K_M.gguf", 5),
         file("M-Q4_K_S.gguf", 4.8), file("M-Q8_0.gguf", 8),
         file("M-BF16-00001-of-00002.gguf", 8), file("M-BF16-00002-of-00002.gguf", 7)]


@pytest.mark.parametrize(("free", "label"), [(64, "Q4_K_M"), (6, "Q4_K_M"), (5.4, "Q4_K_S"), (4.7, "Q3_K_M"),
                                             (3.7, "Q2_K")])
def test_q4_k_m_first_and_else_the_largest_that_fits(free, label):
    assert choose(variants(FILES), Source("o/m"), int(free * GIB)).label == label


def test_without_q4_k_m_the_best_of_what_there_is():
    some = [one for one in FILES if "Q4" not in one.path]
    assert choose(variants(some), Source("o/m"), 64 * GIB).label == "Q8_0"
    odd = [file("weights.gguf", 2)]
    assert choose(variants(odd), Source("o/m"), 64 * GIB).label == "weights.gguf"
    with pytest.raises(HubError, match=r"Nothing of o/m fits .* Q2_K \(3.0 GiB\)"):
        choose(variants(FILES), Source("o/m"), GIB)


def test_what_is_named_is_taken_with_all_its_parts_whether_or_not_it_fits():
    for wanted in ("BF16", "bf16", "M-BF16-00001-of-00002.gguf"):
        chosen = choose(variants(FILES), Source("o/m", wanted), GIB)
        assert [one.path for one in chosen.files] == [one.path for one in FILES if "BF16" in one.path]
    with pytest.raises(HubError, match="has no Q5_K_M; it has Q2_K"):
        choose(variants(FILES), Source("o/m", "Q5_K_M"), GIB)
    twice = [file("a-Q4_0.gguf", 1), file("b-Q4_0.gguf", 1)]
    assert [variant.label for variant in variants(twice)] == ["a-Q4_0.gguf", "b-Q4_0.gguf"]


def test_before_a_download_one_may_look_at_what_there_is(downloads, hub):
    found, chosen = downloads.look(REPO)
    assert [variant.label for variant in found] == ["Q4_K_M", "Q8_0"] and chosen == found[0]
    assert all(variant.fits(downloads._free_bytes()) for variant in found)


def test_nothing_is_asked_unless_somebody_asks(hub, tmp_path):
    Downloads(tmp_path / "models", free_memory, hub.address)
    assert hub.requests == [] and not (tmp_path / "models").exists()
