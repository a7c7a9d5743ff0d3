"""The client libraries of other protocols against a running server: what each of them gets to work.

    python -m tools.check_clients [--url http://127.0.0.1:5005] [--node FOLDER] [--json FILE]

Without --url it starts app.py with the small model that ships. Libraries that are not installed are said to
be missing; --node names a folder with node_modules of any of `openai`, `@anthropic-ai/sdk`, `ollama`, and of
`ai` and `zod` with `@ai-sdk/openai-compatible`, `@ai-sdk/openai`, `@ai-sdk/anthropic`. The model need not be
able to do anything: what is checked is that answers, streams, calls, forms and errors arrive as such.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model.options import path_option
from tools.check_clients_node import SCRIPT

HERE = Path(__file__).resolve().parents[1]
KEY = "no-key-is-needed-here"
SAY = "Say hello."
SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["it"], "additionalProperties": False,
    "properties": {"it": {"type": "string", "enum": ["left", "right"]}}}
FUNCTION = {"type": "function",
            "function": {"name": "choose", "description": "Chooses.", "parameters": SCHEMA}}
MESSAGES = [{"role": "user", "content": SAY}]
Check = Callable[[str], None]
CHECKS: dict[str, dict[str, Check]] = {}


def check(library: str, what: str) -> Callable[[Check], Check]:
    """A check is a function of the server's address; it raises if the client does not get what it wants."""
    def note(function: Check) -> Check:
        CHECKS.setdefault(library, {})[what] = function
        return function

    return note


def is_choice(arguments: Any) -> bool:
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    return found in ({"it": "left"}, {"it": "right"})


# -- openai

