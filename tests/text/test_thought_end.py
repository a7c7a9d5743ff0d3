"""Thoughts that are closed before the model would: as each family closes them, and without reading again."""

from __future__ import annotations

import random

import numpy as np
import pytest

from model import ReplyDone, SamplingParams, ScoredToken, TextDelta, load_model
from model.text.constraint import Constraint
from model.text.messages import ChatMessage, Prompt
from model.text.reply_text import ReplyText
from model.text.thinking import efforts, thinking_variables, thinks
from model.text.thought_end import ThoughtEnd
from tests.helpers.family_templates import FAMILIES, family_folder
from tests.helpers.text_samples import TEMPLATES
from tests.helpers.tiny_models import write_model

USER = ChatMessage("user", "What is 2 + 2?")


def allowed(end, vocab_size):
    mask = np.zeros((vocab_size + 31) // 32, np.int32)
    end.fill_mask(mask)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size].nonzero()[0].tolist()


def thought_of(family, tokenizer):
    """The tokens of a reply up to the end of "Let me see.", before whatever closes it."""
    return tokenizer.encode(family.reply[:family.reply.index("Let me see.") + 11], add_bos=False)


def closing(end, tokenizer):
    """What the model is held to from here on, taken as it comes."""
    ids = []
    while not end.is_free:
        token_id, = allowed(end, tokenizer.vocab_size)
        end.accept([token_id])
        ids.append(token_id)
    return ids


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thought_that_is_closed_is_a_thought_and_what_follows_is_the_answer(families, name):
    family, tokenizer, chat, _folder = families[name]
    prompt = chat.prompt([USER])
    end = ThoughtEnd(prompt, tokenizer, None)
    *thought, last = thought_of(family, tokenizer)
    end.accept(thought)
    assert end.is_free and end.close() and end.is_free, "the token that is being computed may still come"
    end.accept([last])
    ids = [*thought, last, *closing(end, tokenizer), *tokenizer.encode_within("It is 4.")]
    text, detokenizer = ReplyText((), prompt.at, False, prompt.think_format), tokenizer.detokenizer()
    found = {"think": "", "text": ""}
    for token_id in ids:
        for channel, piece in text.push(detokenizer.push(token_id)):
            found[channel] += piece
    for channel, piece in text.push(detokenizer.finish()) + text.finish():
        found[channel] += piece
    assert (found["think"].strip(), found["text"].strip()) == ("Let me see.", "It is 4.")
    assert not end.close(), "there is no thought any more"


def test_qwen_closes_a_thought_on_a_line_of_its_own(families):
    _family, tokenizer, chat, _folder = families["qwen3"]
    end = ThoughtEnd(chat.prompt([USER]), tokenizer, 3)
    end.accept(tokenizer.encode("<think>\nA cat sat on the mat.", add_bos=False)[:2])
    while end.is_free:
        end.accept(tokenizer.encode_within("x"))
    assert tokenizer.decode(closing(end, tokenizer), skip_control=False) == "\n</think>\n\n"


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_a_budget_is_counted_in_tokens_of_the_thought_alone(families, budget):
    _family, tokenizer, chat, _folder = families["qwen3"]
    end = ThoughtEnd(chat.prompt([USER]), tokenizer, budget)
    opening = tokenizer.encode("<think>", add_bos=False)
    assert end.is_free
    end.accept(opening)
    thought = tokenizer.encode_within("one two three four five six")[:budget]
    for token_id in thought:
        assert end.is_free
        end.accept([token_id])
    assert not end.is_free
    at_once = ThoughtEnd(Prompt("...<think>\n", at="think"), tokenizer, 0)
    assert not at_once.is_free, "where the prompt opens the thought, the closing is what comes first"
    closing(at_once, tokenizer)
    assert at_once.is_free and at_once.count_possible(thought) == len(thought)


def test_a_thought_is_not_closed_within_a_character(families):
    _family, tokenizer, chat, _folder = families["qwen3"]
    end = ThoughtEnd(chat.prompt([USER]), tokenizer, 1)
    end.accept(tokenizer.encode("<think>", add_bos=False))
    parts = tokenizer.encode_within("🙂")
    assert len(parts) > 1, "the sample's vocabulary spells it in bytes"
    for part in parts:
        assert end.is_free
        end.accept([part])
    assert not end.is_free


def test_guesses_are_taken_back_on_both_sides_of_the_end(families):
    """As a draft is checked: whatever is guessed, the state after the true tokens is the same."""
    _family, tokenizer, chat, _folder = families["deepseek_r1"]
    rng = random.Random(1)
    true = tokenizer.encode_within("I think that this is a long thought indeed.")
    plain, guessed = (ThoughtEnd(chat.prompt([USER]), tokenizer, 5) for _ in range(2))
    for token_id in true:
        if not plain.is_free:
            break
        draft = [rng.choice([token_id, *true]) for _ in range(rng.randrange(1, 9))]
        count = guessed.count_possible(draft)
        guessed.accept(draft[:count])
        assert guessed.is_free, "no row of a draft is held to anything"
        guessed.take_back(count)
        plain.accept([token_id])
        guessed.accept([token_id])
    assert closing(plain, tokenizer) == closing(guessed, tokenizer) != []


def test_no_answer_that_a_model_began_is_closed(families):
    for name, (family, tokenizer, chat, _folder) in families.items():
        end = ThoughtEnd(chat.prompt([USER]), tokenizer, 40)
        end.accept(tokenizer.encode(family.reply, add_bos=False))
        assert end.is_free, name
        end.accept(tokenizer.encode_within("And so on, and on, without end: one, two, three, four."))
        assert end.is_free and not end.close(), name


