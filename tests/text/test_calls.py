"""Tools of every style: shown as templates want them, their calls read as they come, held to their
schemas."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from transformers import AutoTokenizer

from model.text.calls.matching import CallCompiler
from model.text.calls.reading import CallReader
from model.text.calls.rendering import call_id, told_of
from model.text.calls.rendering import written as written_calls
from model.text.calls.styles import HERMES, call_style
from model.text.calls.toolbox import Tool, Toolbox, ToolCall
from model.text.calls.values import from_keys, from_pairs, from_python, from_tags
from model.text.chat_template import ChatTemplate, PlainFormat
from model.text.constraint import ConstraintCompiler
from model.text.forms import Forms
from model.text.messages import ChatMessage
from model.text.reply_text import ReplyText
from model.text.tokenizer import Tokenizer
from tests.helpers.call_templates import CALLERS, LFM25, caller_folder
from tests.helpers.family_templates import FAMILIES
from tests.helpers.text_samples import TEMPLATES, starter_folder

LOOK = Tool("look", "Looks at a place.", {
    "type": "object", "required": ["place", "days"], "additionalProperties": False, "properties": {
        "place": {"type": "string", "description": "where", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2}}})
AGAIN = Tool("again", "Looks again.", {
    "type": "object", "required": ["deep"], "additionalProperties": False, "properties": {
        "deep": {"type": "object", "required": ["x"], "additionalProperties": False,
                 "properties": {"x": {"type": "boolean"}}}}})
TOOLS = Toolbox((LOOK, AGAIN))
FIRST, SECOND = {"place": "Rome", "days": 3, "tags": ["a", "b"]}, {"deep": {"x": True}}
USER = ChatMessage("user", "How is it there?")
CALLED = ChatMessage("assistant", "", calls=(ToolCall("look", FIRST, "call12345"),))
RESULT = ChatMessage("tool", "It is fine.", call_id="call12345")


@pytest.fixture(scope="module")
def callers(tmp_path_factory, process):
    """name -> (the caller, its tokenizer, its ChatTemplate, its folder)."""
    found = {}
    for name, caller in CALLERS.items():
        folder = caller_folder(tmp_path_factory.mktemp("caller"), name)
        tokenizer = Tokenizer.load(folder)
        found[name] = (caller, tokenizer, ChatTemplate(caller.template, name, tokenizer, process), folder)
    return found


@pytest.fixture(scope="module")
def forms(callers):
    made = {name: Forms(tokenizer, tokenizer.vocab_size + 3) for name,
            (_, tokenizer, _, _) in callers.items()}
    yield made
    for form in made.values():
        form.close()


def read(pieces):
    """(text, [(name, arguments)]) of what a reader lets out."""
    text, calls = "", []
    for channel, piece in pieces:
        if channel == "call":
            calls.append([piece, ""])
        elif channel == "arguments":
            calls[-1][1] += piece
        else:
            text += piece
    return text, [(name, json.loads(arguments)) for name, arguments in calls]


def expected(caller):
    return [("look", FIRST), ("again", SECOND)][:2 if caller.calls_twice else 1]


def written(tokenizer, prompt, form, tools, seed=0, most=600):
    """What somebody writes who takes any allowed token: (its pieces, its tokens, whether it came to an
    end)."""
    rng, token_ids = random.Random(seed), []
    reader = ReplyText((), prompt.at, False, prompt.think_format, CallReader(prompt.calls, tools))
    detokenizer, pieces = tokenizer.detokenizer(prompt.calls.marks), []
    while len(token_ids) < most and not form.is_complete and not reader.stopped:
        token_id = rng.choice(allowed(form, tokenizer.vocab_size + 3))
        if token_id in tokenizer.eos_ids:
            return pieces + reader.push(detokenizer.finish()) + reader.finish(), token_ids, True
        form.accept([token_id])
        token_ids.append(token_id)
        pieces += reader.push(detokenizer.push(token_id))
    return pieces + reader.push(detokenizer.finish()) + reader.finish(), token_ids, len(token_ids) < most


def allowed(form, vocab_size):
    mask = np.zeros((vocab_size + 31) // 32, np.int32)
    form.fill_mask(mask)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size].nonzero()[0].tolist()


def check(name, arguments):
    """By hand, against the schemas above."""
    if name == "look":
        assert {"place", "days"} <= arguments.keys() <= {"place", "days", "tags"}
        assert isinstance(arguments["place"], str) and 1 <= arguments["days"] <= 9
        assert set(arguments.get("tags", [])) <= {"a", "b"}
    else:
        assert name == "again" and list(arguments) == ["deep"] and list(arguments["deep"]) == ["x"]
        assert isinstance(arguments["deep"]["x"], bool)


# -- into the prompt

@pytest.mark.parametrize("name", CALLERS)
def test_the_style_is_told_by_the_template(callers, name):
    assert call_style(CALLERS[name].template).name == name
    assert callers[name][2].prompt([USER], tools=TOOLS).calls.name == name


@pytest.mark.parametrize("template", [*TEMPLATES.values(), FAMILIES["deepseek_r1"].template])
def test_a_template_without_tools_has_no_style(template):
    assert call_style(template) is None


def test_marks_of_hermes_around_something_else_are_not_its_style():
    """As MiniMax M3 writes calls."""
    template = "{% for tool in tools %}{% endfor %}<tool_call><invoke name=\"{{ arguments }}\"></tool_call>"
    assert call_style(template.replace("<invoke name=", "")) is HERMES and call_style(template) is None


@pytest.mark.parametrize("name", CALLERS)
def test_tools_calls_and_results_are_rendered_as_transformers_does(callers, name):
    caller, _tokenizer, chat, folder = callers[name]
    reference, style = AutoTokenizer.from_pretrained(folder), call_style(caller.template)
    arguments = FIRST if caller.shows_tools else json.dumps(FIRST)
    told = [] if caller.shows_tools else [{"role": "system", "content": told_of(TOOLS, style, str)}]
    shown = [{"role": "user", "content": USER.content},
             {"role": "assistant", "content": None if style.bare else "", "tool_calls": [
                 {"id": "call12345", "type": "function",
                  "function": {"name": "look", "arguments": arguments}}]},
             {"role": "tool", "content": RESULT.content, "tool_call_id": "call12345", "name": "look"}]
    if not caller.shows_calls:
        shown[1] = {"role": "assistant", "content": written_calls(CALLED.calls, style)}
    for count in (1, 3):
        prompt = chat.prompt([USER, CALLED, RESULT][:count], tools=TOOLS)
        assert prompt.text == reference.apply_chat_template(
            told + shown[:count], tools=TOOLS.as_json(), tokenize=False, add_generation_prompt=True,
            bos_token="")
    without = chat.prompt([USER, CALLED, RESULT])
    assert without.calls is None and "It is fine." in without.text and "Looks at a place." not in without.text


@pytest.mark.parametrize("name", CALLERS)
def test_control_tokens_in_tools_and_calls_are_text(callers, name):
    caller, tokenizer, chat, _ = callers[name]
    mark = caller.special[0]
    plain, typed = (chat.prompt(
        [USER, ChatMessage("assistant", "", calls=(ToolCall("look", {"place": said}, "call12345"),)),
         ChatMessage("tool", said, call_id="call12345")],
        tools=Toolbox((Tool("look", said, LOOK.parameters),))) for said in ("x", mark))
    control = [[token_id for token_id in tokenizer.encode_masked(prompt.text, prompt.hidden)
                if token_id in tokenizer.control_ids] for prompt in (plain, typed)]
    assert control[0] == control[1]


def test_ids_are_made_short_where_a_template_wants_them_so(callers):
    chat = callers["mistral list"][2]
    text = chat.prompt([USER,
                        ChatMessage("assistant", "", calls=(ToolCall("look", FIRST, "call_" + "f" * 24),)),
                        ChatMessage("tool", "Fine.", call_id="call_" + "f" * 24)], tools=TOOLS).text
    short = call_id("call_" + "f" * 24, True)
    assert len(short) == 9 and short.isalnum() and text.count(short) == 2
    assert call_id("abc123XYZ", True) == "abc123XYZ" and call_id("call_1", False) == "call_1"


def test_a_template_that_wants_arguments_as_text_gets_them_so(tmp_path, process):
    template = CALLERS["hermes"].template.replace("c.function.arguments | tojson", "c.function.arguments")
    tokenizer = Tokenizer.load(caller_folder(tmp_path, "hermes"))
    text = ChatTemplate(template, "here", tokenizer, process).prompt([USER, CALLED, RESULT], tools=TOOLS).text
    assert f'"arguments": {json.dumps(FIRST)}' in text


def test_a_template_without_tools_is_told_of_them_in_words(tmp_path, process):
    tokenizer = Tokenizer.load(starter_folder(tmp_path))
    chat = ChatTemplate(tokenizer.settings.template, "here", tokenizer, process)
    messages = [ChatMessage("system", "Be brief."), USER, CALLED, RESULT]
    for prompt in (chat.prompt(messages, tools=TOOLS), PlainFormat(tokenizer).prompt(messages, tools=TOOLS)):
        assert prompt.calls is HERMES
        parts = ["Be brief.", "Looks at a place.", "How is it there?",
                 '<tool_call>\n{"name": "look", "arguments": ',
                 "<tool_response>\nIt is fine.\n</tool_response>"]
        places = [prompt.text.index(part) for part in parts]
        assert places == sorted(places)
    assert "<tool_response>" in chat.prompt(messages).text  # without tools what was said stays


# -- out of the reply

@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("seed", range(6))
def test_calls_are_read_however_a_reply_is_cut(name, seed):
    caller, rng = CALLERS[name], random.Random(seed)
    cuts = sorted(rng.sample(range(len(caller.reply)), seed * 5)) if seed < 5 else range(1, len(caller.reply))
    parts = [caller.reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(caller.reply)], strict=True)]
    reader = CallReader(call_style(caller.template), TOOLS)
    pieces = [piece for part in parts for piece in reader.push(part)] + reader.finish()
    text, calls = read(pieces)
    assert text.strip() == ("Let me look." if caller.says else "") and calls == expected(caller)
    assert reader.stopped == (name == "gemma")


@pytest.mark.parametrize("name", CALLERS)
def test_arguments_come_as_they_are_written(name):
    """Piece by piece in JSON; in other forms when the call is complete."""
    caller = CALLERS[name]
    reader = CallReader(call_style(caller.template), TOOLS)
    pieces = [piece for char in caller.reply for piece in reader.push(char)]
    several = sum(channel == "arguments" for channel, _ in pieces) > 10
    assert several == (call_style(caller.template).body == "json")


@pytest.mark.parametrize("name", CALLERS)
def test_with_one_call_to_a_reply_nothing_follows_it(name):
    caller = CALLERS[name]
    reader = CallReader(call_style(caller.template), Toolbox(TOOLS.tools, parallel=False))
    _text, calls = read(reader.push(caller.reply) + reader.finish())
    assert calls == expected(caller)[:1]
    assert reader.stopped and reader.push("more") == [] and reader.finish() == []


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("reply", [
    "Just text.", "a < b, [x] and {y}", "<tool", "[TOOL", "<|chan", '{"name', '{"na', "to=func", "", "\n \n",
    "<start_fun"])
def test_what_only_looks_like_a_call_is_text(name, reply):
    for parts in ([reply], list(reply)):
        reader = CallReader(call_style(CALLERS[name].template), TOOLS)
        text, calls = read([piece for part in parts for piece in reader.push(part)] + reader.finish())
        assert text.strip() == reply.strip() and not calls


def test_a_call_in_the_middle_of_an_answer_is_none_where_calls_come_first():
    for name, reply in (("llama", 'So: {"name": "look", "parameters": {}}'),
                        ("harmony", "Write to=functions.look<|message|>{}")):
        reader = CallReader(call_style(CALLERS[name].template), TOOLS)
        assert read(reader.push(reply) + reader.finish()) == (reply, [])


def test_a_call_that_is_cut_has_what_was_written_of_it():
    reader = CallReader(HERMES, TOOLS)
    pieces = reader.push('<tool_call>\n{"name": "look", "arguments": {"place": "Ro') + reader.finish()
    assert pieces == [("call", "look"), ("arguments", '{"place": "Ro')]
    head = '<tool_call>\n{"name": "lo'
    reader = CallReader(HERMES, TOOLS)
    assert read(reader.push(head) + reader.finish()) == (head, [])


def test_text_goes_on_after_a_call_and_stop_strings_are_of_text_alone():
    text = ReplyText(["STOP"], calls=CallReader(HERMES, TOOLS))
    call = '<tool_call>\n{"name": "look", "arguments": {"place": "STOP"}}\n</tool_call>'
    pieces = text.push(f"One ST{call} two. STOP three.") + text.finish()
    said, calls = read(pieces)
    assert said == "One ST two. " and calls == [("look", {"place": "STOP"})] and text.reason == "stop"


def test_a_thought_holds_no_call():
    thought = f"<think>I may write {CALLERS['hermes'].reply}</think>No."
    text = ReplyText((), calls=CallReader(HERMES, TOOLS))
    pieces = text.push(thought) + text.finish()
    assert [piece for channel, piece in pieces if channel == "text"] == ["No."]
    assert not any(channel == "call" for channel, _ in pieces)


@pytest.mark.parametrize(("text", "value"), [
    ('{a:<|"|>x, y}<|"|>,b:-1.5,c:[true,null,{d:<|"|><|"|>}],e:{}}',
     {"a": "x, y}", "b": -1.5, "c": [True, None, {"d": ""}], "e": {}}),
    ('{ "a b" : "c\\"d" , e: None }', {"a b": 'c"d', "e": None}), ("{}", {}), ("{a:word}", {"a": "word"})])
def test_pairs_become_values(text, value):
    assert from_pairs(text, '<|"|>') == value


@pytest.mark.parametrize("text",
                         ["", "{", "{a", "{a:", "{a:1", "{a 1}", '{a:<|"|>x}', "{} x", "[1,,2]"])
def test_pairs_that_make_no_sense_are_an_error(text):
    with pytest.raises(ValueError):
        from_pairs(text, '<|"|>')


@pytest.mark.parametrize(("text", "value"), [
    ("()", {}), ("(a=1, b='it\\'s (a, [b', c=\"x\\n\")", {"a": 1, "b": "it's (a, [b", "c": "x\n"}),
    ("(a=[True, False, None, true, -1.5], b={'x': {\"y\": []}})",
     {"a": [True, False, None, True, -1.5], "b": {"x": {"y": []}}})])
def test_arguments_in_python_become_values(text, value):
    assert from_python(text) == value


@pytest.mark.parametrize("text", ["(a)", "(a=)", "(a='x)", "(a=[1] b=2)", "(1, 2)", "(a=[1)"])
def test_arguments_in_python_that_make_no_sense_are_an_error(text):
    with pytest.raises(ValueError):
        from_python(text)


def test_calls_are_a_part_of_what_was_said_where_a_template_has_no_place_for_them(callers):
    """With marks that are tokens, and texts that are none: what was said before stays before them."""
    said = ChatMessage("assistant", "Well.", calls=(
        ToolCall("look", {"place": 'the "<|tool_call_start|>"', "days": 3, "tags": ["a"]}),
        ToolCall("again", {"deep": {"x": True, "y": None}})))
    expected = {
        "granite": 'Well.<|tool_call|>[{"name": "look", "arguments": {"place": "the '
                   '\\"<|tool_call_start|>\\"", "days": 3, "tags": ["a"]}}, '
                   '{"name": "again", "arguments": {"deep": {"x": true, "y": null}}}]',
        "lfm2": 'Well.<|tool_call_start|>[look(place="the \\"<|tool_call_start|>\\"", days=3, tags=["a"]), '
                'again(deep={"x": True, "y": None})]<|tool_call_end|>'}
    for name, text in expected.items():
        _caller, tokenizer, chat, _ = callers[name]
        prompt = chat.prompt([USER, said, RESULT], tools=TOOLS)
        assert text in prompt.text.translate(str.maketrans(prompt.hidden))
        opening = tokenizer.token_id(call_style(CALLERS[name].template).openings[0])
        written_ids = tokenizer.encode_masked(prompt.text, prompt.hidden)
        assert written_ids.count(opening) == 1 + (name == "granite"), "the call, and where tools are told of"


def test_a_template_that_writes_calls_in_python_itself_does_so(callers, process):
    tokenizer = callers["lfm2"][1]
    prompt = ChatTemplate(LFM25, "here", tokenizer, process).prompt([USER, CALLED, RESULT], tools=TOOLS)
    assert prompt.calls.name == "lfm2"
    assert "<|tool_call_start|>[look(place='Rome', days=3, tags=['a', 'b'])]<|tool_call_end|>" in prompt.text


def test_a_deepseek_model_is_told_of_tools_in_words_with_marks_that_are_tokens(callers):
    """Behind what else the system says; and what it has said before a call is not lost."""
    for name in ("deepseek", "deepseek 3.1"):
        _caller, tokenizer, chat, _ = callers[name]
        said = ChatMessage("assistant", "Well.", calls=CALLED.calls)
        prompt = chat.prompt([ChatMessage("system", "Be brief."), USER, said, RESULT], tools=TOOLS)
        parts = ("Be brief.", "### look\nDescription: Looks at a place.", '{"type": "object"', "### again",
                 "How is it")
        places = [prompt.text.index(part) for part in parts]
        assert places == sorted(places)
        begin = tokenizer.token_id("<｜tool▁calls▁begin｜>")
        token_ids = tokenizer.encode_masked(prompt.text, prompt.hidden)
        assert token_ids.count(begin) == 2, "the form, and the call"
        if prompt.calls.apart:
            assert "Well.<｜end▁of▁sentence｜><｜Assistant｜><｜tool▁calls▁begin｜>" in prompt.text


def test_keys_become_what_their_schema_says():
    text = ("<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n<arg_key>s</arg_key><arg_value>12</arg_value>"
            "<arg_key>t</arg_key>\n<arg_value>two\n\nlines</arg_value>")
    schema = {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}
    assert from_keys(text, schema) == {"n": 12, "s": "12", "t": "two\n\nlines"}


def test_tags_become_what_their_schema_says():
    text = ("<parameter=n>\n12\n</parameter>\n<parameter=s>\n12\n</parameter>"
            "<parameter=t>two\n\nlines</parameter>"
            "<parameter=o>{\"a\": [1]}</parameter><parameter=bad>\nno number\n</parameter>")
    schema = {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}, "o": {"type": "object"},
                             "bad": {"type": "integer"}}}
    assert from_tags(text, schema) == {"n": 12, "s": "12", "t": "two\n\nlines", "o": {"a": [1]},
                                       "bad": "no number"}


# -- held to the schemas

@pytest.mark.parametrize("name", CALLERS)
def test_a_reply_that_must_call_makes_calls_that_keep_their_schemas(callers, forms, name):
    _caller, tokenizer, chat, _ = callers[name]
    ended = 0
    for seed in range(8):
        tools = Toolbox(TOOLS.tools, "required", parallel=seed % 2 == 0)
        prompt = chat.prompt([USER], tools=tools)
        form = forms[name].of_calls(None, prompt, prompt.calls, tools)
        pieces, _, is_whole = written(tokenizer, prompt, form, tools, seed)
        ended += is_whole
        if is_whole:
            text, calls = read([piece for piece in pieces if piece[0] != "think"])
            assert calls and not text.strip() and (tools.parallel or len(calls) == 1)
            for call in calls:
                check(*call)
    assert ended >= 2


@pytest.mark.parametrize("name", CALLERS)
def test_the_call_that_is_asked_for_is_the_one_that_comes(callers, forms, name):
    _caller, tokenizer, chat, _ = callers[name]
    tools = Toolbox(TOOLS.tools, "again", parallel=False)
    prompt = chat.prompt([USER], tools=tools)
    names = set()
    for seed in range(6):
        pieces, _, is_whole = written(tokenizer, prompt,
                                      forms[name].of_calls(None, prompt, prompt.calls, tools), tools,
                                      seed)
        if is_whole:
            names |= {call for call, _ in read([piece for piece in pieces if piece[0] != "think"])[1]}
    assert names == {"again"}


@pytest.mark.parametrize("name", CALLERS)
def test_a_reply_that_may_call_is_free_until_it_does(callers, forms, name):
    """What such a model writes is allowed token by token; in a call only what its schema allows."""
    caller, tokenizer, chat, _ = callers[name]
    prompt = chat.prompt([USER], tools=TOOLS)
    form = forms[name].of_calls(None, prompt, prompt.calls, TOOLS)
    everything = len(allowed(form, tokenizer.vocab_size + 3))
    assert everything >= tokenizer.vocab_size
    token_ids = tokenizer.encode(caller.reply, add_bos=False)
    assert form.count_possible(token_ids) > 0
    sizes = []
    for token_id in token_ids:
        options = allowed(form, tokenizer.vocab_size + 3)
        assert token_id in options, tokenizer.decode([token_id], skip_control=False)
        sizes.append(len(options))
        form.accept([token_id])
    assert min(sizes) < 10 and sizes[0] == everything
    assert len(allowed(form, tokenizer.vocab_size + 3)) > 1


@pytest.mark.parametrize("name", CALLERS)
def test_what_is_taken_back_never_was(callers, forms, name):
    caller, tokenizer, chat, _ = callers[name]
    prompt = chat.prompt([USER], tools=TOOLS)
    form = forms[name].of_calls(None, prompt, prompt.calls, TOOLS)
    token_ids, rng = tokenizer.encode(caller.reply, add_bos=False), random.Random(name)
    masks, at = [], 0
    while at < len(token_ids):
        ahead = rng.randrange(1, 9)
        for token_id in token_ids[at:at + ahead]:
            masks.append(allowed(form, tokenizer.vocab_size))
            form.accept([token_id])
        at = min(at + ahead, len(token_ids))
        back = rng.randrange(min(ahead, at))
        form.take_back(back)
        at -= back
        for token_id in token_ids[at:at + back]:
            assert allowed(form, tokenizer.vocab_size) == masks[at]
            form.accept([token_id])
            at += 1


def test_nothing_is_held_in_a_thought(callers, forms):
    _caller, tokenizer, chat, _ = callers["hermes"]
    prompt = chat.prompt([USER], tools=TOOLS)
    form = forms["hermes"].of_calls(None, prompt, prompt.calls, TOOLS)
    form.accept(tokenizer.encode("<think>\nI may <tool_call>", add_bos=False))
    assert len(allowed(form, tokenizer.vocab_size)) == tokenizer.vocab_size
    form.accept(tokenizer.encode(" or not </think> <tool_call>", add_bos=False))
    assert len(allowed(form, tokenizer.vocab_size)) < 20


def test_one_call_ends_a_reply_that_may_have_no_more(callers, forms):
    caller, tokenizer, chat, _ = callers["hermes"]
    tools = Toolbox(TOOLS.tools, parallel=False)
    prompt = chat.prompt([USER], tools=tools)
    form = forms["hermes"].of_calls(None, prompt, prompt.calls, tools)
    first = caller.reply[:caller.reply.index("</tool_call>") + len("</tool_call>")]
    ids = tokenizer.encode(first, add_bos=False)
    form.accept(ids)
    assert form.is_complete
    form.take_back(1)
    assert not form.is_complete and allowed(form, tokenizer.vocab_size) == [ids[-1]]


def test_beside_tools_an_answer_may_have_a_form(callers, forms):
    from model.text.constraint import Constraint

    _caller, tokenizer, chat, _ = callers["hermes"]
    prompt = chat.prompt([USER], tools=TOOLS)
    answer = Constraint.json_schema({"type": "object", "properties": {"ok": {"type": "boolean"}},
                                     "required": ["ok"],
                                     "additionalProperties": False})
    form = forms["hermes"].of_calls(answer, prompt, prompt.calls, TOOLS)
    starts = {tokenizer.token_text(token_id)[:1] for token_id in allowed(form, tokenizer.vocab_size)}
    assert starts == {"<", "{"}
    with pytest.raises(ValueError, match="JSON schema only"):
        forms["hermes"].of_calls(Constraint.regex("a"), prompt, prompt.calls, TOOLS)


def test_a_schema_that_cannot_be_followed_is_any_object_unless_it_is_strict(callers, caplog):
    _caller, tokenizer, chat, _ = callers["hermes"]
    bad = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a{1000}){1000}$"}},
           "required": ["x"]}
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocab_size)
    calls = CallCompiler(compiler, tokenizer)
    prompt = chat.prompt([USER], tools=TOOLS)
    try:
        tools = Toolbox((LOOK, Tool("odd", "", bad)))
        form = calls.free(HERMES, tools, prompt)
        form.accept(tokenizer.encode('<tool_call>\n{"name": "odd", "arguments": {"any": 1}}\n',
                                     add_bos=False))
        assert "the schema of the tool odd cannot be followed" in caplog.text
        form = calls.free(HERMES, tools, prompt)  # the other one keeps its own
        start = tokenizer.encode('<tool_call>\n{"name": "look", "arguments": {', add_bos=False)
        form.accept(start)
        assert form.count_possible(tokenizer.encode_within('"any"')) < 3
        with pytest.raises(ValueError, match="parameters of odd cannot be followed"):
            calls.free(HERMES, Toolbox((LOOK, Tool("odd", "", bad, strict=True))), prompt)
    finally:
        compiler.close()


@pytest.mark.parametrize(("make", "problem"), [
    (lambda: Tool(""), "1 to 200"), (lambda: Tool("a b"), "white space"), (lambda: Tool('a"b'), "quotes"),
    (lambda: Tool("x", parameters=[]), "no JSON schema"), (lambda: Toolbox(()), "1 to 512"),
    (lambda: Toolbox((LOOK, LOOK)), "different names"), (lambda: Toolbox((LOOK,), "other"),
                                                         "there are look")])
def test_tools_that_make_no_sense_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
