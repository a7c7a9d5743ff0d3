"""The weights of mixers: attention, and layers that keep a state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.families.names import Names
from model.families.spec import Attention, ChannelDelta, GatedDelta, Mixer, ShortConv
from model.formats.weights import WeightReader
from model.network.linear import Linear
from model.network.norm_weights import NormWeights, load_head_norm


@dataclass(frozen=True)
class AttentionWeights:
    """What its Spec does not have is None."""

    qkv: Linear             # hidden_size -> queries, keys, values, gate
    out_proj: Linear
    query_norm: NormWeights | None
    key_norm: NormWeights | None
    sinks: Tensor | None    # float32 [num_heads]

    @property
    def linears(self) -> list[Linear]:
        return [self.qkv, self.out_proj]


@dataclass(frozen=True)
class ConvWeights:
    """float32, as the kernel takes them."""

    weight: Tensor       # [kernel, channels], the newest input last
    bias: Tensor | None  # [channels]


@dataclass(frozen=True)
class ShortConvWeights:
    in_proj: Linear         # hidden_size -> b, c, x
    out_proj: Linear
    conv: ConvWeights

    @property
    def linears(self) -> list[Linear]:
        return [self.in_proj, self.out_proj]


@dataclass(frozen=True)
class DeltaWeights:
    in_proj: Linear         # hidden_size -> q, k, v, z
    heads: Linear           # hidden_size -> beta and decay of each value head, always exact
    out_proj: Linear
    conv: ConvWeights
    decay: Tensor           # float32 [num_value_heads], negative
    step_bias: Tensor       # float32 [num_value_heads]
    norm: Tensor            # float32 [value_dim]

    @property
    def linears(self) -> list[Linear]:
        return [self.in_proj, self.heads, self.out_proj]


@dataclass(frozen=True)
class ChannelDeltaWeights:
    in_proj: Linear         # hidden_size -> q, k, v, g
    heads: Linear           # hidden_size -> f, and beta of each head, always exact
    decay_up: Linear        # rank -> num_heads * head_dim, always exact
    gate_up: Linear         # rank -> num_heads * head_dim
    out_proj: Linear
    conv: ConvWeights
    decay: Tensor           # float32 [num_heads * head_dim], negative, the same within a head
    step_bias: Tensor       # float32 [num_heads * head_dim]
    norm: Tensor            # float32 [head_dim]

    @property
    def linears(self) -> list[Linear]:
        return [self.in_proj, self.heads, self.decay_up, self.gate_up, self.out_proj]


@dataclass(frozen=True)
class MambaWeights:
    in_proj: Linear         # hidden_size -> z, x, b, c, d
    out_proj: Linear
    conv: ConvWeights
    decay: Tensor           # float32 [num_heads], negative
    step_bias: Tensor       # float32 [num_heads]
    skip: Tensor            # float32 [num_heads]
    norm: Tensor | None     # float32 [num_heads * head_dim]

    @property
    def linears(self) -> list[Linear]:
        return [self.in_proj, self.out_proj]


MixerWeights = AttentionWeights | ShortConvWeights | DeltaWeights | ChannelDeltaWeights | MambaWeights


def load_mixer(reader: WeightReader, names: Names, prefix: str, mixer: Mixer, linears: list[Linear],
               device: torch.device) -> MixerWeights:
    """`linears` in the order of mixer_modules()."""
    if isinstance(mixer, Attention):
        return _attention(reader, names, prefix, mixer, linears, device)

    def numbers(name: str, count: int) -> Tensor:
        return reader.numbers_of(prefix + name, count, device)

    def conv(size: int, has_bias: bool = False) -> ConvWeights:
        modules = [prefix + name for name in names.state_conv]
        return _conv(reader, modules, size, mixer.kernel, has_bias, device)

    def decay(count: int) -> Tensor:
        stored = numbers(names.decay, count)
        return -stored.exp() if names.decay_is_log else stored

    if isinstance(mixer, ShortConv):
        return ShortConvWeights(*linears, conv(mixer.size, mixer.bias))
    norm = names.state_norm + ".weight"
    if isinstance(mixer, GatedDelta):
        heads = mixer.num_value_heads
        return DeltaWeights(*linears, conv(mixer.conv_size), decay(heads), numbers(names.step_bias, heads),
                            numbers(norm, mixer.value_dim))
    heads = mixer.num_heads
    if isinstance(mixer, ChannelDelta):
        return ChannelDeltaWeights(
            *linears, conv(mixer.conv_size), decay(heads).repeat_interleave(mixer.head_dim),
            numbers(names.step_bias, mixer.output_size), numbers(norm, mixer.head_dim))
    scale = torch.tensor(mixer.scales[1:4], device=device).repeat_interleave(torch.tensor(
        [mixer.output_size, *[mixer.num_groups * mixer.state_size] * 2], device=device))
    inputs = conv(mixer.conv_size, mixer.conv_bias)
    return MambaWeights(*linears, replace(inputs, weight=inputs.weight * scale), decay(heads),
                        numbers(names.step_bias, heads), numbers(names.skip, heads),
                        None if mixer.norm is None else numbers(norm, mixer.output_size))


def _attention(reader: WeightReader, names: Names, prefix: str, attention: Attention, linears: list[Linear],
               device: torch.device) -> AttentionWeights:
    def head_norm(name: str, num_heads: int) -> NormWeights | None:
        return load_head_norm(reader, prefix + name, attention.qk_norm, num_heads, attention.head_dim, names,
                              device)

    sinks = reader.vector(prefix + names.sinks, attention.num_heads, device) if attention.sinks else None
    has_keys = attention.reads_cache_of is None
    return AttentionWeights(*linears, head_norm(names.query_norm, attention.num_heads),
                            head_norm(names.key_norm, attention.num_kv_heads) if has_keys else None, sinks)


def _conv(reader: WeightReader, modules: list[str], channels: int, kernel: int, has_bias: bool,
          device: torch.device) -> ConvWeights:
    """Of one module, or of several of as many channels each."""
    share = channels // len(modules)
    weights = [reader.filters(name + ".weight", share, kernel, device) for name in modules]
    biases = [reader.vector(name + ".bias", share, device) for name in modules] if has_bias else []
    return ConvWeights(torch.cat(weights).t().contiguous(), torch.cat(biases) if has_bias else None)
