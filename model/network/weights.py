"""The weights of a whole model, read one matrix at a time and packed for the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad, softplus

from model.families.names import Names
from model.families.spec import Dense, LatentAttention, Layer
from model.files import ModelLoadError
from model.formats.weights import (
    HEAD_GROUP_SIZE,
    DenseMatrix,
    Matrix,
    MatrixInfo,
    WeightReader,
    rounded_to_8_bits,
)
from model.kernels.operations import PackedWeight
from model.model_config import ModelConfig
from model.network.adapters import Adapters
from model.network.latent_weights import LatentWeights, load_latent
from model.network.layer_inputs import InputsWeights, InputWeights, load_input, load_inputs
from model.network.linear import Linear, load_linear, packed
from model.network.mixer_weights import MixerWeights, load_mixer
from model.network.modules import (
    Group,
    input_projection,
    layer_modules,
    mixer_modules,
    mlp_modules,
    stream_ends,
)
from model.network.norm_weights import NormWeights, load_norm
from model.network.place import Place
from model.network.streams import StreamEndWeights, StreamWeights, load_stream_ends, load_streams

_NEVER = -1e30
"""The logit of a token that cannot come."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class DenseWeights:
    """An mlp."""

    gate_up: Linear         # hidden_size -> up_size
    down_proj: Linear
    slopes: tuple[float, float] | None = None  # of xielu


