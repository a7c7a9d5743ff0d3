"""OpenAI's responses, by OpenAI's own client."""

from __future__ import annotations

import json

import openai
import pytest
from pydantic import BaseModel

from tests.helpers.cancelling import wait_for_running

CHOOSE = {"type": "function", "name": "choose", "strict": True, "parameters": {
    "type": "object", "required": ["it"], "additionalProperties": False,
    "properties": {"it": {"type": "string", "enum": ["left", "right"]}}}}


class Choice(BaseModel):
    it: bool


@pytest.fixture(scope="module")
def client(starter):
    with openai.OpenAI(base_url=f"{starter.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def ask(client, asked="Who are you?", **options):
    return client.responses.create(**{"model": "any", "input": asked, "temperature": 0,
                                      "max_output_tokens": 60,
                                      **options})


def posted(app, **body):
    return app.test_client().post("/v1/responses", json={"model": "any", "input": "hello", **body})


def test_a_stream_says_what_the_whole_response_says(client):
    whole = ask(client)
    assert whole.status == "completed" and whole.model == "starter" and len(whole.output_text) > 3
    found = list(ask(client, stream=True))
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert [event.type for event in found[:4]] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added"]
    assert "".join(event.delta for event in found if event.type == "response.output_text.delta") == \
        whole.output_text
    assert [event.type for event in found[-4:]] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed"]
    last = found[-1].response
    assert last.output_text == whole.output_text and last.usage.output_tokens == whole.usage.output_tokens
    assert last.usage.input_tokens_details.cached_tokens > 0 and last.id == found[0].response.id


def test_items_of_a_conversation_are_messages(client):
    items = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [
        {"type": "input_text", "text": "Who are you?"}]}]
    assert ask(client, items).output_text == ask(client, instructions="Be brief.").output_text


def test_a_response_that_is_cut_is_incomplete(client):
    cut = ask(client, max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert list(ask(client, max_output_tokens=3, stream=True))[-1].type == "response.incomplete"


def test_a_function_is_called_and_its_output_taken(client):
    options = {"tools": [CHOOSE], "tool_choice": "required", "parallel_tool_calls": False}
    call, = ask(client, **options).output
    assert (call.type, call.name) == ("function_call", "choose") and json.loads(call.arguments)["it"]
    found = list(ask(client, stream=True, **options))
    done = next(event for event in found if event.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments == "".join(
        event.delta for event in found if event.type == "response.function_call_arguments.delta")
    back = [{"role": "user", "content": "Which?"}, call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "Done."}]
    assert ask(client, back, tools=[CHOOSE]).output_text


def test_functions_in_a_namespace_are_called_by_their_names_in_it(client):
    space = {"type": "namespace", "name": "box", "description": "A box.", "tools": [CHOOSE]}
    options = {"tools": [space, {"type": "web_search"}], "tool_choice": "required",
               "parallel_tool_calls": False}
    whole = ask(client, **options)
    call, = whole.output
    assert (call.type, call.name, call.namespace) == ("function_call", "choose", "box")
    assert [tool.type for tool in whole.tools] == ["namespace"]
    found = list(ask(client, stream=True, **options))
    item, = found[-1].response.output
    assert (item.name, item.namespace, item.arguments) == ("choose", "box", call.arguments)
    done = next(event for event in found if event.type == "response.function_call_arguments.done")
    assert done.name == "choose"


def test_calls_in_a_namespace_are_taken_back(app, model):
    posted(app, input=[{"role": "user", "content": "Which?"},
                       {"type": "function_call", "call_id": "c", "namespace": "box", "name": "choose",
                        "arguments": "{}"},
                       {"type": "function_call_output", "call_id": "c", "output": "Done."}])
    call, = model.started[0]["messages"][1].calls
    assert (call.name, call.id) == ("box__choose", "c")


def test_tools_of_openais_servers_are_left_out_and_the_answer_says_so(app, model):
    for kind in ("web_search", "web_search_preview", "file_search", "code_interpreter", "mcp"):
        answer = posted(app, tools=[{"type": kind}, CHOOSE])
        assert answer.status_code == 200 and [tool["name"] for tool in answer.json["tools"]] == ["choose"]
        assert [tool.name for tool in model.started[-1]["tools"].tools] == ["choose"]


def test_old_messages_are_left_out_where_that_is_wanted(app, model):
    for truncation, whole in (("auto", False), ("disabled", True), (None, True)):
        answer = posted(app, truncation=truncation)
        assert model.started[-1]["whole"] is whole and answer.json["truncation"] == (truncation or "disabled")


def test_the_form_of_a_class_is_kept(client):
    parsed = client.responses.parse(model="any", input="Is it?", text_format=Choice, max_output_tokens=200)
    assert parsed.output_parsed.it in (True, False)


def test_thoughts_are_items_and_are_taken_back(app, model):
    thought, said = posted(app, input="think aloud").json["output"]
    assert thought["type"] == "reasoning" and thought["content"][0]["text"].startswith("The user")
    assert said["content"][0]["text"] == "After thinking: yes."
    posted(app, input=[{"role": "user", "content": "x"}, thought, said, {"role": "user", "content": "y"}])
    assert model.started[-1]["messages"][1].thinking == thought["content"][0]["text"]
    text = posted(app, input="think aloud", stream=True).get_data(as_text=True)
    assert "response.reasoning_text.delta" in text and "response.completed" in text


@pytest.mark.parametrize(("body", "said"), [
    ({"previous_response_id": "resp_1"}, "not kept here"), ({"conversation": "conv_1"}, "not kept here"),
    ({"input": []}, "0 items"), ({"input": 5}, "not a list"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "expected message"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "reads text only"),
    ({"tools": [{"type": "custom", "name": "x"}]}, "only functions"),
    ({"max_output_tokens": 0}, "expected 1"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "there are no tools"),
    ({"tools": [{"type": "namespace", "tools": []}]}, "name is missing")])
def test_what_makes_no_sense_is_refused(app, body, said):
    refused = posted(app, **body)
    assert refused.status_code == 400 and said in refused.json["error"]["message"]


def test_a_response_that_fails_says_so(app):
    assert posted(app, input="fail").status_code == 500
    text = posted(app, input="fail", stream=True).get_data(as_text=True)
    last = json.loads(text.rstrip().rpartition("\ndata: ")[2])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "The engine ran out of pages."


def test_closing_a_stream_ends_its_request(slow):
    with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="x", max_retries=0) as client:
        stream = ask(client, "something long", max_output_tokens=400, stream=True)
        next(iter(stream))
        wait_for_running(slow, 1)
        stream.close()
        wait_for_running(slow, 0)
