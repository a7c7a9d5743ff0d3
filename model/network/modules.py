"""Which matrices a layer has, under which names and of what sizes."""

from __future__ import annotations

from dataclasses import dataclass

from model.families.names import Names
from model.families.spec import (
    Attention,
    ChannelDelta,
    Dense,
    GatedDelta,
    LatentAttention,
    LayerInputs,
    Mamba2,
    Mixer,
    Moe,
    ShortConv,
    Spec,
    Streams,
)


@dataclass(frozen=True)
class Piece:
    """These outputs of a module, in this order."""

    module: str
    rows: tuple[int, ...] | range


@dataclass(frozen=True)
class Group:
    """Modules of one input, that become one Linear."""

    modules: dict[str, int]  # name -> its number of outputs
    k: int                   # inputs
    has_bias: bool = False   # each of them must have one
    is_exact: bool = False   # never rounded to integers: its errors would weigh too much
    pieces: tuple[Piece, ...] = ()  # the outputs in another order than the modules have them
    is_of_heads: bool = False  # each module, or each head's part of the one, is a Linear of its own

    @property
    def n(self) -> int:
        """Outputs of the Linear."""
        return sum(len(piece.rows) for piece in self.pieces) or sum(self.modules.values())

    def times(self, module: str) -> int:
        """How often the Linear has the outputs of a module."""
        rows = sum(len(piece.rows) for piece in self.pieces if piece.module == module)
        return max(1, rows // self.modules[module])


def layer_modules(spec: Spec, names: Names, index: int) -> list[Group]:
    """Of layer `index`: its mixers' first, then its mlp's."""
    layer, prefix = spec.layers[index], names.layer.format(index)
    groups = [group for mixer in layer.mixers
              for group in mixer_modules(mixer, names, prefix, spec.hidden_size)]
    groups += mlp_modules(layer.mlp, names, prefix, spec.hidden_size)
    groups += layer_input_modules(spec.layer_inputs, names, prefix, spec.hidden_size)
    return groups + stream_modules(spec.streams, names, prefix, spec.hidden_size)


def mixer_modules(mixer: Mixer, names: Names, prefix: str, hidden: int) -> list[Group]:
    """What goes in and what comes out, and of the delta rule between them what goes in for each head, and
    what becomes decays and gates of channels; of latent attention queries, what makes latents, what comes
    out, and what is of heads."""
    if isinstance(mixer, LatentAttention):
        return _latent_modules(mixer, names, prefix, hidden)
    out = {prefix + (names.o_proj if isinstance(mixer, Attention) else names.state_out): hidden}
    if isinstance(mixer, ShortConv):
        return [Group(_modules(prefix, names.state_in, (3 * mixer.size,)), hidden, mixer.bias),
                Group(out, mixer.output_size, mixer.bias)]
    if isinstance(mixer, Mamba2):
        return [Group(_modules(prefix, names.state_in, (mixer.input_size,)), hidden, mixer.in_bias),
                Group(out, mixer.output_size, mixer.out_bias)]
    if isinstance(mixer, GatedDelta):
        return [*_delta_modules(mixer, names, prefix, hidden), Group(out, mixer.output_size)]
    if isinstance(mixer, ChannelDelta):
        return [*_channel_modules(mixer, names, prefix, hidden), Group(out, mixer.output_size)]
    queries, *others = mixer.projected
    sizes = (queries + (mixer.gate_size if names.output_gate is None else 0), *others)
    modules = _modules(prefix, names.qkv if len(names.qkv) == 1 else names.qkv[:len(sizes)], sizes)
    if mixer.output_gate and names.output_gate is not None:
        return [_with_gate(mixer, modules, prefix + names.output_gate, hidden),
                Group(out, mixer.query_size, mixer.o_bias)]
    pieces = _by_kind(mixer, modules) if names.fuses_heads else _gate_last(mixer, modules)
    return [Group(modules, hidden, mixer.qkv_bias, pieces=pieces),
            Group(out, mixer.query_size, mixer.o_bias)]


def _with_gate(attention: Attention, modules: dict[str, int], gate: str, hidden: int) -> Group:
    """The gate behind what `modules` give; that of a head once for each of its numbers, as it is applied."""
    if attention.output_gate == "number":
        return Group({**modules, gate: attention.gate_size}, hidden)
    heads = tuple(head for head in range(attention.num_heads) for _ in range(attention.head_dim))
    return Group({**modules, gate: attention.num_heads}, hidden, pieces=(
        *(Piece(name, range(size)) for name, size in modules.items()), Piece(gate, heads)))


def _by_kind(attention: Attention, modules: dict[str, int]) -> tuple[Piece, ...]:
    """All queries, all keys, all values, where the file has together what belongs to a head of keys."""
    (name,), dim = modules, attention.head_dim
    share = attention.num_heads // attention.num_kv_heads
    parts = (range(share), (share,), (share + 1,))  # of a head of keys: its queries, the key, the value
    return (Piece(name, tuple(dim * ((share + 2) * head + part) + i for kind in parts
                              for head in range(attention.num_kv_heads) for part in kind
                              for i in range(dim))),)


def _gate_last(attention: Attention, modules: dict[str, int]) -> tuple[Piece, ...]:
    """In the file each head's queries stand before its gate."""
    if not attention.output_gate:
        return ()
    (query, _), *others = modules.items()
    dim = attention.head_dim
    queries, gate = (Piece(query, tuple(2 * dim * head + first + i for head in range(attention.num_heads)
                                        for i in range(dim))) for first in (0, dim))
    return (queries, *(Piece(name, range(size)) for name, size in others), gate)


def _delta_modules(delta: GatedDelta, names: Names, prefix: str, hidden: int) -> list[Group]:
    """q, k, v, z; then the betas and the decays of all heads."""
    inputs = _modules(prefix, names.state_in, (delta.conv_size, delta.output_size))
    heads = _modules(prefix, names.state_heads, (delta.num_value_heads,) * 2)
    share = delta.num_value_heads // delta.num_key_heads
    values = share * delta.value_dim

    def pieces(modules: dict[str, int], *parts: int) -> tuple[Piece, ...]:
        """`parts`: how many rows of each lie together for a key head, where they do."""
        if len(modules) > 1:
            return ()
        (name,) = modules
        starts = [sum(parts[:index]) for index in range(len(parts))]
        rows = [head * sum(parts) + start + i for start, size in zip(starts, parts, strict=True)
                for head in range(delta.num_key_heads) for i in range(size)]
        return (Piece(name, tuple(rows)),)

    return [Group(inputs, hidden, pieces=pieces(inputs, delta.key_dim, delta.key_dim, values, values)),
            Group(heads, hidden, is_exact=True, pieces=pieces(heads, share, share))]


def _channel_modules(delta: ChannelDelta, names: Names, prefix: str, hidden: int) -> list[Group]:
    """q, k, v, g; f and the betas; what f becomes, and g."""
    size, (decay, gate) = delta.output_size, names.state_up
    return [Group(_modules(prefix, names.state_in, (size, size, size, delta.rank)), hidden),
            Group(_modules(prefix, names.state_heads, (delta.rank, delta.num_heads)), hidden, is_exact=True),
            Group({prefix + decay: size}, delta.rank, is_exact=True),
            Group({prefix + gate: size}, delta.rank)]


def _latent_modules(latent: LatentAttention, names: Names, prefix: str, hidden: int) -> list[Group]:
    heads, kept_size = latent.num_heads, latent.rank + latent.shared_dim
    queries = heads * latent.query_dim
    query_down, down = names.latents
    if latent.query_rank is None:
        groups = [Group({prefix + names.qkv[0]: queries}, hidden),
                  Group({prefix + down: kept_size}, hidden, latent.has_bias)]
    else:
        both = {prefix + query_down: latent.query_rank, prefix + down: kept_size}
        groups = [Group({prefix + names.query_up: queries}, latent.query_rank),
                  Group(both, hidden, latent.has_bias)]
    groups.append(Group({prefix + names.o_proj: hidden}, latent.output_size, latent.has_bias))
    if len(names.heads_up) == 1:
        whole = {prefix + names.heads_up[0]: heads * (latent.plain_dim + latent.value_dim)}
        return [*groups, Group(whole, latent.rank, is_of_heads=True)]
    keys, values = ([prefix + name.format(head) for head in range(heads)] for name in names.heads_up)
    return [*groups, Group(dict.fromkeys(keys, latent.rank), latent.plain_dim, is_of_heads=True),
            Group(dict.fromkeys(values, latent.value_dim), latent.rank, is_of_heads=True)]


def mlp_modules(mlp: Dense | Moe | None, names: Names, prefix: str, hidden: int) -> list[Group]:
    """gate_up and down; of a mixture the router, gate_up and down of each expert and of the shared one, its
    gate, and what stands before and after the others."""
    def dense(of: Dense, gate_up: tuple[str, ...], down: str, size: int = hidden) -> list[Group]:
        up = (of.intermediate_size,) * (of.up_size // of.intermediate_size)
        modules, pieces = _modules(prefix, gate_up, up), ()
        if names.alternates_gate_up and of is not mlp and len(modules) == 1 and of.gated:
            pieces = tuple(Piece(*modules, range(first, of.up_size, 2)) for first in (0, 1))
        return [Group(modules, size, of.bias, pieces=pieces),
                Group({prefix + down: size}, of.intermediate_size, of.bias)]

    if mlp is None:
        return []
    if isinstance(mlp, Dense):
        return dense(mlp, names.gate_up, names.down_proj)
    groups = [Group({prefix + names.router: mlp.num_experts}, hidden, mlp.router_bias, is_exact=True)]
    for expert in range(mlp.num_experts):
        groups += dense(mlp.expert, tuple(name.format(expert) for name in names.expert_gate_up),
                        names.expert_down.format(expert), mlp.latent_size or hidden)
    if mlp.shared is not None:
        groups += dense(mlp.shared, names.shared_gate_up, names.shared_down)
    if mlp.shared_gate:
        groups.append(Group({prefix + names.shared_gate: 1}, hidden, is_exact=True))
    if mlp.latent_size is not None:
        before, after = (prefix + name for name in names.expert_latents)
        groups += [Group({before: mlp.latent_size}, hidden), Group({after: hidden}, mlp.latent_size)]
    return groups


def layer_input_modules(inputs: LayerInputs | None, names: Names, prefix: str, hidden: int) -> list[Group]:
    """The gate and the product after it."""
    if inputs is None:
        return []
    return [Group({prefix + names.input_gate: inputs.size}, hidden),
            Group({prefix + names.input_out: hidden}, inputs.size)]


def input_projection(spec: Spec, inputs: LayerInputs, names: Names) -> Group:
    """Embeddings to the inputs of all layers."""
    return Group({names.layer_inputs_projection: spec.num_layers * inputs.size}, spec.hidden_size)


def stream_modules(streams: Streams | None, names: Names, prefix: str, hidden: int) -> list[Group]:
    """The router, two products of what it gives, and two beside attention."""
    if streams is None:
        return []
    count, (down, up) = streams.count, names.beside
    return [Group({prefix + names.stream_router: count}, hidden, is_exact=True),
            Group({prefix + names.stream_predict: count ** 2}, count, is_exact=True),
            Group({prefix + names.stream_correct: count}, count, is_exact=True),
            Group({prefix + down: streams.rank}, hidden), Group({prefix + up: hidden}, streams.rank)]


def stream_ends(spec: Spec, names: Names) -> tuple[list[Group], list[Group]]:
    """What opens and what closes each copy but the first."""
    others = range(spec.streams.count - 1) if spec.streams is not None else ()
    size = spec.hidden_size
    openings, closings = ([Group({name.format(index): size}, size) for index in others]
                          for name in (names.stream_openings, names.stream_closings))
    return openings, closings


def _modules(prefix: str, of: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, int]:
    """One for each size, or one for all of them together."""
    sizes = sizes if len(of) == len(sizes) else (sum(sizes),)
    return {prefix + name: size for name, size in zip(of, sizes, strict=True)}