@dataclass(frozen=True)
class MoeWeights:
    """A mixture; what its Spec does not have is None. float32 [hidden_size] or [num_experts]."""

    router: Linear          # hidden_size -> num_experts, always exact
    experts: list[DenseWeights]
    shared: DenseWeights | None
    shared_gate: Linear | None  # hidden_size -> 1, always exact
    latents: tuple[Linear, Linear] | None  # hidden_size -> latent_size -> hidden_size, the experts between
    correction: Tensor | None
    expert_scale: Tensor | None
    router_norm: NormWeights | None
    experts_norm: NormWeights | None
    experts_out_norm: NormWeights | None
    shared_out_norm: NormWeights | None


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer; what its Spec does not have is None."""

    mixers: list[MixerWeights | LatentWeights]
    mlp: DenseWeights | MoeWeights | None
    mixer_norm: NormWeights | None
    mlp_norm: NormWeights | None
    mixer_out_norm: NormWeights | None
    mlp_out_norm: NormWeights | None
    input: InputWeights | None = None
    scale: float = 1.0
    streams: StreamWeights | None = None

    @property
    def linears(self) -> list[Linear]:
        mixers = [linear for mixer in self.mixers for linear in mixer.linears]
        mixers += self.input.linears if self.input is not None else []
        mixers += self.streams.linears if self.streams is not None else []
        mlp = self.mlp
        if mlp is None:
            return mixers
        if isinstance(mlp, DenseWeights):
            return [*mixers, mlp.gate_up, mlp.down_proj]
        experts = [*mlp.experts, *([mlp.shared] if mlp.shared is not None else [])]
        gates = [mlp.router, *([mlp.shared_gate] if mlp.shared_gate is not None else [])]
        pairs = [part for each in experts for part in (each.gate_up, each.down_proj)]
        return [*mixers, *gates, *pairs, *(mlp.latents or ())]


@dataclass(frozen=True)
class ModelWeights:
    embeddings: Tensor | PackedWeight  # float16, bfloat16 or float32 [vocab_size, hidden_size], or packed
    layers: list[LayerWeights]
    norm: NormWeights
    lm_head: Linear         # hidden_size -> vocab_size
    positions: Tensor | None = None  # [max_positions, hidden_size], as embeddings
    inputs: InputsWeights | None = None
    streams: StreamEndWeights | None = None

    @property
    def nbytes(self) -> int:
        is_shared = any(part.weight is self.embeddings for part in self.lm_head.parts)
        tables = 0 if is_shared else self.embeddings.nbytes
        tables += self.positions.nbytes if self.positions is not None else 0
        return tables + (self.inputs.table.nbytes if self.inputs is not None else 0) + self.step_bytes

    @property
    def step_bytes(self) -> int:
        """What every step reads: all but the embeddings."""
        layers = sum(linear.nbytes for layer in self.layers for linear in layer.linears)
        inputs = self.inputs.projection.nbytes if self.inputs is not None else 0
        ends = [*self.streams.openings, *self.streams.closings] if self.streams is not None else []
        return layers + self.lm_head.nbytes + inputs + sum(linear.nbytes for linear in ends)


def weight_infos(reader: WeightReader, config: ModelConfig, exact: bool,
                 keeps_groups: bool = False) -> list[MatrixInfo]:
    """Check every matrix that will be needed and say what it will take. Raises ModelLoadError.

    keeps_groups  the device has kernels for small groups, and looks embeddings up in them
    """
    spec, names = config.spec, config.names
    hidden, vocab = spec.hidden_size, spec.vocab_size

    def table_info(name: str, width: int, rows: int = vocab) -> MatrixInfo:
        if keeps_groups and reader.is_quantized(name):
            return reader.matrix_info(name, rows, width)
        return reader.table_info(name + ".weight", rows, width)

    table = table_module(reader, config)
    packs_table = keeps_groups and reader.is_quantized(table)
    infos = [table_info(table, hidden)]
    if spec.positions is not None:
        infos.append(reader.table_info(names.positions + ".weight", spec.num_position_rows, hidden))
    if spec.layer_inputs is not None:
        projection = input_projection(spec, spec.layer_inputs, names)
        infos += [table_info(names.layer_inputs, projection.n, spec.layer_inputs.vocab_size or vocab),
                  *(reader.matrix_info(name, n, projection.k) for name, n in projection.modules.items())]
    for ends in stream_ends(spec, names):
        infos += [reader.matrix_info(name, n, group.k) for group in ends for name, n in group.modules.items()]
    for index in range(spec.num_layers):
        for group in layer_modules(spec, names, index):
            infos += [_kept(group, name, reader.matrix_info(name, n, group.k))
                      for name, n in group.modules.items()]
            for name in group.modules if group.has_bias else ():
                if not reader.has_tensor(name + ".bias"):
                    raise ModelLoadError(f"the model has no tensor {name}.bias, but its config says that it "
                                         "has biases")
    head = _head_module(reader, config)
    if head == table and packs_table:
        infos.append(MatrixInfo(infos[0].kind, 0))  # one weight serves as both
    else:
        infos.append(infos[0] if head is None else reader.matrix_info(head, spec.head_rows or vocab, hidden))
    if _rounds_head(reader, config, exact):
        infos[-1] = MatrixInfo("q8", vocab * (hidden + 2 * -(-hidden // HEAD_GROUP_SIZE)))
    return infos if keeps_groups else [info.widened or info for info in infos]


def _kept(group: Group, name: str, info: MatrixInfo) -> MatrixInfo:
    """What of a matrix is kept: all that a Linear repeats of it; numbers, where it is quantized and taken
    apart."""
    times = group.times(name)
    if times > 1:
        return replace(info, nbytes=times * info.nbytes, widened=None if info.widened is None else replace(
            info.widened, nbytes=times * info.widened.nbytes))
    if not group.is_of_heads or len(group.modules) > 1 or info.kind in ("f16", "bf16", "f32"):
        return info
    return MatrixInfo("f16", 2 * group.modules[name] * group.k)


def _num_tables(config: ModelConfig) -> int:
    """What weight_infos() has before the layers."""
    num_tables = (1 if config.spec.layer_inputs is None else 3) + (config.spec.positions is not None)
    return num_tables + sum(map(len, stream_ends(config.spec, config.names)))


def copies_by_layer(infos: list[MatrixInfo], config: ModelConfig) -> list[int]:
    """Bytes in float16 of what each layer has in another form."""
    rest, sizes = iter(infos[_num_tables(config):]), []
    for index in range(config.spec.num_layers):
        numbers = [n * group.k for group in layer_modules(config.spec, config.names, index)
                   for n in group.modules.values()]
        kinds = [next(rest).kind for _ in numbers]
        sizes.append(sum(2 * count for count, kind in zip(numbers, kinds, strict=True)
                         if kind not in ("f16", "f32")))
    return sizes


def bytes_by_layer(infos: list[MatrixInfo], config: ModelConfig) -> tuple[int, list[int], int]:
    """What weight_infos() found, in bytes: the embeddings, inputs of layers and ends of streams, each layer,
    the head."""
    num_tables = _num_tables(config)
    sizes, layers, start = [info.nbytes for info in infos], [], num_tables
    for index in range(config.spec.num_layers):
        count = sum(len(group.modules) for group in layer_modules(config.spec, config.names, index))
        layers.append(sum(sizes[start:start + count]))
        start += count
    return sum(sizes[:num_tables]), layers, sizes[-1]


def _rounds_head(reader: WeightReader, config: ModelConfig, exact: bool) -> bool:
    """Whether a dense head is rounded to 8 bits: in a quantized model, if activations are rounded, too.

    All of it is read for each token; in float16 it would be a fifth of what a token of a 1.1B model reads.
    """
    queries = next(iter(layer_modules(config.spec, config.names, 0)[0].modules))
    head = _head_module(reader, config)
    return not exact and reader.is_quantized(queries) and (head is None or not reader.is_quantized(head))


def _head_module(reader: WeightReader, config: ModelConfig) -> str | None:
    """What is read as the head: its own module, embeddings that are quantized, or None: they are shared."""
    names, table = config.names, table_module(reader, config)
    is_stored = reader.has_tensor(names.head + ".weight") and table != names.head
    # A head that is stored counts, whatever the config says: somebody trained it apart from the embeddings.
    if config.spec.tied_head is False or is_stored or reader.is_quantized(names.head):
        return names.head
    return table if reader.is_quantized(table) else None


def table_module(reader: WeightReader, config: ModelConfig) -> str:
    """Where the embeddings are: under the head's name if a model that shares them stores only that."""
    names = config.names
    has_own = reader.has_tensor(names.embeddings + ".weight") or reader.is_quantized(names.embeddings)
    shares = config.spec.tied_head is not False and reader.has_tensor(names.head + ".weight")
    return names.head if shares and not has_own else names.embeddings


