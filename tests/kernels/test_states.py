"""Layers with a state: the reference against transformers and by hand."""

from __future__ import annotations

import pytest
import torch

from model.kernels.reference import operations as reference
from tests.helpers.state_batch import StateStep


def test_a_convolution_by_hand():
    """Weights 1 and 10 of the inputs 1, 2 after 5: 5 + 10, 1 + 20; the last one is kept."""
    states, out = torch.tensor([[[0.0]], [[5.0]]]), torch.empty(2, 1)
    x, weight, bias = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [10.0]]), torch.tensor([0.5])
    reference.short_conv(x, weight, bias, states, *StateStep.of([(2, 9, 1)]).arguments, out)
    assert out.flatten().tolist() == [15.5, 21.5] and states.flatten().tolist() == [0.0, 2.0]


def test_a_delta_step_by_hand():
    """Nothing is known of the key (1, 0): half of the value 8 is written there, and a query of it reads that
    times 2^-0.5. At the second step it was halved to 2, and half of what is missing to 8 is added."""
    states, out = torch.full((1, 1, 2, 1), 7.0), torch.empty(2, 1)
    unit = torch.tensor([[2.0, 0.0]] * 2)
    reference.gated_delta(unit, unit, torch.tensor([[8.0], [8.0]]), torch.tensor([[0.0], [0.5]]).log(),
                          torch.full((2, 1), 0.5), states, *StateStep.of([(2, 2, 0)]).arguments, out)
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, 5.0]) * 2 ** -0.5)
    torch.testing.assert_close(states.flatten(), torch.tensor([5.0, 0.0]))


def test_a_mamba_step_by_hand():
    """The state 4 is halved, 0.5 * 6 * 2 is added; read by 3, with 10 times the input."""
    states, out = torch.tensor([[[[4.0]]]]), torch.empty(1, 1)
    x, b, c, dt = torch.tensor([[6.0], [2.0], [3.0], [0.5]]).split(1)
    half = 2 * torch.tensor([0.5]).log()
    reference.mamba2(x, b, c, dt, half, torch.tensor([10.0]), states,
                     *StateStep.of([(1, 2, 0)]).arguments, out)
    torch.testing.assert_close(states.flatten(), torch.tensor([8.0]))
    torch.testing.assert_close(out.flatten(), torch.tensor([84.0]))


@pytest.mark.parametrize("past", [0, 4])
def test_the_delta_rule_is_that_of_transformers(past):
    from transformers.models.qwen3_5.modeling_qwen3_5 import (
        torch_chunk_gated_delta_rule,
        torch_recurrent_gated_delta_rule,
    )
    key_heads, heads, key_dim, value_dim, tokens = 2, 6, 12, 20, 70
    q, k = torch.randn(2, tokens, key_heads, key_dim)
    v, beta = torch.randn(tokens, heads, value_dim), torch.rand(tokens, heads)
    log_decay, states = -torch.rand(tokens, heads), torch.randn(1, heads, key_dim, value_dim)
    first = states.clone() if past else None
    out = torch.empty(tokens, heads * value_dim)
    reference.gated_delta(q.flatten(1), k.flatten(1), v.flatten(1), log_decay, beta, states,
                          *StateStep.of([(tokens, tokens + past, 0)]).arguments, out)
    for theirs in (torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule):
        wanted, last = theirs(q[None], k[None], v[None], log_decay[None], beta[None], initial_state=first,
                              output_final_state=True, use_qk_l2norm_in_kernel=True)
        torch.testing.assert_close(out, wanted.flatten(2)[0], rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(states, last, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("past", [0, 4])
def test_mamba_is_that_of_transformers(past):
    from transformers.models.falcon_h1.modeling_falcon_h1 import mamba2_chunk_scan
    groups, heads, state_size, head_dim, tokens = 2, 6, 12, 20, 70
    x, dt = torch.randn(tokens, heads, head_dim), torch.randn(tokens, heads)
    b, c = torch.randn(2, tokens, groups, state_size)
    a, d, bias = -torch.rand(heads) * 3, torch.randn(heads), torch.randn(heads)
    states = torch.randn(1, heads, state_size, head_dim)
    first = states.mT.clone() if past else None
    out, steps = torch.empty(tokens, heads * head_dim), torch.empty_like(dt)
    reference.softplus_rows(dt, bias, steps, None, 0.01, 1.5)
    reference.mamba2(x.flatten(1), b.flatten(1), c.flatten(1), steps, a, d, states,
                     *StateStep.of([(tokens, tokens + past, 0)]).arguments, out)
    wanted, last = mamba2_chunk_scan(x[None], dt[None], a, b[None], c[None], 16, d, bias, first,
                                     dt_softplus=True, dt_limit=(0.01, 1.5), return_final_states=True)
    torch.testing.assert_close(out, wanted.flatten(2)[0], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(states.mT, last, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("size", "activation"), [(2, "none"), (4, "silu")])
def test_a_convolution_is_that_of_torch(size, activation):
    channels, tokens = 5, 9
    x, weight, bias = torch.randn(tokens, channels), torch.randn(size, channels), torch.randn(channels)
    states, out = torch.randn(1, size - 1, channels), torch.empty(tokens, channels)
    inputs = torch.cat((states[0], x))
    wanted = torch.nn.functional.conv1d(inputs.T[None], weight.T[:, None], bias, groups=channels)[0].T
    reference.short_conv(x, weight, bias, states, *StateStep.of([(tokens, tokens + 1, 0)]).arguments, out,
                         activation)
    wanted = torch.nn.functional.silu(wanted) if activation == "silu" else wanted
    torch.testing.assert_close(out, wanted)
    assert torch.equal(states[0], inputs[tokens:])
