"""The terminal chat, on an engine whose tokens are scripted."""

from __future__ import annotations

import io
import signal

import pytest

from model import ChatMessage, ChatModel
from model.text.chat_template import PlainFormat
from model.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.text_samples import CHATML_BYTES
from tools.console import Console, main, parse_value


@pytest.fixture
def console():
    tokenizer = Tokenizer.load(CHATML_BYTES)

    def make(text, **engine):
        script = [*tokenizer.encode(text), tokenizer.token_id("<|im_end|>")]
        llm = ChatModel(ScriptedEngine(script, **engine), tokenizer, PlainFormat(tokenizer))
        return Console(llm, out=io.StringIO())
    return make


def said(console):
    return console._out.getvalue()


def test_a_line_is_answered_and_remembered(console):
    chat = console(" Hello.")
    assert chat.handle("Hi!\n") and chat.handle("") and not chat.handle("/quit")
    assert chat.messages == [ChatMessage("user", "Hi!"), ChatMessage("assistant", "Hello.")]
    assert said(chat).startswith("Hello.\n[eos: ") and "seed 12345" in said(chat)
    chat.handle("More")
    prompt = chat.llm.tokenizer.decode(chat.llm._engine.requests[-1].prompt)
    assert prompt == "User: Hi!\nAssistant: Hello.\nUser: More\nAssistant:"


def test_commands_change_what_the_model_gets(console):
    chat = console("x")
    for line in ("/system Be kind.", "/set temperature 0", "/set stop END", '/set logit_bias {"3": 1}', "a"):
        chat.handle(line)
    request = chat.llm._engine.requests[-1]
    assert chat.llm.tokenizer.decode(request.prompt).startswith("Be kind.\n\nUser: a")
    assert (request.params.temperature, request.params.stop) == (0, ("END",))
    assert request.params.logit_bias == {3: 1}
    chat.handle("/again")
    assert len(chat.messages) == 2 and len(chat.llm._engine.requests) == 2
    chat.handle("/new")
    assert chat.messages == []


def test_mistakes_are_told_and_change_nothing(console):
    chat = console("x", max_seq_len=64)
    for line in ("/set temperature 9", "/set temperature hot", "/set heat 1", "/nonsense", "/again",
                 "word " * 200):
        chat.handle(line)
    text = said(chat)
    assert "temperature is 9; expected a number from 0.0 to 5.0" in text
    assert "temperature cannot be 'hot'" in text
    assert "No parameter heat" in text and "No command /nonsense; /help" in text
    assert "There is no message to answer yet." in text and "the context holds 64" in text
    assert chat.messages == [] and chat.params.temperature == 0.8
    chat.handle("/help")
    chat.handle("/set")
    assert "/system TEXT" in said(chat) and "max_new_tokens = 512" in said(chat)


def test_ctrl_c_stops_the_reply_and_keeps_it(console):
    chat = console("one two three four five six seven eight")
    before = signal.getsignal(signal.SIGINT)
    write = chat._write

    def interrupted(text):
        write(text)
        if chat.llm._engine.requests and "tw" in said(chat) and "[" not in text:
            signal.raise_signal(signal.SIGINT)

    chat._write = interrupted
    chat.handle("count")
    assert "[cancelled: " in said(chat) and signal.getsignal(signal.SIGINT) is before
    assert chat.messages[-1].content.startswith("one tw") and "eight" not in chat.messages[-1].content


def test_a_failure_is_shown_after_the_partial_text(console):
    chat = console("Hello there", fails_after=3)
    chat.handle("Hi")
    assert "[the step failed]" in said(chat) and chat.messages[-1].content


def test_what_a_model_writes_cannot_control_the_terminal(console):
    chat = console("\x1b[2Jred\x07\x9b\ttab")
    chat.handle("Hi")
    assert said(chat).startswith("\ufffd[2Jred\ufffd\ufffd\ttab")


def test_values_are_written_as_json_or_as_plain_text():
    assert parse_value("stop", "\\n") == ("\\n",) and parse_value("stop", '["\\n", "b"]') == ("\n", "b")
    for text, value in (("Be rude.", "Be rude."), ('"Be rude."', "Be rude."), ("5", "5")):
        assert parse_value("negative_prompt", text) == value
    assert parse_value("seed", "null") is None and parse_value("banned_tokens", "[1, 2]") == (1, 2)


def test_a_folder_that_is_no_model_ends_with_one_sentence(tmp_path, capsys):
    assert main(["-d", str(tmp_path / "nothing")]) == 1
    assert "does not exist; expected a folder with config.json" in capsys.readouterr().err