def load_weights(places: Sequence[Place], reader: WeightReader, config: ModelConfig, exact: bool,
                 progress: Progress | None = None, adapters: Adapters | None = None) -> ModelWeights:
    """Read and pack everything, matrix by matrix at the place of its layer, with what adapters add.

    places    one for each layer; embeddings come to the first, norm and head to the last
    progress  hears a line and the share that is done, 0 to 1
    """
    spec, names = config.spec, config.names

    def tell(done: int) -> None:
        if progress:
            progress(f"Loading {config.name}", done / (spec.num_layers + 1))

    hidden = spec.hidden_size
    first, last = places[0], places[-1]
    # The head needs the most memory beside its packed form: first, while nothing else is there.
    embeddings, lm_head = _load_ends(first, last, reader, config, exact)
    with first.active():
        positions = _load_positions(first, reader, config)
        inputs = load_inputs(first, reader, config, exact)
        streams = load_stream_ends(first, reader, config, exact)
    layers = []
    for index, place in enumerate(places):
        tell(index)
        with place.active():
            layers.append(_load_layer(place, reader, config, index, exact, adapters))
    tell(spec.num_layers)
    offset = names.norm_offset if names.last_norm_offset is None else names.last_norm_offset
    norm = load_norm(reader, names.norm, spec.norm, hidden, replace(names, norm_offset=offset), last.device)
    tell(spec.num_layers + 1)
    return ModelWeights(embeddings, layers, norm, lm_head, positions, inputs, streams)


def _load_positions(place: Place, reader: WeightReader, config: ModelConfig) -> Tensor | None:
    spec, name = config.spec, config.names.positions
    if spec.positions is None:
        return None
    table = place.table(name, lambda: reader.table(name + ".weight", spec.num_position_rows, spec.hidden_size,
                                                   place.device))
    return table[spec.positions.offset:]


def _load_ends(first: Place, last: Place, reader: WeightReader, config: ModelConfig,
               exact: bool) -> tuple[Tensor | PackedWeight, Linear]:
    """Embeddings and head; one weight for both where it can be."""
    hidden, vocab, names = config.spec.hidden_size, config.spec.vocab_size, config.names
    table, module = table_module(reader, config), _head_module(reader, config)
    embeddings: Tensor | PackedWeight
    if first.ops.looks_up_packed and reader.is_quantized(table):
        both = packed(first, table, lambda: [reader.matrix(table, vocab, hidden, first.device)], exact)
        embeddings = both.parts[0].weight
        if module == table and first is last:
            return embeddings, both
    else:
        embeddings = first.table(table, lambda: reader.table(table + ".weight", vocab, hidden, first.device))

    def head() -> list[Matrix]:
        if module is not None:
            rows = config.spec.head_rows
            matrix = reader.matrix(module, rows or vocab, hidden, last.device)
            matrix = matrix if rows is None else _with_all_rows(matrix, vocab, names.head)
        else:
            assert isinstance(embeddings, Tensor)
            matrix = DenseMatrix(embeddings.to(last.device), None)
        if (normed := config.spec.head_norm) is not None:
            if not isinstance(matrix, DenseMatrix):
                raise ModelLoadError(f"{names.head} is quantized; expected floats: this model's head is "
                                     "to be normed")
            weight = normalize(matrix.weight.float(), dim=1 if normed == "rows" else 0)
            matrix = replace(matrix, weight=weight.to(matrix.weight.dtype))
        is_rounded = isinstance(matrix, DenseMatrix) and _rounds_head(reader, config, exact)
        return [rounded_to_8_bits(matrix) if is_rounded else matrix]

    with last.active():
        return embeddings, packed(last, "the head", head, exact)


