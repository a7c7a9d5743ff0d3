"""Attention to latents: one layer's products around attention over what is kept. See LatentAttention of the
Spec.
"""

from __future__ import annotations

from torch import Tensor

from model.families.spec import LatentAttention, Spec
from model.network.attention import AttentionMixer
from model.network.branch import Branch
from model.network.latent_weights import LatentWeights
from model.network.place import Place
from model.network.step import Rows, StepInput


class LatentMixer:
    """A Mixer of stage.py."""

    def __init__(self, place: Place, latent: LatentAttention, weights: LatentWeights, branch: Branch,
                 attends: AttentionMixer) -> None:
        """attends: over what is kept, from "qkv" to "attention", whose heads are (shared, latent)."""
        self._ops, self._latent, self._weights, self._branch = place.ops, latent, weights, branch
        self._attends = attends

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        """Hidden states to what is attended with and what is kept."""
        a, weights = self._latent, self._weights
        heads, latents = v.of("latent_queries", a.num_heads * a.query_dim), v.of("latents", a.latents_size)
        self._branch.multiply(weights.latents, v, latents, of_prompts=of_prompts, precise=a.latents_size)
        if weights.query_norm is None:
            self._branch.multiply(weights.queries, v, heads, of_prompts=of_prompts, precise=heads.shape[1])
        else:
            of_queries, latents = latents.split((a.query_rank or 0, a.rank + a.shared_dim), dim=1)
            weights.queries(of_queries, heads, weights.query_norm.weight, a.norm.eps, of_prompts=of_prompts,
                            precise=heads.shape[1])
        self._keep(latents, v)
        self._meet(heads, v, of_prompts)

    def _keep(self, latents: Tensor, v: Rows) -> None:
        """(latent, shared key) as (shared key, normed latent), which is key and value."""
        a, kept, ops = self._latent, self._latent.kept, self._ops
        keys = v.of("qkv", kept.qkv_size)[:, kept.query_size:]
        norm = self._weights.latent_norm.weight
        ops.norm_rows(latents[:, :a.rank], norm, None, a.norm.eps, a.norm.kind, keys[:, a.shared_dim:])
        self._copy(latents[:, a.rank:], keys[:, :a.shared_dim])

    def _meet(self, heads: Tensor, v: Rows, of_prompts: bool) -> None:
        """Each head's query (plain, of the shared key) as (that, its product with the key's weights)."""
        a, kept = self._latent, self._latent.kept
        qkv = v.of("qkv", kept.qkv_size)
        for head, keys_up in enumerate(self._weights.keys_up):
            query = heads[:, head * a.query_dim:(head + 1) * a.query_dim]
            out = qkv[:, head * kept.head_dim:(head + 1) * kept.head_dim]
            self._copy(query[:, a.plain_dim:], out[:, :a.shared_dim])
            keys_up(query[:, :a.plain_dim], out[:, a.shared_dim:], of_prompts=of_prompts, precise=a.rank)

    def mix(self, step: StepInput, v: Rows) -> None:
        self._attends.mix(step, v)

    def add(self, v: Rows, of_prompts: bool) -> None:
        a, kept = self._latent, self._latent.kept
        attended, values = v.of("attention", kept.query_size), v.of("latent_values", a.output_size)
        for head, values_up in enumerate(self._weights.values_up):
            latent = attended[:, head * kept.head_dim + a.shared_dim:(head + 1) * kept.head_dim]
            values_up(latent, values[:, head * a.value_dim:(head + 1) * a.value_dim], of_prompts=of_prompts)
        self._branch.add(self._weights.out_proj, values, v, self._latent, of_prompts=of_prompts)

    def _copy(self, x: Tensor, out: Tensor) -> None:
        self._ops.norm_rows(x, None, None, 0.0, "none", out)


def latent_widths(spec: Spec) -> dict[str, int]:
    """Buffers of a step, see buffer_widths()."""
    latents = [mixer for layer in spec.layers for mixer in layer.mixers if isinstance(mixer, LatentAttention)]
    return {"latent_queries": max((a.num_heads * a.query_dim for a in latents), default=0),
            "latents": max((a.latents_size for a in latents), default=0),
            "latent_values": max((a.output_size for a in latents), default=0)}
