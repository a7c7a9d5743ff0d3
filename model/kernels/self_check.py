"""Whether a GPU's kernels compute what they should, tried on small tensors when they are loaded.

A GPU, a driver or a compiler can be wrong in ways that no error reports; replies would be nonsense. Every
kind of work is done once and compared with its reference, on the CPU. Takes some milliseconds, and the first
use of torch's own products, which prompts need anyway.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from model.kernels.cuda_kernels import CudaKernels
from model.kernels.errors import KernelCheckError
from model.kernels.prompt_layers import PromptAttention, PromptLayer, PromptPart
from model.kernels.reference import linear as linear_reference
from model.kernels.reference import operations as reference
from model.kernels.sampling import SamplingRow
from model.kernels.stages import SAMPLERS

_TOLERANCE = 5e-3
"""Of the result's norm: activations are float16, as are the keys. What is wrong is off by far more."""
_OUTPUTS, _INPUTS, _GROUP = 96, 256, 64
_HEADS, _KV_HEADS, _HEAD_DIM, _PAGE = 4, 2, 64, 32
_VOCABULARY = 1000
_SETTINGS = SimpleNamespace(
    repetition_penalty=1.1, repetition_range=0, repetition_decay=0, presence_penalty=0.1,
    frequency_penalty=0.0, temperature=0.8, top_k=40, top_p=0.9, min_p=0.01, typical_p=1.0, top_n_sigma=0.0,
    dynatemp_range=0.0, dynatemp_exponent=1.0, xtc_probability=0.0, xtc_threshold=0.1, dry_multiplier=0.0,
    dry_base=1.75, dry_allowed_length=2, dry_penalty_last_n=-1, mirostat=0, mirostat_tau=5.0,
    mirostat_eta=0.1, samplers=SAMPLERS, min_new_tokens=0,
    logit_bias={}, banned_tokens=())


def check_kernels(ops: CudaKernels) -> None:
    """Raises KernelCheckError with the kind of work that came out wrong."""
    random = torch.Generator().manual_seed(0)
    _check_products(ops, random)
    _check_heads(ops, random)
    _check_attention(ops, random)
    _check_prompt_layer(ops, random)
    _check_sampling(ops, random)


