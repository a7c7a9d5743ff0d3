"""Damaged model files without end: each is read, or refused with a ModelLoadError. Nothing else, and at once.

    python -m tests.fuzz_models 1000000 [SEED]

One of each kind in turn: config.json, the headers of safetensors and GGUF files, tokenizer_config.json,
tokenizer.json, tokenizer.model. A case that takes over CASE_SECONDS of the processor ends the program with
the stacks of all threads; one that fails in another way stays in the folder that is named. Ctrl+C or SIGTERM
ends it with what was done so far.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from model.files import ModelLoadError
from model.formats.gguf import GgufFile
from model.formats.gptq import GptqReader
from model.formats.safetensors_reader import TensorFolder, read_header
from model.model_config import ModelConfig
from model.text.tokenizer import Tokenizer
from tests.helpers import gguf_files
from tests.helpers.case_limit import case_limit
from tests.helpers.text_samples import LLAMA_SP

CASE_SECONDS = 20  # of the processor
NASTY = [None, True, False, 0, -1, 1, 2, 3, 7, 8, 31, 32, 33, 255, 256, 65536, 1 << 31, 1 << 32, 1 << 62,
         1 << 63, 1 << 64, 10**30, -(1 << 63), 0.0, -0.5, 0.5, 1.5, 1e308, float("inf"), float("nan"),
         "", "0", "4", "llama", "x" * 500, "\0", "\ud800",
         [], [0], [-1], [1 << 62, 4], [[]], [None], ["a"], {}, {"a": 1}, {"": {}}]

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 88,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 300, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "hidden_act": "silu",
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 128},
    "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 1e4, "sliding_window": 256,
    "use_sliding_window": True, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    "bos_token_id": 1, "eos_token_id": [2, 5],
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False,
                            "checkpoint_format": "gptq", "dynamic": {"lm_head": {"group_size": 32}}},
}

_CONFIG_BYTES = json.dumps(CONFIG).encode()

_ADDED = [{"id": index, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True} for index, text in enumerate(("<unk>", "<s>", "</s>"))]
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": _ADDED,
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "▁?[a-z]+|."}, "behavior": "Isolated",
                      "invert": False},
    "post_processor": {"type": "TemplateProcessing", "pair": [],
                       "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                  {"Sequence": {"id": "A", "type_id": 0}}],
                       "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
              "vocab": {text: index for index, text in enumerate(
                  ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a",
                   "ab"])},
              "merges": [["▁", "a"], ["a", "b"]]}}
SETTINGS = {
    "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>",
    "add_bos_token": True, "add_eos_token": False, "legacy": False, "clean_up_tokenization_spaces": False,
    "added_tokens_decoder": {"1": {"content": "<s>", "special": True}, "700": {"content": "<|end|>",
                                                                              "rstrip": True}},
    "additional_special_tokens": ["<|end|>"], "extra_special_tokens": {"image_token": "<image>"},
    "chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tools", "template": "x"}]}


def damage(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A copy of a JSON value in which one place is another value, is gone, or is there under another key."""
    if not isinstance(value, dict | list) or not value or (depth and rng.random() < 0.3):
        return copy.deepcopy(rng.choice(NASTY))
    value = copy.copy(value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    action = rng.random()
    if action < 0.1:
        del value[key]
    elif action < 0.2 and isinstance(value, dict):
        value[rng.choice(list(value))] = value[key]
    elif action < 0.25 and isinstance(value, dict):
        value[str(rng.choice(NASTY))[:20]] = value[key]
    else:
        value[key] = damage(value[key], rng, depth + 1)
    return value


def damaged_object(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """An object that is damaged once or a few times."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = damage(value, rng) if value else {}
        value = value if isinstance(value, dict) else {}
    return value


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(spoilt))
        action = rng.random()
        if action < 0.6:
            spoilt[at] = rng.randrange(256)
        elif action < 0.8:
            del spoilt[at:at + rng.choice((1, 2, 9))]
        else:
            spoilt[at:at] = rng.choice((b"9", b"0" * 40, b"[" * 3000, b"{", b"\xff", b'"', b"-", b"e99",
                                        struct.pack("<Q", 1 << 62), b"\xff" * 8))
        if not spoilt:
            break
    return bytes(spoilt)


def gptq_tensors(k: int = 64, n: int = 32, bits: int = 4, group: int = 32) -> dict[str, torch.Tensor]:
    """Of one module `m`."""
    generator = torch.Generator().manual_seed(0)

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(-(1 << 31), (1 << 31) - 1, shape, dtype=torch.int32, generator=generator)

    return {"m.qweight": words(k * bits // 32, n), "m.qzeros": words(k // group, n * bits // 32),
            "m.scales": torch.rand(k // group, n, generator=generator).half(),
            "m.g_idx": (torch.arange(k) // group).int(), "m.bias": torch.zeros(n)}


class Cases:
    """A damaged file of each kind, written to `folder` and read. Each returns nothing, or raises what the
    reader raised: ModelLoadError is right."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.written: set[Path] = set()

    def config(self) -> None:
        config = ModelConfig.from_dict(damaged_object(CONFIG, self.rng), {}, "damaged")
        attention = config.spec.layers[0].attention
        assert 8 <= config.spec.hidden_size <= 1 << 16 and config.spec.num_parameters > 0
        assert attention.num_heads % attention.num_kv_heads == 0

    def config_bytes(self) -> None:
        self.write("config.json", damage_bytes(_CONFIG_BYTES, self.rng))
        ModelConfig.from_folder(self.folder)

    def safetensors(self) -> None:
        """The header is changed as JSON; the data behind it stays. What the header lets through is read."""
        text = json.dumps(damaged_object(self._header, self.rng)).encode()
        self.write("model.safetensors", len(text).to_bytes(8, "little") + text + self._data)
        read_header(self.folder / "model.safetensors")
        with contextlib.suppress(ModelLoadError):
            self.read_gptq()

    def safetensors_bytes(self) -> None:
        whole = self._safetensors
        front = 8 + int.from_bytes(whole[:8], "little") if self.rng.random() < 0.5 else len(whole)
        self.write("model.safetensors", damage_bytes(whole[:front], self.rng) + whole[front:])
        self.read_gptq()

    def gguf(self) -> None:
        self.write("m.gguf", damage_bytes(self._gguf, self.rng))
        for tensor in GgufFile(self.folder / "m.gguf").tensors.values():
            tensor.read()

    def settings(self) -> None:
        """tokenizer_config.json beside a tokenizer.model, whose added tokens it lists."""
        self.write("tokenizer_config.json", json.dumps(damaged_object(SETTINGS, self.rng)).encode())
        self.write("tokenizer.model", self._sentencepiece)
        Tokenizer.load(self.folder).encode("<s>ab <|end|> b")

    def tokenizer(self) -> None:
        if self.rng.random() < 0.2:
            self.write("tokenizer_config.json", json.dumps(damaged_object(SETTINGS, self.rng)).encode())
        self.write("tokenizer.json", json.dumps(damaged_object(TOKENIZER, self.rng)).encode())
        tokenizer = Tokenizer.load(self.folder)
        tokenizer.decode(tokenizer.encode("<s>ab b", control=False))

    def sentencepiece(self) -> None:
        self.write("tokenizer.model", damage_bytes(self._sentencepiece, self.rng))
        tokenizer = Tokenizer.load(self.folder)
        tokenizer.decode(tokenizer.encode("<s>ab b", control=False))

    def read_gptq(self) -> None:
        reader = GptqReader(TensorFolder(self.folder), CONFIG["quantization_config"])
        reader.matrix_info("m", 32, 64)
        matrix = reader.matrix("m", 32, 64)
        assert matrix.codes.shape == (32, 64) and int(matrix.codes.max()) <= 15

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.write_bytes(data)
        self.written.add(path)

    def clear(self) -> None:
        for path in self.written:
            path.unlink(missing_ok=True)
        self.written.clear()

    @cached_property
    def _sentencepiece(self) -> bytes:
        return (LLAMA_SP / "tokenizer.model").read_bytes()

    @cached_property
    def _safetensors(self) -> bytes:
        return save(gptq_tensors())

    @cached_property
    def _header(self) -> dict[str, Any]:
        return json.loads(self._safetensors[8:8 + int.from_bytes(self._safetensors[:8], "little")])

    @cached_property
    def _data(self) -> bytes:
        return self._safetensors[8 + int.from_bytes(self._safetensors[:8], "little"):]

    @cached_property
    def _gguf(self) -> bytes:
        keys = {"general.architecture": "llama", "general.name": "tiny é", "llama.block_count": 2,
                "a.texts": ["a", "", "ü"], "a.floats": np.array([1.5, -2], np.float32)}
        path = gguf_files.write_gguf(self.folder / "good.gguf", keys, {
            "a": (8, np.zeros((4, 68), np.uint8)), "b": (0, np.zeros((3, 5), np.float32))})
        data = path.read_bytes()
        path.unlink()
        return data


# Cheap kinds more often: a header takes some 200 us, a tokenizer up to five milliseconds.
KINDS: dict[str, int] = {"config": 80, "config_bytes": 20, "safetensors": 40, "safetensors_bytes": 20,
                         "gguf": 32, "settings": 1, "tokenizer": 2, "sentencepiece": 1}


def fuzz(folder: Path, count: int, seed: int, kinds: dict[str, int] = KINDS) -> Counter[str]:
    """`count` cases, or those until Ctrl+C; "KIND read" and "KIND refused" -> how many. Raises what no reader
    may."""
    rng, counts = random.Random(seed), Counter[str]()
    cases = Cases(folder, rng)
    names, weights = list(kinds), list(accumulate(kinds.values()))
    with contextlib.suppress(KeyboardInterrupt):
        for _ in range(count):
            name = rng.choices(names, cum_weights=weights)[0]
            with case_limit(CASE_SECONDS):
                counts[f"{name} {_outcome(getattr(cases, name))}"] += 1
                cases.clear()
    cases.clear()
    return counts


def _outcome(case: Callable[[], None]) -> str:
    try:
        case()
    except ModelLoadError as error:
        assert 5 < len(str(error)) < 1000, f"an error of {len(str(error)):,} characters: {str(error)[:300]}"
        return "refused"
    return "read"


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="parlor-fuzz-",  # stays if a case fails
                                   dir=memory if memory.is_dir() else None))
    try:
        counts = fuzz(folder, count, seed)
    except BaseException:
        print(f"seed {seed}: the case that failed is in {folder}", file=sys.stderr)
        raise
    folder.rmdir()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(json.dumps({"seed": seed, "cases": counts.total(), "seconds": round(time.monotonic() - started),
                      "seconds of the processor": round(time.process_time()),
                      "memory grew by MiB": grown, **dict(sorted(counts.items()))}))


if __name__ == "__main__":
    main()
