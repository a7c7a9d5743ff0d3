"""Chat templates with tools in the style of the families that have them, written for these tests, and replies
with calls as such models write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.text_samples import qwen_folder

_CHATML_CALL = """\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments |
tojson +
    '}\\n</tool_call>"""
_CHATML = """
{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>' + m.content + '</tool_response>' }}
    {%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}{%- endif %}
    {%- for c in m.tool_calls or [] %}{{- 'CALL' }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
HERMES = _CHATML.replace("CALL", _CHATML_CALL)
TAGS = _CHATML.replace("{{- 'CALL' }}", """{{- '\\n<tool_call>\\n<function=' + c.function.name + '>\\n' }}
    {%- for key, value in c.function.arguments | items %}
        {{- '<parameter=' + key + '>\\n' + (value if value is string else value | tojson) +
        '\\n</parameter>\\n' }}
    {%- endfor %}{{- '</function>\\n</tool_call>' }}""")
LLAMA = """{{- bos_token }}{%- for m in messages %}
    {{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\\n\\n' }}
    {%- if loop.first and tools %}
        {{- 'Answer with {"name": function name, "parameters": dictionary of argument name and its value}.\\n'
        }} {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
    {%- endif %}
    {%- if m.tool_calls %}{%- set c = m.tool_calls[0].function %}
        {{- '{"name": "' + c.name + '", "parameters": ' + c.arguments | tojson + '}' }}
    {%- else %}{{- m.content | trim }}{%- endif %}{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
GLM = """[gMASK]<sop>{%- if tools %}{{- '<|system|>\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}
{%- endfor %}{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' %}
        {{- '<|observation|>\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
    {%- else %}{{- '<|' + m.role + '|>\\n' + m.content }}{%- endif %}
    {%- for c in m.tool_calls or [] %}{{- '\\n<tool_call>' + c.function.name + '\\n' }}
        {%- for key, value in c.function.arguments.items() %}
            {{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' +
            (value if value is string else value | tojson) + '</arg_value>\\n' }}{%- endfor %}
    {{- '</tool_call>' }}{%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"""
_DEEPSEEK = """{{- bos_token }}{%- for m in messages if m.role == 'system' %}{{- m.content }}{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}
    {%- elif m.role == 'tool' %}{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
    {%- elif CALLS %}{{- '<｜Assistant｜>' + (m.content or '') + '<｜tool▁calls▁begin｜>' }}
        {%- for c in m.tool_calls %}{{- '<｜tool▁call▁begin｜>' CALL + '<｜tool▁call▁end｜>' }}{%- endfor %}
        {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
    {%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and messages[-1].role == 'user' %}{{- '<｜Assistant｜>' }}{%- endif %}"""
DEEPSEEK_31 = _DEEPSEEK.replace("CALLS", "m.tool_calls").replace(
    "CALL", "+ c.function.name + '<｜tool▁sep｜>' + c.function.arguments")
DEEPSEEK = _DEEPSEEK.replace(
    "CALLS", "m.tool_calls and (m.content is none or m.content is not defined)").replace(
    "CALL", "+ c.type + '<｜tool▁sep｜>' + c.function.name + '\\n```json\\n' + "
                                     "c.function.arguments + '\\n```'")
SEED = TAGS.replace("\\n<tool_call>\\n", "\\n<seed:tool_call>\\n").replace(
    "</tool_call>", "</seed:tool_call>").replace("+ '>\\n' +\n", "+ '>' +\n").replace(
    "'\\n</parameter>", "'</parameter>")
MINIMAX = _CHATML.replace("{%- for c in m.tool_calls or [] %}{{- 'CALL' }}{%- endfor %}", """
    {%- if m.tool_calls %}{{- '\\n<minimax:tool_call>\\n' }}
        {%- for c in m.tool_calls %}{{- '<invoke name="' + c.function.name + '">\\n' }}
            {%- for key, value in c.function.arguments.items() %}{{- '<parameter name="' + key + '">' +
            (value if value is string else value | tojson) + '</parameter>\\n' }}{%- endfor %}
        {{- '</invoke>\\n' }}{%- endfor %}
    {{- '</minimax:tool_call>' }}{%- endif %}""")
_LISTED = """{%- if m.tool_calls %}{{- '@OPEN@[' }}{%- for c in m.tool_calls %}
    {{- @CALL@ + c.function.arguments | tojson + '}' }}
    {%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']@CLOSE@' }}{%- endif %}"""


def _listed(opening: str, call: str, closing: str) -> str:
    """All calls in one list; `call`: what stands before the arguments, as an expression."""
    return _CHATML.replace("{%- for c in m.tool_calls or [] %}{{- 'CALL' }}{%- endfor %}", _LISTED.replace(
        "@OPEN@", opening).replace("@CLOSE@", closing).replace("@CALL@", call))


NEMOTRON = _listed("<TOOLCALL>", """'{"name": "' + c.function.name + '", "arguments": '""", "</TOOLCALL>")
COHERE = _listed("<|START_ACTION|>", """'{"tool_call_id": "' + loop.index0 | string + '", "tool_name": "' +
    c.function.name + '", "parameters": '""", "<|END_ACTION|>")
APERTUS = _listed("<|tools_prefix|>", """'{"' + c.function.name + '": '""", "<|tools_suffix|>")
_TOLD = """{{- bos_token }}{%- for m in messages %}{%- if loop.first and tools %}{{- 'TOLD' }}{%- endif %}
    {{- 'OPEN' + m.role + 'ROLE' + m.content + 'END\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'OPENassistantROLE' }}{%- endif %}"""


def _told(**marks: str) -> str:
    """Tools are shown, and calls stand in what was said."""
    text = _TOLD
    for name, mark in marks.items():
        text = text.replace(name, mark)
    return text


GRANITE = _told(TOLD="""OPENsystemROLERespond with <|tool_call|> followed by a JSON list of tools used.END' +
    'OPENavailable_toolsROLE' + tools | tojson(indent=4) + 'END\\n""", OPEN="<|start_of_role|>",
                ROLE="<|end_of_role|>", END="<|end_of_text|>")
LFM2 = _told(TOLD="""OPENsystem\\nList of tools: <|tool_list_start|>[' + tools | map('tojson') | join(', ') +
    ']<|tool_list_end|>END\\n""", OPEN="<|im_start|>", ROLE="\\n", END="<|im_end|>")
_NATIVE = """{%- if m.tool_calls %}{{- '<|tool_call_start|>[' }}{%- for c in m.tool_calls %}
    {{- c.function.name + '(' }}{%- for key, value in c.function.arguments.items() %}
    {{- key + '=' + ("'" + value + "'" if value is string else value | string) }}
    {%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ')' }}
    {%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']<|tool_call_end|>' }}{%- endif %}"""
LFM25 = _CHATML.replace("tool | tojson + '\\n' }}{%- endfor %}", "'List of tools: [' + tool | tojson + ']' }}"
                        "{%- endfor %}").replace(
    "{%- for c in m.tool_calls or [] %}{{- 'CALL' }}{%- endfor %}", _NATIVE)
KIMI = """{%- if tools %}{{- '<|im_system|>tool_declare<|im_middle|>' + tools | tojson + '<|im_end|>' }}
{%- endif %}
{%- for m in messages %}{{- '<|im_' + ('system' if m.role == 'tool' else m.role) + '|>' + m.role +
    '<|im_middle|>' }}
    {%- if m.role == 'tool' %}{{- '## Return of ' + m.tool_call_id + '\\n' }}{%- endif %}{{- m.content }}
    {%- if m.tool_calls %}{{- '<|tool_calls_section_begin|>' }}{%- for c in m.tool_calls %}
        {{- '<|tool_call_begin|>functions.' + c.function.name + ':' + loop.index0 | string +
            '<|tool_call_argument_begin|>' + c.function.arguments | tojson + '<|tool_call_end|>' }}
    {%- endfor %}{{- '<|tool_calls_section_end|>' }}{%- endif %}{{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}"""
_MISTRAL = """{{- bos_token }}{%- if tools %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]'
}}{%- endif %} {%- for m in messages %}
    {%- if m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}
    {%- elif m.role == 'tool' %}
        {%- if m.tool_call_id | length != 9 %}{{- raise_exception('ids have nine letters') }}{%- endif %}
        {{- '[TOOL_RESULTS]' + m.tool_call_id + m.content + '[/TOOL_RESULTS]' }}
    {%- elif m.tool_calls %}{{- CALLS + eos_token }}
    {%- elif m.role == 'assistant' %}{{- m.content + eos_token }}
    {%- else %}{{- raise_exception('no such role') }}{%- endif %}
{%- endfor %}"""
MISTRAL_LIST = _MISTRAL.replace("{{- CALLS + eos_token }}", """{{- '[TOOL_CALLS][' }}{%- for c in m.tool_calls
%}
    {{- '{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson + ', "id": "' +
    c.id + '"}' }} {%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' + eos_token }}""")
MISTRAL = _MISTRAL.replace("CALLS", "'[TOOL_CALLS]' + m.tool_calls[0].function.name + '[ARGS]' + "
                                    "m.tool_calls[0].function.arguments | tojson")
HARMONY = """{{- '<|start|>system<|message|># Valid channels: analysis, commentary, final.<|end|>' }}
{%- if tools %}{{- '<|start|>developer<|message|>namespace functions {' }}
    {%- for tool in tools %}{{- '\\n// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = '
    }} {{- tool.function.parameters | tojson }}{%- endfor %}{{- '}<|end|>' }}{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' %}{{- '<|start|>functions.' + m.name + ' to=assistant<|message|>' + m.content +
    '<|end|>' }} {%- elif m.tool_calls %}{%- set c = m.tool_calls[0].function %}
        {{- '<|start|>assistant<|channel|>commentary to=functions.' + c.name + ' <|constrain|>json<|message|>'
        }} {{- c.arguments | tojson + '<|call|>' }}
    {%- elif m.role == 'assistant' %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content +
    '<|end|>' }} {%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"""
_GEMMA = """
{%- macro shown(value) -%}
    {%- if value is string -%}{{ 'QUOTE' + value + 'QUOTE' }}
    {%- elif value is boolean -%}{{ 'true' if value else 'false' }}
    {%- elif value is mapping -%}{{ '{' }}{%- for key, inner in value | dictsort -%}
        {{ key + ':' + shown(inner) }}{{ ',' if not loop.last else '' }}{%- endfor -%}{{ '}' }}
    {%- elif value is iterable -%}{{ '[' }}{%- for inner in value -%}{{ shown(inner) }}
        {{- ',' if not loop.last else '' }}{%- endfor -%}{{ ']' }}
    {%- else -%}{{ value }}{%- endif -%}
{%- endmacro -%}
{{- bos_token }}{%- for tool in tools or [] %}{{- 'DECLARE' + tool.function.name + tool.function.description
}}
    {{- shown(tool.function.parameters) + 'DECLARED' }}{%- endfor %}
{%- for m in messages %}{%- set role = 'model' if m.role == 'assistant' else m.role %}
    {{- 'TURN' + role + '\\n' + m.content }}
    {%- for c in m.tool_calls or [] %}
        {{- 'OPENcall:' + c.function.name + shown(c.function.arguments) + 'CLOSE' }}
    {%- endfor %}{{- 'ENDTURN\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'TURNmodel\\n' }}{%- endif %}"""


def _gemma(**marks: str) -> str:
    text = _GEMMA
    for name in sorted(marks, key=len, reverse=True):
        text = text.replace(name, marks[name])
    return text


GEMMA = _gemma(DECLARED="<tool|>", DECLARE="<|tool>", ENDTURN="<turn|>", TURN="<|turn>", OPEN="<|tool_call>",
               CLOSE="<tool_call|>", QUOTE='<|"|>')
FUNCTION_GEMMA = _gemma(
    DECLARED="<end_function_declaration>", DECLARE="<start_function_declaration>", ENDTURN="<end_of_turn>",
    TURN="<start_of_turn>", OPEN="<start_function_call>", CLOSE="<end_function_call>", QUOTE="<escape>")


@dataclass(frozen=True)
class Caller:
    """`reply` says "Let me look." where the style can say something first, and calls look(place="Rome",
    days=3, tags=["a", "b"]), and then again(deep={"x": true}) where it can make two calls."""

    template: str
    special: tuple[str, ...]
    reply: str
    eos: str
    says: bool = True
    calls_twice: bool = True
    shows_tools: bool = True
    shows_calls: bool = True


_LOOK = '{"place": "Rome", "days": 3, "tags": ["a", "b"]}'
_AGAIN = '{"deep": {"x": true}}'
_IM = ("<|im_start|>", "<|im_end|>")
_INST = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
         "[/TOOL_RESULTS]", "</s>")
_SEEK = ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>",
         "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>",
         "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")
_MOON = ("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>",
         "<|tool_call_end|>", "<|tool_calls_section_end|>")
_FIRST, _SECOND = (f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
                   for name, arguments in (("look", _LOOK), ("again", _AGAIN)))
CALLERS = {
    "hermes": Caller(HERMES, (*_IM, "<tool_call>", "</tool_call>"), f"Let me look.\n{_FIRST}\n{_SECOND}",
                     "<|im_end|>"),
    "tags": Caller(
        TAGS, (*_IM, "<tool_call>", "</tool_call>"),
        "Let me look.\n<tool_call>\n<function=look>\n<parameter=place>\nRome\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=tags>\n[\"a\", \"b\"]\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=again>\n<parameter=deep>\n{\"x\": true}\n</parameter>\n"
        "</function>\n</tool_call>", "<|im_end|>"),
    "seed": Caller(
        SEED, (*_IM, "<seed:tool_call>", "</seed:tool_call>"),
        "Let me look.\n<seed:tool_call>\n<function=look>\n<parameter=place>Rome</parameter>\n"
        "<parameter=days>3</parameter>\n<parameter=tags>[\"a\", \"b\"]</parameter>\n</function>\n"
        "</seed:tool_call>\n<seed:tool_call>\n<function=again>\n<parameter=deep>{\"x\": true}</parameter>\n"
        "</function>\n</seed:tool_call>", "<|im_end|>"),
    "minimax": Caller(
        MINIMAX, (*_IM, "<minimax:tool_call>", "</minimax:tool_call>"),
        'Let me look.\n<minimax:tool_call>\n<invoke name="look">\n<parameter name="place">Rome</parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="tags">["a", "b"]</parameter>\n</invoke>\n'
        '<invoke name="again">\n<parameter name="deep">{"x": true}</parameter>\n</invoke>\n'
        "</minimax:tool_call>", "<|im_end|>"),
    "nemotron": Caller(
        NEMOTRON, (*_IM, "<TOOLCALL>", "</TOOLCALL>"),
        f'Let me look.\n<TOOLCALL>[{{"name": "look", "arguments": {_LOOK}}}, '
        f'{{"name": "again", "arguments": {_AGAIN}}}]</TOOLCALL>', "<|im_end|>"),
    "cohere": Caller(
        COHERE, (*_IM, "<|START_ACTION|>", "<|END_ACTION|>"),
        f'Let me look.<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "look", "parameters": {_LOOK}}}, '
        f'{{"tool_call_id": "1", "tool_name": "again", "parameters": {_AGAIN}}}]<|END_ACTION|>',
        "<|im_end|>"),
    "apertus": Caller(
        APERTUS, (*_IM, "<|tools_prefix|>", "<|tools_suffix|>"),
        f'Let me look.<|tools_prefix|>[{{"look": {_LOOK}}}, {{"again": {_AGAIN}}}]<|tools_suffix|>',
        "<|im_end|>"),
    "granite": Caller(
        GRANITE, ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>"),
        f'Let me look.<|tool_call|>[{{"name": "look", "arguments": {_LOOK}}}, '
        f'{{"name": "again", "arguments": {_AGAIN}}}]', "<|end_of_text|>", shows_calls=False),
    "lfm2": Caller(
        LFM2, (*_IM, "<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>"),
        'Let me look.<|tool_call_start|>[look(place="Rome", days=3, tags=["a", "b"]), '
        'again(deep={"x": true})]<|tool_call_end|>', "<|im_end|>", shows_calls=False),
    "kimi": Caller(
        KIMI, ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>", *_MOON),
        f"Let me look.{_MOON[0]}{_MOON[1]}functions.look:0{_MOON[2]}{_LOOK}{_MOON[3]}"
        f"{_MOON[1]}functions.again:1{_MOON[2]}{_AGAIN}{_MOON[3]}{_MOON[4]}", "<|im_end|>"),
    "glm": Caller(
        GLM, ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<tool_call>", "</tool_call>",
              "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        "Let me look.\n<tool_call>look\n<arg_key>place</arg_key>\n<arg_value>Rome</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
        "<arg_key>tags</arg_key>\n<arg_value>[\"a\", \"b\"]</arg_value>\n</tool_call>\n"
        "<tool_call>again<arg_key>deep</arg_key><arg_value>{\"x\": true}</arg_value></tool_call>",
        "<|user|>"),
    "deepseek": Caller(
        DEEPSEEK, _SEEK,
        "Let me look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n"
        f"```json\n{_LOOK}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>again\n"
        f"```json\n{_AGAIN}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>",
        shows_tools=False),
    "deepseek 3.1": Caller(
        DEEPSEEK_31, _SEEK, "Let me look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>"
        f"{_LOOK}<｜tool▁call▁end｜><｜tool▁call▁begin｜>again<｜tool▁sep｜>{_AGAIN}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>", shows_tools=False),
    "llama": Caller(
        LLAMA, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        f'{{"name": "look", "parameters": {_LOOK}}}', "<|eot_id|>", says=False, calls_twice=False),
    "mistral list": Caller(
        MISTRAL_LIST, (*_INST, "[TOOL_CALLS]"),
        f'Let me look.[TOOL_CALLS][{{"name": "look", "arguments": {_LOOK}}}, '
        f'{{"name": "again", "arguments": {_AGAIN}, "id": "abcdefghi"}}]', "</s>"),
    "mistral": Caller(
        MISTRAL, (*_INST, "[TOOL_CALLS]", "[ARGS]"),
        f"Let me look.[TOOL_CALLS]look[ARGS]{_LOOK}[TOOL_CALLS]again[ARGS]{_AGAIN}", "</s>"),
    "harmony": Caller(
        HARMONY, ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>",
                  "<|return|>"),
        f"<|channel|>commentary to=functions.look <|constrain|>json<|message|>{_LOOK}", "<|call|>",
        says=False, calls_twice=False),
    "gemma": Caller(
        GEMMA, ("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", '<|"|>',
                "<|tool_response>"),
        'Let me look.<|tool_call>call:look{days:3,place:<|"|>Rome<|"|>,tags:[<|"|>a<|"|>,<|"|>b<|"|>]}'
        "<tool_call|><|tool_call>call:again{deep:{x:true}}<tool_call|><|tool_response>", "<turn|>"),
    "function gemma": Caller(
        FUNCTION_GEMMA, ("<start_of_turn>", "<end_of_turn>", "<start_function_call>", "<end_function_call>",
                         "<escape>", "<start_function_declaration>", "<end_function_declaration>",
                         "<start_function_response>"),
        "Let me look.<start_function_call>call:look{days:3,place:<escape>Rome<escape>,tags:["
        "<escape>a<escape>,<escape>b<escape>]}<end_function_call><start_function_call>call:again{deep:{x:true}}"
        "<end_function_call>",
        "<end_of_turn>"),
}


def caller_folder(folder: Path, name: str) -> Path:
    """A byte-level tokenizer with the family's control tokens, and its template."""
    caller = CALLERS[name]
    qwen_folder(folder, caller.template)
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    first = spec["added_tokens"][0]
    spec["added_tokens"] = [first] + [{**first, "id": first["id"] + 1 + index, "content": text}
                                      for index, text in enumerate(caller.special)]
    path.write_text(json.dumps(spec), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["eos_token"] = caller.eos
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
