"""The starter's corpus: the same for the same seed, rendered as the page does, free of the check's own."""

import json
import re
from pathlib import Path
from random import Random

import pytest

from model.text.messages import joined
from tools.starter.corpus import documents
from tools.starter.corpus.personas import SHIPPED, random_persona
from tools.starter.corpus.phrases import FOLDER, read_phrases
from tools.starter.corpus.render import Line, render, view
from tools.starter.corpus.rooms import draw_room
from tools.starter.corpus.words import CHOICE, expand
from tools.starter.questions import answers, held_out_questions, stays_in_turn
from webui.chat.bot_view import bot_view

BOTS = Path(__file__).parents[2] / "starter" / "bots"


def plain(text):
    return re.sub(r"[^\w{}']+", " ", text).strip().lower()


def words_of(template):
    """The words of a phrasing, slots as one blank: what two phrasings are compared by."""
    return " ".join(
        re.sub(r"\{\w+\}", "_", CHOICE.sub(lambda match: match[1].split("|")[0], template)).lower().split()
    )


def test_the_corpus_is_the_same_for_the_same_seed_and_differs_for_another():
    assert documents(3, 40) == documents(3, 40)
    assert documents(3, 40) != documents(4, 40)


def test_no_held_out_phrasing_is_among_those_of_training():
    for file in sorted(path.stem for path in FOLDER.glob("*.txt")):
        for name, section in read_phrases(file).items():
            trained = {words_of(line) for key in ("ask", "do", "tell") for line in section.get(key, [])}
            for line in section.get("check", []):
                assert words_of(line) not in trained, f"{file}.txt [{name}]: {line}"


def test_no_question_of_the_check_occurs_in_the_training_text():
    """The questions, and the held-out phrasings with anything in their slots, over a million characters."""
    text = plain(" ".join(document.text for document in documents(1, 2000)))
    questions = held_out_questions()
    assert len(questions) == 200
    for question in questions:
        asked = plain(question.exchange.question)
        assert f" {asked} " not in text, question.exchange.question
    for file in sorted(path.stem for path in FOLDER.glob("*.txt")):
        for section in read_phrases(file).values():
            for line in section.get("check", []):
                pattern = re.sub(r"\\\{\w+\\\}", r"[\\w' ]{1,30}", re.escape(plain(line)))
                assert not re.search(pattern, text), line


def test_the_right_answers_of_the_check_are_judged_right_and_others_wrong():
    questions = held_out_questions()
    assert all(question.right(question.exchange.answer) for question in questions)
    sums = [question for question in questions if question.exchange.skill == "add"]
    assert sums and not any(answers(one.exchange, one.persona, "That is 99.") for one in sums)
    assert not stays_in_turn("I am Ada.\nBen: And I am Ben.", ("User", "Ada", "Ben"))
    assert stays_in_turn("I am Ada. Ben: a nice name!", ("User", "Ada", "Ben"))


def test_the_check_remembers_over_at_least_four_turns():
    for question in held_out_questions():
        if question.category == "memory":
            users = [content for role, content in question.messages if role == "user"]
            value = question.exchange.accept[0].lower()
            told = [index for index, content in enumerate(users) if value in content.lower()]
            assert told and told[0] <= len(users) - 6, question.messages


def session_of(lines, bots, user, persona_texts):
    """The same talk as a session file and its bots."""
    records = {
        f"{index:016x}": {"id": f"{index:016x}", "name": name, "persona": persona_texts[name]}
        for index, name in enumerate(bots, 1)
    }
    ids = {record["name"]: number for number, record in records.items()}
    path = [
        {"id": f"m{index}", "author": ids.get(line.by, "user"), "name": line.by, "text": line.text,
         "thinking": "", "created": 0.0}
        for index, line in enumerate(lines)
    ]
    session = {
        "bots": [{"id": number, "muted": False} for number in records],
        "user_name": "" if user == "User" else user,
        "system_prompt": "",
    }
    return session, records, ids, path


@pytest.mark.parametrize("seed", range(12))
def test_a_room_is_rendered_as_the_page_renders_it(seed):
    room = draw_room(Random(seed))
    texts = {bot.name: bot.text for bot in room.bots}
    session, records, ids, path = session_of(room.lines, room.names, room.user, texts)
    for bot in room.bots:
        seen = bot_view(session, records, records[ids[bot.name]], path)
        ours = view(room.lines, bot.name, bot.text, room.names, room.user)
        assert [(message.role, message.content) for message in joined(seen.messages)] == ours


def test_a_talk_with_one_bot_is_rendered_as_the_page_renders_it():
    persona = random_persona(Random(1))
    lines = [Line(persona.name, "Welcome!"), Line("User", "Hi"), Line(persona.name, "Hello!")]
    session, records, ids, path = session_of(lines, [persona.name], "User", {persona.name: persona.text})
    seen = bot_view(session, records, records[ids[persona.name]], path)
    ours = view(lines, persona.name, persona.text, [persona.name], "User")
    assert [(message.role, message.content) for message in joined(seen.messages)] == ours
    assert ours[-1] == ("user", "(go on)")


def test_rendering_by_hand():
    text = render(
        [("system", "You are Ada. "), ("user", "Hi"), ("assistant", "Hello!")], add_generation_prompt=True
    )
    assert text == "<s><|system|>You are Ada.</s><|user|>Hi</s><|assistant|>Hello!</s><|assistant|>"


def test_expand_picks_inner_choices_first():
    assert expand(Random(1), "[a[b|b]|ab] {x}", x=1) == "ab 1"


def test_a_line_that_is_neither_section_nor_phrase_is_named(tmp_path, monkeypatch):
    (tmp_path / "bad.txt").write_text("[capital]\nno key here\n", encoding="utf-8")
    monkeypatch.setattr("tools.starter.corpus.phrases.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"bad\.txt line 2"):
        read_phrases("bad")


def test_the_shipped_bots_are_the_ones_that_were_trained():
    bots = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(BOTS.glob("*.json"))]
    assert [(bot["name"], bot["persona"], bot["greeting"]) for bot in bots] == [
        (one.name, one.text, one.greeting) for one in SHIPPED
    ]
