"""Streaming text: never half a character, and joined it is the whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer
from tests.helpers.text_samples import ALL_FOLDERS, CHATML_BYTES, LLAMA_SP, TEXTS, patient

BYTES = [bytes([value]) for value in range(256)]
SCRIPTS = st.text(st.one_of(
    st.characters(codec="utf-8"), st.characters(max_codepoint=127),
    st.sampled_from("🙂🚀👩‍👧é你好世界שלוםمرحبا🇩🇪\u200d\ufe0f")))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {name: Tokenizer.load(make(tmp_path_factory.mktemp(name))) for name, make in ALL_FOLDERS.items()}
    return made | {"llama_sp": Tokenizer.load(LLAMA_SP), "chatml_bytes": Tokenizer.load(CHATML_BYTES)}


def streamed(stream, token_ids):
    return [*(stream.push(token_id) for token_id in token_ids), stream.finish()]


def test_a_character_of_four_bytes_appears_with_its_last_byte():
    """🙂 is F0 9F 99 82."""
    assert streamed(Detokenizer(BYTES), [0x41, *"🙂".encode(), 0x42]) == ["A", "", "", "", "🙂", "B", ""]


def test_an_unfinished_character_at_the_end_is_one_replacement():
    assert streamed(Detokenizer(BYTES), [0x41, 0xF0, 0x9F, 0x99]) == ["A", "", "", "", "\ufffd"]


def test_bytes_that_are_no_utf8_hold_nothing_back():
    """A stray byte is shown as a replacement as soon as the next one proves it stray."""
    assert streamed(Detokenizer(BYTES), [0xF0, 0x41, 0xFF, 0x42]) == ["", "\ufffdA", "\ufffd", "B", ""]


@patient(300)
@given(text=SCRIPTS, data=st.data())
def test_any_split_of_a_texts_bytes_into_tokens_gives_the_text_in_whole_characters(text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)) | {0, len(raw)})
    table = [raw[start:end] for start, end in pairwise(cuts)]
    parts = streamed(Detokenizer(table), range(len(table)))
    assert "".join(parts) == text
    assert all(text.startswith("".join(parts[:end])) for end in range(len(parts) + 1))


@patient(50)
@given(text=SCRIPTS)
def test_the_stream_of_each_tokenizer_joins_to_the_decoded_whole(tokenizers, text):
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(text, add_bos=False, control=False)
        whole = tokenizer.decode(ids)
        stream = "".join(streamed(tokenizer.detokenizer(), ids))
        assert whole in (stream, stream.removeprefix(" ")), name
        if name not in ("unigram", "qwen") and not text.startswith(" "):  # no bytes for all; NFC
            assert whole == text, name


@patient(200)
@given(data=st.data())
def test_any_tokens_at_all_stream_to_what_they_decode_to_at_once(tokenizers, data):
    """Random ids: broken characters, control tokens, ids beyond the vocabulary."""
    name = data.draw(st.sampled_from(sorted(tokenizers)))
    tokenizer = tokenizers[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=30))
    stream = "".join(streamed(tokenizer.detokenizer(), ids))
    assert tokenizer.decode(ids) in (stream, stream.removeprefix(" "))
    head = data.draw(st.integers(0, len(ids)))
    assert stream.startswith("".join(streamed(tokenizer.detokenizer(), ids)[:head]))


def test_what_sentencepiece_decodes_is_what_is_streamed(tmp_path):
    tokenizer = Tokenizer.load(ALL_FOLDERS["sp_bpe"](tmp_path))
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in TEXTS:
        ids = reference.encode(text)
        assert tokenizer.decode(ids) == reference.decode(ids)


def test_text_that_goes_on_after_a_prompt_keeps_its_leading_space(tokenizers):
    """"Hello" + "▁world" is "Hello world"; only a text's own start loses SentencePiece's space."""
    for name, tokenizer in tokenizers.items():
        hello, both = (tokenizer.encode(text, add_bos=False) for text in ("Hello", "Hello world"))
        if both[:len(hello)] == hello:
            assert "".join(streamed(tokenizer.detokenizer(), both[len(hello):])) == " world", name


def test_control_tokens_are_not_shown_but_thinking_tags_are(tokenizers):
    qwen = tokenizers["qwen"]
    ids = qwen.encode("<|im_start|><think>hm</think>yes<|im_end|>")
    assert "".join(streamed(qwen.detokenizer(), ids)) == "<think>hm</think>yes"
