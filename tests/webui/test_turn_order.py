"""Who speaks next, by hand."""

from __future__ import annotations

import pytest

from webui.chat.speakers import Speaker
from webui.chat.turn_order import after_user, mentioned, next_speaker

ROOM = [Speaker("1", "Marlow"), Speaker("2", "Otto"), Speaker("3", "Lin")]


def nobody_ranks(names):
    raise AssertionError("the model was asked")


def test_in_turn_goes_round():
    speaker, said = None, []
    for _ in range(5):
        (speaker,) = after_user("in_turn", ROOM, "hello", speaker, nobody_ranks)
        said.append(speaker)
    assert said == ["1", "2", "3", "1", "2"]


def test_in_turn_whoever_is_named_first_answers():
    assert after_user("in_turn", ROOM, "lin, what of Otto?", "1", nobody_ranks) == ["3"]
    assert next_speaker("in_turn", ROOM, "lin?", "1", nobody_ranks) == "2"  # among themselves it goes round


def test_in_turn_begins_anew_after_somebody_who_left_the_room():
    assert after_user("in_turn", ROOM, "", "gone", nobody_ranks) == ["1"]


def test_all_speak_once_in_the_order_of_the_room():
    assert after_user("all", ROOM, "hello", "2", nobody_ranks) == ["1", "2", "3"]


def test_those_who_are_named_speak_in_the_order_of_naming():
    assert after_user("mention", ROOM, "lin, what do you think? And @Otto?", "1", nobody_ranks) == ["3", "2"]


def test_without_a_name_the_last_one_answers_again():
    assert after_user("mention", ROOM, "and then?", "2", nobody_ranks) == ["2"]
    assert after_user("mention", ROOM, "and then?", None, nobody_ranks) == ["1"]


@pytest.mark.parametrize(("text", "who"), [
    ("Linda and Ottoline went out", []), ("LIN!", ["3"]), ("(Otto)", ["2"]), ("Otto's boat", ["2"]),
    ("marlow_2", []), ("", [])])
def test_only_whole_words_are_names(text, who):
    assert mentioned(ROOM, text) == who


def test_names_in_scripts_without_spaces_are_found():
    assert mentioned([Speaker("9", "小林")], "你好小林先生") == ["9"]


def test_a_name_with_signs_is_no_pattern():
    assert mentioned([Speaker("9", "C.(*")], "ask C.(* now") == ["9"]


def test_the_model_picks_the_likeliest():
    assert after_user("model", ROOM, "", None, lambda names: [-9.0, -1.0, -5.0]) == ["2"]


def test_among_themselves_nobody_speaks_twice_in_a_row():
    asked = []

    def rank(names):
        asked.append(names)
        return [0.0] * len(names)

    assert next_speaker("model", ROOM, "", "1", rank) == "2"
    assert asked == [["Otto", "Lin"]]


def test_alone_in_the_room_one_goes_on():
    assert next_speaker("model", ROOM[:1], "", "1", nobody_ranks) == "1"
    assert next_speaker("in_turn", ROOM[:1], "", "1", nobody_ranks) == "1"


def test_a_bot_that_names_another_hands_over_and_otherwise_it_goes_round():
    assert next_speaker("mention", ROOM, "What do you say, Lin?", "1", nobody_ranks) == "3"
    assert next_speaker("mention", ROOM, "I, Otto, say nothing.", "2", nobody_ranks) == "3"


def test_on_click_nobody_answers_and_an_empty_room_is_silent():
    assert after_user("manual", ROOM, "Marlow!", None, nobody_ranks) == []
    assert after_user("all", [], "hello", None, nobody_ranks) == []
