"""Thoughts of every family: shown as thoughts, never as the answer; given back as the template expects."""

from __future__ import annotations

import random

import numpy as np
import pytest
from transformers import AutoTokenizer

from model import SamplingParams, TextDelta, load_model
from model.text.constraint import AfterThought, Constraint, ConstraintCompiler
from model.text.messages import ChatMessage, as_messages
from model.text.reply_text import ReplyText
from model.text.thinking import THINK, think_format
from tests.helpers.family_templates import FAMILIES, family_folder
from tests.helpers.text_samples import TEMPLATES
from tests.helpers.tiny_models import write_model

USER = ChatMessage("user", "What is 2 + 2?")
OLD = ChatMessage("assistant", "It is 4.", thinking="Let me see.")
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The <weather> é.",
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def read(tokenizer, prompt, token_ids, continues=False):
    """({channel: text}, why it stopped or "") of a reply that comes token by token."""
    text, detokenizer = ReplyText((), prompt.at, continues, prompt.think_format), tokenizer.detokenizer()
    found, reason = {"think": "", "text": ""}, ""
    for token_id in token_ids:
        if token_id in tokenizer.eos_ids:
            reason = "eos"
            break
        for channel, piece in text.push(detokenizer.push(token_id)):
            found[channel] += piece
        if text.stopped:
            return found, text.reason
    for channel, piece in text.push(detokenizer.finish()) + text.finish():
        found[channel] += piece
    return found, reason


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thought_is_shown_as_one_and_the_reply_ends_with_the_answer(families, name):
    family, tokenizer, chat, _folder = families[name]
    prompt = chat.prompt([USER])
    assert (prompt.at == "think") == family.thinks_at_once
    ids = tokenizer.encode(family.reply + family.eos + "Not shown.", add_bos=False)
    found, reason = read(tokenizer, prompt, ids)
    assert (found["think"].strip(), found["text"].strip(), reason) == ("Let me see.", "It is 4.", "eos")


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_without_a_thought_is_shown_too(families, name):
    family, tokenizer, chat, _folder = families[name]
    reply = "" if family.thinks_at_once else "It is 4."
    always = {"gpt_oss": "<|channel|>final<|message|>It is 4.", "solar_open": "<|content|>It is 4."}
    reply = always.get(name, reply)
    ids = tokenizer.encode(reply + family.eos, add_bos=False)
    found, _ = read(tokenizer, chat.prompt([USER]), ids)
    assert found == {"think": "", "text": reply and "It is 4."}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reply_cut_within_its_thought_goes_on_thinking(families, name):
    """However often it is cut: what the model wrote once stands in the prompt once."""
    family, tokenizer, chat, _folder = families[name]
    head = chat.prompt([USER])
    ids = tokenizer.encode(family.reply + family.eos, add_bos=False)
    whole, thought = read(tokenizer, head, ids)[0], ""
    cut = next(i for i in range(len(ids)) if read(tokenizer, head, ids[:i])[0]["think"].endswith("me"))
    thought = read(tokenizer, head, ids[:cut])[0]["think"]
    for piece in (" s", "ee", "."):
        prompt = chat.prompt([USER], reply_thinking=thought)
        assert prompt.at == "think" and prompt.text.startswith(head.text)
        assert prompt.text.endswith(thought) and prompt.text.count("Let") == 1
        found, _ = read(tokenizer, prompt, tokenizer.encode_within(piece), continues=True)
        assert found == {"think": piece, "text": ""}
        thought += piece
    rest = family.reply[family.reply.index("see.") + 4:] + family.eos
    found, reason = read(tokenizer, chat.prompt([USER], reply_thinking=thought),
                         tokenizer.encode(rest, add_bos=False), continues=True)
    assert ((thought + found["think"]).strip(), found["text"]) == (whole["think"].strip(), whole["text"])
    assert reason == "eos"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reply_cut_within_its_answer_goes_on_after_its_thought(families, name):
    family, tokenizer, chat, _folder = families[name]
    prompt = chat.prompt([USER], reply_prefix="It is", reply_thinking="Let me see.\n")
    assert prompt.at == "text" and prompt.text.endswith("It is") and prompt.text.count("Let me see.") == 1
    end = family.reply[family.reply.index("It is") + 5:] + family.eos
    found, reason = read(tokenizer, prompt, tokenizer.encode(end, add_bos=False), continues=True)
    assert (found["think"], found["text"].rstrip(), reason) == ("", " 4.", "eos")


