"""The weights of a whole model, read one matrix at a time and packed for the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from model.config import ModelConfig
from model.formats.weights import (
    HEAD_GROUP_SIZE,
    DenseMatrix,
    MatrixInfo,
    WeightReader,
    rounded_to_8_bits,
)
from model.network.linear import Linear, load_linear, pack
from model.network.place import Place

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    input_norm: Tensor      # float32 [hidden_size]
    qkv: Linear             # hidden_size -> (num_heads + 2 * num_kv_heads) * head_dim
    o_proj: Linear
    post_norm: Tensor       # float32 [hidden_size]
    gate_up: Linear         # hidden_size -> 2 * intermediate_size
    down_proj: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        return self.qkv, self.o_proj, self.gate_up, self.down_proj


@dataclass(frozen=True)
class ModelWeights:
    embeddings: Tensor      # float16, bfloat16 or float32 [vocab_size, hidden_size]
    layers: list[Layer]
    norm: Tensor            # float32 [hidden_size]
    lm_head: Linear         # hidden_size -> vocab_size

    @property
    def nbytes(self) -> int:
        return self.embeddings.nbytes + self.step_bytes

    @property
    def step_bytes(self) -> int:
        """What every step reads: all but the embeddings."""
        layers = sum(linear.nbytes for layer in self.layers for linear in layer.linears)
        return layers + self.lm_head.nbytes


def layer_modules(config: ModelConfig, index: int) -> tuple[tuple[dict[str, int], int], ...]:
    """({module: outputs}, inputs) for qkv, o, gate_up and down of layer `index`."""
    prefix = f"model.layers.{index}."
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return (({attention + "q_proj": queries, attention + "k_proj": keys, attention + "v_proj": keys}, hidden),
            ({attention + "o_proj": hidden}, queries),
            ({mlp + "gate_proj": inner, mlp + "up_proj": inner}, hidden),
            ({mlp + "down_proj": hidden}, inner))


def weight_infos(reader: WeightReader, config: ModelConfig, exact: bool) -> list[MatrixInfo]:
    """Check every tensor that will be needed and say what it will take. Raises ModelLoadError."""
    hidden, vocab = config.hidden_size, config.vocab_size
    infos = [reader.table_info("model.embed_tokens.weight", vocab, hidden)]
    for index in range(config.num_layers):
        for modules, k in layer_modules(config, index):
            infos += [reader.matrix_info(name, n, k) for name, n in modules.items()]
    if _has_own_head(reader, config):
        infos.append(reader.matrix_info("lm_head", vocab, hidden))
    else:
        infos.append(infos[0])
    if _rounds_head(reader, config, exact):
        infos[-1] = MatrixInfo("q8", vocab * (hidden + 2 * -(-hidden // HEAD_GROUP_SIZE)))
    return infos


def bytes_by_layer(infos: list[MatrixInfo], config: ModelConfig) -> tuple[int, list[int], int]:
    """What weight_infos() found, in bytes: the embeddings, each layer, the head."""
    sizes = [info.nbytes for info in infos]
    each = (len(sizes) - 2) // config.num_layers
    return sizes[0], [sum(sizes[i:i + each]) for i in range(1, len(sizes) - 1, each)], sizes[-1]


def _rounds_head(reader: WeightReader, config: ModelConfig, exact: bool) -> bool:
    """Whether a dense head is rounded to 8 bits: in a quantized model, if activations are rounded, too.

    All of it is read for each token; in float16 it would be a fifth of what a token of a 1.1B model reads.
    """
    queries = next(iter(layer_modules(config, 0)[0][0]))
    return not exact and reader.is_quantized(queries) and not reader.is_quantized("lm_head")


def _has_own_head(reader: WeightReader, config: ModelConfig) -> bool:
    return not config.tie_word_embeddings or reader.is_quantized("lm_head")


def load_weights(places: Sequence[Place], reader: WeightReader, config: ModelConfig, exact: bool,
                 progress: Progress | None = None) -> ModelWeights:
    """Read and pack everything, matrix by matrix at the place of its layer.

    places    one for each layer; embeddings come to the first, norm and head to the last
    progress  hears a line and the share that is done, 0 to 1
    """
    def tell(done: int) -> None:
        if progress:
            progress(f"Loading {config.name}", done / (config.num_layers + 1))

    hidden, vocab = config.hidden_size, config.vocab_size
    first, last = places[0], places[-1]
    # The head needs the most memory beside its packed form: first, while nothing else is there.
    embeddings = reader.table("model.embed_tokens.weight", vocab, hidden, first.device)
    if _has_own_head(reader, config):
        head = reader.matrix("lm_head", vocab, hidden, last.device)
    else:
        head = DenseMatrix(embeddings.to(last.device), None)
    if isinstance(head, DenseMatrix) and _rounds_head(reader, config, exact):
        head = rounded_to_8_bits(head)
    with last.active():
        lm_head = pack(last.ops, [head], exact)
    del head
    layers = []
    for index, place in enumerate(places):
        tell(index)
        with place.active():
            qkv, o_proj, gate_up, down_proj = (load_linear(place, reader, modules, k, exact)
                                               for modules, k in layer_modules(config, index))
        prefix = f"model.layers.{index}."
        norms = [reader.vector(f"{prefix}{name}.weight", hidden, place.device)
                 for name in ("input_layernorm", "post_attention_layernorm")]
        layers.append(Layer(norms[0], qkv, o_proj, norms[1], gate_up, down_proj))
    tell(config.num_layers)
    norm = reader.vector("model.norm.weight", hidden, last.device)
    tell(config.num_layers + 1)
    return ModelWeights(embeddings, layers, norm, lm_head)
