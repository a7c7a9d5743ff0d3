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
              "state there are Qwen 3.5, LFM2, Granite 4, Nemotron H, Falcon H1 and Kimi Linear")
_POSITIONS = ("tells positions in a way that is not supported (by learned vectors, or ALiBi); load a model "
              "with RoPE, as all of the table in docs/models.md have it")
_ADAPTER = "is a LoRA adapter; load the model that it was made for, and this beside it (--lora NAME=PATH)"
_MEASURES = "holds measurements for quantizing a model; load the model itself"

_OF_GGUF = {
    _SEES: ("clip",),
    GUESSES: ("eagle3", "dflash", "dspark", "gemma4-assistant", "gemma4-mtp"),
    VECTORS: ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
              "neo-bert", "eurobert", "gemma-embedding", "llama-embed", "t5encoder"),
    _TRANSLATES: ("t5",),
    _SOUNDS: ("wavtokenizer-dec",),
    _DIFFUSES: ("dream", "llada", "llada-moe", "rnd1", "diffusion-gemma"),
    _RECURRENT: ("mamba", "mamba2", "jamba", "plamo2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"),
    _POSITIONS: ("gpt2", "starcoder", "bloom", "mpt", "refact", "jais")}
_OF_TYPE = {"mmproj": _SEES, "adapter": _ADAPTER, "imatrix": _MEASURES}  # of general.type
_RANKS = 4
"""Of `pooling_type`, whose 0 stands for none."""

_OF_FOLDERS = (  # by the first that the name of a class matches
    (r"Eagle|Medusa|Speculator|Assistant|DFlash|DSpark|Mtp|MTP", GUESSES),
    (r"^(Dream|LLaDA|RND1|DiffusionGemma)", _DIFFUSES),
    (r"^(Rwkv|RWKV|Mamba|FalconMamba|Jamba|Zamba|RecurrentGemma|xLSTM)", _RECURRENT),
    (r"^(GPT2|GPTBigCode|GPTNeoFor|OPT|Bloom|Mpt|MPT|BioGpt|JAIS|GPTRefact)", _POSITIONS),
    (r"For(Sequence|Token|Image|Audio)Classification$|ForQuestionAnswering$|RewardModel$", _RATES),
    (r"ForMaskedLM$|ForPreTraining$", _FILLS),
    (r"(?<!LMHead)Model$|Embedding|Bidirectional", VECTORS))


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
