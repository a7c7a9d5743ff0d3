"""Write a GGUF file of random weights in a true shape: for measuring, not for talking.

  python -m tools.random_gguf FILE.gguf --shape tinyllama-1.1b --type Q8_0
  python -m tools.random_gguf FILE.gguf --shape qwen3-30b-a3b --layers 4

With fewer layers than the shape has, its vocabulary shrinks alike. Types are what llama-quantize gives a file
of that name; scales are small random numbers, all other bits are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import numpy as np

from model.options import path_option

Kind = gguf.GGMLQuantizationType


@dataclass(frozen=True)
class Shape:
    """Dense layers, or of experts where there are some, or with short convolutions between attention."""

    family: str
    tokens: tuple[str, str]
    """The tokenizer's model and how it splits text."""
    vocabulary: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    """Columns of a layer's MLP; of each expert."""
    experts: int = 0
    chosen: int = 0
    conv: int = 0
    """Inputs of a short convolution."""
    attends: tuple[int, ...] = ()
    """The layers that attend where the others are such convolutions."""


SHAPES = {
    "tinyllama-1.1b": Shape("llama", ("gpt2", "llama-bpe"), 32000, 22, 2048, 32, 4, 64, 5632),
    "qwen3-30b-a3b": Shape("qwen3moe", ("gpt2", "qwen2"), 151936, 48, 2048, 32, 4, 128, 768, 128, 8),
    "lfm2-350m": Shape("lfm2", ("gpt2", "lfm2"), 65536, 16, 1024, 16, 8, 64, 4608,
                       conv=3, attends=(2, 5, 8, 10, 12, 14)),
}
TYPES = {
    "Q4_K_M": (Kind.Q4_K, Kind.Q6_K, Kind.Q6_K),
    "Q8_0": (Kind.Q8_0, Kind.Q8_0, Kind.Q8_0),
    "Q4_0": (Kind.Q4_0, Kind.Q4_0, Kind.Q6_K),
}
"""Of most linears, of values and down in the layers that get more bits, and of the output."""
_SCALES = {
    Kind.Q4_K: (0, 4, 2e-4),
    Kind.Q6_K: (208, 2, 2e-5),
    Kind.Q8_0: (0, 2, 1e-4),
    Kind.Q4_0: (0, 2, 2e-3),
}
"""Where the float16 numbers of a block lie, how many bytes they take, and how large they are at most."""


def has_more_bits(layer: int, layers: int) -> bool:
    """Whether llama-quantize gives Q6_K, not Q4_K, to values and down of this layer."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def tensors(shape: Shape, layers: int, vocabulary: int, kinds: tuple[Kind, Kind, Kind]
            ) -> Iterator[tuple[str, tuple[int, ...], Kind]]:
    """(name, shape, type), the rows' length last."""
    most, more_bits, output = kinds
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    experts = (shape.experts,) if shape.experts else ()
    suffix = "_exps" if experts else ""
    yield "token_embd.weight", (vocabulary, hidden), output if shape.conv else most
    if not shape.conv:
        yield "output.weight", (vocabulary, hidden), output
    yield "token_embd_norm.weight" if shape.conv else "output_norm.weight", (hidden,), Kind.F32
    for index in range(layers):
        more = more_bits if has_more_bits(index, layers) else most
        layer = [("attn_norm", (hidden,), Kind.F32), ("ffn_norm", (hidden,), Kind.F32)]
        if shape.conv and index not in shape.attends:
            layer += [("shortconv.in_proj", (3 * hidden, hidden), most),
                      ("shortconv.conv", (hidden, shape.conv), Kind.F32),
                      ("shortconv.out_proj", (hidden, hidden), most)]
        else:
            layer += [("attn_q", (queries, hidden), most), ("attn_k", (keys, hidden), most),
                      ("attn_v", (keys, hidden), more), ("attn_output", (hidden, queries), most)]
            if shape.family in ("qwen3moe", "lfm2"):
                layer += [("attn_q_norm", (shape.head_dim,), Kind.F32),
                          ("attn_k_norm", (shape.head_dim,), Kind.F32)]
        layer += [(f"ffn_gate{suffix}", (*experts, shape.inner, hidden), most),
                 (f"ffn_up{suffix}", (*experts, shape.inner, hidden), most),
                 (f"ffn_down{suffix}", (*experts, hidden, shape.inner), more)]
        if shape.experts:
            layer += [("ffn_gate_inp", (shape.experts, hidden), Kind.F32)]
        for name, size, kind in layer:
            yield f"blk.{index}.{name}.weight", size, kind


def tensor(random: np.random.Generator, shape: tuple[int, ...], kind: Kind) -> np.ndarray:
    """float32, or the bytes of blocks."""
    if kind == Kind.F32:
        return random.normal(1.0 if len(shape) == 1 else 0.0, 0.1, shape).astype(np.float32)
    columns, nbytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // columns, nbytes), dtype=np.uint8)
    first, count, largest = _SCALES[kind]
    scales = (random.random((*blocks.shape[:-1], count // 2)) * largest).astype(np.float16)
    blocks[..., first:first + count] = scales.view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.random_gguf", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=path_option)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--type", choices=TYPES, default="Q4_K_M", help="default Q4_K_M")
    parser.add_argument("--layers", type=int, metavar="N", help="default: all of the shape")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    layers = options.layers or shape.layers
    vocabulary = shape.vocabulary * layers // shape.layers
    writer = gguf.GGUFWriter(options.file, shape.family)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads if not shape.conv else
                             [shape.kv_heads if index in shape.attends else 0 for index in range(layers)])
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    if shape.experts:
        writer.add_expert_feed_forward_length(shape.inner)
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.chosen)
    if shape.conv:
        writer.add_shortconv_l_cache(shape.conv)
    writer.add_tokenizer_model(shape.tokens[0])
    writer.add_tokenizer_pre(shape.tokens[1])
    writer.add_token_list([f"t{index}" for index in range(vocabulary)])
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(1)
    random = np.random.default_rng(1)
    for name, size, kind in tensors(shape, layers, vocabulary, TYPES[options.type]):
        values = tensor(random, size, kind)
        writer.add_tensor(name, values, raw_dtype=kind if values.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
