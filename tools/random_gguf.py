"""Write a GGUF file of random weights in the shape of a mixture of experts: for measuring, not for talking.

  python -m tools.random_gguf FILE.gguf --layers 4

The shape is Qwen3-30B-A3B's, with fewer of its 48 layers, and of its vocabulary as large a part; types are
those that llama-quantize gives a Q4_K_M file. Scales are small random numbers, all other bits are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import gguf
import numpy as np

from model.options import path_option

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, CHOSEN, INNER = 2048, 32, 4, 128, 128, 8, 768
LAYERS, VOCABULARY = 48, 151936
_SCALE_BYTES = {gguf.GGMLQuantizationType.Q4_K: (0, 4), gguf.GGMLQuantizationType.Q6_K: (208, 2)}
"""Where the float16 numbers of a block lie, and how many bytes they take."""
_SCALES = {gguf.GGMLQuantizationType.Q4_K: 2e-4, gguf.GGMLQuantizationType.Q6_K: 2e-5}


def has_more_bits(layer: int, layers: int) -> bool:
    """Whether llama-quantize gives Q6_K, not Q4_K, to values and down of this layer."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def shapes(layers: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """(name, shape, type), the rows' length last."""
    kinds = gguf.GGMLQuantizationType
    yield "token_embd.weight", (vocabulary, HIDDEN), kinds.Q4_K
    yield "output.weight", (vocabulary, HIDDEN), kinds.Q6_K
    yield "output_norm.weight", (HIDDEN,), kinds.F32
    for index in range(layers):
        more = kinds.Q6_K if has_more_bits(index, layers) else kinds.Q4_K
        for name, shape, kind in (
                ("attn_norm", (HIDDEN,), kinds.F32), ("ffn_norm", (HIDDEN,), kinds.F32),
                ("attn_q_norm", (HEAD_DIM,), kinds.F32), ("attn_k_norm", (HEAD_DIM,), kinds.F32),
                ("attn_q", (HEADS * HEAD_DIM, HIDDEN), kinds.Q4_K),
                ("attn_k", (KV_HEADS * HEAD_DIM, HIDDEN), kinds.Q4_K),
                ("attn_v", (KV_HEADS * HEAD_DIM, HIDDEN), more),
                ("attn_output", (HIDDEN, HEADS * HEAD_DIM), kinds.Q4_K),
                ("ffn_gate_inp", (EXPERTS, HIDDEN), kinds.F32),
                ("ffn_gate_exps", (EXPERTS, INNER, HIDDEN), kinds.Q4_K),
                ("ffn_up_exps", (EXPERTS, INNER, HIDDEN), kinds.Q4_K),
                ("ffn_down_exps", (EXPERTS, HIDDEN, INNER), more)):
            yield f"blk.{index}.{name}.weight", shape, kind


def tensor(random: np.random.Generator, shape: tuple[int, ...],
           kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """float32, or the bytes of blocks."""
    if kind == gguf.GGMLQuantizationType.F32:
        return random.normal(1.0 if len(shape) == 1 else 0.0, 0.1, shape).astype(np.float32)
    columns, nbytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // columns, nbytes), dtype=np.uint8)
    first, count = _SCALE_BYTES[kind]
    scales = (random.random((*blocks.shape[:-1], count // 2)) * _SCALES[kind]).astype(np.float16)
    blocks[..., first:first + count] = scales.view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.random_gguf", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=path_option)
    parser.add_argument("--layers", type=int, default=4, help="of 48 (default 4)")
    options = parser.parse_args()
    vocabulary = VOCABULARY * options.layers // LAYERS
    writer = gguf.GGUFWriter(options.file, "qwen3moe")
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(options.layers)
    writer.add_feed_forward_length(6144)
    writer.add_expert_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(CHOSEN)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{index}" for index in range(vocabulary)])
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(1)
    random = np.random.default_rng(1)
    for name, shape, kind in shapes(options.layers, vocabulary):
        values = tensor(random, shape, kind)
        writer.add_tensor(name, values, raw_dtype=kind if values.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
