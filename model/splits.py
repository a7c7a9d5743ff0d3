r"""How byte-level BPE cuts a text before merging: the expressions behind GGUF's `tokenizer.ggml.pre`, and
behind a tiktoken.model.

Each name stands for expressions that are applied one after the other: what an expression matches, and what
lies between its matches, are pieces that the next one cuts further. They are those of the models' own
tokenizer.json where llama.cpp's src/llama-vocab.cpp quotes it. A name that is not here is an error: text that
is cut otherwise than in training makes a model dumb without a sign.
"""

from __future__ import annotations

from dataclasses import dataclass

_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_HALVED_SPACES = "".join(rf"|\s{{{count}}}(?!\S)" for count in (
    512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s{1}"
_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3 = rf"{_SUFFIX}|{_WORDS}|\p{{N}}{{1,3}}{_SIGNS}{_SPACES}"
_QWEN2 = rf"{_SUFFIX}|{_WORDS}|\p{{N}}{_SIGNS}{_SPACES}"
_QWEN35 = (rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
           rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*{_SPACES}")
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _cased(suffix: str, digits: str, but: str = "", after_signs: str = r"\r\n/") -> str:
    """Words are cut where lower case goes over into upper case (o200k, Tekken and Kimi)."""
    before, upper, lower = r"[^\r\n\p{L}\p{N}]?", f"[{_UPPER}{but}]", f"[{_LOWER}{but}]"
    return (rf"{before}{upper}*{lower}+{suffix}|{before}{upper}+{lower}*{suffix}|{digits}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[{after_signs}]*{_SPACES}")


_GPT4O = _cased(f"{_SUFFIX}?", r"\p{N}{1,3}")
_TEKKEN = _cased("", r"\p{N}")
_KIMI = r"\p{Han}+|" + _cased(f"{_SUFFIX}?", r"\p{N}{1,3}", r"&&[^\p{Han}]", r"\r\n")
_DEEPSEEK_LETTERS = (  # letters that have a case
    "\\s?[A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134"
    "\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-"
    "\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
    "\U000118df\U0001e900-\U0001e943"
    "]+")
_DEEPSEEK_SIGNS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CHINESE_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_HANGUL_AND_WIDE_SIGNS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+")
_NO_SIGNS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af"
    "\u1100-\u11ff]+")
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*{_SPACES}")


@dataclass(frozen=True)
class Split:
    """`whole_words`: a piece that is a token is taken as it is, whatever the merges say. `composed`: text is
    brought into Unicode's form C first, as Qwen's tokenizers do; the file has no key for that, and llama.cpp
    leaves it out."""

    expressions: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False  # where the file does not say
    composed: bool = False


_BY_NAME = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
                     "lfm2"), Split((_LLAMA3,), True, True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Split((_LLAMA3,))),
    **dict.fromkeys(("glm4", "glm5"), Split((_LLAMA3,), True)),
    "minicpm5": Split((r"\p{N}{1,3}", _LLAMA3.replace("{1,3}", "+")), True),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Split((_QWEN2,), composed=True)),
    **dict.fromkeys(("kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"), Split((_QWEN2,))),
    "qwen35": Split((_QWEN35,), composed=True),
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion",
                     "granite-docling", "exaone4"), Split((_GPT2,))),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
                     "mellum2"), Split((r"\p{N}", _GPT2))),
    "tekken": Split((_TEKKEN,), True, True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), Split((_GPT4O,))),
    "kimi-k2": Split((_KIMI,), True),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), Split((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O))),
    "deepseek-llm": Split((r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_SIGNS, r"\s+$", _CHINESE, r"\p{N}+")),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, r"\p{N}")),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
                    Split((r"\p{N}{1,3}", _CHINESE_AND_KANA, _DEEPSEEK3_WORDS))),
    "afmoe": Split((r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK3_WORDS)),
    "spark2_5": Split((r"\p{N}", _CHINESE_AND_KANA,
                       _DEEPSEEK3_WORDS.replace(r"[\r\n]*|\s*[\r\n]+", r"|[\r\n]"))),
    "laguna": Split((r"[^\n]+|[\n]+", _QWEN2)),
    "exaone-moe": Split((  # words are not cut at single spaces
        rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",)),
    "youtu": Split((rf"{_HANGUL_AND_WIDE_SIGNS}|{_CHINESE_AND_KANA}", _cased(f"{_SUFFIX}?", r"\p{N}")), True),
    "jais-2": Split((rf"{_SUFFIX}|{_WORDS}|\p{{N}}{{1,3}}{_SIGNS}|\s*[\r\n]+{_HALVED_SPACES}",)),
    "falcon": Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), Split((
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",))),
    "seed-coder": Split((rf"{_SUFFIX}|{_WORDS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+{_SPACES}",)),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), Split((_NO_SIGNS,))),
    "viking": Split((_NO_SIGNS, r"\p{N}")),
}
SUPPORTED = tuple(sorted(_BY_NAME))


def split_named(name: str) -> Split | None:
    """What `tokenizer.ggml.pre` stands for, or None."""
    return _BY_NAME.get(name)
