"""What a decoder computes, as data: the vocabulary that families are written in and the network executes.

Knows sizes and arithmetic; no names of tensors, no files, no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from model.kernels.routing import Routing

Activation = Literal["silu", "gelu", "gelu_tanh", "relu2", "relu", "clamped", "xielu"]
"""gelu: with erf; gelu_tanh: its approximation; relu: what is positive; relu2: its square; clamped:
gpt-oss's; xielu: Apertus's, with two numbers of each layer, in mlps without a gate."""


@dataclass(frozen=True)
class Norm:
    """x / sqrt(mean(x^2) + eps) * weight; "layer": x - mean(x) takes x's place, and a bias may be added;
    "none": x as it is."""

    kind: Literal["rms", "layer", "none"] = "rms"
    eps: float = 1e-6
    has_bias: bool = False
    has_weight: bool = True


@dataclass(frozen=True)
class HeadNorm:
    """The norm of queries and keys."""

    norm: Norm
    span: Literal["head", "projection"] = "head"          # what shares a mean: a head, or all
    weight: Literal["shared", "own", "none"] = "shared"   # one for all heads, one for each head, none
    after_rope: bool = False


@dataclass(frozen=True)
class LongRope:
    """Other divisors for sequences of more than `beyond` tokens: all their positions are rotated by these."""

    beyond: int
    divisors: tuple[float, ...]


@dataclass(frozen=True)
class DynamicRope:
    """A larger base for sequences of more than `beyond` tokens, up to `factor` times as many: the longer they
    are the larger, and all their positions are rotated with it."""

    beyond: int
    factor: float


@dataclass(frozen=True)
class Rope:
    """Rotation by position: pair i of a head turns by position * theta^(-2i / dim) / divisors[i].

    Every way of scaling (linear, llama3, yarn, longrope ...) comes down to divisors: see rope.py.
    """

    theta: float
    dim: int                                   # the first `dim` of a head are rotated; even
    divisors: tuple[float, ...] | None = None  # dim / 2 numbers; None: all 1
    magnitude: float = 1.0                     # cosine and sine are multiplied by it
    interleaved: bool = False                  # pairs (2i, 2i + 1) instead of (i, i + dim / 2)
    long: LongRope | DynamicRope | None = None


@dataclass(frozen=True)
class QueryScale:
    """Queries are multiplied by 1 + beta * ln(1 + floor((position + offset) / span))."""

    beta: float
    span: int
    offset: int = 0


@dataclass(frozen=True)
class Attention:
    """softmax(scale * q k^T) v of `num_heads` heads; num_heads / num_kv_heads share keys and values."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope | None
    scale: float
    window: int | None = None             # the last positions that are seen, its own included; None: all
    chunk: int | None = None              # what is seen begins at a multiple of this; None: at 0
    softcap: float | None = None          # scores become softcap * tanh(score / softcap)
    sinks: bool = False                   # a logit for each head more, of nothing, in the softmax
    qk_norm: HeadNorm | None = None
    query_scale: QueryScale | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    keys_as_values: bool = False          # values are the keys as they are before norm and rotation
    keeps_keys_only: bool = False         # values are the keys as they are kept
    value_norm: Norm | None = None        # of a head's values, without weights
    reads_cache_of: int | None = None     # the earlier layer whose keys and values are attended to
    output_gate: Literal["number", "head"] | None = None  # what is attended to is multiplied by the sigmoid
                                          # of as many gates, or of one for each head
    gate_function: Literal["sigmoid", "softplus"] = "sigmoid"  # instead of the sigmoid
    out_scale: float = 1.0                # the result is multiplied by it

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def qkv_size(self) -> int:
        """Queries, keys and values."""
        return self.query_size + self.kept_size

    @property
    def kept_size(self) -> int:
        """Numbers that are kept of a token."""
        return self.kept_heads * self.head_dim

    @property
    def kept_heads(self) -> int:
        return self.num_kv_heads * (1 if self.keeps_keys_only else 2)

    @property
    def projected(self) -> tuple[int, ...]:
        """What is computed of queries, keys and values."""
        if self.reads_cache_of is not None:
            return (self.query_size,)
        return (self.query_size, self.key_size) + (() if self.keys_as_values else (self.key_size,))

    @property
    def gate_size(self) -> int:
        return self.query_size if self.output_gate else 0

    @property
    def input_size(self) -> int:
        """Outputs of the product with the hidden state."""
        return sum(self.projected) + self.gate_size

    @property
    def output_size(self) -> int:
        """Inputs of the product that gives the result."""
        return self.query_size