def _openai(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


@check("openai", "chat")
def openai_chats(url: str) -> None:
    reply = _openai(url).chat.completions.create(model="any", messages=MESSAGES, max_tokens=20)
    assert reply.choices[0].message.content and reply.usage.completion_tokens > 0


@check("openai", "stream")
def openai_streams(url: str) -> None:
    stream = _openai(url).chat.completions.create(model="any", messages=MESSAGES, max_tokens=20, stream=True,
                                                  stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert chunks[-1].usage.completion_tokens > 0


@check("openai", "tools")
def openai_calls_tools(url: str) -> None:
    reply = _openai(url).chat.completions.create(model="any", messages=MESSAGES, tools=[FUNCTION],
                                                 max_tokens=99,
                                                 tool_choice="required", parallel_tool_calls=False)
    call, = reply.choices[0].message.tool_calls
    assert is_choice(call.function.arguments) and reply.choices[0].finish_reason == "tool_calls"


@check("openai", "structured output")
def openai_keeps_forms(url: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "choice", "schema": SCHEMA, "strict": True}}
    reply = _openai(url).chat.completions.create(model="any", messages=MESSAGES, response_format=form)
    assert is_choice(reply.choices[0].message.content)


@check("openai", "logprobs")
def openai_gets_logprobs(url: str) -> None:
    reply = _openai(url).chat.completions.create(model="any", messages=MESSAGES, max_tokens=5, logprobs=True,
                                                 top_logprobs=2)
    assert all(len(token.top_logprobs) == 2 for token in reply.choices[0].logprobs.content)


@check("openai", "errors")
def openai_gets_errors(url: str) -> None:
    import openai

    with contextlib.suppress(openai.BadRequestError):
        _openai(url).chat.completions.create(model="any", messages=[])
        raise AssertionError("no messages are no error")


@check("openai", "cancel")
def openai_cancels(url: str) -> None:
    stream = _openai(url).chat.completions.create(model="any", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()


@check("openai", "responses")
def openai_gets_responses(url: str) -> None:
    with _openai(url).responses.stream(model="any", input=SAY, max_output_tokens=20) as stream:
        for _event in stream:
            pass
        assert stream.get_final_response().output_text


# -- anthropic

def _anthropic(url: str) -> Any:
    import anthropic

    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)


@check("anthropic", "messages")
def anthropic_gets_messages(url: str) -> None:
    reply = _anthropic(url).messages.create(model="any", messages=MESSAGES, max_tokens=20)
    assert reply.content[0].text and reply.usage.output_tokens > 0


@check("anthropic", "stream")
def anthropic_streams(url: str) -> None:
    with _anthropic(url).messages.stream(model="any", messages=MESSAGES, max_tokens=20) as stream:
        assert "".join(stream.text_stream) == stream.get_final_message().content[0].text


@check("anthropic", "tools")
def anthropic_calls_tools(url: str) -> None:
    tool = {"name": "choose", "description": "Chooses.", "input_schema": SCHEMA}
    reply = _anthropic(url).messages.create(
        model="any", messages=MESSAGES, max_tokens=99, tools=[tool],
        tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert reply.stop_reason == "tool_use" and is_choice(reply.content[0].input)


@check("anthropic", "count tokens")
def anthropic_counts_tokens(url: str) -> None:
    assert _anthropic(url).messages.count_tokens(model="any", messages=MESSAGES).input_tokens > 0


# -- ollama

def _ollama(url: str) -> Any:
    import ollama

    return ollama.Client(host=url)


@check("ollama", "list and show")
def ollama_lists(url: str) -> None:
    name = _ollama(url).list().models[0].model
    assert "tools" in _ollama(url).show(name).capabilities


@check("ollama", "chat and stream")
def ollama_chats(url: str) -> None:
    options = {"num_predict": 20}
    assert _ollama(url).chat("any", MESSAGES, options=options).message.content
    parts = list(_ollama(url).chat("any", MESSAGES, options=options, stream=True))
    assert parts[-1].done and "".join(part.message.content for part in parts)


@check("ollama", "structured output")
def ollama_keeps_forms(url: str) -> None:
    assert is_choice(_ollama(url).chat("any", MESSAGES, format=SCHEMA).message.content)


# -- litellm

@check("litellm", "openai, anthropic and ollama behind it")
def litellm_chats(url: str) -> None:
    import litellm

    for model, base in (("openai/any", f"{url}/v1"), ("anthropic/any", url), ("ollama_chat/any", url)):
        reply = litellm.completion(model=model, api_base=base, api_key=KEY, messages=MESSAGES, max_tokens=20)
        assert reply.choices[0].message.content, model
        stream = litellm.completion(model=model, api_base=base, api_key=KEY, messages=MESSAGES, max_tokens=20,
                                    stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream), model


@check("litellm", "tools")
def litellm_calls_tools(url: str) -> None:
    import litellm

    reply = litellm.completion(model="openai/any", api_base=f"{url}/v1", api_key=KEY, messages=MESSAGES,
                               tools=[FUNCTION], tool_choice="required", parallel_tool_calls=False)
    assert is_choice(reply.choices[0].message.tool_calls[0].function.arguments)


# -- langchain-openai

def _chain(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="any", base_url=f"{url}/v1", api_key=KEY, max_retries=0, max_tokens=99)


@check("langchain-openai", "invoke and stream")
def langchain_invokes(url: str) -> None:
    assert _chain(url).invoke(SAY).content
    assert "".join(str(chunk.content) for chunk in _chain(url).stream(SAY))


@check("langchain-openai", "tools")
def langchain_calls_tools(url: str) -> None:
    bound = _chain(url).bind_tools([FUNCTION], tool_choice="required", parallel_tool_calls=False)
    assert is_choice(bound.invoke(SAY).tool_calls[0]["args"])


@check("langchain-openai", "responses")
def langchain_gets_responses(url: str) -> None:
    from langchain_openai import ChatOpenAI

    chain = ChatOpenAI(model="any", base_url=f"{url}/v1", api_key=KEY, max_retries=0, max_tokens=99,
                       use_responses_api=True)
    assert chain.invoke(SAY).text and "".join(chunk.text for chunk in chain.stream(SAY))


@check("langchain-openai", "structured output")
def langchain_keeps_forms(url: str) -> None:
    shaped = _chain(url).with_structured_output({"title": "choice", **SCHEMA}, method="json_schema")
    assert is_choice(shaped.invoke(SAY))


def run(checks: dict[str, Check], url: str) -> dict[str, str]:
    """What of it works: "ok", or the error."""
    found = {}
    for what, function in checks.items():
        try:
            function(url)
            found[what] = "ok"
        except Exception as error:  # of a stranger's library, whatever it is
            traceback.print_exc()
            found[what] = f"{type(error).__name__}: {error}"[:300]
    return found


def run_node(folder: Path, url: str) -> dict[str, dict[str, Any]]:
    """The checks of the libraries for JavaScript."""
    script = folder / "check.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    said = subprocess.run(["node", script.name, url], cwd=folder, capture_output=True, text=True, timeout=300)
    if said.returncode:
        raise RuntimeError(said.stderr)
    checks = json.loads(said.stdout.splitlines()[-1])  # behind the SDK's warnings
    versions = {name: json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
                for name in checks}
    return {f"{name} (npm)": {"version": versions[name], "checks": found} for name, found in checks.items()}


def version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


@contextlib.contextmanager
def server(url: str) -> Iterator[str]:
    """The address of a server: `url`, or one that is started for this."""
    if url:
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as sessions:
        command = [sys.executable, "app.py", "--no-browser", "--port", "0", "--sessions-dir", sessions]
        with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = next((found[1] for line in process.stdout
                            if (found := re.search(r"(http://\S+?)/\s", line))), "")
            try:
                yield address
            finally:
                process.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="")
    parser.add_argument("--node", type=path_option, metavar="FOLDER")
    parser.add_argument("--json", type=path_option, metavar="FILE")
    options = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    with server(options.url) as url:
        for library, checks in CHECKS.items():
            installed = version(library)
            report[library] = {"version": installed, "checks": run(checks, url) if installed else {}}
        if options.node:
            report |= run_node(options.node, url)
    for library, found in report.items():
        print(f"{library} {found['version'] or '(not installed)'}")
        for what, outcome in found["checks"].items():
            print(f"    {what:<45}{outcome}")
    if options.json:
        text = json.dumps({"command": "python -m tools.check_clients", "clients": report}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(outcome != "ok" for found in report.values() for outcome in found["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
