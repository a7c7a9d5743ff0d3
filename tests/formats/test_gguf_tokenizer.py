"""Tokenizers out of GGUF files give the tokens of the files that they were made from."""

import json

import numpy as np
import pytest
import tokenizers

from model.files import ModelLoadError
from model.formats.gguf import GgufFile
from model.formats.gguf_tokenizer import read_text
from model.gguf_text import check_gguf_tokenizer, tokenizer_of
from model.splits import SUPPORTED, split_named
from model.text.limited_process import ProcessLimits
from model.text.tokenizer import Tokenizer
from tests.helpers.gguf_files import write_gguf
from tests.helpers.gguf_vocabularies import bpe_metadata, sentencepiece_metadata
from tests.helpers.text_samples import (
    CHATML,
    CHATML_BYTES,
    LLAMA_SP,
    TEXTS,
    llama3_folder,
    qwen_folder,
    sentencepiece_folder,
)


def loaded(path, metadata, **more):
    keys = {f"tokenizer.ggml.{key}": value for key, value in more.items()}
    write_gguf(path, metadata | keys, {})
    return tokenizer_of(GgufFile(path))


@pytest.mark.parametrize("folder, pre", [(llama3_folder, "llama-bpe"), (qwen_folder, "qwen2"),
                                         (CHATML_BYTES, "gpt-2")], ids=["llama-bpe", "qwen2", "gpt-2"])
def test_tokens_of_byte_level_bpe_are_those_of_its_tokenizer_json(folder, pre, tmp_path):
    folder = folder(tmp_path) if callable(folder) else folder
    expected = Tokenizer.load(folder)
    ours = loaded(tmp_path / "m.gguf", bpe_metadata(folder, pre))
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>", "I'LL don't"]:
        ids = expected.encode(text, add_bos=False)
        assert ours.encode(text, add_bos=False) == ids, text
        as_text = expected.encode(text, add_bos=False, control=False)
        assert ours.encode(text, add_bos=False, control=False) == as_text
        assert ours.decode(ids) == expected.decode(ids)
    assert ours.control_ids == expected.control_ids


@pytest.mark.parametrize("kind, model", [("bpe", "llama"), ("unigram", "t5")])
def test_tokens_of_sentencepiece_are_those_of_its_tokenizer_model(kind, model, tmp_path):
    folder = sentencepiece_folder(tmp_path, kind, symbols=("<|user|>",))
    expected = Tokenizer.load(folder)
    ours = loaded(tmp_path / "m.gguf", sentencepiece_metadata(folder, model), bos_token_id=expected.bos_id,
                  add_bos_token=True, add_eos_token=False)
    for text in [*TEXTS, "<|user|>hi", "<s>hi</s>"]:
        assert ours.encode(text) == expected.encode(text), text
        assert ours.encode(text, control=False) == expected.encode(text, control=False), text
        assert ours.decode(expected.encode(text)) == expected.decode(expected.encode(text))
    assert (ours.bos_id, ours.control_ids) == (expected.bos_id, expected.control_ids)


def test_without_a_space_in_front_and_with_padding_called_unknown(tmp_path):
    """Phi-3's files call their padding unknown, and the unknown token a control token."""
    metadata = sentencepiece_metadata(LLAMA_SP)
    plain = loaded(tmp_path / "m.gguf", metadata)
    types = metadata["tokenizer.ggml.token_type"].copy()
    types[0], types[-1] = 3, 2
    odd = loaded(tmp_path / "m.gguf", metadata, token_type=types, add_space_prefix=False)
    assert odd.encode(" Hello", add_bos=False) == plain.encode("Hello", add_bos=False)
    assert odd.encode("Hello", add_bos=False) != plain.encode("Hello", add_bos=False)


def whole_line_vocabulary():
    merges = ["▁ h", "▁h i", "\n \n", "a b"]
    texts = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>",
             *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "\n", "a", "b", "▁h", "▁hi", "\n\n",
             "ab"]
    types = [3, 3, 3, 2, 3, 3, *[6] * 256, *[1] * 10]
    return {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.tokens": texts, "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.token_type": np.array(types, np.int32), "tokenizer.ggml.bos_token_id": 2,
            "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 5,
            "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": "{{ messages }}"}


