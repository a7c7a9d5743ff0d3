"""What programs of others send, as it was seen when they ran: agents for editors and shells.

Texts are shortened, fields are not. Claude Code 2.1.197, Codex 0.171.0, Qwen Code 0.15.10, opencode 1.18.33.
"""

from __future__ import annotations

import json

SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
          "additionalProperties": False, "required": ["command"],
          "properties": {"command": {"type": "string", "description": "What to run"}}}
CACHED = {"cache_control": {"type": "ephemeral"}}


def text(words, kind="text", **more):
    return {"type": kind, "text": words, **more}


def shown(started):
    """What the model was given: (role, text) of each message."""
    return [(message.role, message.content) for message in started["messages"]]


# -- Claude Code

def claude_code(messages, **more):
    return {"model": "starter", "messages": messages, "max_tokens": 32000, "stream": True,
            "system": [text("x-anthropic-billing-header: cc_version=2.1.197.3d3; cc_entrypoint=sdk-cli;"),
                       text("You are an agent.", **CACHED), text("Help.", **CACHED)],
            "tools": [{"name": "Bash", "description": "Runs.", "input_schema": SCHEMA},
                      {"name": "Read", "description": "Reads.", "input_schema": SCHEMA, **CACHED}],
            "metadata": {"user_id": "{}"}, "thinking": {"type": "adaptive"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"}, **more}


def test_claude_codes_first_request(app, model):
    http = app.test_client()
    assert http.head("/").status_code == 200  # before anything else
    answer = http.post("/v1/messages?beta=true", json=claude_code([
        {"role": "user", "content": [text("<system-reminder>Today</system-reminder>"),
                                     text("Say hello.", **CACHED)]},
        {"role": "system", "content": "Available agent types"}]))
    assert answer.status_code == 200 and b"message_stop" in answer.data
    assert shown(model.started[0]) == [
        ("system", "You are an agent.\n\nHelp."),
        ("user", "<system-reminder>Today</system-reminder>\n\nSay hello."),
        ("system", "Available agent types")]
    assert model.started[0]["variables"]["reasoning_effort"] == "high"
    assert [tool.name for tool in model.started[0]["tools"].tools] == ["Bash", "Read"]


def test_claude_codes_next_request_brings_thoughts_calls_and_results(app, model):
    answer = app.test_client().post("/v1/messages?beta=true", json=claude_code([
        {"role": "user", "content": "List it."},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Two at once.", "signature": ""}, text("I look."),
            {"type": "tool_use", "id": "a", "name": "Bash", "input": {"command": "ls"}},
            {"type": "tool_use", "id": "b", "name": "Read", "input": {"command": "x"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "one two"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": [text("No such file.")],
             **CACHED},
            {"type": "document", "title": "Notes", "source": {"type": "text", "media_type": "text/plain",
                                                              "data": "Three."}},
            text("And now?")]}]))
    assert answer.status_code == 200
    assert shown(model.started[0])[1:] == [
        ("user", "List it."), ("assistant", "I look."), ("tool", "one two"), ("tool", "No such file."),
        ("user", "Notes\n\nThree.\n\nAnd now?")]
    called = model.started[0]["messages"][2]
    assert called.thinking == "Two at once." and [call.id for call in called.calls] == ["a", "b"]


def test_claude_codes_title_is_json_and_its_search_is_refused_in_a_sentence(app, model):
    http, words = app.test_client(), [{"role": "user", "content": [text("<session>Say hello.</session>")]}]
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {"title": {"type": "string"}},
                                              "required": ["title"], "additionalProperties": False}}
    title = claude_code(words, tools=[], output_config={"effort": "high", "format": form})
    title.pop("thinking")
    assert http.post("/v1/messages?beta=true", json=title).status_code == 200
    assert model.started[0]["constraint"].kind == "json_schema" and model.started[0]["tools"] is None
    assert model.started[0]["variables"] == {"enable_thinking": False, "thinking": False}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    refused = http.post("/v1/messages?beta=true", json=claude_code(words, tools=[search]))
    assert refused.status_code == 400 and "nothing is run on this server" in refused.json["error"]["message"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}
    refused = http.post("/v1/messages?beta=true", json=claude_code([{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "a", "content": [image]}]}]))
    assert refused.json["error"]["message"] == \
        "messages[0].content[0].content[0].type is 'image'; the model here reads text only."