def _check_products(ops: CudaKernels, random: torch.Generator) -> None:
    """A single row, several, and the many of a prompt."""
    codes = torch.randint(0, 16, (_OUTPUTS, _INPUTS), dtype=torch.uint8, generator=random)
    scales = (torch.rand(_OUTPUTS, _INPUTS // _GROUP, generator=random) * 0.01 + 0.01).half()
    zeros = torch.randint(0, 16, scales.shape, dtype=torch.uint8, generator=random)
    weight, true_weight = (one.pack_linear(codes, scales, zeros, _GROUP) for one in (ops, linear_reference))
    norm = torch.rand(_INPUTS, generator=random) + 0.5
    for rows, linear in ((1, ops.linear), (9, ops.linear), (70, ops.multiply_dequantized)):
        x = torch.randn(rows, _INPUTS, generator=random)
        got, want = (torch.zeros(rows, _OUTPUTS // 2, device=device) for device in (ops.device, "cpu"))
        linear(x.to(ops.device), weight, got, norm.to(ops.device), 1e-5, "silu_mul")
        linear_reference.linear(x, true_weight, want, norm, 1e-5, "silu_mul")
        _compare(f"a product of {rows} rows", got, want)


def _check_heads(ops: CudaKernels, random: torch.Generator) -> None:
    """Queries, keys and values that are rotated and kept where they are projected."""
    size = (_HEADS + 2 * _KV_HEADS) * _HEAD_DIM
    codes = torch.randint(0, 16, (size, _INPUTS), dtype=torch.uint8, generator=random)
    parts = codes, torch.full((size, 1), 0.01).half(), torch.full((size, 1), 8, dtype=torch.uint8)
    x, angles = torch.randn(2, _INPUTS, generator=random), torch.randn(2, _HEAD_DIM // 2, generator=random)
    wanted, got = (torch.zeros(2, size, device=device) for device in ("cpu", ops.device))
    linear_reference.linear(x, linear_reference.pack_linear(*parts, -1), wanted)
    at, where = torch.arange(2, dtype=torch.int32), torch.arange(2)
    caches = [[torch.zeros(1, _KV_HEADS, _PAGE, _HEAD_DIM, dtype=torch.float16, device=device)
               for _ in range(2)] for device in ("cpu", ops.device)]
    reference.rope_write_kv(wanted, angles.cos(), angles.sin(), at, where, *caches[0], _HEADS, _KV_HEADS)
    x, cos, sin, at, where = (part.to(ops.device) for part in (x, angles.cos(), angles.sin(), at, where))
    ops.linear_rope_write_kv(x, ops.pack_linear(*parts, -1), got, None, 0.0, cos, sin, at, where, *caches[1],
                             _HEADS, _KV_HEADS)
    queries = slice(_HEADS * _HEAD_DIM)
    _compare("the projection of queries", got[:, queries], wanted[:, queries])
    for name, kept, true in zip(("keys", "values"), *reversed(caches), strict=True):
        _compare(f"the projection of {name}", kept, true)


def _check_attention(ops: CudaKernels, random: torch.Generator) -> None:
    """A sequence of more than a page: rotated, written into the cache, read by both kinds of attention."""
    tokens, pages = _PAGE + 8, torch.tensor([2, 0], dtype=torch.int32)
    qkv = torch.randn(tokens, (_HEADS + 2 * _KV_HEADS) * _HEAD_DIM, generator=random)
    angles = torch.outer(torch.arange(float(tokens)), 0.5 ** torch.arange(_HEAD_DIM // 2))
    positions = torch.arange(tokens, dtype=torch.int32)
    slots = pages[positions // _PAGE].long() * _PAGE + positions % _PAGE
    lengths = torch.tensor([0, tokens], dtype=torch.int32), torch.tensor([tokens], dtype=torch.int32)
    results = []
    for one, device in ((ops, ops.device), (reference, "cpu")):
        rows, cos, sin, at, where, table, starts, ends = (part.to(device, copy=True) for part in (
            qkv, angles.cos(), angles.sin(), positions, slots, pages[None], *lengths))
        caches = [torch.zeros(3, _KV_HEADS, _PAGE, _HEAD_DIM, dtype=torch.float16, device=device)
                  for _ in range(2)]
        one.rope_write_kv(rows, cos, sin, at, where, *caches, _HEADS, _KV_HEADS)
        queries, out = rows[:, :_HEADS * _HEAD_DIM], torch.zeros(tokens, _HEADS * _HEAD_DIM, device=device)
        one.paged_attention(queries, *caches, table, starts, ends, out, _HEADS, _HEAD_DIM ** -0.5)
        results.append((queries, out))
        if one is ops:
            of_prompt = torch.zeros_like(out)
            ops.prompt_attention(queries, *caches, table[0], tokens, of_prompt, _HEADS, _HEAD_DIM ** -0.5)
    (queries, out), (true_queries, true_out) = results
    _compare("the rotation of queries", queries, true_queries)
    _compare("attention", out, true_out)
    _compare("the attention of a prompt", of_prompt, true_out)


def _check_prompt_layer(ops: CudaKernels, random: torch.Generator) -> None:
    """A whole layer for a prompt of more than two pages."""
    tokens, pages = 2 * _PAGE + 8, torch.tensor([2, 0, 1], dtype=torch.int32)
    queries, inner = _HEADS * _HEAD_DIM, _OUTPUTS // 2
    shapes = ((queries + 2 * _KV_HEADS * _HEAD_DIM, _INPUTS), (_INPUTS, queries), (2 * inner, _INPUTS),
              (_INPUTS, inner))
    parts = [(torch.randint(0, 16, shape, dtype=torch.uint8, generator=random),
              torch.full((shape[0], 1), 0.01).half(), torch.full((shape[0], 1), 8, dtype=torch.uint8))
             for shape in shapes]
    angles = torch.outer(torch.arange(float(tokens)), 0.5 ** torch.arange(_HEAD_DIM // 2))
    x, norms = torch.randn(tokens, _INPUTS, generator=random), torch.rand(2, _INPUTS, generator=random) + 0.5
    at = torch.arange(tokens, dtype=torch.int32)
    slots = pages[at // _PAGE].long() * _PAGE + at % _PAGE
    caches = [[torch.zeros(3, _KV_HEADS, _PAGE, _HEAD_DIM, dtype=torch.float16, device=device)
               for _ in range(2)] for device in ("cpu", ops.device)]
    weights = [linear_reference.pack_linear(*of_one, -1) for of_one in parts]
    want, qkv, mixed = x.clone(), torch.empty(tokens, shapes[0][0]), torch.empty(tokens, queries)
    linear_reference.linear(x, weights[0], qkv, norms[0], 1e-5)
    reference.rope_write_kv(qkv, angles.cos(), angles.sin(), at, slots, *caches[0], _HEADS, _KV_HEADS)
    reference.paged_attention(qkv[:, :queries], *caches[0], pages[None],
                              torch.tensor([0, tokens], dtype=torch.int32),
                              torch.tensor([tokens], dtype=torch.int32), mixed, _HEADS, _HEAD_DIM ** -0.5)
    linear_reference.linear(mixed, weights[1], want, epilogue="add")
    wide = torch.empty(tokens, inner)
    linear_reference.linear(want, weights[2], wide, norms[1], 1e-5, "silu_mul")
    linear_reference.linear(wide, weights[3], want, epilogue="add")
    qkv_weight, out_proj, gate_up, down = (ops.pack_linear(*of_one, -1) for of_one in parts)
    x, cos, sin, at, slots, pages, norms = (part.to(ops.device) for part in (
        x, angles.cos(), angles.sin(), at, slots, pages, norms))
    attention = PromptAttention(qkv_weight, out_proj, cos, sin, False, *caches[1], 0, _HEADS, _KV_HEADS,
                                _HEAD_DIM ** -0.5, None, None, None)
    layer = PromptLayer(attention, gate_up, down, (norms[0], norms[1]), (1e-5, 1e-5))
    before = x.cpu().clone()
    ops.prompt_layers(x, [layer], at, [slots], [PromptPart(0, tokens, tokens, [pages])])
    _compare("the layer of a prompt", x.cpu() - before, want - before)
    for name, kept, true in zip(("keys", "values"), *reversed(caches), strict=True):
        _compare(f"the {name} of a prompt", kept, true)


def _check_sampling(ops: CudaKernels, random: torch.Generator) -> None:
    """A choice by chance, cut to the likeliest tokens, and the likeliest itself."""
    history = torch.randint(0, _VOCABULARY, (20,), dtype=torch.int32, generator=random)
    greedy = SimpleNamespace(**{**vars(_SETTINGS), "temperature": 0.0})
    rows = [SamplingRow(settings, history=history, num_tokens=20, prompt_length=10, seed=seed)
            for seed, settings in enumerate((_SETTINGS, _SETTINGS, greedy))]
    logits = torch.randn(len(rows), _VOCABULARY, generator=random) * 3
    got, want = ops.sample(logits.to(ops.device), rows).tolist(), reference.sample(logits, rows).tolist()
    if got != want:
        raise KernelCheckError(f"sampling chose the tokens {got}; expected {want}")


def _compare(what: str, got: Tensor, want: Any) -> None:
    error = float((got.cpu().double() - want.double()).norm() / want.double().norm())
    if not error < _TOLERANCE:  # NaN is not
        raise KernelCheckError(f"{what} is off by {error:.1%} of its size")
