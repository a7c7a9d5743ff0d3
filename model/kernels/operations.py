"""What the layers of a model may ask of a device: the CPU's kernels, a GPU's, or the reference.

The meaning of each operation, with shapes and dtypes, is written at the function of its name in reference/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from model.kernels.float8 import Float8
from model.kernels.groups import GroupRows, Groups
from model.kernels.lora import LoraSegment
from model.kernels.prompt_layers import PromptLayer, PromptPart
from model.kernels.routing import Routing
from model.kernels.sampling import SamplingRow

NORMS = ("none", "rms", "layer")
"""In the order of PARLOR_NORM_* in kernels.h."""
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "relu", "clamped", "sigmoid", "none")
"""In the order of PARLOR_ACTIVATION_* in kernels.h."""
ANY_POSITION = 1 << 31
"""As many positions as there are, where no table bounds them."""


class PackedWeight(Protocol):
    """A linear layer's weight [n, k], packed by the operations that multiply by it."""

    @property
    def n(self) -> int: ...

    @property
    def k(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def nbytes(self) -> int:
        """Bias and permutation included."""


class NativeLibrary(Protocol):
    """The compiled functions behind operations."""

    def function(self, name: str) -> Any:
        """A ctypes function."""


class WholeLayers(Protocol):
    """A device's way with whole layers of prompts."""

    def takes_layer(self, layer: PromptLayer) -> bool:
        """Whether prompt_layers does."""

    def fewest_rows(self, layers: Sequence[PromptLayer]) -> int:
        """That are worth prompt_layers; it does not change once crossovers are measured."""

    def prompt_layers(self, x: Tensor, layers: Sequence[PromptLayer], positions: Tensor,
                      slot_mappings: Sequence[Tensor], prompts: Sequence[PromptPart]) -> None:
        """These layers that follow each other, for all rows of some prompts, whose keys and values come into
        the cache.

        x              float32 [T, hidden_size], changed;  positions int32 [T]
        slot_mappings  of each cache group int64 [T]
        """


class PromptOperations(Protocol):
    """A device's own ways with rows of prompts, which need not give the bits that decoding gives."""

    @property
    def least_rows(self) -> int:
        """A chunk of a prompt with fewer rows is computed as rows that decode. 1: all are computed alike, so
        that neither the sizes of chunks nor a beginning from the cache change a bit of what follows."""

    def prompt_linear(self, x: Tensor, weight: Any, out: Tensor, norm: Tensor | None = None,
                      eps: float = 0.0, epilogue: str = "store", precise: int = 0) -> None:
        """`linear` for rows of prompts.

        precise  outputs, from the first on, whose factors are not to be rounded to 8 bits: queries and keys,
                 whose errors the softmax multiplies (of the logits of random models with sharp attention 2.1%
                 instead of 1.3%)
        """

    def prompt_mlp(self, x: Tensor, gate_up: Any, inner: Tensor, down: Any, out: Tensor,
                   norm: Tensor | None = None, eps: float = 0.0, epilogue: str = "store") -> None:
        """prompt_linear by `gate_up` with silu_mul, which may or may not be left in `inner`, then by `down`.

        inner  float32 [T, k of down];  out  float32 [T, n of down], may be x
        """

    def prompt_experts(self, x: Tensor, experts: Any, chosen: Tensor, shares: Tensor, out: Tensor,
                       add: bool = False, gate: Tensor | None = None) -> None: ...

    def prompt_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, pages: Tensor,
                         num_keys: int, out: Tensor, num_heads: int, scale: float, window: int | None = None,
                         softcap: float | None = None, sinks: Tensor | None = None) -> None: ...

    @property
    def whole_layers(self) -> WholeLayers | None:
        """None where layers are computed operation by operation."""

    def keep_in_float16(self, weights: Sequence[Any], nbytes: int) -> None:
        """Prompts may be multiplied by copies of these weights for which there are so many bytes."""

    def measure_crossovers(self, weights: Sequence[Any]) -> None:
        """Find out how prompts are best multiplied by these weights."""