def _with_all_rows(matrix: Matrix, vocab: int, name: str) -> Matrix:
    """With a row for each token; those that had none are never chosen."""
    if not isinstance(matrix, DenseMatrix):
        raise ModelLoadError(f"{name} is quantized; expected floats: it has no rows for the last tokens")
    bias = torch.full((vocab,), _NEVER, device=matrix.weight.device)
    bias[:matrix.n] = 0.0 if matrix.bias is None else matrix.bias
    return DenseMatrix(pad(matrix.weight, (0, 0, 0, vocab - matrix.n)), bias)


def _load_layer(place: Place, reader: WeightReader, config: ModelConfig, index: int, exact: bool,
                adapters: Adapters | None) -> LayerWeights:
    names, layer, prefix = config.names, config.spec.layers[index], config.names.layer.format(index)
    size = config.spec.hidden_size

    def linears(groups: list[Group]) -> list[Linear]:
        return [load_linear(place, reader, group, exact, adapters) for group in groups]

    def norm(is_there: bool, name: str) -> NormWeights | None:
        return load_norm(reader, prefix + name, layer.norm, size, names, place.device) if is_there else None

    has_mixer, has_mlp = bool(layer.mixers), layer.mlp is not None
    has_mlp_norm = layer.norm_before and layer.parallel != "one norm" and has_mlp
    return LayerWeights(
        [load_latent(place, reader, names, prefix, mixer, mixer_modules(mixer, names, prefix, size), exact)
         if isinstance(mixer, LatentAttention) else
         load_mixer(reader, names, prefix, mixer, linears(mixer_modules(mixer, names, prefix, size)),
                    place.device) for mixer in layer.mixers],
        _mlp_weights(place, reader, names, prefix, layer, size,
                     linears(mlp_modules(layer.mlp, names, prefix, size))),
        norm(layer.norm_before and has_mixer, names.attention_norm), norm(has_mlp_norm, names.mlp_norm),
        norm(layer.norm_after and has_mixer, names.attention_out_norm),
        norm(layer.norm_after and has_mlp, names.mlp_out_norm),
        load_input(place, reader, config, prefix, exact),
        float(reader.vector(prefix + names.layer_scale, 1)) if layer.has_scale else 1.0,
        load_streams(place, reader, config, prefix, exact))


def load_slopes(reader: WeightReader, names: Names, prefix: str) -> tuple[float, float]:
    """Above 0 and below; positive, and so they are stored: as what softplus makes them of."""
    above, below = (float(softplus(reader.vector(prefix + name, 1))) for name in names.slopes)
    return above, 0.5 + below


def _mlp_weights(place: Place, reader: WeightReader, names: Names, prefix: str, layer: Layer, hidden: int,
                 linears: list[Linear]) -> DenseWeights | MoeWeights | None:
    """`linears` in the order of mlp_modules()."""
    moe = layer.mlp
    if moe is None:
        return None
    if isinstance(moe, Dense):
        has_slopes = moe.activation == "xielu"
        return DenseWeights(*linears, load_slopes(reader, names, prefix) if has_slopes else None)
    router, *linears = linears
    latents = None
    if moe.latent_size is not None:
        *linears, before, after = linears
        latents = before, after
    gate = linears.pop() if moe.shared_gate else None
    pairs = [DenseWeights(*linears[first:first + 2]) for first in range(0, len(linears), 2)]
    shared = pairs.pop() if moe.shared is not None else None

    def numbers(is_there: bool, name: str, size: int) -> Tensor | None:
        return reader.numbers_of(prefix + name, size, place.device) if is_there else None

    def norm(name: str) -> NormWeights | None:
        return load_norm(reader, prefix + name, layer.norm, hidden, names, place.device) if moe.apart \
            else None

    of_router = numbers(moe.router_norm is not None, names.router_norm, hidden)
    return MoeWeights(router, pairs, shared, gate, latents,
                      numbers(moe.correction, names.router_correction, moe.num_experts),
                      numbers(moe.expert_scale, names.expert_scale, moe.num_experts),
                      None if of_router is None else NormWeights(of_router * moe.router_scale, None),
                      norm(names.experts_norm), norm(names.experts_out_norm), norm(names.shared_out_norm))
