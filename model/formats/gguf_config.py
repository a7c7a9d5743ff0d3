"""A GGUF file's keys as the ModelConfig of a Llama or Qwen 2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.config import ModelConfig, ModelLoadError, RopeConfig, shown
from model.formats.gguf import GgufFile

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_KEYS = {"hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
         "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
         "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
         "rms_norm_eps": "attention.layer_norm_rms_epsilon", "max_position_embeddings": "context_length",
         "rope_theta": "rope.freq_base"}


def config_of_gguf(gguf: GgufFile) -> ModelConfig:
    """Raises ModelLoadError, naming the key."""
    metadata, name = gguf.metadata, gguf.path.name
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        raise ModelLoadError(f"{name}: general.architecture is {shown(architecture)}; supported: "
                             f"{', '.join(_ARCHITECTURES)}")
    if metadata.get(f"{architecture}.expert_count"):
        raise ModelLoadError(f"{name}: the model is a mixture of experts; such are not supported")
    raw: dict[str, Any] = {key: metadata[f"{architecture}.{theirs}"] for key, theirs in _KEYS.items()
                           if f"{architecture}.{theirs}" in metadata}
    tokens = metadata.get("tokenizer.ggml.tokens")
    raw |= {"architectures": [_ARCHITECTURES[architecture]],
            "vocab_size": len(tokens) if isinstance(tokens, list) else None,
            "attention_bias": "blk.0.attn_q.bias" in gguf, "tie_word_embeddings": "output.weight" not in gguf}
    for key in ("bos_token_id", "eos_token_id"):
        raw[key] = metadata.get(f"tokenizer.ggml.{key}")
    rope = f"{architecture}.rope."
    scaling = metadata.get(f"{rope}scaling.type", "none")
    if scaling == "linear":
        raw["rope_scaling"] = {"type": "linear", "factor": metadata.get(f"{rope}scaling.factor")}
    elif scaling != "none":
        raise ModelLoadError(f"{name}: {rope}scaling.type is {shown(scaling)}; supported: none, linear")
    try:
        config = ModelConfig.from_dict(raw, {}, gguf.path.stem)
    except ModelLoadError as error:
        raise ModelLoadError(f"{name}: {str(error).removeprefix('config.json: ')}") from None
    rotated = metadata.get(f"{rope}dimension_count", config.head_dim)
    if rotated != config.head_dim:
        raise ModelLoadError(f"{name}: {rope}dimension_count is {shown(rotated)}; expected all of a head, "
                             f"{config.head_dim}")
    if "rope_freqs.weight" in gguf:
        divisors = gguf.tensor("rope_freqs.weight")
        if divisors.type.name != "F32" or divisors.shape != (config.head_dim // 2,):
            raise ModelLoadError(f"{name}: rope_freqs.weight is {divisors.type.name} {list(divisors.shape)}; "
                                 f"expected F32 [{config.head_dim // 2}]")
        numbers = divisors.type.dequantize(divisors.read()).view(-1).tolist()
        config = replace(config, rope=RopeConfig(config.rope.theta, "divisors", divisors=tuple(numbers)))
    return config