@pytest.mark.parametrize("name", FAMILIES)
def test_old_thoughts_are_given_to_the_template_as_it_expects_them(families, name):
    """As transformers renders a message with `reasoning_content` and `thinking`, and never twice."""
    family, _tokenizer, chat, folder = families[name]
    reference = AutoTokenizer.from_pretrained(folder)
    messages = [USER, OLD, ChatMessage("user", "And 3 + 3?")]
    dicts = [{"role": m.role, "content": m.content} for m in messages]
    dicts[1] |= {"reasoning_content": OLD.thinking, "thinking": OLD.thinking}
    text = chat.prompt(messages).text
    assert text == reference.apply_chat_template(dicts, tokenize=False, add_generation_prompt=True)
    assert text.count("Let me see.") == family.shows_old_thoughts


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thought_that_came_back_within_the_text_is_taken_out_of_it(families, name):
    """Programs send a reply back as it came. A mask that hides its tags would keep it in the history."""
    family, _tokenizer, chat, _folder = families[name]
    opened = family.reply
    if family.thinks_at_once:
        opened = think_format(family.template).opens[0] + opened
    back = [USER, ChatMessage("assistant", opened), USER]
    split = [USER, OLD, USER]
    assert "".join(chat.prompt(back).text.split()) == "".join(chat.prompt(split).text.split())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
def test_prompts_are_those_of_transformers_tools_included(families, process, name, tools):
    family, tokenizer, chat, folder = families[name]
    reference = AutoTokenizer.from_pretrained(folder)
    system = ChatMessage("system", "Be brief.")
    for messages in ([USER], [system, USER], [USER, OLD, USER], [system, USER, OLD]):
        dicts = [{"role": m.role, "content": m.content} for m in messages]
        wanted = reference.apply_chat_template(dicts, tools=tools, tokenize=False, add_generation_prompt=True)
        variables = {"messages": dicts, "tools": tools, "documents": None, "add_generation_prompt": True,
                     **tokenizer.special_tokens}
        assert process.render(family.template, variables) == wanted
        if tools is None and (chat.takes_system or system not in messages):
            assert chat.prompt([ChatMessage(m.role, m.content) for m in messages]).text == wanted


def test_the_format_is_read_off_the_templates_text():
    names = {name: think_format(family.template).name for name, family in FAMILIES.items()}
    assert names == {
        "qwen3": "think", "deepseek_r1": "think", "gpt_oss": "channels", "gemma4": "channel",
        "magistral": "[THINK]", "seed_oss": "seed", "cohere": "cohere", "open_thinker": "begin_of_thought",
        "hunyuan": "think-answer", "granite": "think-response", "kimi_k2": "think", "kimi_k3": "xtml",
        "glm4": "think", "exaone_deep": "thought", "apriel": "apriel", "solar_open": "begin"}
    assert {think_format(template) for template in TEMPLATES.values()} == {THINK} == {think_format(None)}
    assert think_format("a <reasoning> b").close == "</reasoning>"
    assert think_format("a ◁think▷ b").close == "◁/think▷"


def test_a_mark_that_a_person_types_opens_no_thought(families):
    for name, (family, tokenizer, chat, _folder) in families.items():
        typed = family.special[-1] + think_format(family.template).opens[0]
        prompt = chat.prompt([ChatMessage("user", typed)])
        ids = tokenizer.encode_masked(prompt.text, prompt.hidden)
        harmless = chat.prompt([USER])
        assert prompt.at == harmless.at, name
        wanted = tokenizer.encode_masked(harmless.text, harmless.hidden)
        assert [i for i in ids if i in tokenizer.control_ids] == [i for i in wanted
                                                                  if i in tokenizer.control_ids], name


