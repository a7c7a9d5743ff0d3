"""Splitting and joining folders of safetensors, read back by the safetensors package."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.files import ModelLoadError
from model.formats.safetensors_reader import TensorFolder
from model.formats.safetensors_writer import plan_shards
from model.shard import main, reshard, size_option


def tensors_of(folder):
    return {name: tensor for path in sorted(folder.glob("*.safetensors"))
            for name, tensor in load_file(path).items()}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8))
        for name in a)


@pytest.fixture
def source(tmp_path):
    """Types of one to eight bytes, a tensor of nothing, and companions."""
    folder = tmp_path / "in"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layers.{i}.weight": torch.randn(40, 25, generator=generator).to(dtype) for i, dtype in
               enumerate((torch.bfloat16, torch.float32, torch.float16, torch.float8_e4m3fn))}
    tensors |= {"odd": torch.arange(3, dtype=torch.uint8), "ids": torch.arange(5), "empty": torch.zeros(0, 4)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "made by": "a test"})
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "figures").mkdir()
    return folder


def test_shards_by_hand(source):
    infos = TensorFolder(source).tensors
    chosen = {name: infos[name] for name in ("layers.0.weight", "layers.1.weight", "odd", "layers.2.weight")}
    assert plan_shards(chosen, 2003) == [["layers.0.weight"], ["layers.1.weight"], ["odd", "layers.2.weight"]]
    assert plan_shards(chosen, None) == [list(chosen)]
    with pytest.raises(ValueError, match="files of 1 bytes would be 2,000; expected at most 1,024"):
        plan_shards({str(i): infos["ids"] for i in range(2000)}, 1)


def test_split_and_joined_again_it_is_the_same(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "split"), "--size", "3KB"]) == 0
    files = sorted(path.name for path in (tmp_path / "split").glob("*.safetensors"))
    assert files == [f"model-0000{n}-of-00005.safetensors" for n in range(1, 6)]
    assert "in 5 files" in capsys.readouterr().out
    before = tensors_of(source)
    assert same(tensors_of(tmp_path / "split"), before)
    index = json.loads((tmp_path / "split" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in before.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "split" / file, "pt") as opened:
            assert name in opened.keys()  # noqa: SIM118
            assert opened.metadata() == {"format": "pt", "made by": "a test"}
    assert {path.name for path in (tmp_path / "split").iterdir()} == {
        *files, "model.safetensors.index.json", "config.json"}
    assert main([str(tmp_path / "split"), str(tmp_path / "joined"), "--join"]) == 0
    assert same(load_file(tmp_path / "joined" / "model.safetensors"), before)
    assert not (tmp_path / "joined" / "model.safetensors.index.json").exists()


def test_each_tensor_lies_at_a_multiple_of_its_type(source, tmp_path):
    reshard(source, tmp_path / "out", None)
    infos = TensorFolder(tmp_path / "out").tensors.values()
    assert all(info.offset % info.dtype.itemsize == 0 for info in infos)


def test_what_an_index_says_besides_stays(source, tmp_path):
    reshard(source, tmp_path / "split", 3000)
    path = tmp_path / "split" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["total_parameters"] = 4008
    path.write_text(json.dumps(index))
    reshard(tmp_path / "split", tmp_path / "again", 5000)
    again = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())["metadata"]
    assert again == {"total_parameters": 4008, "total_size": index["metadata"]["total_size"]}


def test_nothing_is_written_over(source, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert main([str(source), str(tmp_path / "out"), "--join"]) == 1
    assert "exists already; choose another folder" in capsys.readouterr().err
    assert main([str(source), str(source), "--join"]) == 1
    (tmp_path / "other.partial").mkdir()
    assert main([str(source), str(tmp_path / "other"), "--join"]) == 1
    assert "delete it first" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "other.partial", "out"]


def test_a_source_that_breaks_off_leaves_nothing_behind(source, tmp_path, monkeypatch):
    cut = (source / "model.safetensors").read_bytes()

    def shorter(done, total):
        (source / "model.safetensors").write_bytes(cut[:-2000])

    monkeypatch.setattr("model.formats.safetensors_writer._CHUNK", 1000)
    with pytest.raises(ModelLoadError, match="became shorter while it was read"):
        reshard(source, tmp_path / "out", None, shorter)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_files_of_two_models_are_named(source, tmp_path):
    reshard(source, tmp_path / "split", 3000)
    path = tmp_path / "split" / "model-00002-of-00005.safetensors"
    save_file(load_file(path), path, metadata={"format": "tf"})
    with pytest.raises(ModelLoadError, match="has format 'tf' in its metadata, a file before it 'pt'"):
        reshard(tmp_path / "split", tmp_path / "out", None)


def test_a_full_disk_is_said_before_any_work(source, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="the model needs"):
        reshard(source, tmp_path / "out", None)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sizes_by_hand():
    assert [size_option(text) for text in ("5GB", "1.5 MB", "4GiB", "123", "0")] == [
        5 * 10 ** 9, 1500000, 4 << 30, 123, 0]
    for text in ("5 apples", "-1", "GB"):
        with pytest.raises(Exception, match="is no size"):
            size_option(text)
