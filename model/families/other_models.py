"""What is no model that writes texts one token after another: one sentence on what it is, and what would do.

Knows the names that files give themselves, and what comes with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model.config import shown
from model.files import ModelLoadError

VECTORS = "makes vectors of texts and writes none (an embedding model); load a model that chats"
_RATES = "rates or labels texts and writes none (a reranker or classifier); load a model that chats"
_FILLS = "fills gaps in a text and does not continue it (an encoder, as BERT); load a model that chats"
GUESSES = ("guesses tokens ahead for another model and is none by itself; load that one: guesses are made "
            "without it, too, or by a small model of the same vocabulary (--draft)")
_SEES = ("is the part of a model that sees images or hears sounds, which is left out here; load the model's "
         "other file")
_SOUNDS = "makes sounds; load a model that writes texts"
_TRANSLATES = ("has an encoder beside its decoder (as T5, BART and Whisper), which is not supported; load a "
               "model that is a decoder alone")
_DIFFUSES = ("writes many tokens at once, again and again (diffusion), which is not supported; load a model "
             "that writes one after another")
_RECURRENT = ("has layers with a state of a kind that is not supported (RWKV, Mamba 1 and others); with a "
              "state there are Qwen 3.5, LFM2, Granite 4, Nemotron H, Falcon H1, Bamba and Kimi Linear")
_POSITIONS = ("tells positions in a way that is not supported (ALiBi, or sums of sines); load a model with "
              "RoPE or learned vectors, as all of the table in docs/models.md have it")
_OTHERS = "load a model of the table in docs/models.md"
_CHOOSES = f"chooses by itself what it attends to (sparse attention), which is not supported; {_OTHERS}"
_MIXES = f"keeps several hidden states that layers mix (hyper-connections), which is not supported; {_OTHERS}"
_LOOPS = f"runs its layers several times for each token, which is not supported; {_OTHERS}"
_LIMITS = f"keeps what is within its mlps or experts below a limit, which is not supported; {_OTHERS}"
_CLIPS = f"keeps queries, keys and values below a limit, which is not supported; {_OTHERS}"
_VALUES = f"has values of another size than keys, which is not supported; {_OTHERS}"
_EXPERTS = f"has a mixture of experts of a kind that is not supported; {_OTHERS}"
_ATTENTION = f"has attention of a kind that is not supported; {_OTHERS}"
_WITHIN = f"has norms or sums within branches of a kind that is not supported; {_OTHERS}"
_TERNARY = f"has ternary weights and norms within branches, which are not supported; {_OTHERS}"
_BYTES = f"reads bytes instead of tokens, which is not supported; {_OTHERS}"
_SWITCHES = "switches between adapters by itself, which is not supported; load Granite 4"
_VOCABULARY = f"has a vocabulary of a kind that is not supported; {_OTHERS}"
_LOOKS = ("sees pictures or hears sounds by parts of its text model, or reads out what is in them, which is "
          f"not supported; {_OTHERS}")
_NEVER = f"is of a kind that no converter has written GGUF files of; {_OTHERS}"
_ADAPTER = "is a LoRA adapter; load the model that it was made for, and this beside it (--lora NAME=PATH)"
_MEASURES = "holds measurements for quantizing a model; load the model itself"

_OF_GGUF = {
    _SEES: ("clip",),
    GUESSES: ("eagle3", "dflash", "dspark", "gemma4-assistant", "gemma4-mtp"),
    VECTORS: ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
              "neo-bert", "eurobert", "gemma-embedding", "llama-embed", "t5encoder"),
    _TRANSLATES: ("t5",),
    _SOUNDS: ("wavtokenizer-dec", "qwen3tts", "pockettts"),
    _DIFFUSES: ("dream", "llada", "llada-moe", "rnd1", "diffusion-gemma"),
    _RECURRENT: ("mamba", "jamba", "plamo2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7",
                 "minimax-01", "bailingmoe3", "kimi-k3"),
    _CHOOSES: ("deepseek32", "glm-dsa", "minimax-m3", "dots3note"),
    _MIXES: ("deepseek4", "glm5-next", "hy_v4", "qwen4exp"), _LOOPS: ("nanbeige", "hrm_text"),
    _LIMITS: ("step35", "maple"), _CLIPS: ("dbrx",), _VALUES: ("mimo2",),
    _EXPERTS: ("grok", "arctic", "grovemoe"), _WITHIN: ("talkie",), _TERNARY: ("bitnet",),
    _LOOKS: ("deepseek2-ocr", "hunyuan_vl", "paddleocr", "cogvlm", "chameleon"),
    _SWITCHES: ("graniteswitch",), _VOCABULARY: ("plamo3",), _NEVER: ("gptj",),
    _POSITIONS: ("bloom", "mpt", "refact", "jais")}
_OF_TYPE = {"mmproj": _SEES, "adapter": _ADAPTER, "imatrix": _MEASURES}  # of general.type
_RANKS = 4
"""Of `pooling_type`, whose 0 stands for none."""

_OF_FOLDERS = (  # by the first that the name of a class matches
    (r"Eagle|Medusa|Speculator|Assistant|DFlash|DSpark|Mtp|MTP", GUESSES),
    (r"^(Bart|BigBirdPegasus|Blenderbot|Marian|MBart|Mvp|Pegasus|PLBart|ProphetNet|TrOCR|Whisper)",
     _TRANSLATES),
    (r"^(Bert|BigBird|Camembert|Data2Vec|Electra|ErnieFor|MegatronBert|ModernBert|RemBert|Roberta|RoCBert"
     r"|RoFormer|XLM|Xmod|XLNet|Reformer)(?!.*ForSequence).*(CausalLM|LMHead|LMHeadModel|Decoder)$", _FILLS),
    (r"^(Moshi|Musicgen)", _SOUNDS),
    (r"^(DeepseekV32|GlmMoeDsa|MiniMaxM3|Dots3Note|AXK2)", _CHOOSES),
    (r"^(DeepseekV4|Glm5Next|HYV4|Qwen4Exp)", _MIXES),
    (r"^(Dory|Nanbeige|HrmText|Inkling2Loop)", _LOOPS),
    (r"^(Step3p|Maple)", _LIMITS), (r"^(Dbrx|DBRX)", _CLIPS), (r"^MiMoV2", _VALUES),
    (r"^(Grok|Arctic|GroveMoe|JetMoe|Zaya|Longcat|Kolibri|Beam|AXK1|Aria)", _EXPERTS),
    (r"^(DiffLlama|Doge|Inkling|GPTNeoXJapanese|CodeGen)", _ATTENTION), (r"^Talkie", _WITHIN),
    (r"^BitNet", _TERNARY), (r"^Blt", _BYTES), (r"^P[Ll]a[Mm]o", _VOCABULARY),
    (r"^(Emu3|Git|GotOcr|Mllama|Phi4Multimodal|Phi4MM|CohereCompass|MossTranscribe|Chameleon|CogVLM"
     r"|DeepseekOCR|HunYuanVL|PaddleOCR)", _LOOKS),
    (r"^(Dream|LLaDA|RND1|DiffusionGemma)", _DIFFUSES),
    (r"^(Rwkv|RWKV|MambaFor|FalconMamba|Jamba|Zamba|RecurrentGemma|xLSTM|MiniMaxFor|MiniMaxText|LaraMini|OlmoHybrid"
     r"|BailingHybrid|KimiK3)", _RECURRENT),
    (r"^(Bloom|Mpt|MPT|JAIS|GPTRefact|CTRL|XGLM|OpenAIGPT|CpmAnt)", _POSITIONS),
    (r"For(Sequence|Token|Image|Audio)Classification$|ForQuestionAnswering$|RewardModel$", _RATES),
    (r"ForMaskedLM$|ForPreTraining$", _FILLS),
    (r"(?<!LMHead|hatGLM)Model$|Embedding|Bidirectional", VECTORS))


def check_config(raw: Mapping[str, Any]) -> None:
    """Raises ModelLoadError for a config.json of another kind of model."""
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    problem = _TRANSLATES if raw.get("is_encoder_decoder") is True else next(
        (told for pattern, told in _OF_FOLDERS if re.search(pattern, name)), None)
    if problem is not None:
        raise ModelLoadError(f"config.json: {name or shown(raw.get('model_type'))} {problem}")


def check_gguf(metadata: Mapping[str, Any], file: str) -> None:
    """Raises ModelLoadError for a file of another kind."""
    architecture = metadata.get("general.architecture")
    problem = _OF_TYPE.get(str(metadata.get("general.type"))) or next(
        (told for told, known in _OF_GGUF.items() if architecture in known), None)
    pools = metadata.get(f"{architecture}.pooling_type")
    if problem is None and isinstance(pools, int) and pools > 0:
        problem = _RATES if pools == _RANKS else VECTORS
    if problem is not None:
        raise ModelLoadError(f"{file} {problem}")
