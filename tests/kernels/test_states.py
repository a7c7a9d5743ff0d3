"""Layers with a state, on every instruction set and on the GPU's kernels; the reference by transformers."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from model.kernels.errors import KernelError
from model.kernels.reference import operations as reference
from tests.helpers.kernel_libraries import LIBRARIES, OnGpu, opened
from tests.helpers.state_batch import MIXED, NUM_SLOTS, StateStep
from tests.helpers.strided import GUARD, strided


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


def test_a_delta_step_with_a_decay_for_each_channel_by_hand():
    """Of the state (4, 4) half and a quarter are left; key and query (1, 0) find 2 there and write 1 more."""
    states, out, unit = torch.full((1, 1, 2, 1), 4.0), torch.empty(1, 1), torch.tensor([[1.0, 0.0]])
    reference.gated_delta(unit, unit, torch.tensor([[4.0]]), torch.tensor([[0.5, 0.25]]).log(),
                          torch.tensor([[0.5]]), states, *StateStep.of([(1, 2, 0)]).arguments, out)
    torch.testing.assert_close(states.flatten(), torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(out.flatten(), torch.tensor([3.0]) * 2 ** -0.5)


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


def test_tiled_heads_by_hand():
    """Four value heads have the keys 0, 1, 0, 1 instead of 0, 0, 1, 1: key 0 writes 1 into the first row."""
    key, ones = torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.ones(1, 4)
    for tiled, first in ((False, [1.0, 1.0, 0.0, 0.0]), (True, [1.0, 0.0, 1.0, 0.0])):
        states = torch.zeros(1, 4, 2, 1)
        reference.gated_delta(key, key, ones, ones * 0, ones, states, *StateStep.of([(1, 1, 0)]).arguments,
                              torch.empty(1, 4), tiled=tiled)
        torch.testing.assert_close(states[0, :, 0, 0], torch.tensor(first))


@pytest.mark.parametrize("past", [0, 4])
def test_the_delta_rule_with_a_decay_for_each_channel_is_that_of_transformers(past):
    from transformers.models.kimi_linear.modeling_kimi_linear import (
        chunk_kimi_delta_attention,
        recurrent_kimi_delta_attention,
    )
    heads, key_dim, value_dim, tokens = 3, 12, 20, 70
    q, k = torch.randn(2, tokens, heads, key_dim)
    v, beta = torch.randn(tokens, heads, value_dim), torch.rand(tokens, heads)
    log_decay, states = -torch.rand(tokens, heads, key_dim), torch.randn(1, heads, key_dim, value_dim)
    first = states.clone() if past else None
    out = torch.empty(tokens, heads * value_dim)
    reference.gated_delta(q.flatten(1), k.flatten(1), v.flatten(1), log_decay.flatten(1), beta, states,
                          *StateStep.of([(tokens, tokens + past, 0)]).arguments, out)
    for theirs in (chunk_kimi_delta_attention, recurrent_kimi_delta_attention):
        wanted, last = theirs(q[None], k[None], v[None], g=log_decay[None], beta=beta[None],
                              initial_state=first, output_final_state=True, use_qk_l2norm_in_kernel=True)
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


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


class Layer:
    """A layer with its inputs, its states of every slot, and what remains the same for every sequence."""

    inputs: dict[str, torch.Tensor]  # rows of a step
    weights: dict[str, torch.Tensor | None]
    states: torch.Tensor
    rest: dict[str, str | bool]
    out_width: int

    def run(self, ops, step, rows=slice(None), row_slots=None, states=None, out=None):
        """(out, states after it); the states are copied, those of self stay."""
        states = slots_apart(self.states if states is None else states)
        named = {name: part[rows] for name, part in self.inputs.items()} | self.weights
        if out is None:
            out = torch.full((len(next(iter(self.inputs.values()))[rows]), self.out_width), GUARD)
        slots, cu_seqlens, seq_lens = step.arguments
        getattr(ops, self.name)(**named, states=states, slots=slots, cu_seqlens=cu_seqlens, seq_lens=seq_lens,
                                out=out, row_slots=row_slots, **self.rest)
        return out, states

    def as_double(self):
        twin = copy.copy(self)
        twin.inputs = {name: part.double() for name, part in self.inputs.items()}
        twin.weights = {name: None if part is None else part.double() for name, part in self.weights.items()}
        twin.states = self.states.double()
        return twin


def slots_apart(states):
    """A copy whose slots do not touch, as where a slot holds the states of several layers."""
    memory = torch.full((len(states), states[0].numel() + 7), GUARD, dtype=states.dtype)
    view = memory[:, :states[0].numel()].unflatten(1, states.shape[1:])
    view.copy_(states)
    return view


class Conv(Layer):
    name = "short_conv"

    def __init__(self, num_rows, size=4, channels=300, activation="silu", has_bias=True):
        self.inputs = {"x": strided(num_rows, channels)[0]}
        self.weights = {"weight": torch.randn(size, channels),
                        "bias": torch.randn(channels) if has_bias else None}
        self.states = torch.randn(NUM_SLOTS, size - 1, channels)
        self.rest, self.out_width = {"activation": activation}, channels


class Delta(Layer):
    name = "gated_delta"

    def __init__(self, num_rows, key_heads=2, heads=4, key_dim=24, value_dim=40, tiled=False, by_row=False):
        wide = strided(num_rows, 2 * key_heads * key_dim + heads * value_dim)[0]
        q, k, v = wide.split((key_heads * key_dim, key_heads * key_dim, heads * value_dim), dim=1)
        q *= 3
        decays = strided(num_rows, heads * key_dim if by_row else heads)[0].square_().neg_()
        self.inputs = {"q": q, "k": k, "v": v, "log_decay": decays,
                       "beta": strided(num_rows, heads)[0].sigmoid_()}
        self.weights, self.rest, self.out_width = {}, {"tiled": tiled}, heads * value_dim
        self.states = torch.randn(NUM_SLOTS, heads, key_dim, value_dim)


class ChannelDelta(Delta):
    """With a decay for each row of the state."""

    def __init__(self, num_rows, **sizes):
        super().__init__(num_rows, by_row=True, **sizes)


class Mamba(Layer):
    name = "mamba2"

    def __init__(self, num_rows, groups=2, heads=4, state_size=24, head_dim=40, has_d=True):
        wide = strided(num_rows, heads * head_dim + 2 * groups * state_size)[0]
        x, b, c = wide.split((heads * head_dim, groups * state_size, groups * state_size), dim=1)
        self.inputs = {"x": x, "b": b, "c": c, "dt": strided(num_rows, heads)[0].abs_()}
        self.weights = {"a": -torch.rand(heads), "d": torch.randn(heads) if has_d else None}
        self.states, self.rest = torch.randn(NUM_SLOTS, heads, state_size, head_dim), {}
        self.out_width = heads * head_dim


SHAPES = [
    (Conv, {}), (Conv, {"size": 2, "channels": 1, "activation": "none"}),
    (Conv, {"size": 16, "channels": 37, "has_bias": False}), (Conv, {"size": 3, "channels": 513}),
    (Delta, {}), (Delta, {"key_heads": 1, "heads": 1, "key_dim": 1, "value_dim": 1}),
    (Delta, {"key_heads": 1, "heads": 3, "key_dim": 130, "value_dim": 7}),
    (Delta, {"key_heads": 2, "heads": 2, "key_dim": 256, "value_dim": 33}),
    (Delta, {"key_heads": 1, "heads": 2, "key_dim": 128, "value_dim": 128}),
    (Delta, {"key_heads": 2, "heads": 6, "key_dim": 9, "value_dim": 20, "tiled": True}),
    (ChannelDelta, {}), (ChannelDelta, {"key_heads": 3, "heads": 3, "key_dim": 130, "value_dim": 7}),
    (ChannelDelta, {"key_heads": 2, "heads": 2, "key_dim": 128, "value_dim": 128}),
    (ChannelDelta, {"key_heads": 1, "heads": 2, "key_dim": 256, "value_dim": 33}),
    (Mamba, {}), (Mamba, {"groups": 1, "heads": 1, "state_size": 1, "head_dim": 1, "has_d": False}),
    (Mamba, {"groups": 1, "heads": 3, "state_size": 130, "head_dim": 7}),
    (Mamba, {"groups": 2, "heads": 2, "state_size": 256, "head_dim": 72}),
]


def name_of(value):
    return value.__name__ if isinstance(value, type) else "-".join(map(str, value.values()))


@pytest.mark.parametrize(("kind", "shape"), SHAPES, ids=name_of)
def test_layers_match_float64(any_ops, kind, shape):
    """Sequences that decode, begin, go on, and padding; states of other slots and padding's rows stay."""
    layer = kind(MIXED.num_rows, **shape)
    out, states = layer.run(any_ops, MIXED)
    wanted, wanted_states = layer.as_double().run(reference, MIXED)
    used = MIXED.is_row_used
    torch.testing.assert_close(out[used].double(), wanted[used].double(), rtol=1e-4, atol=3e-5)
    torch.testing.assert_close(states.double(), wanted_states, rtol=1e-4, atol=3e-5)
    untouched = [1, 5]
    assert torch.equal(states[untouched], layer.states[untouched])
    assert (states.as_strided((NUM_SLOTS - 1, 7), (states.stride(0), 1), states[0].numel()) == GUARD).all()