def test_what_a_template_can_tell_is_read_off_the_variables_of_its_code():
    assert {name for name, family in FAMILIES.items() if thinks(family.template)} == set(FAMILIES)
    assert not any(thinks(template) for name, template in TEMPLATES.items() if "think" not in template)
    assert not thinks(None)
    assert efforts(FAMILIES["qwen3"].template) == ("none",)
    assert efforts("{% if reasoning_effort is defined %}{{ reasoning_effort }}{% endif %}") == (
        "low", "medium", "high")
    assert efforts("{% if thinking %}{{ reasoning_effort }}{% endif %}") == ("none", "low", "medium", "high")
    assert efforts("thinking {{ message.thinking }} {{ 'enable_thinking' }} {% set thinking = 1 %}") == ()
    assert efforts(None) == ()


# -- a real, small model

@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A model whose prompts open a thought that never ends by itself."""
    folder = family_folder(tmp_path_factory.mktemp("thinker"), "qwen3")
    before, after = FAMILIES["qwen3"].template.rsplit("'<|im_start|>assistant\\n'", 1)
    (folder / "chat_template.jinja").write_text(
        before + "'<|im_start|>assistant\\n<think>\\n'" + after, encoding="utf-8")
    write_model(folder, vocab_size=512)
    with load_model(folder, device="cpu", threads=1) as llm:
        yield llm


def never_closing(llm, **more):
    close = llm.tokenizer.token_id("</think>")
    return SamplingParams(temperature=0, banned_tokens=(*llm.tokenizer.eos_ids,),
                          logit_bias={close: -50.0}, **more)


def run(reply):
    """({channel: [tokens so far, text]}, the end)."""
    found = {"think": [0, ""], "text": [0, ""]}
    for last in reply.events():
        if isinstance(last, TextDelta):
            found[last.channel] = [last.num_tokens_so_far, found[last.channel][1] + last.text]
    return found, last


def test_the_answer_goes_on_from_what_is_in_the_cache_as_if_it_had_been_read(thinker):
    """Nothing is read again: one request, whose tokens are those that a prompt with all of it would give."""
    llm, close = thinker, thinker.tokenizer.token_id("</think>")
    before = llm.tally().prompt_tokens
    reply = llm.start([USER], never_closing(llm, max_new_tokens=40, thinking_budget=12), logprobs=0)
    *events, last = reply.events()
    assert isinstance(last, ReplyDone) and (last.finish_reason, last.stats.new_tokens) == ("length", 40)
    assert llm.tally().prompt_tokens - before == last.stats.prompt_tokens == reply.prompt_tokens
    ids = [event.token_id for event in events if isinstance(event, ScoredToken)]
    assert 12 <= ids.index(close) <= 13, "a line break may come before it"
    begun = ids.index(close) + 1
    while llm.tokenizer.token_text(ids[begun]).isspace():
        begun += 1
    prompt = llm._format.prompt([USER])
    read = [*llm._fitting.token_ids(prompt), *ids[:begun]]
    anew = llm.go_on(read, never_closing(llm, max_new_tokens=40 - begun), logprobs=0)
    assert [event.token_id for event in anew.events() if isinstance(event, ScoredToken)] == ids[begun:]


def test_a_thought_is_closed_when_somebody_asks_for_the_answer(thinker):
    reply = thinker.start([USER], never_closing(thinker, max_new_tokens=400))
    thought = text = ""
    asked = False
    for event in reply.events():
        if isinstance(event, TextDelta) and event.channel == "think":
            thought += event.text
            if not asked and event.num_tokens_so_far > 5:
                asked = reply.answer_now()
                assert asked
        elif isinstance(event, TextDelta):
            text += event.text
            if len(text) > 20:
                assert not reply.answer_now()
                reply.cancel()
    assert thought and text and "</think>" not in thought + text


def test_a_form_holds_the_answer_that_was_asked_for(thinker):
    reply = thinker.start([USER], never_closing(thinker, max_new_tokens=60, thinking_budget=5),
                          constraint=Constraint.choice(["yes", "no"]))
    assert run(reply)[0]["text"][1] in ("yes", "no")


def test_what_the_template_says_of_the_effort_is_counted_where_the_prompt_is_fitted(tmp_path):
    """Where memory begins, and how full the context is, hang on it: such a template may write a page."""
    folder = family_folder(tmp_path, "qwen3")
    template = FAMILIES["qwen3"].template
    (folder / "chat_template.jinja").write_text(
        "{%- if reasoning_effort is defined %}{{ 'Think ' + 'hard ' * 150 }}{% endif %}" + template, "utf-8")
    write_model(folder, vocab_size=512, max_position_embeddings=2_048)
    messages = [ChatMessage("user" if at % 2 == 0 else "assistant", "What is 2 + 2? " * 8) for at in range(9)]
    with load_model(folder, device="cpu", threads=1, max_seq_len=1_024) as llm:
        variables = thinking_variables("high")
        plain, told = llm.fit(messages, 64), llm.fit(messages, 64, variables=variables)
        assert told.first_index > plain.first_index or told.prompt_tokens > plain.prompt_tokens + 100
        view = llm.inspect(messages, 64, variables=variables)
        assert (view.fit.first_index, view.fit.prompt_tokens) == (told.first_index, told.prompt_tokens)
        reply = llm.start(messages, SamplingParams(max_new_tokens=64, reasoning_effort="high"))
        reply.cancel()
        assert (reply.first_index, reply.prompt_tokens) == (told.first_index, told.prompt_tokens)


def test_a_budget_that_is_no_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="thinking_budget is -1; expected a whole number from 0"):
        SamplingParams(thinking_budget=-1)
    with pytest.raises(ValueError, match="reasoning_effort is 'most'; expected one of an empty text, none"):
        SamplingParams(reasoning_effort="most")
