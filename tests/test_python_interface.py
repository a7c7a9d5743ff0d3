"""load_model and what it returns, on a small random model with the real engine."""

from __future__ import annotations

import pytest

from model import ChatMessage, ReplyDone, SamplingParams, load_model
from tests.text_samples import write_chat_model


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