@dataclass(frozen=True)
class LatentAttention:
    """Attention that keeps of a token a latent and a short key for all heads.

    A head's key is (up(latent), shared), its value another product of the latent; queries are a product of
    the hidden state, or of a normed latent of their own. Computed with these products at the queries and
    behind the sums, so that all heads share one key, (shared, latent), which is the value as well.
    """

    num_heads: int
    rank: int                             # of the latent
    plain_dim: int                        # of a head's key: what is a product of the latent
    value_dim: int
    shared_dim: int                       # of a head's key: what is the same for all heads
    rope: Rope | None                     # of that, all of it
    scale: float
    norm: Norm                            # of latents
    query_rank: int | None = None
    has_bias: bool = False                # products that make latents, and the last one
    query_scale: QueryScale | None = None
    out_scale: float = 1.0

    @property
    def kept(self) -> Attention:
        """The same as attention over what is kept."""
        return Attention(self.num_heads, 1, self.shared_dim + self.rank, self.rope, self.scale,
                         query_scale=self.query_scale, keeps_keys_only=True)

    @property
    def query_dim(self) -> int:
        """Of a head, before it meets the latent."""
        return self.plain_dim + self.shared_dim

    @property
    def latents_size(self) -> int:
        """Of both latents and the shared key."""
        return (self.query_rank or 0) + self.rank + self.shared_dim

    @property
    def input_size(self) -> int:
        """Outputs of the products with the hidden state."""
        queries = 0 if self.query_rank is not None else self.num_heads * self.query_dim
        return queries + self.latents_size

    @property
    def output_size(self) -> int:
        """Inputs of the product that gives the result."""
        return self.num_heads * self.value_dim

    @property
    def num_inner_weights(self) -> int:
        """Of the products between those."""
        queries = (self.query_rank or 0) * self.num_heads * self.query_dim
        return queries + self.rank * self.num_heads * (self.plain_dim + self.value_dim)


@dataclass(frozen=True)
class ShortConv:
    """out(c * conv(b * x)): b, c and x are `size` outputs each of one product, and the convolution is over
    the last `kernel` tokens, each number by itself."""

    size: int
    kernel: int
    bias: bool = False                    # of both products and of the convolution
    out_scale: float = 1.0

    @property
    def input_size(self) -> int:
        """Outputs of the product with the hidden state."""
        return 3 * self.size

    @property
    def output_size(self) -> int:
        """Inputs of the product that gives the result."""
        return self.size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """What a sequence keeps, float32: the last inputs of the convolution."""
        return ((self.kernel - 1, self.size),)