# -- Codex

def codex(items):
    def function(name):
        return {"type": "function", "name": name, "description": "Does.", "strict": False,
                "parameters": SCHEMA}

    return {"model": "starter", "stream": True, "input": items, "tools": [
        function("exec_command"), {"type": "namespace", "name": "multi_agent_v1", "description": "Agents.",
                                   "tools": [function("spawn_agent"), function("close_agent")]},
        {"type": "web_search", "external_web_access": False}], "tool_choice": "auto",
        "parallel_tool_calls": True, "reasoning": {"summary": "auto"}, "store": False,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "x", "client_metadata": {"a": "b"}}


def test_codexs_first_request(app, model):
    answer = app.test_client().post("/v1/responses", json=codex([
        {"type": "message", "id": "m1", "role": "developer", "content": [text("You code.", "input_text")]},
        {"type": "message", "id": "m2", "role": "developer", "content": [text("Skills.", "input_text")]},
        {"type": "message", "id": "m3", "role": "user", "content": [text("Say hello.", "input_text")]}]))
    kinds = [line[7:] for line in answer.get_data(as_text=True).splitlines() if line.startswith("event: ")]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-2:] == ["response.output_item.done", "response.completed"]
    assert shown(model.started[0]) == [("system", "You code."), ("system", "Skills."), ("user", "Say hello.")]
    assert [tool.name for tool in model.started[0]["tools"].tools] == [
        "exec_command", "multi_agent_v1__spawn_agent", "multi_agent_v1__close_agent"]


def test_codexs_next_request_brings_thoughts_calls_and_results(app, model):
    answer = app.test_client().post("/v1/responses", json=codex([
        {"type": "message", "role": "user", "content": [text("List it.", "input_text")]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [text("Hm.", "reasoning_text")],
         "encrypted_content": None},
        {"type": "message", "role": "assistant", "content": [text("I look.", "output_text")]},
        {"type": "function_call", "id": "fc_1", "name": "exec_command", "arguments": "{\"command\": \"ls\"}",
         "call_id": "a"},
        {"type": "function_call", "name": "spawn_agent", "namespace": "multi_agent_v1", "arguments": "{}",
         "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "one two"},
        {"type": "function_call_output", "call_id": "b", "output": [text("It runs.", "input_text")]}]))
    assert answer.status_code == 200
    assert shown(model.started[0]) == [("user", "List it."), ("assistant", "I look."), ("tool", "one two"),
                                       ("tool", "It runs.")]
    called = model.started[0]["messages"][1]
    assert called.thinking == "Hm."
    assert [(call.name, call.id) for call in called.calls] == [("exec_command", "a"),
                                                               ("multi_agent_v1__spawn_agent", "b")]


# -- those that speak OpenAI's chat

def test_qwen_codes_and_opencodes_requests(app, model):
    """Messages of one role one after the other; headers of a browser from what is none."""
    body = {"model": "starter", "stream": True, "stream_options": {"include_usage": True},
            "max_tokens": 32000, "tool_choice": "auto", "messages": [
                {"role": "system", "content": "You help."}, {"role": "user", "content": [text("Hello.")]},
                {"role": "user", "content": "Say hello."}],
            "tools": [{"type": "function", "function": {"name": "bash", "description": "Runs.",
                                                        "parameters": SCHEMA}}]}
    answer = app.test_client().post("/v1/chat/completions", json=body, headers={
        "Sec-Fetch-Mode": "cors", "Accept-Language": "*", "x-session-affinity": "ses_1"})
    *_, last, done = answer.get_data(as_text=True).strip().split("\n\n")
    assert done == "data: [DONE]" and json.loads(last[6:])["usage"]["completion_tokens"] > 0
    assert shown(model.started[0]) == [("system", "You help."), ("user", "Hello."), ("user", "Say hello.")]