def test_thoughts_come_in_as_other_programs_name_them():
    found = as_messages([{"role": "assistant", "content": "a", "reasoning_content": "b"},
                         {"role": "assistant", "content": "a", "thinking": "c"}])
    assert [message.thinking for message in found] == ["b", "c"]
    with pytest.raises(ValueError, match="thinking is list; expected text"):
        as_messages([{"role": "assistant", "content": "a", "thinking": ["c"]}])


# -- constraints

@pytest.mark.parametrize("name", ["deepseek_r1", "gpt_oss", "kimi_k3", "apriel", "solar_open"])
def test_a_constraint_begins_when_the_thought_is_over(families, name):
    """Any token is possible in the thought but the reply's end; then only what the constraint allows. Guesses
    that prove wrong are taken back on both sides of the border."""
    family, tokenizer, chat, _folder = families[name]
    prompt = chat.prompt([USER])
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocab_size)
    mark = prompt.think_format.mark_before_answer(prompt.at)
    matcher = AfterThought(compiler.matcher(Constraint.choice(["yes", "no"])), mark, tokenizer)
    thought = tokenizer.encode(family.reply[:family.reply.index("It is 4.")], add_bos=False)
    while tokenizer.token_text(thought[-1]).isspace():
        thought.pop()
    yes = tokenizer.encode_within("yes")
    rng = random.Random(0)
    for token_id in thought:
        possible = _possible(matcher, tokenizer.vocab_size)
        assert possible == set(range(tokenizer.vocab_size)) - tokenizer.eos_ids
        guess = [*thought[thought.index(token_id):], *yes] if rng.random() < 0.5 else [token_id, token_id]
        count = matcher.count_possible(guess)
        matcher.accept(guess[:count])
        matcher.take_back(count)
        matcher.accept([token_id])
    assert not matcher.is_complete
    assert matcher.count_possible([*yes, *yes]) == len(yes)
    assert {tokenizer.token_text(i) for i in _possible(matcher, tokenizer.vocab_size)} <= {
        "y", "ye", "yes", "n", "no"}
    matcher.accept(yes)
    assert matcher.is_complete
    compiler.close()


def test_a_constrained_reply_of_a_model_whose_prompt_opens_the_thought_is_not_empty(tmp_path):
    folder = family_folder(tmp_path, "qwen3")
    before, after = FAMILIES["qwen3"].template.rsplit("'<|im_start|>assistant\\n'", 1)
    template = before + "'<|im_start|>assistant\\n<think>\\n'" + after
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_model(folder, vocab_size=512)
    with load_model(folder, device="cpu", threads=1) as llm:
        close = llm.tokenizer.token_id("</think>")
        for seed in range(5):
            params = SamplingParams(seed=seed, temperature=1.5, max_new_tokens=40, logit_bias={close: 20.0})
            reply = llm.start([USER], params, constraint=Constraint.choice(["yes", "no", "maybe"]))
            pieces = [event for event in reply.events() if isinstance(event, TextDelta)]
            assert "".join(p.text for p in pieces if p.channel == "text") in ("yes", "no", "maybe")


def test_an_answer_that_begins_within_the_token_that_ends_the_thought_counts():
    class Letters:
        """A tokenizer of three tokens."""

        texts = (b"<end>", b"</think>no", b"w")
        eos_ids = frozenset({0})
        vocab_size = 3

        def token_bytes(self, token_id):
            return self.texts[token_id]

        def encode_within(self, text):
            return [len(text)]

    class Matcher:
        """Notes what it is asked."""

        is_complete = True

        def __init__(self):
            self.accepted = []

        def accept(self, token_ids):
            self.accepted += token_ids

        def take_back(self, count):
            del self.accepted[len(self.accepted) - count:]

    inner = Matcher()
    matcher = AfterThought(inner, "</think>", Letters())
    matcher.accept([2, 1])
    assert inner.accepted == [2] and matcher.is_complete
    matcher.take_back(1)
    assert inner.accepted == [] and not matcher.is_complete
    matcher.accept([1])
    assert inner.accepted == [2] and matcher.is_complete


def _possible(matcher, vocab_size):
    mask = np.zeros((vocab_size + 31) // 32, np.int32)
    matcher.fill_mask(mask)
    return set(np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size].nonzero()[0].tolist())