def test_gemma_4_merges_over_whole_lines(tmp_path):
    metadata = whole_line_vocabulary()
    ours = loaded(tmp_path / "m.gguf", metadata)
    ids = {text: index for index, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    for text, parts in {" hi": ["▁hi"], "a hi\n\nab": ["a", "▁hi", "\n\n", "ab"], "é": ["<0xC3>", "<0xA9>"],
                        "<|turn>ab<turn|>": ["<|turn>", "ab", "<turn|>"]}.items():
        assert ours.encode(text, add_bos=False) == [ids[part] for part in parts], text
        assert ours.decode(ours.encode(text), skip_control=False) == "<bos>" + text
    assert ours.encode("ab") == [2, ids["ab"]]  # whatever the file says, as llama.cpp does
    assert ours.eos_ids >= {1, 5} and ours.settings.template == "{{ messages }}"


def test_special_tokens_ends_and_template_are_what_the_file_says(tmp_path):
    metadata = bpe_metadata(CHATML_BYTES, "gpt-2")
    texts = metadata["tokenizer.ggml.tokens"]
    end, start = texts.index("<|im_end|>"), texts.index("<|im_start|>")
    ours = loaded(tmp_path / "m.gguf", metadata | {"tokenizer.chat_template": CHATML},
                  bos_token_id=start, eos_token_id=end, eot_token_id=3, eom_token_id=4,
                  padding_token_id=10**6, add_bos_token=True, add_eos_token=True)
    assert ours.special_tokens["bos_token"] == "<|im_start|>" and "pad_token" not in ours.special_tokens
    assert ours.eos_ids >= {end, 3, 4}
    assert ours.encode("a")[0] == start and ours.encode("a")[-1] == end
    assert (ours.settings.template, ours.settings.template_file) == (CHATML, "m.gguf")


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_named_split_is_an_expression_that_keeps_all_text(name):
    text = "Hello, WORLD's I'LL  12345 naïve\n\n \t déjà 你好 ありがとう 🙂 x_y == z\r\n   end  "
    for expression in split_named(name).expressions:
        step = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
        assert "".join(piece for piece, _ in step.pre_tokenize_str(text)) == text


@pytest.mark.parametrize("name, pieces", [
    ("llama-bpe", ["I", "'LL", " see", " ", "123", "45", "\n"]),
    ("qwen2", ["I", "'LL", " see", " ", *"12345", "\n"]),
    ("gpt-2", ["I", "'", "LL", " see", " 12345", "\n"]),
    ("smollm", ["I", "'", "LL", " see", " ", *"12345", "\n"]),
    ("tekken", ["I", "'LL", " see", " ", *"12345", "\n"]),
    ("gpt-4o", ["I'LL", " see", " ", "123", "45", "\n"]),
    ("youtu", ["I'LL", " see", " ", *"12345", "\n"]),
    ("jais-2", ["I", "'LL", " see", " ", "123", "45", "\n"]),
    ("deepseek-llm", ["I", "'", "LL", " see", " ", "12345", "\n"]),
    ("deepseek-v3", ["I", "'LL", " see", " ", "123", "45", "\n"]),
    ("afmoe", ["I", "'LL", " see", " ", "12", "345", "\n"]),
    ("spark2_5", ["I", "'LL", " see", " ", *"12345", "\n"]),
    ("laguna", ["I", "'LL", " see", " ", *"12345", "\n"]),
    ("exaone-moe", ["I", "'LL", " see", " ", *"12345", "\n"])])
def test_texts_are_cut_as_the_name_says(name, pieces):
    steps = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
             for expression in split_named(name).expressions]
    found = tokenizers.pre_tokenizers.Sequence(steps).pre_tokenize_str("I'LL see 12345\n")
    assert [piece for piece, _ in found] == pieces


def test_k_exaone_keeps_words_with_single_spaces_between_them_together():
    (expression,) = split_named("exaone-moe").expressions
    step = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    assert [piece for piece, _ in step.pre_tokenize_str("is it so?/ Yes  no")] == [
        "is it so", "?/", " Yes", " ", " no"]


