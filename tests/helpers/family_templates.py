"""Chat templates in the style of the families that people have, written for these tests: shorter than the
originals, with what matters of them: how turns look, where thoughts go, how tools are listed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.text_samples import qwen_folder

QWEN3 = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.searching and message.role == "user" %}
        {%- set ns.searching = false %}{%- set ns.last_query = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning_content) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
            {{- content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

DEEPSEEK_R1 = """
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{- '<｜User｜>' + message['content'] }}{%- endif %}
    {%- if message['role'] == 'assistant' and message['content'] is not none %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{% endif %}"""

GPT_OSS = """
{{- '<|start|>system<|message|>You are a helpful assistant.\\nReasoning: medium\\n\\n' }}
{{- '# Valid channels: analysis, commentary, final.<|end|>' }}
{%- if messages[0].role == 'system' or tools %}
    {{- '<|start|>developer<|message|>' }}
    {%- if messages[0].role == 'system' %}{{- '# Instructions\\n\\n' + messages[0].content }}{%- endif %}
    {%- for tool in tools or [] %}
        {{- '\\n\\ntype ' + tool.function.name + ' = (_: ' }}
        {{- (tool.function.parameters | tojson) + ') => any;' }}
    {%- endfor %}
    {{- '<|end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- if '<|channel|>analysis<|message|>' in message.content %}
            {{- raise_exception('put the analysis into `thinking`') }}
        {%- endif %}
        {%- if message.thinking and loop.last and not add_generation_prompt %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
        {%- endif %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}
        {{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
    {%- elif message.role == 'user' %}
        {{- '<|start|>user<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"""

GEMMA4 = """
{%- macro strip_thinking(text) -%}
    {%- for part in text.split('<channel|>') -%}{{- part.split('<|channel>')[0] -}}{%- endfor -%}
{%- endmacro -%}
{{ bos_token }}
{%- set rest = messages %}
{%- if messages[0]['role'] == 'system' or tools -%}
    {{- '<|turn>system\\n' -}}
    {%- if messages[0]['role'] == 'system' -%}
        {{- messages[0]['content'] | trim -}}{%- set rest = messages[1:] -%}
    {%- endif -%}
    {%- for tool in tools or [] -%}{{- '<|tool>' + tool['function']['name'] + '<tool|>' -}}{%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endif %}
{%- for message in rest -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<|turn>' + role + '\\n' -}}
    {{- strip_thinking(message['content']) | trim if role == 'model' else message['content'] | trim -}}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}"""

MAGISTRAL = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{%- set system, rest = messages[0]['content'], messages[1:] %}
{%- else %}{%- set system, rest = 'First draft your thinking: [THINK]like this[/THINK]', messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}
{%- if tools %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- for message in rest %}
    {%- if message['role'] == 'user' %}{{- '[INST]' + message['content'] + '[/INST]' }}
    {%- elif message['role'] == 'assistant' %}{{- message['content'] + eos_token }}
    {%- else %}{{- raise_exception('Only user and assistant roles are supported') }}{%- endif %}
{%- endfor %}"""

SEED_OSS = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- bos_token + 'assistant\\n' }}
        {%- if message.reasoning_content %}
            {{- '<seed:think>' + message.reasoning_content | trim + '</seed:think>' }}
        {%- endif %}
        {{- '\\n' + message.content | trim + eos_token }}
    {%- else %}{{- bos_token + message.role + '\\n' + message.content + eos_token }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- bos_token + 'assistant\\n' }}{%- endif %}"""

COHERE_REASONING = """{{ bos_token }}{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' }}
    {%- elif message.role == 'user' %}
        {{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' }}
    {%- else %}
        {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}
        {%- if message.thinking %}
            {{- '<|START_THINKING|>' + message.thinking + '<|END_THINKING|>' }}
        {%- endif %}
        {{- '<|START_RESPONSE|>' + message.content + '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif %}"""

OPEN_THINKER = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}
{%- else %}{%- set system = 'Think: <|begin_of_thought|> {thought} <|end_of_thought|>, then answer: ' +
    '<|begin_of_solution|> {answer} <|end_of_solution|>' %}{%- endif %}
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- for message in messages if message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

HUNYUAN = """{{ bos_token }}{%- for message in messages %}
    {%- if message['role'] == 'system' %}{{- message['content'] + '<｜hy_place▁holder▁no▁3｜>' }}
    {%- elif message['role'] == 'user' %}{{- '<｜hy_User｜>' + message['content'] }}
    {%- elif message['role'] == 'assistant' %}
        {%- set content = message['content'] %}
        {%- if '<answer>' in content and '</answer>' in content %}
            {%- set content = content.split('<answer>')[-1].split('</answer>')[0].strip() %}
        {%- endif %}
        {{- '<｜hy_Assistant｜>' + content + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<｜hy_Assistant｜>' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n' }}{%- endif %}
{%- endif %}"""

GRANITE = """
{%- if messages[0]['role'] == 'system' %}{%- set system, rest = messages[0]['content'], messages[1:] %}
{%- else %}{%- set system, rest = 'Write your thoughts between <think></think> and write your response ' +
    'between <response></response> for each user query.', messages %}{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\\n' }}
{%- for message in rest %}
    {%- set content = message['content'] %}
    {%- if message['role'] == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[1].strip() %}
    {%- endif %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + content + '<|end_of_text|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"""

KIMI_K2_THINKING = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_assistant|>assistant<|im_middle|>' }}
        {{- '<think>' + (message.reasoning_content or '') + '</think>' + message.content + '<|im_end|>' }}
    {%- else %}{{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' + message.content }}
        {{- '<|im_end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}"""

KIMI_K3 = """{%- macro open(tag) -%}{{ '<|open|>' + tag + '<|sep|>' }}{%- endmacro -%}
{%- macro close(tag) -%}{{ '<|close|>' + tag + '<|sep|>' }}{%- endmacro -%}
{%- for message in messages %}
    {{- open('message role="' + message.role + '"') }}
    {%- if message.role == 'assistant' %}
        {{- open('think') + (message.get('reasoning_content') or '') + close('think') }}
        {{- open('response') + message.content + close('response') }}
    {%- else %}{{- message.content }}{%- endif %}
    {{- close('message') + '<|end_of_msg|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- open('message role="assistant"') + open('think') }}{%- endif %}"""

GLM4 = """[gMASK]<sop>
{%- if tools %}
{{- '<|system|>\\n# Tools' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson(ensure_ascii=False) }}{% endfor %}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|user|>\\n' + m.content }}
{%- elif m.role == 'assistant' %}
    {{- '<|assistant|>' }}
    {%- set reasoning_content = m.reasoning_content if m.reasoning_content is string else '' %}
    {%- if loop.last and reasoning_content %}{{- '\\n<think>' + reasoning_content.strip() + '</think>' }}
    {%- else %}{{- '\\n<think></think>' }}{%- endif %}
    {{- '\\n' + m.content.strip() }}
{%- elif m.role == 'system' %}{{- '<|system|>\\n' + m.content }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"""

EXAONE_DEEP = """{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}{{- '[|system|][|endofturn|]\\n' }}{%- endif %}
    {%- set content = message['content'] %}
    {%- if '</thought>' in content %}
        {%- set content = content.split('</thought>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '[|' + message['role'] + '|]' + content }}
    {{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[|assistant|]<thought>\\n' }}{%- endif %}"""

APRIEL = """
{%- if messages[0]['role'] == 'system' %}{%- set system, rest = messages[0]['content'], messages[1:] %}
{%- else %}{%- set system, rest = 'Reason, then write [BEGIN FINAL RESPONSE] and your answer.', messages %}
{%- endif %}
{{- '<|system|>\\n' + system + '\\n' }}
{%- for message in rest %}
    {%- set content = message['content'] %}
    {%- if message['role'] == 'assistant' and '[BEGIN FINAL RESPONSE]' in content %}
        {%- set content = content.split('[BEGIN FINAL RESPONSE]')[-1] %}
        {%- set content = content.split('[END FINAL RESPONSE]')[0].strip() %}
    {%- endif %}
    {{- '<|' + message['role'] + '|>\\n' + content }}
    {{- '\\n<|end|>\\n' if message['role'] == 'assistant' else '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\nHere are my reasoning steps:\\n' }}{%- endif %}"""

SOLAR_OPEN = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- if message.reasoning and loop.last %}
            {{- '<|begin|>assistant<|think|>' + message.reasoning + '<|end|>' }}
        {%- endif %}
        {{- '<|begin|>assistant<|content|>' + message.content + '<|end|>' }}
    {%- else %}{{- '<|begin|>' + message.role + '<|content|>' + message.content + '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|begin|>assistant' }}{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """A template, the tokens that its tokenizer has as control tokens, and a reply as such a model writes it:
    the thought "Let me see." and the answer "It is 4." with the marks around them, up to its end."""

    template: str
    special: tuple[str, ...]
    reply: str
    eos: str
    thinks_at_once: bool = False   # the prompt opens the thought
    shows_old_thoughts: bool = False


_CHATML = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen3": Family(QWEN3, (*_CHATML, "<think>", "</think>"), "<think>\nLet me see.\n</think>\n\nIt is 4.",
                    "<|im_end|>"),
    "deepseek_r1": Family(DEEPSEEK_R1, ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
                          "Let me see.\n</think>\n\nIt is 4.", "<｜end▁of▁sentence｜>", thinks_at_once=True),
    "gpt_oss": Family(
        GPT_OSS, ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        "<|channel|>analysis<|message|>Let me see.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is 4.",
        "<|return|>"),
    "gemma4": Family(GEMMA4, ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>"),
                     "<|channel>thought\nLet me see.\n<channel|>It is 4.", "<turn|>"),
    "magistral": Family(MAGISTRAL, ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]",
                                    "[/THINK]", "</s>"), "[THINK]Let me see.[/THINK]It is 4.", "</s>"),
    "seed_oss": Family(SEED_OSS, ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"),
                       "<seed:think>Let me see.</seed:think>\nIt is 4.", "<seed:eos>",
                       shows_old_thoughts=True),
    "cohere": Family(COHERE_REASONING, (
        "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
        "<|SYSTEM_TOKEN|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>",
        "<|END_RESPONSE|>"),
        "<|START_THINKING|>Let me see.<|END_THINKING|><|START_RESPONSE|>It is 4.<|END_RESPONSE|>",
        "<|END_OF_TURN_TOKEN|>", shows_old_thoughts=True),
    "open_thinker": Family(
        OPEN_THINKER, _CHATML, "<|begin_of_thought|>\n\nLet me see.\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\nIt is 4.\n\n<|end_of_solution|>", "<|im_end|>"),
    "hunyuan": Family(HUNYUAN, ("<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>"),
                      "<think>\nLet me see.\n</think>\n<answer>\nIt is 4.\n</answer>",
                      "<｜hy_place▁holder▁no▁2｜>"),
    "granite": Family(GRANITE, ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
                      "<think>Let me see.</think><response>It is 4.</response>", "<|end_of_text|>"),
    "kimi_k2": Family(KIMI_K2_THINKING, ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
                      "<think>Let me see.</think>It is 4.", "<|im_end|>", shows_old_thoughts=True),
    "kimi_k3": Family(KIMI_K3, ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
                      "Let me see.<|close|>think<|sep|><|open|>response<|sep|>It is 4."
                      "<|close|>response<|sep|><|close|>message<|sep|>", "<|end_of_msg|>",
                      thinks_at_once=True, shows_old_thoughts=True),
    "glm4": Family(GLM4, ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<think>",
                          "</think>"),
                   "\n<think>Let me see.</think>\nIt is 4.", "<|user|>"),
    "apriel": Family(APRIEL, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
                     "Let me see.\n[BEGIN FINAL RESPONSE]\nIt is 4.\n[END FINAL RESPONSE]\n", "<|end|>",
                     thinks_at_once=True),
    "solar_open": Family(SOLAR_OPEN, ("<|begin|>", "<|think|>", "<|content|>", "<|end|>", "<|flush|>"),
                         "<|think|>Let me see.<|end|><|begin|>assistant<|content|>It is 4.<|end|>",
                         "<|flush|>"),
    "exaone_deep": Family(EXAONE_DEEP, ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
                          "Let me see.\n</thought>\n\nIt is 4.", "[|endofturn|]", thinks_at_once=True),
}


def family_folder(folder: Path, name: str) -> Path:
    """A byte-level tokenizer with the family's control tokens, and its template."""
    family = FAMILIES[name]
    qwen_folder(folder, family.template)
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["added_tokens"] = spec["added_tokens"][:1]
    first = spec["added_tokens"][0]
    for text in family.special:
        token_id = first["id"] + len(spec["added_tokens"])
        spec["added_tokens"].append({**first, "id": token_id, "content": text})
    path.write_text(json.dumps(spec), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"bos_token": "<|endoftext|>", "eos_token": family.eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