@pytest.mark.parametrize("kind", [Delta, ChannelDelta, Mamba])
@pytest.mark.parametrize("decay", ["nothing stays", "little stays", "nearly all stays", "all stays"])
def test_states_that_forget_at_once_or_never_match_float64(any_ops, kind, decay):
    """Logarithms of decays from -inf to zero; where all stays, errors of all rows add up."""
    step = StateStep.of([(90, 400, 0)])
    layer = kind(step.num_rows, key_heads=1, heads=2) if kind is not Mamba else Mamba(step.num_rows, heads=2)
    factor = {"nothing stays": 2000.0, "little stays": 20.0, "nearly all stays": 1e-4,
              "all stays": 0.0}[decay]
    if kind is Mamba:
        layer.weights["a"] = torch.full((2,), -factor)
    else:
        decays = layer.inputs["log_decay"]
        decays.copy_(-torch.rand(decays.shape) * factor)
        if decay == "nothing stays":
            decays[::2] = -torch.inf
    out, states = layer.run(any_ops, step)
    wanted, wanted_states = layer.as_double().run(reference, step)
    scale = wanted_states[0].abs().max().item()
    torch.testing.assert_close(out.double(), wanted.double(), rtol=1e-4, atol=3e-6 * max(scale, 10))
    torch.testing.assert_close(states[0].double(), wanted_states[0], rtol=1e-4, atol=1e-6 * max(scale, 10))


