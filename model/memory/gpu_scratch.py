"""What a GPU needs for a model beside its weights, its cache and the buffers of a step.

The kernels' workspace, CUDA's context and cuBLAS as the thread that loads uses it are there before memory is
counted. Knows sizes only; those of graphs and of what libraries load later are estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.families.cache_groups import cache_groups
from model.families.spec import Moe
from model.kernels.cuda_linear import SCRATCH_BYTES
from model.kernels.cuda_prompts import SCORE_BYTES
from model.model_config import ModelConfig
from model.network.cuda_graph import SIZES
from model.network.modules import layer_modules
from model.network.step_layout import step_bytes
from model.sizes import LOGIT_ROWS, MAX_RUNNING

_KERNELS_OF_LAYER = 10
"""Four products, each with a kernel that converts its rows; rotation; attention."""
_KERNEL_BYTES = 8 << 10
"""Of a kernel in a graph: its arguments, and what CUDA keeps to start it."""
_CUBLAS_BYTES = 2 * (32 << 20)
"""torch's workspaces for the engine's thread, on the GPUs where they are largest: cuBLAS and cuBLASLt."""
_CODE_BYTES = 128 << 20
"""Kernels that CUDA loads when they are first used: other sizes of products and of attention."""


@dataclass(frozen=True)
class GpuScratch:
    """Bytes. Those of a prompt come and go, but torch keeps what it once had."""

    product: int    # a prompt's largest: weight in float16, a piece at a time; rows in float16; the result
    attention: int  # a prompt's: keys and values, queries and result in float16; a sum for each row and head
    experts: int    # a prompt's: rows sorted by expert, what they give, and the widest that one may have
    scores: int     # log-probabilities of a prompt: the logits twice in float64
    inputs: int     # of a step, on the GPU
    graphs: int
    libraries: int

    @property
    def total(self) -> int:
        return (self.product + self.attention + self.experts + self.scores + self.inputs + self.graphs
                + self.libraries)


def gpu_scratch(config: ModelConfig, num_layers: int, max_tokens: int, max_seq_len: int,
                has_adapters: bool = False) -> GpuScratch:
    """num_layers: of the model that are on this GPU; max_tokens: the largest step. Steps with adapters have
    graphs of their own."""
    spec = config.spec
    shapes = {(group.n, group.k) for index in range(spec.num_layers)
              for group in layer_modules(spec, config.names, index)}
    attentions = spec.attentions
    own_scores = 4 * SCORE_BYTES if any(a.softcap or a.sinks for a in attentions) else 0
    masks = max_tokens * max_seq_len * any(a.window or a.chunk or a.softcap or a.sinks for a in attentions)
    return GpuScratch(
        product=max(product_bytes(n, k, max_tokens) for n, k in shapes),
        attention=max(4 * a.key_size * max_seq_len + max_tokens * 4 * (a.query_size + a.num_heads)
                      for a in attentions) + own_scores + masks if attentions else 0,
        experts=max((experts_bytes(layer.mlp, spec.hidden_size, max_tokens) for layer in spec.layers
                     if isinstance(layer.mlp, Moe)), default=0),
        scores=16 * LOGIT_ROWS * spec.vocab_size,
        inputs=step_bytes(max_tokens, MAX_RUNNING, max_seq_len, len(cache_groups(spec))),
        graphs=(1 + has_adapters) * len(SIZES) * num_layers * _KERNELS_OF_LAYER * _KERNEL_BYTES,
        libraries=_CUBLAS_BYTES + _CODE_BYTES)


def experts_bytes(moe: Moe, hidden_size: int, rows: int) -> int:
    """CudaExpertOperations.prompt_experts: float32, and indices of 8 bytes."""
    sorted_rows = rows * moe.top_k * (2 * 4 * hidden_size + 3 * 8)
    return sorted_rows + 4 * rows * (3 * hidden_size + moe.expert.intermediate_size + moe.expert.up_size)


def product_bytes(n: int, k: int, rows: int) -> int:
    """CudaLinearOperations.multiply_dequantized: where the weight comes in pieces, each has a result of its
    own that is copied into the whole."""
    weight = min(2 * n * k, SCRATCH_BYTES)
    piece = 0 if weight == 2 * n * k else 4 * rows * (weight // (2 * k))
    return weight + piece + rows * (2 * k + 4 * n + 4)
