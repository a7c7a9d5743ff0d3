"""The shipped starter, by our own engine: some of the held-out questions, and what it must be able to do."""

from pathlib import Path
from random import Random

import pytest

from model import ChatMessage, SamplingParams, load_model
from tools.check_starter import ask, report
from tools.starter.corpus.personas import SHIPPED, random_persona
from tools.starter.questions import held_out_questions

STARTER = Path(__file__).parents[2] / "starter"


@pytest.fixture(scope="module")
def llm():
    model = load_model(STARTER, device="cpu")
    yield model
    model.close()


@pytest.fixture(scope="module")
def answered(llm):
    """Every fifth question, and all that ask for a name or come from a room."""
    chosen = [
        question
        for index, question in enumerate(held_out_questions())
        if index % 5 == 0 or question.people or question.exchange.skill in ("persona_name", "recall_name")
    ]
    return [ask(llm, question) for question in chosen]


def test_every_reply_ends_by_itself(answered):
    assert [one.reply for one in answered if not one.ended] == []


def test_most_held_out_questions_are_answered_right(answered):
    sample = [one for one in answered if not one.question.people]
    wrong = [(one.question.messages[-1][1], one.reply) for one in sample if not one.right]
    assert len(wrong) <= 0.2 * len(sample), wrong


def test_it_keeps_its_turn_in_a_room_and_remembers_a_name_told_four_turns_earlier(answered):
    figures = report(answered, 1.0)
    for ability in ("keeps_to_its_turn_in_a_room_of_three", "remembers_a_name_told_four_turns_earlier"):
        assert figures[ability]["right"] >= 0.9 * figures[ability]["asked"] > 0, ability


def test_it_answers_as_the_bot_it_is_told_to_be(llm):
    """The shipped bots, and invented ones: it reads the name instead of knowing it."""
    rng = Random(5)
    personas = [*SHIPPED, *(random_persona(rng) for _ in range(6))]
    replies = {persona.name: say(llm, persona.text, "Who are you?") for persona in personas}
    assert sum(name in reply for name, reply in replies.items()) >= len(personas) - 1, replies


def say(llm, system, text):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return "".join(llm.stream(messages, SamplingParams(temperature=0.0)))


def test_without_a_system_message_it_still_answers(llm):
    text = "".join(
        llm.stream(
            [{"role": "user", "content": "What is the capital of France?"}], SamplingParams(temperature=0.0)
        )
    )
    assert "Paris" in text


def test_the_addressed_bot_is_the_likeliest_next_speaker(llm):
    transcript = [
        ("Robin", "Hello! I am Robin."),
        ("Marlow", "Good evening. I am Marlow."),
        ("User", "Marlow, where do you live?"),
    ]
    ranked = dict(
        zip(
            ("Robin", "Marlow", "Ada"), llm.rank_speakers(transcript, ["Robin", "Marlow", "Ada"]), strict=True
        )
    )
    assert max(ranked, key=ranked.get) == "Marlow"


def test_it_is_small_and_quantized(llm):
    size = sum(path.stat().st_size for path in STARTER.glob("*.safetensors"))
    assert size < 30e6
    assert llm.info()["quantization"].startswith("4-bit GPTQ")
    assert (
        llm.start([ChatMessage("user", "Hi")], SamplingParams(temperature=0.0, max_new_tokens=4)) is not None
    )
