"""How much a model is to think, as each protocol says it: to the template, and as a bound of the thought."""

import pytest

WHO = [{"role": "user", "content": "Who are you?"}]
OPENAI, RESPONSES = "/v1/chat/completions", "/v1/responses"
ANTHROPIC, OLLAMA = "/v1/messages", "/api/chat"
ON = {"enable_thinking": True, "thinking": True}
OFF = {"enable_thinking": False, "thinking": False}


def asked(app, path, status=200, **fields):
    messages = {"input": WHO} if path == RESPONSES else {"messages": WHO}
    most = {"max_tokens": 50} if path == ANTHROPIC else {}
    body = {"model": "any", "stream": False, **messages, **most, **fields}
    answer = app.test_client().post(path, json=body)
    assert answer.status_code == status, answer.json
    return answer.json


@pytest.mark.parametrize(("path", "fields", "variables"), [
    (OPENAI, {"reasoning_effort": "low"}, {**ON, "reasoning_effort": "low"}),
    (OPENAI, {"reasoning_effort": "none"}, OFF), (OPENAI, {"reasoning_effort": None}, {}), (OPENAI, {}, {}),
    (OPENAI, {"reasoning_effort": "high", "chat_template_kwargs": {"thinking": False}},
     {**ON, "thinking": False, "reasoning_effort": "high"}),
    (RESPONSES, {"reasoning": {"effort": "high"}}, {**ON, "reasoning_effort": "high"}),
    (RESPONSES, {"reasoning": {"effort": "none"}}, OFF), (RESPONSES, {"reasoning": {}}, {}),
    (ANTHROPIC, {"output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}},
     {**ON, "reasoning_effort": "low"}),
    (ANTHROPIC, {"thinking": {"type": "enabled", "budget_tokens": 9}}, {**ON, "reasoning_effort": "medium"}),
    (ANTHROPIC, {"thinking": {"type": "disabled"}}, OFF), (ANTHROPIC, {}, OFF),
    (OLLAMA, {"think": False}, OFF), (OLLAMA, {"think": "high"}, {**ON, "reasoning_effort": "high"})])
def test_each_protocol_tells_the_template_how_much_to_think(app, model, path, fields, variables):
    asked(app, path, **fields)
    assert model.started[-1]["variables"] == variables


@pytest.mark.parametrize(("path", "fields", "budget"), [
    (OPENAI, {"thinking_budget": 12}, 12), (OPENAI, {"thinking_budget": 0}, 0), (OPENAI, {}, None),
    (OPENAI, {"thinking_budget": None}, None), (RESPONSES, {"thinking_budget": 7}, 7),
    (ANTHROPIC, {"thinking": {"type": "enabled", "budget_tokens": 9}}, 9), (ANTHROPIC, {}, None)])
def test_each_protocol_bounds_the_thought(app, model, path, fields, budget):
    asked(app, path, **fields)
    assert model.started[-1]["params"].thinking_budget == budget


@pytest.mark.parametrize(("path", "fields", "said"), [
    (OPENAI, {"thinking_budget": -1}, "thinking_budget is -1; expected"),
    (OPENAI, {"thinking_budget": "many"}, "thinking_budget"),
    (OPENAI, {"thinking_budget": 1.5}, "thinking_budget"),
    (OPENAI, {"reasoning_effort": 3}, "reasoning_effort"), (RESPONSES, {"reasoning": "high"}, "reasoning"),
    (RESPONSES, {"reasoning": {"effort": []}}, "effort"),
    (ANTHROPIC, {"thinking": {"type": "enabled", "budget_tokens": 0}}, "budget_tokens is 0; expected"),
    (OLLAMA, {"think": "much"}, "think is neither")])
def test_what_is_no_effort_and_no_budget_is_refused(app, model, path, fields, said):
    error = asked(app, path, 400, **fields)["error"]
    assert said in (error if isinstance(error, str) else error["message"])
    assert model.started == []
