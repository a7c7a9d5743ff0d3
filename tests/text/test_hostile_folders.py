"""Model folders that lie, explode or are not what they seem: an error that says what is, and at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import ModelLoadError, SamplingParams, load_model
from model.files import read_bytes
from model.text.errors import TokenizerError
from model.text.limited_process import ProcessLimits
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer
from model.text.tokenizer_trial import check_tokenizer
from tests.helpers.text_samples import CHATML_BYTES, LLAMA_SP, sentencepiece_folder, write_chat_model

HI = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def folder(tmp_path):
    return write_chat_model(tmp_path / "model")


def load(folder):
    return load_model(folder, device="cpu", threads=1)


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


# -- files that are none

FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "tokenizer.json", "chat_template.jinja", "model.safetensors",
         "quantize_config.json"]


def _pipe(path):
    os.mkfifo(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _nowhere(path):
    path.symlink_to("blobs/0123")


def _lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456789\n")


def _huge(path):
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse: takes no room


KINDS = {"is a pipe": _pipe, "is a device": _device, "is a folder": Path.mkdir,
         "is a link to .*, which is not there": _nowhere, "is a Git LFS pointer.*git lfs pull": _lfs_pointer,
         "bytes": _huge}


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes with names")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_something_else_is_told_for_what_it_is(folder, name, kind):
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    with pytest.raises(ModelLoadError, match=f"{name}.*{kind}"):
        load(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="has no links without rights")
def test_files_behind_links_are_read_as_a_hub_cache_has_them(folder, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(f"../blobs/{file.name}")
    with load(folder) as llm:
        assert llm.tokenizer.encode("a")


def test_no_more_is_read_than_a_file_may_have(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    with pytest.raises(ModelLoadError, match=r"a\.json has 100 bytes; at most 99 are read"):
        read_bytes(path, 99)


# -- tokenizers

def _tokenizer(folder, **fields):
    spec = json.loads((CHATML_BYTES / "tokenizer.json").read_text(encoding="utf-8"))
    for key, value in fields.items():
        spec[key] = value
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def _added(content):
    return {"id": 400, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


GROWS = {"type": "Sequence", "normalizers": [
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 20} for _ in range(9)]}


@pytest.mark.parametrize(("fields", "problem"), [
    ({"normalizer": GROWS}, "its normalizer makes 512,000,000,000 characters of one"),
    ({"normalizer": {"type": "Sequence", "normalizers": [GROWS]}}, "its normalizer makes"),
    ({"normalizer": {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b" * 65}}, "makes 65 charac"),
    ({"decoder": {"type": "Sequence", "decoders": GROWS["normalizers"]}}, "its decoder makes"),
    ({"added_tokens": [_added("<|" + "x" * 200_000 + "|>")]}, "control tokens of up to 200,004 characters"),
    ({"added_tokens": [_added(f"<|{i:01000}|>") for i in range(80)]}, "80 control tokens of up to 1,004")],
    ids=["in steps", "nested", "an expression", "the decoder", "a long token", "many long tokens"])
def test_rules_that_grow_are_refused_before_they_run(tmp_path, fields, problem):
    with pytest.raises(ModelLoadError, match=problem):
        Tokenizer.load(_tokenizer(tmp_path, **fields))


@pytest.mark.skipif(sys.platform == "darwin", reason="has no limit of memory for a process")
def test_a_tokenizer_that_takes_gigabytes_ends_its_trial_and_nothing_else(tmp_path):
    """A post-processor that writes a million tokens, a thousand times."""
    many = {"id": "X", "ids": [1] * 100_000, "tokens": ["x"] * 100_000}
    processor = {"type": "TemplateProcessing", "special_tokens": {"X": many}, "pair": [],
                 "single": [{"SpecialToken": {"id": "X", "type_id": 0}}] * 3000
                 + [{"Sequence": {"id": "A", "type_id": 0}}]}
    folder = _tokenizer(tmp_path, post_processor=processor)
    with pytest.raises(ModelLoadError, match=r"needs more .*memory|cannot be read"):
        check_tokenizer(folder, ProcessLimits(seconds=20, memory_bytes=1 << 30))
    check_tokenizer(LLAMA_SP, ProcessLimits(seconds=20, memory_bytes=1 << 30))


def test_a_tokenizer_that_cannot_be_read_is_told_by_its_trial_as_by_itself(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json: not a tokenizer that can be read"):
        load(folder)


def test_a_text_on_which_the_tokenizers_rules_fail_is_an_error_of_this_text(folder):
    """Its regular expression tries every way to cut the letters. tokenizers panics, which no `except
    Exception` sees."""
    split = {"type": "Split", "pattern": {"Regex": "^(a|a)*$|."}, "behavior": "Isolated", "invert": False}
    _tokenizer(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": [
        split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]})
    with load(folder) as llm:
        text = "a" * 300 + "!"
        with pytest.raises(TokenizerError, match="tokenizer cannot read this text"):
            llm.tokenizer.encode(text)
        with pytest.raises(TokenizerError, match="tokenizer cannot read this text"):
            llm.start([{"role": "user", "content": text}])
        assert llm.fit([{"role": "user", "content": text}], 10).first_index == 0
        assert "".join(llm.stream(HI, SamplingParams(max_new_tokens=3))) is not None


# -- settings

@pytest.mark.parametrize("fields", [
    {"chat_template": [{"name": {}, "template": 5}]}, {"chat_template": [{"name": [0], "template": "x"}]},
    {"added_tokens_decoder": {"9" * 4400: {"content": "<s>"}}}, {"added_tokens_decoder": {"4194304": {}}},
    {"bos_token": [0], "eos_token": {"content": {}}}, {"additional_special_tokens": [{}, [], None]},
    {"extra_special_tokens": {"a": []}}])
def test_odd_values_in_the_settings_are_passed_over(tmp_path, fields):
    sentencepiece_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    assert TextSettings.from_folder(tmp_path).template is None
    assert Tokenizer.load(tmp_path).encode("a")


def test_a_template_may_have_a_byte_order_mark_and_must_be_utf_8(folder):
    path = folder / "chat_template.jinja"
    source = path.read_bytes()
    with load(folder) as llm:
        expected = llm.start(HI).prompt_tokens
    path.write_bytes(b"\xef\xbb\xbf" + source)
    with load(folder) as llm:
        assert llm.start(HI).prompt_tokens == expected
    path.write_bytes("{# Gr\xfc\xdfe #}".encode("latin-1") + source)
    with pytest.raises(ModelLoadError, match=r"chat_template\.jinja is no UTF-8 \(byte 5\)"):
        load(folder)


def test_a_template_that_writes_a_token_beyond_the_weights_is_refused_at_load(folder):
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"].append({**_added("<|turn|>"), "id": 512})
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with load(folder):
        pass  # nothing writes it
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}")
    with pytest.raises(ModelLoadError, match=r"the token <\|turn\|> \(512\), .* only 512 tokens"):
        load(folder)


# -- weights

@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weight_that_is_no_number_is_named(folder, value, dtype):
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.layers.1.mlp.down_proj.weight", "model.norm.weight"):
        spoilt = {key: tensor.to(dtype, copy=True) for key, tensor in tensors.items()}
        spoilt[name].view(-1)[17] = value
        save_file(spoilt, folder / "model.safetensors")
        with pytest.raises(ModelLoadError, match=f"tensor {name} holds (NaN|infinity); expected numbers"):
            load(folder)


def test_a_tied_model_may_store_its_embeddings_under_the_heads_name(folder):
    change(folder / "config.json", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    ids = list(range(20))
    with load(folder) as llm:
        expected = llm.logits(ids)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors")
    with load(folder) as llm:
        assert torch.equal(llm.logits(ids), expected)


def test_a_stored_head_counts_though_the_config_says_that_there_is_none(folder):
    with load(folder) as llm:
        expected = llm.logits(list(range(20)))
    change(folder / "config.json", tie_word_embeddings=True)
    with load(folder) as llm:
        assert torch.equal(llm.logits(list(range(20))), expected)


def test_a_whole_file_counts_before_a_stale_index_of_shards(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}))
    with load(folder):
        pass
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with load(folder):
        pass
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(ModelLoadError, match="has no model-00002-of-00002"):
        load(folder)


def test_a_template_that_takes_no_empty_message_is_no_hindrance(folder):
    source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    refusal = ("{% for m in messages %}{% if not m.content %}{{ raise_exception('empty') }}{% endif %}"
               "{% endfor %}")
    (folder / "chat_template.jinja").write_text(refusal + source, encoding="utf-8")
    with load(folder) as llm:
        assert llm.start(HI).prompt_tokens
