"""Tools by OpenAI's client: calls of the starter, which has not learned to make any, keep their schemas."""

from __future__ import annotations

import json

import openai
import pytest

ASK = [{"role": "user", "content": "How is the weather?"}]
SCHEMA = {"type": "object", "required": ["city", "days"], "additionalProperties": False, "properties": {
    "city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}}
WEATHER = {"type": "function",
           "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}}
CHOOSE = {"type": "function", "function": {"name": "choose", "strict": True, "parameters": {
    "type": "object", "required": ["it"], "additionalProperties": False,
    "properties": {"it": {"enum": ["left", "right"]}}}}}


@pytest.fixture(scope="module")
def client(starter):
    with openai.OpenAI(base_url=f"{starter.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def chat(client, messages=ASK, **options):
    return client.chat.completions.create(**{"model": "any", "messages": messages, "seed": 1,
                                             "max_tokens": 200, "tools": [WEATHER, CHOOSE], **options})


def check(name, arguments):
    found = json.loads(arguments)
    if name == "get_weather":
        assert list(found) == ["city", "days"] and len(found["city"]) <= 8 and 1 <= found["days"] <= 9
    else:
        assert name == "choose" and found in ({"it": "left"}, {"it": "right"})


@pytest.mark.parametrize("parallel", [False, True])
def test_a_call_that_is_required_comes_and_keeps_its_schema(client, parallel):
    for seed in range(4):
        choice = chat(client, tool_choice="required", seed=seed, parallel_tool_calls=parallel).choices[0]
        calls = choice.message.tool_calls
        assert choice.finish_reason == ("tool_calls" if parallel is False else choice.finish_reason)
        assert choice.message.content is None and (parallel or len(calls) == 1)
        for call in calls if choice.finish_reason == "tool_calls" else calls[:-1]:
            assert call.id.startswith("call_") and call.type == "function"
            check(call.function.name, call.function.arguments)


def test_a_stream_brings_the_call_in_pieces(client):
    whole = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls[0]
    chunks = [chunk.choices[0] for chunk in chat(client, tool_choice="required", parallel_tool_calls=False,
                                                 stream=True)]
    pieces = [chunk.delta.tool_calls[0] for chunk in chunks if chunk.delta.tool_calls]
    assert all(len(chunk.delta.tool_calls or []) <= 1 and not (chunk.delta.tool_calls and chunk.delta.content)
               for chunk in chunks)
    assert pieces[0].id and pieces[0].type == "function" and pieces[0].function.name == whole.function.name
    assert all(piece.index == 0 for piece in pieces)
    assert not any(piece.id or piece.function.name for piece in pieces[1:])
    assert "".join(piece.function.arguments for piece in pieces) == whole.function.arguments
    assert chunks[-1].finish_reason == "tool_calls"


def test_the_function_that_is_named_is_called(client):
    for name in ("choose", "get_weather"):
        named = {"type": "function", "function": {"name": name}}
        call, = chat(client, tool_choice=named, parallel_tool_calls=False).choices[0].message.tool_calls
        assert call.function.name == name
        check(name, call.function.arguments)


def test_without_a_choice_the_model_may_call_or_not(client):
    reply = chat(client, tool_choice="auto").choices[0]
    assert reply.message.content and reply.finish_reason == "stop"


def test_tools_that_may_not_be_called_are_not_shown(client):
    assert chat(client, tool_choice="none").usage.prompt_tokens == \
        chat(client, tools=openai.NOT_GIVEN).usage.prompt_tokens
    assert chat(client).usage.prompt_tokens > chat(client, tool_choice="none").usage.prompt_tokens + 50


def test_what_was_called_and_what_came_of_it_goes_back(client):
    call, = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls
    back = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    reply = chat(client, back)
    assert reply.choices[0].message.content
    assert reply.usage.prompt_tokens > chat(client).usage.prompt_tokens + 20


def test_beside_tools_the_answer_may_have_a_form(client):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {
        "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": False}}}
    choice = chat(client, response_format=form, parallel_tool_calls=False).choices[0]
    if choice.message.tool_calls:
        check(choice.message.tool_calls[0].function.name, choice.message.tool_calls[0].function.arguments)
    else:
        assert list(json.loads(choice.message.content)) == ["ok"]


@pytest.mark.parametrize(("options", "said"), [
    ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "there are get_weather, choose"),
    ({"tools": [], "tool_choice": "required"}, "there are no tools"),
    ({"tools": [{"type": "web_search"}]}, "only functions can be called"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "without white space"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, "not an object"),
    ({"tools": [WEATHER, WEATHER]}, "different names"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}]},
     "no JSON"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "[]"}}]}]},
     "no JSON object")])
def test_what_makes_no_sense_is_refused(client, options, said):
    with pytest.raises(openai.BadRequestError, match=said):
        chat(client, **options)


# -- as it was before there were tools

FUNCTIONS = {"tools": openai.NOT_GIVEN, "functions": [WEATHER["function"], CHOOSE["function"]]}


def test_a_function_is_called_in_the_words_of_old(client):
    reply = chat(client, **FUNCTIONS, function_call={"name": "choose"}).choices[0]
    call = reply.message.function_call
    assert reply.finish_reason == "function_call" and reply.message.tool_calls is None
    check(call.name, call.arguments)
    chunks = [chunk.choices[0] for chunk in chat(client, **FUNCTIONS, function_call={"name": "choose"},
                                                 stream=True)]
    pieces = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert [piece.name for piece in pieces if piece.name] == [call.name]
    assert "".join(piece.arguments for piece in pieces) == call.arguments
    assert chunks[-1].finish_reason == "function_call" and not any(chunk.delta.tool_calls for chunk in chunks)


def test_functions_that_may_not_be_called_are_not_shown(client):
    unseen = chat(client, **FUNCTIONS, function_call="none").usage.prompt_tokens
    assert unseen == chat(client, tools=openai.NOT_GIVEN).usage.prompt_tokens
    assert chat(client, **FUNCTIONS).usage.prompt_tokens == chat(client).usage.prompt_tokens > unseen


def test_results_of_functions_are_taken_back(app, model):
    messages = [*ASK, {"role": "assistant", "content": None,
                       "function_call": {"name": "get_weather", "arguments": '{"city": "Rome", "days": 2}'}},
                {"role": "function", "name": "get_weather", "content": "Fine."}]
    response = app.test_client().post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 200
    _, called, result = model.started[0]["messages"]
    call, = called.calls
    assert (call.name, call.arguments, call.id) == ("get_weather", {"city": "Rome", "days": 2}, "get_weather")
    assert (result.role, result.content, result.call_id) == ("tool", "Fine.", "get_weather")


@pytest.mark.parametrize(("body", "said"), [
    ({"functions": [CHOOSE["function"]], "tools": [CHOOSE]}, "functions stand beside tools"),
    ({"functions": [CHOOSE["function"]], "function_call": {"name": "other"}}, "there are choose"),
    ({"functions": [CHOOSE["function"]], "function_call": "required"}, "function_call is not an object"),
    ({"function_call": {"name": "choose"}}, "there are no tools"), ({"functions": [{}]}, "name is missing")])
def test_functions_that_make_no_sense_are_refused(app, body, said):
    response = app.test_client().post("/v1/chat/completions", json={"messages": ASK, **body})
    assert response.status_code == 400 and said in response.json["error"]["message"]
