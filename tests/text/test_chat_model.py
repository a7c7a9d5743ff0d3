"""ChatModel on an engine whose tokens are scripted, and on a real small one."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model import (
    ChatMessage,
    ChatModel,
    PromptProgress,
    PromptTooLongError,
    ReplyDone,
    ReplyFailed,
    SamplingParams,
    TemplateError,
    TextDelta,
)
from model.text.chat_template import ChatTemplate, PlainFormat
from model.text.context import cut_places, first_kept, token_budget
from model.text.messages import joined
from model.text.template_process import TemplateProcess
from model.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.text_samples import LLAMA3, LLAMA_SP, TEMPLATES, llama3_folder, patient

GREEDY = SamplingParams(temperature=0)
WORDS = Tokenizer.load(LLAMA_SP)
HI = [{"role": "user", "content": "Hi!"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.load(llama3_folder(tmp_path_factory.mktemp("llama3")))


@pytest.fixture(scope="module")
def templates(tokenizer):
    process = TemplateProcess()
    made = {name: ChatTemplate(source, name, tokenizer, process) for name, source in TEMPLATES.items()}
    yield made | {"plain": PlainFormat(tokenizer)}
    process.close()


@pytest.fixture
def model_of(tokenizer, templates):
    """A model that answers `text` (token by token), then EOS; or whatever `script` gives."""
    def make(text="", template="llama3", **engine):
        script = engine.pop("script", None) or [*tokenizer.encode(text, add_bos=False),
                                                tokenizer.token_id("<|eot_id|>")]
        return ChatModel(ScriptedEngine(script, **engine), tokenizer, templates[template])
    return make


def run(reply):
    """({channel: text}, last event) of a reply."""
    texts, last = {"text": "", "think": ""}, None
    for last in reply.events():
        if isinstance(last, TextDelta):
            texts[last.channel] += last.text
    return texts, last


# -- a reply

def test_a_reply_is_progress_then_text_then_its_end(model_of):
    llm = model_of("Hello, you! 🙂")
    reply = llm.start(HI, replace(GREEDY, seed=7))
    first, *deltas, last = reply.events()
    assert first == PromptProgress(reply.prompt_tokens, reply.prompt_tokens, 0)
    assert "".join(delta.text for delta in deltas) == "Hello, you! 🙂"
    assert all(delta.channel == "text" and delta.text for delta in deltas)
    counts = [delta.num_tokens_so_far for delta in deltas]
    assert counts == sorted(counts)
    assert last == ReplyDone("eos", last.stats) and last.stats.seed == 7
    assert deltas[-1].num_tokens_so_far == last.stats.new_tokens


def test_the_prompt_is_the_template_in_tokens_and_eos_is_the_models(model_of, tokenizer):
    llm = model_of("ok")
    run(llm.start([ChatMessage("system", "Be kind."), *HI]))
    request = llm._engine.requests[0]
    assert tokenizer.decode(request.prompt, skip_control=False) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert tokenizer.token_id("<|eot_id|>") in request.eos


def test_a_stop_string_across_tokens_ends_the_reply_and_is_not_shown(model_of):
    llm = model_of("One two.\nUser: and now I write for you")
    texts, last = run(llm.start(HI, replace(GREEDY, stop=("never", "\nUser:"))))
    assert texts["text"] == "One two." and last.finish_reason == "stop"
    assert llm._engine.requests[0].cancelled.is_set()
    assert last.stats.new_tokens < llm.count_tokens("One two.\nUser: and now I write for you")


def test_a_reply_that_ends_within_a_stop_string_shows_what_was_held(model_of):
    texts, last = run(model_of("Be well.\nUse").start(HI, replace(GREEDY, stop=("\nUser:",))))
    assert texts["text"] == "Be well.\nUse" and last.finish_reason == "eos"


def test_the_length_limit_ends_a_reply(model_of):
    _, last = run(model_of("a b c d e f g h").start(HI, replace(GREEDY, max_new_tokens=3)))
    assert last.finish_reason == "length" and last.stats.new_tokens == 3


def test_a_reply_cut_within_a_character_shows_a_replacement(model_of, tokenizer):
    emoji = tokenizer.encode("🙂", add_bos=False)
    assert len(emoji) == 4
    texts, _ = run(model_of(script=emoji[:3]).start(HI, GREEDY))
    assert texts["text"] == "\ufffd"


def test_thinking_comes_in_its_own_channel(model_of):
    texts, _ = run(model_of("<think>\nhm, hm\n</think>\n\nYes.").start(HI))
    assert texts == {"think": "hm, hm\n", "text": "Yes."}
    texts, _ = run(model_of("still\n</think>\nYes.", "deep_thinker").start(HI))
    assert texts == {"think": "still\n", "text": "Yes."}


def test_white_space_before_a_reply_is_not_shown_but_a_continued_one_keeps_it(model_of):
    assert run(model_of("\n\n Yes").start(HI))[0]["text"] == "Yes"
    llm = model_of(" upon a time")
    assert run(llm.start(HI, reply_prefix="Once"))[0]["text"] == " upon a time"
    assert llm.tokenizer.decode(llm._engine.requests[0].prompt).endswith("\n\nOnce")


def test_a_failure_of_the_engine_comes_after_the_partial_text(model_of):
    llm = model_of("Hello wor\nUs", fails_after=12)
    script_length = llm.count_tokens("Hello wor\nUs")
    llm._engine._fails_after = script_length
    texts, last = run(llm.start(HI, replace(GREEDY, stop=("\nUser",))))
    assert texts["text"] == "Hello wor\nUs" and last == ReplyFailed("the step failed")


def test_cancelling_while_the_request_waits_ends_it_without_text(model_of):
    llm = model_of("never seen", gate=threading.Event())
    reply = llm.start(HI)
    found = []
    reader = threading.Thread(target=lambda: found.extend(reply.events()))
    reader.start()
    reply.cancel()
    reader.join(20)
    assert [type(event) for event in found] == [ReplyDone] and found[0].finish_reason == "cancelled"


def test_cancelling_in_mid_reply_keeps_what_came(model_of):
    reply = model_of("one two three four\nUs").start(HI, replace(GREEDY, stop=("\nUser",)))
    texts = []
    for event in reply.events():
        if isinstance(event, TextDelta):
            texts.append(event.text)
            reply.cancel()
    assert texts and "one two three".startswith("".join(texts)) and event.finish_reason == "cancelled"


# -- stream and generate

def test_stream_yields_text_without_thinking_and_stops_when_left(model_of):
    llm = model_of("<think>x</think>one two three")
    assert "".join(llm.stream(HI, GREEDY)) == "one two three"
    stream = llm.stream(HI)
    next(stream)
    stream.close()
    assert llm._engine.requests[-1].cancelled.is_set()


def test_stream_raises_when_the_engine_fails(model_of):
    llm = model_of("Hello there", fails_after=2)
    with pytest.raises(RuntimeError, match="the step failed"):
        list(llm.stream(HI))


def test_generate_goes_on_with_one_text_or_with_a_batch(model_of, tokenizer):
    llm = model_of(script=lambda prompt: [*tokenizer.encode(f" #{len(prompt)} STOP x", add_bos=False)])
    text = llm.generate("ab", max_new_tokens=50, temperature=0, stop="STOP")
    assert text == f" #{len(tokenizer.encode('ab'))} "
    texts = llm.generate(["a", "a b c d", "<|eot_id|>"], stop=["STOP"])
    assert texts == [f" #{len(tokenizer.encode(text))} " for text in ("a", "a b c d", "<|eot_id|>")]
    assert llm.generate([]) == []
    assert llm._engine.requests[0].params == SamplingParams(max_new_tokens=50, temperature=0, stop=("STOP",))
    assert llm._engine.requests[0].prompt[0] == tokenizer.token_id("<|begin_of_text|>")


def test_generate_submits_every_prompt_before_it_reads_any(model_of):
    """Otherwise a list would be decoded one after the other."""
    gate = threading.Event()
    llm = model_of("yes", gate=gate)
    results = []
    worker = threading.Thread(target=lambda: results.append(llm.generate(["a", "b", "c"])))
    worker.start()
    while len(llm._engine.requests) < 3:
        assert worker.is_alive()
        worker.join(0.01)
    assert not results
    gate.set()
    worker.join(20)
    assert results == [["yes", "yes", "yes"]]


def test_a_mistake_in_generates_arguments_is_named(model_of):
    llm = model_of("x", max_seq_len=64)
    with pytest.raises(TypeError, match="no sampling parameter temprature; there are repetition_penalty"):
        llm.generate("x", temprature=1)
    with pytest.raises(ValueError, match="temperature is 9"):
        llm.generate("x", temperature=9)
    with pytest.raises(PromptTooLongError, match=r"needs \d+ tokens .* holds 64"):
        llm.generate(["fine", "word " * 200])
    assert not llm._engine.requests


def test_one_failure_in_a_batch_cancels_the_rest(model_of):
    llm = model_of("Hello there", fails_after=1)
    with pytest.raises(RuntimeError, match="the step failed"):
        llm.generate(["a", "b"])
    assert all(request.cancelled.is_set() for request in llm._engine.requests)


# -- what fits

def conversation(turns, words=10):
    return [ChatMessage(("user", "assistant")[i % 2], f"turn {i} " + "word " * words) for i in range(turns)]


@pytest.mark.parametrize("template", ["llama3", "mistral", "plain"])
def test_a_long_conversation_loses_its_oldest_turns_but_not_the_system_message(model_of, template, tokenizer):
    llm = model_of("ok", template, max_seq_len=1024)
    messages = [ChatMessage("system", "SYSTEM TEXT"), *conversation(61)]
    fit = llm.fit(messages, 200)
    reply = llm.start(messages, replace(GREEDY, max_new_tokens=200))
    assert 1 < fit.first_index < 61 and fit.prompt_tokens <= 1024 - 200
    assert (reply.first_index, reply.prompt_tokens) == (fit.first_index, fit.prompt_tokens)
    assert messages[fit.first_index].role == "user"
    prompt = tokenizer.decode(llm._engine.requests[0].prompt)
    assert "SYSTEM TEXT" in prompt and "turn 60 " in prompt
    assert f"turn {fit.first_index - 1} " in prompt and f"turn {fit.first_index - 2} " not in prompt


# -- guidance

GUIDED = replace(GREEDY, guidance_scale=1.5)


def prompts(llm, tokenizer):
    """Of the last request, and of its guide."""
    request = llm._engine.requests[-1]
    return tuple(tokenizer.decode(ids, skip_control=False) for ids in (request.prompt, request.guide))


def test_the_guide_reads_the_negative_prompt_in_the_place_of_the_system_messages(model_of, tokenizer):
    llm = model_of("ok")
    messages = [ChatMessage("system", "Be kind."), ChatMessage("system", "Be short.", follows=True), *HI]
    for negative, system in (("Be rude.", "Be rude."), ("", None)):
        run(llm.start(messages, replace(GUIDED, negative_prompt=negative)))
        own, guide = prompts(llm, tokenizer)
        part = "<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>"
        assert guide == own.replace(part.format("Be kind.\nBe short."), part.format(system) if system else "")
        assert own != guide
    run(llm.start(messages, GUIDED, against=[ChatMessage("system", "One."), ChatMessage("system", "Two.")]))
    assert prompts(llm, tokenizer)[1].count("<|start_header_id|>system") == 2
    run(llm.start(messages, replace(GUIDED, guidance_scale=1.0, negative_prompt="Be rude.")))
    assert llm._engine.requests[-1].guide == []


def test_the_engine_hears_that_a_prompt_ends_within_a_reply(model_of):
    llm = model_of("ok")
    run(llm.start(HI, reply_prefix="Hello", reply_tokens=[b"x"]))
    run(llm.start(HI))
    assert [request.goes_on for request in llm._engine.requests] == [True, False]


def test_the_guide_has_what_is_written_of_the_reply_as_well(model_of, tokenizer):
    llm = model_of("ok")
    run(llm.start([ChatMessage("system", "Be kind."), *HI], GUIDED, reply_prefix="Hello",
                  reply_tokens=[b" there", b" you"]))
    own, guide = prompts(llm, tokenizer)
    assert own.endswith("Hello there you") and guide.endswith("Hello there you") and "kind" not in guide


@pytest.mark.parametrize("negative", ["", "word " * 200])
def test_the_guide_sees_the_messages_that_the_model_sees(model_of, tokenizer, negative):
    """A long negative prompt leaves less room for both."""
    llm = model_of("ok", max_seq_len=1024)
    messages = [ChatMessage("system", "SYSTEM TEXT"), *conversation(61)]
    reply = llm.start(messages, replace(GUIDED, max_new_tokens=200, negative_prompt=negative))
    own, guide = prompts(llm, tokenizer)
    first = reply.first_index - 1
    for prompt in (own, guide):
        assert f"turn {first} " in prompt and f"turn {first - 1} " not in prompt and "turn 60 " in prompt
    request = llm._engine.requests[-1]
    assert "SYSTEM TEXT" not in guide and max(len(request.prompt), len(request.guide)) <= 824
    assert reply.prompt_tokens == len(request.prompt) + len(request.guide), "all that is read"


def test_where_the_cache_cannot_hold_two_contexts_both_prompts_are_shorter(model_of):
    llm = model_of("ok", max_seq_len=1024)
    llm._engine.guided_seq_len = 512
    messages = conversation(61)
    assert llm.start(messages, replace(GUIDED, max_new_tokens=100)).prompt_tokens <= 2 * 412
    assert len(llm._engine.requests[-1].prompt) <= 412
    assert llm.start(messages, replace(GREEDY, max_new_tokens=100)).prompt_tokens > 512


def test_the_guide_of_a_text_is_the_negative_prompt_or_its_last_token(model_of, tokenizer):
    """The latter as in transformers."""
    llm = model_of("ok")
    llm.generate("One, two,", guidance_scale=2, negative_prompt="Red,")
    assert llm._engine.requests[-1].guide == tokenizer.encode("Red,")
    for reply in (llm.go_on("One, two,", GUIDED), llm.go_on([5, 6], GUIDED)):
        assert llm._engine.requests[-1].guide == llm._engine.requests[-1].prompt[-1:]
        reply.cancel()
    llm.generate("One, two,")
    assert llm._engine.requests[-1].guide == []
    with pytest.raises(ValueError, match=r"guidance_scale is 11; expected a number from 0\.0 to 10\.0"):
        llm.generate("One,", guidance_scale=11)
    with pytest.raises(ValueError, match="negative_prompt is 5; expected a text of at most 8,000 characters"):
        llm.generate("One,", negative_prompt=5)


def test_all_fits_means_index_zero(model_of):
    llm = model_of("ok")
    assert llm.fit([ChatMessage("system", "s"), *HI], 100).first_index == 0
    assert llm.fit([], 100).first_index == 0


def test_the_cut_moves_in_large_steps_and_is_the_same_for_the_same_conversation(model_of):
    llm = model_of("ok", max_seq_len=1024)
    messages = conversation(81)
    cuts = [llm.fit(messages[:n], 256).first_index for n in range(1, 82, 2)]
    assert cuts == sorted(cuts) and cuts[-1] > 20
    moves = [b - a for a, b in pairwise(cuts) if b > a]
    assert len(moves) <= len(cuts) / 3 and min(moves) >= 4
    assert cuts == [llm.fit(messages[:n], 256).first_index for n in range(1, 82, 2)]
    tokens = [llm.fit(messages[:n], 256).prompt_tokens for n in range(1, 82, 2)]
    assert max(tokens) <= 768 and min(tokens[20:]) > 400


def test_a_prompt_that_cannot_fit_is_a_clear_error_and_fit_tells_it(model_of):
    llm = model_of("ok", max_seq_len=128)
    messages = [*conversation(9), ChatMessage("user", "word " * 300)]
    fit = llm.fit(messages, 50)
    assert fit.first_index == 9 and fit.prompt_tokens > fit.max_seq_len == 128
    with pytest.raises(PromptTooLongError, match="that can be left out; the context holds 128, the reply"):
        llm.start(messages)
    assert not llm._engine.requests


def test_a_last_message_that_is_too_long_can_be_shown_shortened(model_of, tokenizer):
    llm = model_of("ok", max_seq_len=128)
    text = " ".join(f"w{number}" for number in range(2_000))
    messages = [ChatMessage("system", "Be brief."), *conversation(9), ChatMessage("user", text)]
    fit = llm.fit(messages, 50, shorten=True)
    reply = llm.start(messages, replace(GREEDY, max_new_tokens=50), shorten=True)
    assert fit.is_shortened and reply.is_shortened and fit.first_index == reply.first_index == 10
    assert 50 < reply.prompt_tokens == fit.prompt_tokens <= 78
    prompt = tokenizer.decode(llm._engine.requests[0].prompt)
    assert "Be brief." in prompt and "w0 w1 w2" in prompt and "[...]" in prompt and "w1998 w1999" in prompt
    assert not llm.fit(conversation(9), 50, shorten=True).is_shortened
    with pytest.raises(PromptTooLongError):  # a system message is never cut
        llm.start([ChatMessage("system", text), *HI], shorten=True)
    for content in ("x" * 100_000, "\n" * 5_000, "é" * 100_000, "🙂" * 20_000):
        assert llm.fit([ChatMessage("user", content)], 50, shorten=True).prompt_tokens <= 78


def test_what_follows_is_joined_to_the_turn_before_it_as_far_as_it_fits(model_of, tokenizer):
    """The lines of a room: one message for the template, and each can be left out by itself."""
    llm = model_of("ok", max_seq_len=256)
    lines = [ChatMessage("user", f"Ann: line {i}: " + "word " * 5 + ".", follows=i > 0) for i in range(60)]
    reply = llm.start(lines, replace(GREEDY, max_new_tokens=64))
    assert 30 < reply.first_index < 60 and reply.prompt_tokens <= 192
    prompt = tokenizer.decode(llm._engine.requests[0].prompt)
    kept = [f"Ann: line {i}: " + "word " * 5 + "." for i in range(reply.first_index, 60)]
    assert "\n".join(kept) in prompt and f"line {reply.first_index - 1}:" not in prompt
    assert prompt == tokenizer.decode(run_prompt(llm, [ChatMessage("user", "\n".join(kept))]))


def run_prompt(llm, messages):
    llm.start(messages, replace(GREEDY, max_new_tokens=64))
    return llm._engine.requests[-1].prompt


@pytest.mark.parametrize("template", ["llama3", "mistral", "plain"])
def test_pinned_messages_stay_and_what_they_take_is_left_to_no_other(model_of, template, tokenizer):
    llm = model_of("ok", template, max_seq_len=1024)
    messages = [ChatMessage("system", "SYSTEM TEXT"), *conversation(61)]
    before = llm.fit(messages, 200).first_index
    pins = [3, 4, 60]  # two that are left out without it, and one that is in
    messages = [replace(m, pinned=index in pins) for index, m in enumerate(messages)]
    fit, view = llm.fit(messages, 200), llm.inspect(messages, 200)
    llm.start(messages, replace(GREEDY, max_new_tokens=200))
    assert before <= fit.first_index < 60 and fit.prompt_tokens <= 1024 - 200
    assert messages[fit.first_index].role == "user"
    prompt = tokenizer.decode(llm._engine.requests[0].prompt)
    told = [index for index in range(61) if f"turn {index} " in prompt]
    assert told == [2, 3, *range(fit.first_index - 1, 61)], "turn i is message i + 1"
    shown = [part.index for part in view.parts if part.index is not None]
    assert shown == [0, 3, 4, *range(fit.first_index, 62)]


def test_pins_by_hand(model_of):
    """There is room for six; with three of the first pinned, three of the last are left at most."""
    llm = model_of("ok", max_seq_len=256)
    size = llm._fitting.size(conversation(1)[0])
    budget = 6 * size + llm._fitting._overhead
    talk = conversation(21)
    assert llm.fit(talk, 256 - budget).first_index in (16, 18)
    pinned = [replace(m, pinned=index in (0, 2, 4)) for index, m in enumerate(talk)]
    seen = [part.index for part in llm.inspect(pinned, 256 - budget).parts if part.index is not None]
    assert seen[:3] == [0, 2, 4] and seen[3:] in ([18, 19, 20], [20])  # a user's message begins
    every = [replace(m, pinned=True) for m in talk]
    with pytest.raises(PromptTooLongError, match="or the system prompt, unpin messages, or load"):
        llm.start(every)
    assert llm.fit(every, 50).prompt_tokens > 256


@patient(60)
@given(sizes=st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=2, max_size=40))
def test_every_pin_is_in_whatever_is_left_out(sizes):
    llm = ChatModel(ScriptedEngine([], max_seq_len=512), WORDS, PlainFormat(WORDS))
    talk = [ChatMessage(("user", "assistant")[at % 2], "a " * size + ".", pinned=pinned)
            for at, (size, pinned) in enumerate(sizes)]
    view = llm.inspect(talk, 128)
    seen = {part.index for part in view.parts if part.index is not None}
    assert seen == {at for at, one in enumerate(talk) if one.pinned or at >= view.fit.first_index}
    assert view.fit.prompt_tokens <= 384 or view.fit.first_index in (0, len(talk) - 1)


def test_joining_by_hand():
    user, reply = ChatMessage("user", "a"), ChatMessage("assistant", "b")
    more = ChatMessage("user", "c", follows=True)
    assert joined([user, more, more, reply, more]) == [ChatMessage("user", "a\nc\nc"), reply, more]
    assert joined([more, user]) == [more, user] and joined([]) == []


def test_a_last_message_that_leaves_little_room_is_still_answered(model_of):
    llm = model_of("ok", max_seq_len=256)
    messages = [*conversation(4), ChatMessage("user", "word " * 60)]
    reply = llm.start(messages, replace(GREEDY, max_new_tokens=4096))
    assert reply.first_index == 4 and 128 < reply.prompt_tokens < 256


def test_a_reply_may_ask_for_more_tokens_than_the_context_has():
    assert token_budget(4096, 512) == 3584
    assert token_budget(1024, 1 << 20) == 512


def test_first_kept_by_hand():
    """Five messages of 10 tokens and 30 bytes; steps of 60 bytes let cuts lie at 2 and 4."""
    def kept(budget, may_start=(True,) * 5, step=60):
        return first_kept(lambda _: 10, [30] * 5, may_start, budget, step)

    assert list(cut_places([30] * 5, [True] * 5, 60)) == [2, 4]
    assert list(cut_places([30] * 5, [False, True] * 2 + [False], 60)) == [1, 3]  # turns of 60
    assert list(cut_places([10, 10, 10, 90, 10, 10], [True] * 6, 60)) == [3, 4]  # round a long one
    assert [kept(budget) for budget in (50, 49, 30, 29, 10, 1)] == [0, 2, 2, 3, 4, 4]  # the last one stays
    assert kept(29, (True, False) * 2 + (True,)) == 4
    assert kept(45, (True, False, False, True, False)) == 3      # a conversation begins with a user
    assert kept(45, (False,) * 5) == 1                           # unless there is none
    assert kept(45, step=10**6) == 2                             # steps are halved until what fits has two
    assert first_kept(lambda _: 10, [], [], 5, 60) == 0


@patient(200)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=60), budget=st.integers(60, 400))
@example(sizes=[1, 1, 1, 1, 57, 1], budget=60)
def test_what_stays_fits_and_the_cut_moves_only_when_it_must(sizes, budget):
    lengths, step, before = [4 * size for size in sizes], budget, 0
    for end in range(1, len(sizes) + 1):
        first = first_kept(sizes.__getitem__, lengths[:end], [True] * end, budget, step)
        assert sum(sizes[first:end]) <= budget
        assert first == before or (first > before and sum(sizes[before:end]) > budget)
        could_stay = first
        while could_stay and sum(sizes[could_stay - 1:end]) <= budget:
            could_stay -= 1
        assert sum(lengths[could_stay:first]) <= 2 * step, "half of the budget"
        before = first


@pytest.mark.parametrize("bytes_per_token", [1, 3, 4])
def test_a_document_is_seen_for_as_long_as_it_fits(bytes_per_token):
    """900 of 1,400 tokens, and questions about it. (It was left out for the sake of a place behind it.)"""
    sizes = [20, 60] * 30 + [900, 100] + [15, 60] * 10
    lengths = [bytes_per_token * size for size in sizes]
    for end in range(61, len(sizes) + 1, 2):
        first = first_kept(sizes.__getitem__, lengths[:end], [True, False] * 40, 1400, 2000)
        assert first <= 60 or sum(sizes[60:end]) > 1400
    assert first > 60, "the last questions do not fit with it"


@pytest.mark.parametrize("bytes_per_token", [1, 2, 3, 4])
def test_texts_of_many_tokens_keep_as_much_as_others(bytes_per_token):
    """Steps are made for four bytes a token. (Of text with one, only the newest message stayed at times.)"""
    sizes, before, moves = [10, 30] * 200, 0, 0
    for end in range(1, 401, 2):
        first = first_kept(sizes.__getitem__, [bytes_per_token * size for size in sizes[:end]],
                           [True, False] * 200, 1400, 2000)
        assert not first or sum(sizes[first:end]) > 1400 / 2 - 40
        assert first >= before
        moves, before = moves + (first > before), first
    assert moves < 40


def test_what_is_long_gone_is_not_counted():
    asked = []
    first = first_kept(lambda index: asked.append(index) or 10, [30] * 1000, [True] * 1000, 100, 90)
    assert first >= 990 and min(asked) == 989


# -- who speaks next

def test_speakers_are_ranked_by_the_probability_of_their_line(model_of, tokenizer):
    llm = model_of("x")
    scores = llm.rank_speakers([("User", "hello"), ("Ann", "hi")], ["Ann", "Bo", "User"])
    expected = []
    for name in ["Ann", "Bo", "User"]:
        head = tokenizer.encode("User: hello\nAnn: hi\n", control=False)
        row = tokenizer.encode(f"User: hello\nAnn: hi\n{name}:", control=False)
        assert row[:len(head)] == head
        table = llm._engine.logits(row).double().log_softmax(-1)
        expected.append(sum(float(table[i - 1, row[i]]) for i in range(len(head), len(row))))
    assert scores == pytest.approx(expected)


def test_only_the_end_of_a_long_transcript_is_read(model_of):
    llm = model_of("x", max_seq_len=128)
    scores = llm.rank_speakers([("User", "word " * 50)] * 20, ["Ann", "Bartholomew"])
    assert all(score < 0 for score in scores)
    assert all(64 < len(ids) < 128 and ids[0] == llm.tokenizer.bos_id for ids, _ in llm._engine.scored)
    read = []
    for name in ("count", "encode"):
        method = getattr(llm.tokenizer, name)
        setattr(llm.tokenizer, name, lambda text, m=method, **more: read.append(text) or m(text, **more))
    llm.rank_speakers([("User", "word " * 50)] * 20_000, ["Ann", "Bo", "Cy"])
    llm.rank_speakers([("User", "word " * 200_000)], ["Ann", "Bo", "Cy"])
    assert sum(map(len, read)) < 40_000  # not once for each name, let alone all of it
    assert len(llm.rank_speakers([], ["Ann"])) == 1 and llm.rank_speakers([], []) == []


# -- as a whole

def test_many_threads_may_start_replies_at_once(model_of, tokenizer):
    end = tokenizer.token_id("<|eot_id|>")
    llm = model_of(script=lambda prompt: [*tokenizer.encode(f"{len(prompt)} 🙂", add_bos=False), end])
    gate = threading.Barrier(8)

    def work(number):
        gate.wait()
        found = []
        for turn in range(5):
            reply = llm.start([ChatMessage("user", f"{number} " * (number + turn + 1) + "<|eot_id|>")])
            found.append(run(reply)[0]["text"] == f"{reply.prompt_tokens} 🙂")
        return all(found)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_refusal_of_the_template_is_an_error_of_that_reply_only(model_of, tokenizer):
    source = "{% if 'bad' in messages[0].content %}{{ raise_exception('not that word') }}{% endif %}" + LLAMA3
    template = ChatTemplate(source, "x", tokenizer)
    llm = ChatModel(ScriptedEngine([tokenizer.token_id("<|eot_id|>")]), tokenizer, template)
    with pytest.raises(TemplateError, match="not that word"):
        llm.start([ChatMessage("user", "bad")])
    assert llm.fit([ChatMessage("user", "bad")], 50).prompt_tokens > 0  # who only looks is not refused
    assert run(llm.start(HI))[1].finish_reason == "eos"
    llm.close()


def test_names_of_others_stop_a_plain_reply(model_of):
    llm = model_of(" I am.\nAnn: so am I", "plain")
    texts, last = run(llm.start([ChatMessage("user", "Who?", "Ann")], reply_name="Bo"))
    assert texts["text"] == "I am." and last.finish_reason == "stop"


def test_info_status_and_close(model_of):
    llm = model_of("x")
    info = llm.info()
    assert (info["max_seq_len"], info["chat_template"], info["name"]) == (512, True, "scripted")
    assert info["vocab_size"] == 512 and llm.status() == {"running": 0}
    with llm:
        assert llm.count_tokens("") == 0
    llm.close()
    assert llm._engine.closed == 1


@pytest.mark.parametrize(("imported", "heavy"), [
    ("app", {"torch", "tokenizers", "sentencepiece", "jinja2.sandbox", "numpy"}),
    ("model.text.template_worker", {"torch", "tokenizers", "sentencepiece", "numpy", "model.loading"}),
    ("model.engine.loading", {"torch._dynamo", "sympy", "transformers"}),
])
def test_what_is_started_often_imports_nothing_that_takes_long(imported, heavy):
    """In this order: the server, a process for each model's template, and each engine."""
    code = (f"import sys, {imported}; heavy = {heavy} & set(sys.modules); assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True)