KINDS = pytest.mark.parametrize("kind", [Conv, Delta, ChannelDelta, Mamba])


@KINDS
def test_what_a_slot_held_before_a_sequence_begins_does_not_matter(any_ops, kind):
    layer = kind(MIXED.num_rows)
    out, _ = layer.run(any_ops, MIXED)
    dirty = layer.states.clone()
    dirty[[0, 3]] = torch.nan
    again, states = layer.run(any_ops, MIXED, states=dirty)
    used = MIXED.is_row_used
    assert torch.equal(out[used], again[used]) and states[[0, 2, 3, 4]].isfinite().all()


@KINDS
def test_chunks_and_the_batch_change_no_bit(any_ops, kind):
    """A sequence in a step with others, alone, in two chunks and row by row."""
    layer = kind(MIXED.num_rows)
    out, states = layer.run(any_ops, MIXED)
    for s in (0, 1, 4, 6):
        first, last = MIXED.cu_seqlens[s:s + 2].tolist()
        past, slot = int(MIXED.seq_lens[s]) - (last - first), int(MIXED.slots[s])
        for cuts in ([first, last], [first, (first + last) // 2, last], range(first, last + 1)):
            now = layer.states
            for begin, end in itertools.pairwise(cuts):
                if begin < end:
                    step = StateStep.of([(end - begin, past + end - first, slot)])
                    part, now = layer.run(any_ops, step, slice(begin, end), states=now)
                    assert torch.equal(part, out[begin:end])
            assert torch.equal(now[slot], states[slot])


@KINDS
def test_the_number_of_threads_changes_no_bit(ops, kind):
    layer = kind(MIXED.num_rows)
    ops.set_threads(1)
    out, states = layer.run(ops, MIXED)
    ops.set_threads(5)
    again, states_again = layer.run(ops, MIXED)
    ops.set_threads(2)
    assert torch.equal(out, again) and torch.equal(states, states_again)


@KINDS
def test_states_after_rows_are_kept_where_they_are_wanted(any_ops, kind):
    """From each of them a sequence goes on with the bits that it had."""
    layer, step = kind(6), StateStep.of([(4, 9, 2), (2, 7, -1)])
    row_slots = torch.tensor([0, -1, 1, 5, 3, 4], dtype=torch.int32)
    out, states = layer.run(any_ops, step, row_slots=row_slots)
    assert torch.equal(states[[3, 4]], layer.states[[3, 4]]), "padding keeps nothing"
    assert torch.equal(states[2], states[5])
    for done, slot in ((1, 0), (3, 1)):
        rest = StateStep.of([(4 - done, 9, slot)])
        part, after = layer.run(any_ops, rest, slice(done, 4), states=states)
        assert torch.equal(part, out[done:4]) and torch.equal(after[slot], states[2])


@pytest.mark.parametrize(("kind", "source"), [(Conv, "x"), (Delta, "v"), (Mamba, "x")])
def test_results_may_take_the_place_of_what_they_are_made_of(any_ops, kind, source):
    layer = kind(MIXED.num_rows)
    out, states = layer.run(any_ops, MIXED)
    if isinstance(any_ops, OnGpu):
        return  # tensors are copied there one by one
    in_place, states_too = layer.run(any_ops, MIXED, out=layer.inputs[source])
    used = MIXED.is_row_used
    assert torch.equal(in_place[used], out[used]) and torch.equal(states, states_too)


@KINDS
def test_a_step_without_rows_is_done(any_ops, kind):
    layer = kind(0)
    _, states = layer.run(any_ops, StateStep.of([(0, 3, 1)]))
    assert torch.equal(states, layer.states)


@KINDS
def test_steps_that_do_not_fit_are_refused(ops, kind):
    for sequence, message in (((3, 3, 6), "outside its table"), ((3, 2, 0), "size"), ((2, 2, 0), "size")):
        with pytest.raises(KernelError, match=message):
            kind(3).run(ops, StateStep.of([sequence]))
    with pytest.raises(KernelError, match="outside its table"):
        kind(1).run(ops, StateStep.of([(1, 1, 0)]), row_slots=torch.tensor([6], dtype=torch.int32))


def test_tensors_that_do_not_fit_are_refused(ops):
    step = StateStep.of([(1, 1, 0)])
    for layer, name, told in ((Conv(1), "x", "out"), (Delta(1), "v", "v"), (Mamba(1), "dt", "dt")):
        layer.inputs[name] = layer.inputs[name][:, :-1]
        with pytest.raises(ValueError, match=f"^{told} is float32"):
            layer.run(ops, step)
    with pytest.raises(KernelError, match="gated_delta"):
        Delta(1, key_dim=257).run(ops, step)
    layer = ChannelDelta(1)
    layer.inputs["log_decay"] = layer.inputs["log_decay"][:, :-1]
    with pytest.raises(ValueError, match=r"^log_decay is float32"):
        layer.run(ops, step)
    layer = Mamba(1, state_size=40, head_dim=40)
    with pytest.raises(ValueError, match="each dense"):
        ops.mamba2(**layer.inputs, **layer.weights, states=layer.states.mT, slots=step.slots,
                   cu_seqlens=step.cu_seqlens, seq_lens=step.seq_lens, out=torch.empty(1, layer.out_width))