def test_jais_2_cuts_spaces_into_powers_of_two():
    (expression,) = split_named("jais-2").expressions
    step = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    assert [piece for piece, _ in step.pre_tokenize_str("a" + 6 * " " + "b")] == ["a", 4 * " ", " ", " b"]


def test_kimi_keeps_chinese_apart_from_letters_of_other_scripts():
    """A word ends before it, a space in front of it stands alone, digits come in threes."""
    (expression,) = split_named("kimi-k2").expressions
    step = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    found = step.pre_tokenize_str("helloWorld's 你好ok  日本の 12345//\n")
    assert [piece for piece, _ in found] == [
        "hello", "World's", " ", "你好", "ok", " ", " ", "日本", "の", " ", "123", "45", "//\n"]


WRONG = {
    "model": ("bert", "tokenizer.ggml.model is 'bert'; supported: llama"),
    "pre": ("klingon", "tokenizer.ggml.pre is 'klingon': how text is to be cut is not known"),
    "tokens": (["a", "b", "a"], "names a token twice"),
    "token_type": (np.array([1, 2], np.int32), r"expected \d+ numbers"),
    "merges": (["ab"], "has 'ab'; expected two parts"),
    "add_bos_token": (1, "expected true or false"),
    "eos_token_id": ("</s>", "expected a token's number"),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_wrong_with_a_tokenizer_is_told_by_its_key(key, tmp_path):
    value, message = WRONG[key]
    with pytest.raises(ModelLoadError, match=message) as caught:
        loaded(tmp_path / "m.gguf", bpe_metadata(CHATML_BYTES, "gpt-2"), **{key: value})
    assert str(caught.value).startswith(f"m.gguf: tokenizer.ggml.{key}")


def test_what_is_not_there_is_told_by_its_key(tmp_path):
    good = bpe_metadata(CHATML_BYTES, "gpt-2")
    for key in ("model", "pre", "tokens", "merges"):
        metadata = {name: value for name, value in good.items() if name != f"tokenizer.ggml.{key}"}
        with pytest.raises(ModelLoadError, match=rf"m\.gguf: tokenizer\.ggml\.{key} is (not there|None)"):
            loaded(tmp_path / "m.gguf", metadata)
    pieces = sentencepiece_metadata(LLAMA_SP)
    del pieces["tokenizer.ggml.scores"]
    with pytest.raises(ModelLoadError, match=r"scores is not there"):
        loaded(tmp_path / "m.gguf", pieces)
    with pytest.raises(ModelLoadError, match=r"chat_template is 3; expected a text"):
        loaded(tmp_path / "m.gguf", good | {"tokenizer.chat_template": 3})


def test_json_of_a_vocabulary_is_read_by_tokenizers_itself(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", bpe_metadata(CHATML_BYTES, "gpt-2"), {})
    text = read_text(GgufFile(path))
    assert tokenizers.Tokenizer.from_str(json.dumps(text.json)).encode("Hello world").ids
    assert text.sentencepiece is None


def test_what_sentencepiece_reads_is_tried_in_a_process_with_limits(tmp_path):
    """A map of characters that is none, a number of MiB in which nothing starts, and a good one."""
    vocabulary = sentencepiece_metadata(LLAMA_SP)
    good = GgufFile(write_gguf(tmp_path / "good.gguf", vocabulary, {}))
    check_gguf_tokenizer(good)
    with pytest.raises(ModelLoadError, match=r"good\.gguf: its tokenizer needs more than 1 MiB"):
        check_gguf_tokenizer(good, ProcessLimits(seconds=60.0, memory_bytes=1 << 20))
    spoiled = vocabulary | {"tokenizer.ggml.precompiled_charsmap": np.frombuffer(b"\xff" * 64, np.uint8)}
    with pytest.raises(ModelLoadError, match=r"bad\.gguf"):
        check_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "bad.gguf", spoiled, {})))


def test_a_vocabulary_for_rules_of_our_own_takes_no_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("model.gguf_text.check_tokenizer", lambda *_: pytest.fail("it was tried"))
    check_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "m.gguf", bpe_metadata(CHATML_BYTES, "gpt-2"), {})))
