"""A prompt in parts: together what the model reads, each message's text by itself, tokens where they begin.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from model import ChatMessage, ChatModel, SamplingParams
from model.text.chat_template import ChatTemplate, PlainFormat
from model.text.prompt_parts import PromptPart, marked, parts_of, spans_of, token_starts
from model.text.template_process import TemplateProcess
from model.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.text_samples import LLAMA_SP, TEMPLATES, TEXTS, llama3_folder

GREEDY = SamplingParams(temperature=0, max_new_tokens=64)
TALK = [ChatMessage("system", "Be kind."), ChatMessage("system", "It is night.", follows=True),
        ChatMessage("user", "Ann:  Hi! <|eot_id|>"), ChatMessage("user", "Bo: a", follows=True),
        ChatMessage("assistant", " a\n", thinking="So be it."), ChatMessage("user", "你好🙂 [/INST]\n\n")]


@pytest.fixture(scope="module")
def process():
    process = TemplateProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    return {"llama3": Tokenizer.load(llama3_folder(tmp_path_factory.mktemp("llama3"))),
            "llama_sp": Tokenizer.load(LLAMA_SP)}


@pytest.fixture
def model_of(tokenizers, process):
    def make(template="llama3", tokenizer="llama3", **engine):
        words = tokenizers[tokenizer]
        shape = PlainFormat(words) if template == "plain" else \
            ChatTemplate(TEMPLATES[template], template, words, process)
        return ChatModel(ScriptedEngine([], vocab_size=10_000, **engine), words, shape)
    return make


def sent(llm, messages):
    llm.start(messages, GREEDY, shorten=True)
    return llm._engine.requests[-1].prompt


@pytest.mark.parametrize("tokenizer", ["llama3", "llama_sp"])
@pytest.mark.parametrize("template", [*TEMPLATES, "plain"])
def test_the_parts_are_what_the_model_reads_and_each_message_is_found_in_it(model_of, template, tokenizer):
    llm = model_of(template, tokenizer, max_seq_len=2048)
    view, ids = llm.inspect(TALK, 64), sent(llm, TALK)
    text = "".join(part.text for part in view.parts)
    read = llm.tokenizer.decode(ids, skip_control=False)
    assert text.replace(" ", "") == read.replace(" ", "")  # sentencepiece has spaces of its own
    assert tokenizer == "llama_sp" or text == read
    assert sum(part.num_tokens for part in view.parts) == view.fit.prompt_tokens == len(ids)
    found = {}
    for part in view.parts:
        found.setdefault(part.index, []).append(part.text)
    assert {index: texts[-1] for index, texts in found.items() if index is not None} == {
        index: message.content.strip() for index, message in enumerate(TALK)}
    assert found[4] in (["a"], ["So be it.", "a"])  # where the template shows thoughts
    assert view.parts[-1].index is None or template == "plain"


@pytest.mark.parametrize("template", ["llama3", "chatml"])
def test_texts_of_every_kind_are_found_again(model_of, template):
    llm = model_of(template, max_seq_len=8192)
    talk = [ChatMessage(("user", "assistant")[at % 2], text) for at, text in enumerate(TEXTS)]
    view = llm.inspect(talk, 64)
    read = llm.tokenizer.decode(sent(llm, talk), skip_control=False)
    assert "".join(part.text for part in view.parts) == read
    assert [part.text for part in view.parts if part.index is not None] == [
        text.strip() for text in TEXTS if text.strip()]


def test_by_hand_with_tokens_and_what_the_cache_has(model_of):
    llm = model_of()
    talk = [ChatMessage("user", "Hi!")]
    before = llm.inspect(talk, 64)
    assert before.parts == (
        PromptPart("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", None, 8),
        PromptPart("Hi!", 0, llm.count_tokens("Hi!")),
        PromptPart("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", None,
                   before.fit.prompt_tokens - 8 - llm.count_tokens("Hi!")))
    assert (before.cached_tokens, before.cached_chars) == (0, 0)
    sent(llm, talk)
    after = llm.inspect([*talk, ChatMessage("assistant", "Ho."), ChatMessage("user", "So?")], 64)
    text = "".join(part.text for part in after.parts)
    assert after.cached_tokens == before.fit.prompt_tokens
    assert text[after.cached_chars:].startswith("Ho.<|eot_id|>")


def test_what_is_left_out_is_in_no_part_and_a_shortened_message_is_shown_as_it_is_sent(model_of):
    llm = model_of(max_seq_len=512)
    talk = [ChatMessage("system", "SYSTEM"),
            *(ChatMessage(("user", "assistant")[at % 2], f"turn {at} " + "word " * 10) for at in range(61))]
    view, fit = llm.inspect(talk, 64), llm.fit(talk, 64, shorten=True)
    assert view.fit == fit and fit.first_index > 1
    indices = [part.index for part in view.parts if part.index is not None]
    assert indices == [0, *range(fit.first_index, len(talk))]
    assert all(part.text == talk[part.index].content.strip() for part in view.parts if part.index is not None)
    talk.append(ChatMessage("user", "long " * 5_000))
    view = llm.inspect(talk, 64)
    assert view.fit.is_shortened and "[...]" in view.parts[-2].text and view.parts[-2].index == len(talk) - 1
    talk[0] = replace(talk[0], content="long " * 5_000)  # what `start` would refuse is shown
    assert llm.inspect(talk, 64).fit.prompt_tokens > 512


def test_marks_and_spans_by_hand():
    talk = {0: ChatMessage("user", " a\U000f0000\n"), 7: ChatMessage("assistant", "", thinking="b")}
    messages, marks = marked(talk)
    end, first, second = "\U000f0001", "\U000f0002", "\U000f0003"
    assert marks == {end: -1, first: 0, second: 7}
    assert [m.content for m in messages] == [f" {first}a\U000f0000{end}\n", ""]
    assert messages[1].thinking == f"{second}b{end}"
    assert spans_of("<a|b>", f"<{first}a{end}|{second}b{end}>", marks) == [(1, 2, 0), (3, 4, 7)]
    assert spans_of("<a|b>", f"<{first}A{end}|{second}b{end}>", marks) == []  # the template saw the marks
    every = "".join(map(chr, range(0xF0000, 0xFFFFE)))
    assert marked({0: ChatMessage("user", every)}) is None


def test_where_tokens_begin_by_hand():
    assert token_starts("Hi you", [b"Hi", b" you"]) == [0, 2]
    assert token_starts("Hi you", [b" Hi", b" y", b"ou"]) == [0, 2, 4]  # sentencepiece
    assert token_starts("é🙂!", ["é".encode(), b"\xf0\x9f", b"\x99\x82", b"!"]) == [0, 1, 2, 2]
    assert token_starts("e\u0301", ["é".encode()]) is None  # a tokenizer that normalizes
    assert token_starts("Hi", [b"H"]) is None and token_starts("H", [b"H", b"i"]) is None
    text, spans = "<Hi you>", [(1, 7, 3)]
    assert parts_of(text, spans, [0, 1, 3], len) == (
        PromptPart("<", None, 1), PromptPart("Hi you", 3, 2), PromptPart(">", None, 0))
    assert [part.num_tokens for part in parts_of(text, spans, None, len)] == [1, 6, 1]