@dataclass(frozen=True)
class GatedDelta:
    """out(norm(delta(q, k, v)) * silu(z)): q, k and v through a convolution and silu first. See gated_delta
    in model/kernels; beta = sigmoid(b), decay = exp(a * softplus(d + bias)): b and d are a number a head."""

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    norm: Norm                            # of each value head
    tiled: bool = False                   # value heads h, h + num_key_heads ... share a key head
    out_scale: float = 1.0

    @property
    def conv_size(self) -> int:
        return 2 * self.num_key_heads * self.key_dim + self.output_size

    @property
    def output_size(self) -> int:
        return self.num_value_heads * self.value_dim

    @property
    def input_size(self) -> int:
        return self.conv_size + self.output_size

    @property
    def heads_size(self) -> int:
        """b and d."""
        return 2 * self.num_value_heads

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The last inputs of the convolution, and what each value head knows."""
        return ((self.kernel - 1, self.conv_size), (self.num_value_heads, self.key_dim, self.value_dim))


@dataclass(frozen=True)
class ChannelDelta:
    """out(norm(delta(q, k, v)) * sigmoid(z)), as GatedDelta but with a decay for each channel of a key:
    exp(a * softplus(d + bias)), a being a number a head. d = decay_up(f) and z = gate_up(g), f and g being
    `rank` numbers each of the hidden state. Source: Kimi Delta Attention, https://arxiv.org/abs/2510.26692
    """

    num_heads: int
    head_dim: int                         # of queries, keys and values
    rank: int
    kernel: int
    norm: Norm                            # of each head
    out_scale: float = 1.0

    @property
    def conv_size(self) -> int:
        return 3 * self.output_size

    @property
    def output_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def input_size(self) -> int:
        """q, k, v and g."""
        return self.conv_size + self.rank

    @property
    def heads_size(self) -> int:
        """f, and b of each head."""
        return self.rank + self.num_heads

    @property
    def num_inner_weights(self) -> int:
        """Of decay_up and gate_up."""
        return 2 * self.rank * self.output_size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The last inputs of the convolution, and what each head knows."""
        return ((self.kernel - 1, self.conv_size), (self.num_heads, self.head_dim, self.head_dim))