class Operations(Protocol):
    """The operations of one device."""

    library: Any
    """A NativeLibrary; None in plain torch, whose steps cannot be recorded as a list of calls."""
    call: Callable[..., None]
    """call(name, *arguments): one function of the library; whoever records steps listens here."""

    @property
    def isa(self) -> str:
        """What the kernels are compiled for: 'avx512', 'sm_90'; 'reference' in plain torch."""

    @property
    def threads(self) -> int:
        """Of the CPU that compute."""

    @property
    def prompts(self) -> PromptOperations | None:
        """None where prompts are computed as everything else is."""

    @property
    def looks_up_packed(self) -> bool:
        """`embed` takes what pack_groups returns, too."""

    @property
    def runs_ahead(self) -> bool:
        """Calls return before they are done, and `sample` takes tokens that are still being chosen."""

    def embed(self, table: Any, token_ids: Tensor, out: Tensor, scale: float = 1.0) -> None: ...

    def norm_rows(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: str,
                  out: Tensor, num_groups: int = 1, add: bool = False, scale: float = 1.0) -> None: ...

    def activate(self, x: Tensor, out: Tensor, kind: str, gated: bool) -> None: ...

    def gate_rows(self, x: Tensor, gate: Tensor, out: Tensor, kind: str) -> None: ...

    def softplus_rows(self, x: Tensor, bias: Tensor | None, out: Tensor, scale: Tensor | None = None,
                      low: float = 0.0, high: float = math.inf) -> None: ...

    def xielu_rows(self, x: Tensor, out: Tensor, above: float, below: float) -> None: ...

    def cut_rows(self, x: Tensor, deviations: float) -> None: ...

    def match_rows(self, x: Tensor, like: Tensor, eps: float) -> None: ...

    def mix_rows(self, x: Tensor, shares: Tensor, out: Tensor, size: int, add: bool = False) -> None: ...

    def cap_rows(self, x: Tensor, scale: float, cap: float | None = None) -> None: ...

    def rotate_heads(self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int,
                     interleaved: bool = False) -> None: ...

    def rope_write_kv(self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, positions: Tensor,
                      slot_mapping: Tensor, k_cache: Tensor, v_cache: Tensor | None, num_heads: int,
                      num_kv_heads: int, interleaved: bool = False,
                      query_scale: Tensor | None = None) -> None: ...

    def fuses_heads(self, weight: PackedWeight, k_cache: Tensor, rotary_dim: int) -> bool:
        """Whether linear_rope_write_kv, linear and rope_write_kv in one, takes these."""

    def linear_rope_write_kv(self, x: Tensor, weight: PackedWeight, qkv: Tensor, norm: Tensor | None,
                             eps: float, cos: Tensor, sin: Tensor, positions: Tensor, slot_mapping: Tensor,
                             k_cache: Tensor, v_cache: Tensor, num_heads: int, num_kv_heads: int,
                             interleaved: bool = False) -> None: ...

    def paged_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, block_table: Tensor,
                        cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, num_heads: int, scale: float,
                        window: int | None = None, softcap: float | None = None,
                        sinks: Tensor | None = None) -> None: ...

    def copy_pages(self, k_cache: Tensor, v_cache: Tensor | None, src: Tensor, dst: Tensor) -> None: ...

    def short_conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, states: Tensor, slots: Tensor,
                   cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, activation: str = "none",
                   row_slots: Tensor | None = None) -> None: ...

    def gated_delta(self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, states: Tensor,
                    slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
                    row_slots: Tensor | None = None, tiled: bool = False) -> None: ...

    def mamba2(self, x: Tensor, b: Tensor, c: Tensor, dt: Tensor, a: Tensor, d: Tensor | None, states: Tensor,
               slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
               row_slots: Tensor | None = None) -> None: ...

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], probabilities: Tensor | None = None,
               surprises: Tensor | None = None) -> Tensor: ...  # and `previous`, with runs_ahead

    def pack_linear(self, codes: Tensor, scales: Tensor, zeros: Tensor, group_size: int, bits: int = 4,
                    perm: Tensor | None = None, bias: Tensor | None = None,
                    exact: bool = False) -> PackedWeight: ...

    def pack_groups(self, groups: Groups, bias: Tensor | None = None,
                    exact: bool = False) -> PackedWeight: ...

    def round_groups(self, values: Tensor, bits: int) -> Groups:
        """See rounding.round_groups."""

    def pack_group_rows(self, rows: GroupRows, bias: Tensor | None = None,
                        exact: bool = False) -> PackedWeight: ...

    def pack_float8(self, weight: Float8, bias: Tensor | None = None,
                    exact: bool = False) -> PackedWeight: ...

    def pack_dense(self, weight: Tensor, bias: Tensor | None = None,
                   exact: bool = False) -> PackedWeight: ...

    def linear(self, x: Tensor, weight: Any, out: Tensor, norm: Tensor | None = None, eps: float = 0.0,
               epilogue: str = "store") -> None: ...

    def pack_lora(self, adapters: Sequence[Sequence[LoraSegment]], n: int, k: int, room: int = 0) -> Any: ...

    def put_lora(self, weight: Any, number: int, segments: Sequence[LoraSegment]) -> None: ...

    def lora(self, x: Tensor, row_adapters: Tensor, weight: Any, out: Tensor, norm: Tensor | None = None,
             eps: float = 0.0) -> None: ...

    def route(self, scores: Tensor, routing: Routing, correction: Tensor | None,
              expert_scale: Tensor | None, chosen: Tensor, shares: Tensor) -> None: ...

    def pack_experts(self, gate_up: Sequence[Sequence[Any]], down: Sequence[Any], activation: str,
                     gated: bool, scales_input: bool = False) -> Any: ...

    def experts(self, x: Tensor, experts: Any, chosen: Tensor, shares: Tensor, out: Tensor,
                add: bool = False, gate: Tensor | None = None) -> None: ...
