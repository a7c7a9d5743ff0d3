"""Thinking and stop strings in a stream of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.text import thinking
from model.text.reply_text import ReplyText, StopFilter, ThinkSplitter
from model.text.thinking import THINK
from tests.helpers.text_samples import patient


def run(pieces, stop=(), **options):
    """(what each piece let out, what came at the end), as {channel: text} and the ReplyText."""
    text = ReplyText(stop, **options)
    found = {"text": "", "think": ""}
    for channel, shown in [p for piece in pieces for p in text.push(piece)] + text.finish():
        found[channel] += shown
    return found, text.stopped


def test_half_a_stop_string_is_held_back_until_it_is_clear():
    stops = StopFilter(["\nUser:"])
    assert [stops.push(part) for part in ("Hi", "\n", "Us", "e", " it")] == ["Hi", "", "", "", "\nUse it"]
    assert [stops.push(part) for part in ("\nUs", "er", ":", " more")] == ["", "", "", ""]
    assert stops.stopped and stops.finish() == ""


def test_a_reply_that_ends_in_half_a_stop_string_shows_it():
    stops = StopFilter(["STOP"])
    assert stops.push("we ST") == "we "
    assert stops.finish() == "ST" and not stops.stopped


def test_of_several_stop_strings_the_one_completed_first_counts():
    assert run(["one two three"], ["three", "two"]) == ({"text": "one ", "think": ""}, True)
    assert run(["a\nUser: b"], ["User:", "\nUser:"]) == ({"text": "a", "think": ""}, True)  # both end there
    assert run(["abcX"], ["abcX", "b"]) == ({"text": "a", "think": ""}, True)


def test_a_stop_string_at_the_very_start_of_a_reply_counts():
    """Though white space there is not shown."""
    assert run(["\n", "User: hi"], ["\nUser:"]) == ({"text": "", "think": ""}, True)


def test_a_think_block_goes_into_its_own_channel_without_tags():
    found, _ = run(["\n<thi", "nk>\nLet me", " see</th", "ink>\n\nIt is ", "4."])
    assert found == {"think": "Let me see", "text": "It is 4."}


def test_a_block_that_the_prompt_opened_needs_no_tag():
    assert run(["hm", "</think>", " yes"], at="think")[0] == {"think": "hm", "text": "yes"}


def test_a_block_that_never_closes_is_all_thinking():
    assert run(["<think>still </thi"])[0] == {"think": "still </thi", "text": ""}


def test_a_tag_in_the_middle_or_in_a_continued_reply_is_text():
    assert run(["Write <think>a</think>"])[0]["text"] == "Write <think>a</think>"
    assert run([" <think>"], at="text", continues=True)[0] == {"text": " <think>", "think": ""}


def test_half_an_opening_tag_at_the_end_is_text():
    assert run([" <thin"])[0]["text"] == "<thin"


def test_stop_strings_do_not_count_while_thinking():
    found, stopped = run(["<think>User: asks</think>ok User: no"], ["User:"])
    assert found == {"think": "User: asks", "text": "ok "} and stopped


def test_a_continued_reply_keeps_its_leading_space():
    assert run([" and so on"], at="text", continues=True)[0]["text"] == " and so on"
    assert run(["  and so on"])[0]["text"] == "and so on"


FORMATS = [THINK, *(found for _, found in thinking._FORMATS)]
PIECES = st.lists(st.sampled_from(["<", "think", ">", "<think>", "</", "</think>", "User", ":", "\n", " ",
                                   "a", "b", "\nUser:", "us", "ab", "<|channel|>", "final", "analysis",
                                   "<|message|>", "<|end|>", "<|start|>assistant", "[THINK]", "[/THI", "NK]",
                                   "<answer>", "</answer>"]), max_size=14)


@patient(500)
@given(pieces=PIECES, at=st.sampled_from(["start", "think", "text"]), continues=st.booleans(),
       think_format=st.sampled_from(FORMATS),
       stops=st.lists(st.sampled_from(["\nUser:", "User:", "ab", "b a", "aab", "</think>"]), max_size=3))
def test_how_the_text_is_cut_makes_no_difference(pieces, stops, at, continues, think_format):
    whole = "".join(pieces)
    options = {"at": at, "continues": continues, "think_format": think_format}
    expected = run(list(whole), stops, **options)
    assert run(pieces, stops, **options) == expected == run([whole], stops, **options)
    shown = expected[0]["text"]
    assert not any(stop in shown for stop in stops)


@patient(200)
@given(pieces=PIECES)
def test_without_stop_strings_nothing_is_lost(pieces):
    splitter = ThinkSplitter("text")
    parts = [piece for part in pieces for piece in splitter.push(part)] + splitter.finish()
    assert "".join(text for _, text in parts) == "".join(pieces)
