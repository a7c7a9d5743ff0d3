"""Engines that do not run here, as a stand-in that answers in the words of their sources and documents.

Each test names the source; what differs from engine to engine is the shape of lists, chunks and refusals.
"""

from __future__ import annotations

import json

import pytest

from model import ChatMessage, SamplingParams
from model.language_model import CONTINUE, RANK
from tests.helpers.stand_in_engine import FIELDS, HANG_UP, chunk, end, text
from tests.remote.test_remote_model import HELLO, failure, read

LONG = [ChatMessage("user", f"{number} " + "word " * 20) for number in range(10)]
MOST = SamplingParams(max_new_tokens=900)


def refusal(body, status=400):
    return status, json.dumps(body), {}


def test_sglang(opened, engine):
    """sgl-project/sglang, entrypoints/openai: the length stands in the list, chunks hold nulls, the matched
    stop stands beside the reason, and the offsets of an echoed prompt's tokens are all -1."""
    engine.models[0] |= {"object": "model", "owned_by": "sglang", "root": "small", "max_model_len": 1000}
    engine.tells_offsets = False
    model = opened()
    assert model.info()["max_seq_len"] == 1000 and CONTINUE not in model.info()["cannot"]
    assert model.rank_speakers([("Otto", "Hello, Lin.")], ["Lin", "Marlow"]) == [-6.0, -3.0]
    nulls = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None}
    usage = {"usage": None, "sglext": None}
    engine.script = [
        {**chunk({**nulls, "role": "assistant", "content": ""}, logprobs=None, matched_stop=None), **usage},
        {**chunk({**nulls, "reasoning_content": "Hm."}), **usage},
        {**chunk({**nulls, "content": "Yes"}), **usage},
        {**chunk(nulls, finish_reason="stop", matched_stop="\n"), **usage}]
    written, thought, done = read(model.start(HELLO))
    assert (written, thought, done.finish_reason) == ("Yes", "Hm.", "stop")
    engine.script = [text("Yes"), chunk(nulls, finish_reason="stop", matched_stop=2)]
    assert read(model.start(HELLO))[2].finish_reason == "eos"
    engine.script = None
    engine.statuses = [refusal({"object": "error", "param": None, "code": 400, "type": "BadRequestError",
                                "message": "The input (1200 tokens) is longer than the model's context "
                                           "length (1000 tokens)."})]
    assert read(model.start(LONG))[0].startswith("You said:") and engine.chats[-1]["messages"] != LONG
    engine.script = [{**text("One "), **usage}, b'data: {"error": {"message": "Generation aborted.", "type": '
                     b'"INTERNAL_SERVER_ERROR", "param": null, "code": 500}}\n\n']
    assert "Generation aborted" in failure(model.start(HELLO))[1]


def test_tokens_that_do_not_make_up_the_text_tell_no_offsets(opened, engine):
    """Texts of single tokens lack a space in front, in some vocabularies."""
    engine.tells_offsets, engine.tells_spaces = False, False
    assert "does not tell how likely a text is" in opened().info()["cannot"][RANK]


def test_text_generation_inference(opened, engine):
    """huggingface/text-generation-inference, router: top_p below 1, a length in /info, two forms of errors,
    a role in each chunk, usage in a chunk without an id."""
    engine.facts = {"/info": {"model_id": "small", "max_input_tokens": 900, "max_total_tokens": 1000}}
    engine.refuses = lambda body: (422, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0",
                                         "error_type": "validation"}) if body.get("top_p", 0) >= 1 else None
    model = opened()
    assert model.info()["max_seq_len"] == 1000
    engine.script = [chunk({"role": "assistant", "content": "Ye"}),
                     chunk({"role": "assistant", "content": "s"}),
                     chunk({"role": "assistant", "content": ""}, finish_reason="stop_sequence")]
    written, _, done = read(model.start(HELLO, SamplingParams(top_p=1.0, top_k=40)))
    assert (written, done.finish_reason) == ("Yes", "stop")
    assert 0.99 < engine.chats[-1]["top_p"] < 1 and engine.chats[-1]["top_k"] == 40
    engine.script = None
    engine.statuses = [refusal({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be "
                                         "<= 1000. Given: 800 `inputs` tokens and 900 `max_new_tokens`",
                                "error_type": "validation"}, 422)]
    assert read(model.start(LONG, MOST))[0].startswith("You said:")
    first, second = (body["max_tokens"] for body in engine.chats[-2:])
    assert second < first < 900  # no longer than what should fit behind the prompt
    engine.script = [text("One "), b'data: {"error": "Request failed during generation", "error_type": '
                                   b'"generation"}\n\n']
    assert "broke off: Request failed during generation" in failure(model.start(HELLO))[1]


