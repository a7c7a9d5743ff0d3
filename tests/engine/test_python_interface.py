"""load_model and what it returns, on a small random model with the real engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model import (
    ChatMessage,
    Constraint,
    ModelLoadError,
    ReplyDone,
    SamplingParams,
    ScoredToken,
    TextDelta,
    load_model,
)
from model.config import EngineConfig
from tests.helpers.text_samples import qwen_folder, write_chat_model
from tests.helpers.tiny_models import write_model


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    return write_chat_model(tmp_path_factory.mktemp("models") / "small")


def test_the_same_seed_gives_the_same_text_alone_or_in_a_batch(small_model):
    with load_model(small_model, threads=1) as llm:
        options = {"max_new_tokens": 24, "temperature": 1.0, "seed": 11}
        prompts = ["Hello", "The fox", "你好", "1, 2, 3", "<|im_start|>user"]
        batch = llm.generate(prompts, **options)
        assert batch == [llm.generate(prompt, **options) for prompt in prompts]
        assert len(set(batch)) == 5 and batch != llm.generate(prompts, **(options | {"seed": 12}))


def test_a_streamed_reply_is_the_generated_one(small_model):
    """stream, start and generate are three ways to the same tokens."""
    with load_model(small_model, threads=1) as llm:
        params = SamplingParams(temperature=0, max_new_tokens=30)
        streamed = "".join(llm.stream([ChatMessage("user", "Hi")], params))
        prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        assert streamed == llm.generate(prompt, max_new_tokens=30, temperature=0).lstrip()
        reply = llm.start([ChatMessage("user", "Hi")], params)
        *_, last = reply.events()
        assert isinstance(last, ReplyDone) and last.stats.prompt_tokens == reply.prompt_tokens
        assert llm.fit([ChatMessage("user", "Hi")], 30).prompt_tokens == reply.prompt_tokens


def test_a_stop_string_and_a_cancel_end_a_reply_of_the_real_engine(small_model):
    with load_model(small_model, threads=1) as llm:
        params = SamplingParams(temperature=0, max_new_tokens=200)
        whole = llm.generate("Hello", max_new_tokens=200, temperature=0)
        stop = whole[40:45]
        cut = llm.generate("Hello", max_new_tokens=200, temperature=0, stop=stop)
        assert cut == whole[:whole.index(stop)]
        waiting = [llm.start([ChatMessage("user", f"Hi {n}")], params) for n in range(12)]  # eight at a time
        for reply in waiting:
            reply.cancel()
        assert all(isinstance(list(reply.events())[-1], ReplyDone) for reply in waiting)
        assert llm.status()["running"] == llm.status()["waiting"] == 0


def test_logits_are_about_the_next_token(small_model):
    """The greedy continuation is the argmax of each row; ranking speakers sums log-probabilities of rows."""
    with load_model(small_model, threads=1, exact=True) as llm:
        prompt = llm.tokenizer.encode("Hello")
        request = llm._engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=8), frozenset())
        greedy = [event.token_id for event in request.events() if hasattr(event, "token_id")]
        rows = llm.logits(prompt + greedy)
        assert rows[len(prompt) - 1:-1].argmax(-1).tolist() == greedy
        scores = llm.rank_speakers([("User", "Hi")], ["Ann", "Bo"])
        head = llm.tokenizer.encode("User: Hi\n")
        row = llm.tokenizer.encode("User: Hi\nBo:")
        table = llm.logits(row).log_softmax(-1)
        expected = sum(float(table[i - 1, row[i]]) for i in range(len(head), len(row)))
        assert scores[1] == pytest.approx(expected, abs=1e-3)


def test_a_prompt_beyond_the_context_is_refused_and_the_model_goes_on(small_model):
    with load_model(small_model, max_seq_len=64, threads=1) as llm:
        with pytest.raises(ValueError, match="the context holds 64"):
            llm.generate("word " * 100)
        with pytest.raises(ValueError, match="the prompt is empty"):
            llm.generate("")
        assert isinstance(llm.generate("word", max_new_tokens=500), str)


# ---- several replies, log-probabilities, constraints, a draft model -------------------------------------


@pytest.fixture(scope="module")
def llm(small_model):
    with load_model(small_model, threads=1) as llm:
        yield llm


def test_several_replies_to_one_prompt_are_those_of_their_seeds_and_share_its_pages(llm):
    prompt = "The quick brown fox jumps over the lazy dog. " * 5
    options = {"max_new_tokens": 12, "temperature": 1.0}
    replies = llm.complete(prompt, n=4, seed=7, **options)
    assert [reply.stats.seed for reply in replies] == [7, 8, 9, 10]
    alone = [llm.generate(prompt, seed=7 + i, **options) for i in range(4)]
    assert [reply.text for reply in replies] == alone
    total = replies[0].stats.prompt_tokens
    assert [reply.stats.cached_tokens for reply in replies[1:]] == [total - 1] * 3
    assert llm.generate(prompt, n=2, seed=7, **options) == [reply.text for reply in replies[:2]]
    assert [len(texts) for texts in llm.generate(["a", "b", "c"], n=2, **options)] == [2, 2, 2]
    first, second = llm.complete("a", n=2, **options)
    assert second.stats.seed == first.stats.seed + 1, "without a seed the first one is chosen at random"
    for n in (0, 1.5, 257):
        with pytest.raises(ValueError, match="expected a whole number from 1 to 256"):
            llm.generate("a", n=n)


def test_log_probabilities_of_a_reply_and_of_a_text(llm):
    reply, = llm.complete("Hello", max_new_tokens=10, temperature=0, logprobs=3)
    assert len(reply.tokens) == reply.stats.new_tokens == 10 and reply.finish_reason == "length"
    assert "".join(token.text for token in reply.tokens) == reply.text or "\ufffd" in reply.text
    assert all(token.top[0].token_id == token.token_id and len(token.top) == 3 for token in reply.tokens)
    assert llm.complete("Hello", max_new_tokens=1)[0].tokens == ()
    token_ids = llm.tokenizer.encode("Hello, you", add_eos=False)
    table = llm.logits(token_ids).double().log_softmax(-1)
    scores = llm.score("Hello, you", top=2)
    assert [score.logprob for score in scores] == pytest.approx([
        float(table[i, token_id]) for i, token_id in enumerate(token_ids[1:])], abs=5e-6)
    assert [score.text for score in scores] == [llm.tokenizer.token_text(i) for i in token_ids[1:]]


def test_a_streamed_reply_tells_each_token_before_its_text(llm):
    params = SamplingParams(temperature=0, max_new_tokens=8)
    events = list(llm.start([ChatMessage("user", "Hi")], params, logprobs=0).events())
    told = [event for event in events if isinstance(event, ScoredToken)]
    assert len(told) == 8 and all(token.logprob <= 0 and token.top == () for token in told)
    assert any(isinstance(event, TextDelta) for event in events)


SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "age"], "properties": {
    "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}}


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "top_p": 1.0, "min_p": 0.0}],
                         ids=["greedy", "wild"])
def test_a_reply_has_the_form_it_must_have(llm, options):
    options |= {"n": 3, "seed": 5, "max_new_tokens": 200}
    for text in llm.generate("Say", constraint=Constraint.json_schema(SCHEMA), **options):
        made = json.loads(text)
        assert set(made) == {"name", "age"} and 0 <= made["age"] <= 150 and len(made["name"]) <= 12
    for text in llm.generate("Say", constraint=Constraint.regex(r"[a-f]{3,5}-[0-9]+!"), **options):
        assert re.fullmatch(r"[a-f]{3,5}-[0-9]+!", text)
    for text in llm.generate("Say", constraint=Constraint.choice(["yes", "no", "yes, please"]), **options):
        assert text in ("yes", "no", "yes, please")


def test_the_end_comes_only_when_the_form_is_complete_and_then_at_once(llm):
    reply, = llm.complete("Say", constraint=Constraint.choice(["abc"]), max_new_tokens=50, logprobs=0)
    assert (reply.text, reply.finish_reason) == ("abc", "eos")
    assert reply.stats.new_tokens == len(reply.tokens)
    cut, = llm.complete("Say", constraint=Constraint.regex("[a-z]{40,}"), max_new_tokens=5)
    assert cut.finish_reason == "length" and re.fullmatch("[a-z]+", cut.text)


def test_a_stop_string_within_a_guess_ends_the_reply_at_the_same_place(small_model):
    options = {"max_new_tokens": 150, "temperature": 0.2, "seed": 3}
    prompt = "The fox"
    with load_model(small_model, threads=1, speculation=False) as plain:
        whole = plain.generate(prompt, **options)
        stop = whole[len(whole) // 2:][:3]
        want = plain.generate(prompt, stop=stop, **options)
    with load_model(small_model, threads=1, draft=small_model) as llm:  # every guess is right
        llm._engine._speculator.choose = lambda candidates, rows, room: [length for _, length in candidates]
        found, = llm.complete(prompt, stop=stop, **options)
    assert (found.text, found.finish_reason) == (want, "stop") and found.stats.drafted_tokens > 0


def test_a_constraint_does_not_care_about_guesses_and_neighbours(small_model):
    """Every guess is computed; wrong ones are taken back by the constraint too."""
    constraint = Constraint.regex(r"(ab|cd|xyz, )*[0-9]{30}")
    options = {"max_new_tokens": 80, "temperature": 0.7, "seed": 1, "n": 3, "constraint": constraint}
    with load_model(small_model, threads=1, speculation=False) as plain:
        want = plain.generate("ab ab ab xyz, xyz, 0101010101", **options)
    with load_model(small_model, threads=1) as llm:
        llm._engine._speculator.choose = lambda candidates, rows, room: [length for _, length in candidates]
        found = llm.complete("ab ab ab xyz, xyz, 0101010101", **options)
    assert [one.text for one in found] == want
    assert sum(one.stats.drafted_tokens for one in found) > 0


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: Constraint.json_schema({"type": "nonsense"}), "nonsense"),
    (lambda: Constraint.json_schema("[1, 2]"), "expected an object"),
    (lambda: Constraint.json_schema("{"), "JSON schema cannot be used"),
    (lambda: Constraint.regex("(["), "unclosed character class"),
    (lambda: Constraint.regex(""), "expected 1 to 65,536"),
    (lambda: Constraint.choice([]), "expected one or more texts"),
    (lambda: Constraint.choice(["a", ""]), "none of them empty")])
def test_a_constraint_that_makes_no_sense_is_refused_before_anything_runs(llm, make, reason):
    with pytest.raises(ValueError, match=reason):
        llm.start([ChatMessage("user", "Hi")], constraint=make())
    assert llm.status()["running"] == llm.status()["waiting"] == 0


def test_a_draft_model_must_have_the_same_tokens(small_model, tmp_path):
    with load_model(small_model, threads=1, draft=small_model) as llm, \
            load_model(small_model, threads=1, speculation=False) as plain:
        options = {"max_new_tokens": 30, "temperature": 0.5, "seed": 2}
        assert llm.generate("Hello", **options) == plain.generate("Hello", **options)
    other = write_model(qwen_folder(tmp_path), vocab_size=512)
    with pytest.raises(ModelLoadError, match=r"other tokens than the model: there are \d+ tokens and \d+"):
        load_model(small_model, draft=other)


def test_a_wrong_config_is_told_before_torch_is_imported(tmp_path: Path):
    """That import takes seconds."""
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": -1}')
    program = """import sys
from model import ModelLoadError, load_model
try:
    load_model(sys.argv[1])
except ModelLoadError as error:
    print(error, "torch" in sys.modules, sep=";")
"""
    said = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
                          check=True, cwd=Path(__file__).parents[2])
    assert re.fullmatch(r"config.json: \w+ is .*; expected a whole number from 8 to [\d,]+;False",
                        said.stdout.strip())


def test_a_single_text_is_one_stop_string():
    assert SamplingParams(stop="ae").stop == ("ae",)
    with pytest.raises(ValueError, match="stop holds ''"):
        SamplingParams(stop="")


def test_half_a_surrogate_pair_in_a_prompt_or_a_message_is_a_value_error(llm):
    with pytest.raises(ValueError, match=r"half a character, U\+D83D"):
        llm.generate("a\ud83d", max_new_tokens=2)
    with pytest.raises(ValueError, match=r"half a character, U\+D83D"):
        llm.start([ChatMessage("user", "a\ud83d")])


def test_exact_arithmetic_has_an_exact_cache_unless_another_is_asked_for():
    assert EngineConfig().cache == "fp16" and EngineConfig(exact=True).cache == "fp32"
    assert EngineConfig(exact=True, cache="q8").cache == "q8"
