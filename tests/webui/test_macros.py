"""The words in double braces of character cards: what each becomes, and that it is the same each time."""

import time

import pytest

from webui.chat.macros import MAX_DICE, Macros, without_angles

MOMENT = time.mktime((2026, 3, 2, 15, 4, 0, 0, 0, -1))
MACROS = Macros("Sera", "Ann", "conversation", "message", MOMENT)


@pytest.mark.parametrize(("text", "filled"), [
    ("{{char}} and {{user}}", "Sera and Ann"), ("{{Char}}{{ USER }}{{bot}}", "SeraAnnSera"),
    ("a{{// not told {{user}}}}b", "ab"), ("a{{comment: x}}b{{noop}}{{original}}", "ab"),
    ("{{hidden_key:lamp}}.", "."), ("{{reverse:abc}}", "cba"), ("{{reverse:{{char}}}}", "areS"),
    ("a\n\n{{trim}}\n\nb", "ab"), ("a{{newline}}b", "a\nb"), ("{{random:one}}", "one"),
    ("{{random:a\\,b}}", "a,b"), ("{{random::a}}", "a"), ("{{roll:1}}{{roll:d1}}{{roll 3d1+2}}", "115"),
    ("{{date}}, {{weekday}}, {{time}}", "March 2, 2026, Monday, 3:04 PM"),
    ("{{isodate}} {{isotime}}", "2026-03-02 15:04"),
    ("{{unknown:x}} {{}} {char} {{char", "{{unknown:x}} {{}} {char} {{char"), ("}} {{user}} {{", "}} Ann {{"),
    ("{{roll:0}}{{roll:x}}{{roll:101d6}}{{roll:1d9999999}}",
     "{{roll:0}}{{roll:x}}{{roll:101d6}}{{roll:1d9999999}}"),
    ("{{random}}{{pick:}}", "{{random}}"), ("{{{char}}}", "{{{char}}}")])
def test_each_word_by_hand(text, filled):
    assert MACROS.fill(text) == filled


def test_a_name_with_braces_is_not_filled_in_again():
    names = Macros("{{user}}", "{{random:a,b}}", "x")
    assert names.fill("{{char}} {{user}}") == "{{user}} {{random:a,b}}"


def test_chance_is_the_same_for_the_same_message_and_another_for_another_one():
    text = "{{random:" + ",".join(map(str, range(1_000))) + "}}"
    pick = text.replace("random", "pick")
    assert MACROS.fill(text) == MACROS.fill(text)
    messages = [MACROS.at(str(number), MOMENT) for number in range(20)]
    assert len({macros.fill(text) for macros in messages}) > 15
    assert len({macros.fill(pick) for macros in messages}) == 1
    others = [Macros("Sera", "Ann", str(number)) for number in range(20)]
    assert len({macros.fill(pick) for macros in others}) > 15
    first, second = MACROS.fill(f"{text} {text}").split()
    assert first != second


def test_dice_fall_on_all_sides_about_as_often():
    rolled = [int(Macros("", "", str(number)).fill("{{roll:d6}}")) for number in range(6_000)]
    assert all(800 < rolled.count(side) < 1_200 for side in range(1, 7))
    sums = [int(Macros("", "", str(number)).fill("{{roll:2d6-1}}")) for number in range(500)]
    assert {min(sums), max(sums)} == {1, 11}
    assert int(MACROS.fill(f"{{{{roll:{MAX_DICE}d1}}}}")) == MAX_DICE


@pytest.mark.parametrize("text", [
    "{{" * 20_000, "}}" * 20_000, "{{random:" * 2_000 + "}}" * 2_000,
    "{{reverse:" * 2_000 + "a" + "}}" * 2_000,
    "{{char}}" * 5_000, "{{roll:" + "9" * 10_000 + "}}", "{{\ud800}}", "{{random:\ud800,\ud800}}",
    "{{//" + "\0" * 9_000, "{{date:x}}", "{{random::::}}", "{{ \n }}", "{{pick:,,,}}",
    "{{x" * 20_000 + "}}" * 20_000])
def test_hostile_texts_come_back_as_texts(text):
    assert isinstance(MACROS.fill(text), str)


def test_older_cards_have_angles():
    assert without_angles("<BOT> meets <user>, <Char> <b>") == "{{char}} meets {{user}}, {{char}} <b>"