def test_tensorrt_llm(opened, engine):
    """NVIDIA/TensorRT-LLM, tensorrt_llm/serve: what it does not know is forbidden, and its list tells no
    length."""
    engine.models[0] |= {"owned_by": "tensorrt_llm"}
    engine.refuses = lambda body: (400, {
        "object": "error", "type": "BadRequestError", "param": None, "code": 400, "message":
        "[{'type': 'extra_forbidden', 'loc': ('body', 'typical_p'), 'msg': 'Extra inputs are not permitted'}]"
    }) if body.keys() - FIELDS - {"echo", "logprobs"} else None
    model = opened()
    assert model.info()["max_seq_len"] is None
    assert read(model.start(HELLO))[0] == "You said: Hello there"
    engine.statuses = [refusal({"object": "error", "type": "BadRequestError", "param": None, "code": 400,
                                "message": "The sum of prompt length (1200.0), query length (0) should not "
                                           "exceed max_num_tokens (1000)"})]
    assert read(model.start(LONG))[0].startswith("You said:")


def test_tabby_api(opened, engine):
    """theroyallab/tabbyAPI, endpoints/OAI: pings as comments, the end told twice, a refusal by FastAPI."""
    engine.facts = {"/v1/model": {"id": "small", "object": "model", "owned_by": "tabbyAPI",
                                  "parameters": {"max_seq_len": 4096, "cache_mode": "Q8"}}}
    model = opened()
    assert model.info()["max_seq_len"] == 4096
    engine.has_usage = False
    engine.script = [b": ping - 2026-08-13 20:55:45.123456+00:00\r\n\r\n", chunk({"content": "Yes"}),
                     end("stop", eos_reason="stop_token"),
                     {**end("stop"), "usage": {"prompt_tokens": 7, "completion_tokens": 1}}]
    written, _, done = read(model.start(HELLO))
    assert (written, done.finish_reason, done.stats.new_tokens) == ("Yes", "eos", 1)
    said = "Prompt length 9000 exceeds the available context size of 4096 tokens"
    engine.statuses = [refusal({"error": {"message": said, "type": "invalid_request_error", "param": None,
                                          "code": "context_length_exceeded"}})]
    assert read(model.start(LONG))[0] == "Yes"
    said = "Chat completions are disabled because a prompt template is not set."
    engine.statuses = [refusal({"detail": said}, 422)]
    assert "a prompt template is not set" in failure(model.start(HELLO))[1]


def test_lmdeploy(opened, engine):
    """InternLM/lmdeploy, serve/openai: errors without an "error" around them, and ends that are errors."""
    model = opened()
    engine.statuses = [refusal({"message": "The request exceeds the model context length.", "code": 400,
                                "type": "invalid_request_error", "param": None, "object": "error"})]
    assert read(model.start(LONG))[0].startswith("You said:")
    engine.script = [text("One "), end("error")]
    assert "ended the reply: error" in failure(model.start(HELLO))[1]


def test_lm_studio(opened, engine):
    """lmstudio.ai/docs/developer, and its bug tracker's issue 2322: a prompt that is too long is refused
    within a stream."""
    engine.facts = {"/api/v0/models": {"data": [{"id": "small", "loaded_context_length": 4096}]}}
    model = opened()
    said = ("Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens, which is not enough.")
    engine.scripts = [[b"event: error\ndata: " + json.dumps({"error": {"message": said},
                                                             "message": said}).encode() + b"\n\n"]]
    assert read(model.start(LONG))[0].startswith("You said:")
    assert len(engine.chats[-1]["messages"]) < len(LONG)


def test_koboldcpp(opened, engine):
    """LostRuins/koboldcpp: no usage, a role in each chunk, an end without a line after it."""
    engine.facts = {"/api/extra/true_max_context_length": {"value": 8192}}
    engine.has_usage = False
    model = opened()
    assert model.info()["max_seq_len"] == 8192
    assert "cannot be continued" in model.info()["cannot"][CONTINUE]
    engine.script = [chunk({"role": "assistant", "content": "Yes"}, finish_reason=None),
                     chunk({"role": "assistant", "content": "."}, finish_reason="stop"), b"data: [DONE]"]
    assert read(model.start(HELLO))[0] == "Yes."


def test_mlx_lm(opened, engine):
    """ml-explore/mlx-lm, server.py: top_k from 0 on, or it hangs up; comments while it reads."""
    engine.refuses = lambda body: HANG_UP if body.get("top_k", 0) < 0 else None
    model = opened()
    engine.script = [b": keepalive 512/2048\n\n",
                     chunk({"role": "assistant", "content": "", "reasoning": "Hm.", "tool_calls": []}),
                     chunk({"role": "assistant", "content": "Yes", "reasoning": "", "tool_calls": []}),
                     chunk({"role": "assistant", "content": "", "tool_calls": []}, finish_reason="stop")]
    assert read(model.start(HELLO))[:2] == ("Yes", "Hm.")
    assert engine.chats[-1]["top_k"] == 0


@pytest.mark.parametrize(("limit", "wanted", "most"), [(None, 900, 900), (1000, 400, 400), (1000, 900, 900),
                                                       (1000, 5000, 1000)])
def test_a_reply_is_asked_for_no_longer_than_fits(opened, engine, limit, wanted, most):
    """A half of the context is kept for it; beyond that it is what the prompt leaves."""
    if limit:
        engine.models[0]["max_model_len"] = limit
    read(opened().start(HELLO, SamplingParams(max_new_tokens=wanted)))
    asked = engine.chats[0]["max_tokens"]
    assert asked <= most and asked > most - 60
