"""Small tokenizers in the styles of well-known models, and chat templates written in those styles."""

from __future__ import annotations

import io
import json
import shutil
from functools import lru_cache
from pathlib import Path

import sentencepiece
from hypothesis import HealthCheck, settings
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.helpers.tiny_models import write_model

DATA = Path(__file__).parents[1] / "data" / "tokenizers"
LLAMA_SP = DATA / "llama_sp"          # tokenizer.model and tokenizer.json, `[INST]` template
CHATML_BYTES = DATA / "chatml_bytes"  # tokenizer.json, byte level, ChatML template

CORPUS = [
    "The quick brown fox jumps over the lazy dog. " * 3, "Hello there! How are you today? I'm fine, thanks.",
    "Marlow: the river is wide and the night is long.\nUser: go on, please.\n\nMarlow: as you wish.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "¿Cómo estás? Muy bien, gracias. ¡Adiós!",
    "你好，世界。今天天气很好。", "שלום עולם", "مرحبا بالعالم",
    "one two three four five six seven eight nine ten",
    "def f(x):\n    return x * 2  # twice\n", "1234567890 3.14159 10,000 2024-05-01",
] * 4

# What texts are made of in the tests: half of it is not in the corpus, so it falls back to bytes.
TEXTS = [
    "", " ", "  two  spaces  ", "Hello world", " leading and trailing ", "\n\nlines\n", "tab\there",
    "你好🙂 world", "👩‍👩‍👧‍👦 family", "🇩🇪🇫🇷 flags", "שלום עולם", "مرحبا بالعالم",
    "e\u0301 combining", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "naïve café", "The fox: \"quick\" – brown… ☃", "\u200bzero\u200bwidth", "a\u00a0b", "x" * 50,
    "if (a<b) { c[d] |= e; } // <|", "<", ">", "<s", "s>", "[INST] hello [/INST]",
    "\U00100000 private \U0010fffd",
]

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}"
          "{% set first = '<<SYS>>\n' ~ messages[0]['content'] ~ '\n<</SYS>>\n\n' %}"
          "{% set turns = messages[1:] %}"
          "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
          "{% for turn in turns %}"
          "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
          "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
          "{% set content = first ~ turn['content'] if loop.first else turn['content'] %}"
          "{% if turn['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
          "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
LLAMA3 = ("{{ bos_token }}{% for message in messages %}"
          "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
          "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
          "{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
MISTRAL = ("{{ bos_token }}{% for message in messages %}"
           "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
           "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
           "{{ raise_exception('roles must alternate') }}{% endif %}"
           "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
           "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}")
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
         "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
         "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
         "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
         "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
         "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
ZEPHYR = """{% for message in messages %}
    {% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
    {% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
    {% else %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
    {% endif %}
    {% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
    {% endif %}
{% endfor %}"""
DEEP_THINKER = ("{% for message in messages %}{% set content = message['content'] %}"
                "{% if message['role'] == 'assistant' and '</think>' in content %}"
                "{% set content = content.split('</think>')[-1] %}{% endif %}"
                "{{ '<|' + message['role'] + '|>' + content + '<|end|>' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}")
TEMPLATES = {"chatml": CHATML, "llama2": LLAMA2, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA,
             "zephyr": ZEPHYR, "deep_thinker": DEEP_THINKER}

_LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                    "<|eot_id|>"]
_LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def patient(examples: int) -> settings:
    """Hypothesis without a clock: on a busy machine a slow example is no failure."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write_folder(folder: Path, template: str | None = None, **config: object) -> Path:
    """tokenizer_config.json (and the template in it) beside a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@lru_cache
def _llama3_json() -> str:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet,
                                                              show_progress=False))
    tokenizer.add_special_tokens(_LLAMA3_SPECIALS)
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer.to_str()


@lru_cache
def _qwen_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet,
                                                              show_progress=False))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer.to_str()


@lru_cache
def _unigram_json() -> str:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    return tokenizer.to_str()


@lru_cache
def _sentencepiece_model(kind: str, symbols: tuple[str, ...]) -> bytes:
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(CORPUS).splitlines()), model_writer=sink, model_type=kind,
        vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.99, hard_vocab_limit=False,
        user_defined_symbols=list(symbols), minloglevel=2)
    return sink.getvalue()


def llama3_folder(folder: Path, template: str | None = LLAMA3) -> Path:
    write_folder(folder, template, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
                 tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer.json").write_text(_llama3_json(), encoding="utf-8")
    return folder


def qwen_folder(folder: Path, template: str | None = CHATML) -> Path:
    write_folder(folder, template, bos_token=None, eos_token="<|im_end|>", add_bos_token=False,
                 tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer.json").write_text(_qwen_json(), encoding="utf-8")
    return folder


def unigram_folder(folder: Path, template: str | None = None) -> Path:
    write_folder(folder, template, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                 tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer.json").write_text(_unigram_json(), encoding="utf-8")
    return folder


def sentencepiece_folder(folder: Path, kind: str = "bpe", symbols: tuple[str, ...] = (),
                         template: str | None = None, **config: object) -> Path:
    write_folder(folder, template, bos_token="<s>", eos_token="</s>", **config)
    (folder / "tokenizer.model").write_bytes(_sentencepiece_model(kind, symbols))
    return folder


STARTER_SYMBOLS = ("<|system|>", "<|user|>", "<|assistant|>")
STARTER = ("{{ bos_token }}{% for m in messages %}"
           "{{ '<|' + m.role + '|>' + m.content | trim + eos_token }}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def starter_folder(folder: Path) -> Path:
    return sentencepiece_folder(folder, symbols=STARTER_SYMBOLS, template=STARTER, legacy=False)


ALL_FOLDERS = {"llama3": llama3_folder, "qwen": qwen_folder, "unigram": unigram_folder,
               "starter": starter_folder, "sp_bpe": sentencepiece_folder,
               "sp_unigram": lambda folder: sentencepiece_folder(folder, "unigram")}


def write_chat_model(folder: Path) -> Path:
    """A complete folder of a small random model with a ChatML template."""
    write_model(folder, vocab_size=512, bos_token_id=0, eos_token_id=2)
    for file in CHATML_BYTES.iterdir():
        shutil.copy(file, folder)
    return folder