@dataclass(frozen=True)
class Mamba2:
    """out(norm(ssm(x, b, c, dt) * silu(z))): x, b and c through a convolution and silu first. See mamba2 in
    model/kernels; dt = softplus(d + bias) within `step_limits`, d being a number a head."""

    num_heads: int
    head_dim: int
    num_groups: int                       # of heads: each has a b and a c
    state_size: int
    kernel: int
    norm: Norm | None                     # of each group of heads
    norm_before_gate: bool = False
    conv_bias: bool = True
    in_bias: bool = False
    out_bias: bool = False
    step_limits: tuple[float, float] = (0.0, math.inf)
    scales: tuple[float, ...] = (1.0,) * 5  # what z, x, b, c and d are multiplied by
    out_scale: float = 1.0

    @property
    def conv_size(self) -> int:
        return self.output_size + 2 * self.num_groups * self.state_size

    @property
    def output_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def input_size(self) -> int:
        return self.output_size + self.conv_size + self.num_heads

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The last inputs of the convolution, and what each head knows."""
        return ((self.kernel - 1, self.conv_size), (self.num_heads, self.state_size, self.head_dim))


StateMixer = ShortConv | GatedDelta | ChannelDelta | Mamba2
"""Those that keep a state of one size instead of all keys and values."""
Mixer = Attention | LatentAttention | StateMixer
"""How tokens of a sequence see those before them. `out_scale`: what the result is multiplied by."""


@dataclass(frozen=True)
class Dense:
    """down(activation(gate(x)) * up(x)), or down(activation(up(x))) without a gate."""

    intermediate_size: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False
    gate_scale: float = 1.0               # of what the activation is applied to
    cut: float | None = None              # of that only what is so many deviations above the mean is kept
    out_scale: float = 1.0

    @property
    def up_size(self) -> int:
        """Outputs of gate and up together."""
        return self.intermediate_size * (2 if self.gated else 1)

    @property
    def is_fused(self) -> bool:
        """The product with gate and up applies the activation, too."""
        return self.gated and self.activation == "silu" and self.gate_scale == 1 and self.cut is None


@dataclass(frozen=True)
class Moe:
    """A router's choice of experts for each token: the sum of what they give, each times its share.

    The router reads what the experts read, or, with a norm of its own, that norm of the hidden state.
    """

    num_experts: int
    expert: Dense
    routing: Routing
    router_bias: bool = False
    correction: bool = False              # a number for each expert, added for the choice alone
    expert_scale: bool = False            # a number for each expert: its shares are multiplied by it
    scales_input: bool = False            # shares multiply what an expert reads, not what it gives
    router_norm: Norm | None = None       # its weight is multiplied by router_scale
    router_scale: float = 1.0
    shared: Dense | None = None           # an expert of every token
    shared_gate: bool = False             # times the sigmoid of a number of its own
    routes_ahead: bool = False            # the router reads the hidden state that the layer begins with
    latent_size: int | None = None        # of what the others read and give, between products of their own
    apart: bool = False                   # the shared expert and the sum of the others are normed each before
                                          # they are added; the others read a norm of their own
    out_scale: float = 1.0                # what all give together is multiplied by it

    @property
    def top_k(self) -> int:
        return self.routing.top_k

    @property
    def intermediate_size(self) -> int:
        """Of the widest expert."""
        return max(self.expert.intermediate_size, 0 if self.shared is None else self.shared.intermediate_size)


@dataclass(frozen=True)
class Layer:
    """x + mixer(x), then x + mlp(x), with norms before what is added, after it, or both. One may be missing.

    parallel: both branches read the same x; with one norm for the two of them, or each with its own.
    """

    mixer: Mixer | None
    mlp: Dense | Moe | None
    norm: Norm
    norm_before: bool = True
    norm_after: bool = False
    after: Norm | None = None             # the norm after, where it is not as the one before
    parallel: Literal["one norm", "two norms"] | None = None
    residual_scale: float = 1.0           # what a branch is multiplied by when it is added
    beside: Mixer | None = None           # reads what the mixer reads, and is added as well
    has_scale: bool = False               # at last all is multiplied by a number that the file has

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        return tuple(mixer for mixer in (self.mixer, self.beside) if mixer is not None)

    @property
    def attention(self) -> Attention | None:
        """Over what is kept of tokens, whichever kind it is."""
        return next((mixer.kept if isinstance(mixer, LatentAttention) else mixer for mixer in self.mixers
                     if isinstance(mixer, Attention | LatentAttention)), None)

    def with_attention(self, **changes: Any) -> Layer:
        """The same with these fields of its attention; a layer without one as it is."""
        def changed(mixer: Mixer | None) -> Mixer | None:
            return replace(mixer, **changes) if isinstance(mixer, Attention | LatentAttention) else mixer

        return replace(self, mixer=changed(self.mixer), beside=changed(self.beside))


def own_caches(layers: Sequence[Layer]) -> list[Attention]:
    """Of the layers that keep keys and values of their own, in order."""
    found = [layer.attention for layer in layers]
    return [attention for attention in found if attention is not None and attention.reads_cache_of is None]


@dataclass(frozen=True)
class LayerInputs:
    """What a token brings to each layer besides its embedding e: `size` numbers
    i = (scale * table[token] + norm(projection(e))) / sqrt(2), before the layer's own weights.

    A layer ends with x + norm(out(activation(gate(x)) * i)).
    """

    size: int
    scale: float
    activation: Activation
    norm: Norm                            # both
    vocab_size: int | None = None         # of a table with fewer tokens; others have the numbers of token 0


@dataclass(frozen=True)
class Positions:
    """A learned vector of each position is added to embeddings: row position + offset of a table with
    max_positions + offset rows."""

    offset: int = 0


@dataclass(frozen=True)
class Streams:
    """The hidden state in `count` copies, of which layers compute with the first.

    Before the layers copy i is opening_i(embedding), made as large as that; after them the mean of the first
    and closing_i(copy i), made as large as the first, is what the norm before the head reads. At a layer
    each copy s_i becomes s_i + sum of p_ij * s_j; then what the layer has changed of the first, d, is added
    to each as (1 + c_i) * d. p and c are products of tanh(router(norm(x) / hidden_size)), x being the first
    copy before and after the layer. Inputs of layers are made of the first copy and added to the others.
    Source: AltUp, https://arxiv.org/abs/2301.13310

    Beside a layer's attention, both of n, its norm of x: (x + attention + n + norm(up(down(n)))) / sqrt(2),
    by way of `rank` numbers. Source: LAuReL, https://arxiv.org/abs/2411.07501
    """

    count: int
    rank: int
    norm: Norm                            # of routers, and of what stands beside attention
    scales_first: bool = True             # what inputs of layers are made of is the first times a weight


@dataclass(frozen=True)
class Spec:
    """A whole decoder."""

    vocab_size: int
    hidden_size: int
    max_positions: int
    layers: tuple[Layer, ...]
    norm: Norm                            # before the head
    tied_head: bool | None                # the head is the embeddings; None: unless the file has another
    head_rows: int | None = None          # of a head that has none for the last tokens; None: all
    head_norm: Literal["rows", "columns"] | None = None  # these of the head are divided by their lengths
    embedding_scale: float = 1.0
    embedding_norm: Norm | None = None    # of embeddings, without weights
    logit_scale: float = 1.0
    logit_softcap: float | None = None    # after logit_scale
    positions: Positions | None = None
    layer_inputs: LayerInputs | None = None
    streams: Streams | None = None

    @property
    def long_beyond(self) -> int | None:
        """Sequences of more tokens are rotated differently from their first position on; None: all alike."""
        ropes = [attention.rope for attention in self.attentions if attention.rope is not None]
        return min((rope.long.beyond for rope in ropes if rope.long is not None), default=None)

    @property
    def is_dynamic(self) -> bool:
        """Whether it depends on their length how long sequences are rotated."""
        return any(attention.rope is not None and isinstance(attention.rope.long, DynamicRope)
                   for attention in self.attentions)

    @property
    def attentions(self) -> list[Attention]:
        """Of the layers that have one."""
        return [layer.attention for layer in self.layers if layer.attention is not None]

    @property
    def states(self) -> list[StateMixer]:
        """Mixers that keep a state."""
        return [mixer for layer in self.layers for mixer in layer.mixers if isinstance(mixer, StateMixer)]

    @property
    def has_states(self) -> bool:
        return bool(self.states)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_position_rows(self) -> int:
        """Of the table of learned vectors."""
        return 0 if self.positions is None else self.max_positions + self.positions.offset

    @property
    def num_parameters(self) -> int:
        """Weights of matrices and of the norms before and after branches; a tied head counts once."""
        embeddings = self.vocab_size * self.hidden_size * (2 if self.tied_head is False else 1)
        embeddings += self.num_position_rows * self.hidden_size
        if self.layer_inputs is not None:
            size = self.num_layers * self.layer_inputs.size
            embeddings += self.vocab_size * size + 3 * self.hidden_size * size
        if self.streams is not None:
            count, rank = self.streams.count, self.streams.rank
            embeddings += 2 * (count - 1) * self.hidden_size ** 2
            embeddings += self.num_layers * (self.hidden_size * (count + 2 * rank) + count ** 3 + count ** 2)
        return embeddings + self.hidden_size + sum(map(self._layer_parameters, self.layers))

    def _layer_parameters(self, layer: Layer) -> int:
        branches = bool(layer.mixers) + (layer.mlp is not None)
        norms = branches * layer.norm_after
        norms += (1 if layer.parallel == "one norm" else branches) * layer.norm_before
        mlps = [layer.mlp] if isinstance(layer.mlp, Dense) else []
        router = within = 0
        if isinstance(layer.mlp, Moe):
            router = layer.mlp.num_experts + layer.mlp.shared_gate
            mlps = [layer.mlp.expert] * layer.mlp.num_experts
            mlps += [layer.mlp.shared] if layer.mlp.shared is not None else []
            if layer.mlp.latent_size is not None:
                own, size = mlps[0], layer.mlp.latent_size
                router += 2 * size
                within = layer.mlp.num_experts * size * (own.up_size + own.intermediate_size)
                mlps = mlps[layer.mlp.num_experts:]
        inner = sum(each.up_size + each.intermediate_size for each in mlps)
        mixers = sum(mixer.input_size + mixer.output_size for mixer in layer.mixers)
        within += sum(mixer.num_inner_weights for mixer in layer.mixers
                      if isinstance(mixer, LatentAttention | ChannelDelta))
        return within + self.hidden_size * (mixers + norms + inner + router)
