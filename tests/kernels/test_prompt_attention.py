"""Attention of prompts with AMX: on the processor where it has AMX, else emulated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.kernels.reference import operations as reference
from tests.emulated_isa import kernels_with
from tests.helpers.attention_batch import Batch
from tests.helpers.strided import GUARD

ERROR = 1e-4
"""Three of the four products of two halves of bfloat16, in float32; results are about 1."""
KINDS = ("fp16", "q8", "q4")


@pytest.fixture
def ops():
    torch.manual_seed(1)
    kernels = kernels_with("amx")
    kernels.force_isa("amx")
    kernels.set_threads(2)
    yield kernels
    kernels.force_isa(None)
    kernels.set_threads(2)


def attend(ops: Any, batch: Batch, **rules: Any) -> torch.Tensor:
    """To the one sequence of the batch."""
    out = torch.full(batch.q.shape, GUARD)
    ops.prompts.prompt_attention(batch.q, batch.k_cache, batch.v_cache, batch.block_table[0],
                                 int(batch.seq_lens[0]), out, batch.heads, batch.scale, **rules)
    return out


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [
    (8, 2, 64), (3, 3, 80), (4, 4, 96), (5, 1, 112), (8, 1, 128), (2, 2, 16), (2, 1, 256), (9, 1, 576)])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_match_the_reference(ops, kind: str, heads: int, kv_heads: int, head_dim: int):
    """Whole and ragged tiles and pages, with and without a past; NaN lies wherever nothing may be read."""
    for tokens, keys in ((1, 1), (1, 70), (33, 33), (40, 300)):
        batch = Batch([(tokens, keys)], heads=heads, kv_heads=kv_heads, head_dim=head_dim, kind=kind)
        torch.testing.assert_close(attend(ops, batch), batch.run(reference), rtol=0, atol=ERROR)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_are_the_values_give_the_bits_of_values_that_are_the_keys(ops, kind: str):
    for tokens, keys in ((1, 1), (1, 70), (33, 33), (40, 300)):
        batch = Batch([(tokens, keys)], heads=9, kv_heads=1, head_dim=80, kind=kind, keys_only=True)
        out = attend(ops, batch)
        assert torch.equal(out, attend(ops, batch.with_values()))
        torch.testing.assert_close(out, batch.run(reference), rtol=0, atol=ERROR)


def test_a_sharp_maximum_that_moves_from_block_to_block(ops):
    """Scores of hundreds, so that each block's weights outdo all before them, or are nothing beside them."""
    batch = Batch([(20, 700)], heads=4, kv_heads=2, head_dim=64)
    batch.q *= 40
    torch.testing.assert_close(attend(ops, batch), batch.run(reference), rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_query_and_the_keys_it_sees_alone(ops, kind: str):
    """To the bit: in any chunks of the prompt, on any number of threads."""
    batch = Batch([(150, 560)], heads=6, kv_heads=2, head_dim=64, kind=kind)
    want = attend(ops, batch)
    for threads in (1, 3):
        ops.set_threads(threads)
        for first, last in ((0, 1), (0, 45), (45, 150), (97, 98), (149, 150)):
            part = batch.part(0, first, last)
            assert torch.equal(attend(ops, part), want[first:last]), (threads, first, last)


@pytest.mark.parametrize("rules", [
    {"window": 50}, {"window": 300}, {"window": -50}, {"window": -200}, {"softcap": 3.0}, {"sinks": True},
    {"window": 130, "softcap": 2.0, "sinks": True}], ids=str)
@pytest.mark.parametrize("kind", ["fp16", "q4"])
def test_windows_caps_and_sinks(ops, kind: str, rules: dict[str, Any]):
    batch = Batch([(90, 560)], heads=6, kv_heads=2, head_dim=64, kind=kind)
    rules = {**rules, "sinks": torch.randn(6) * 3} if "sinks" in rules else rules
    want = torch.empty(batch.q.shape)
    reference.paged_attention(batch.q, batch.k_cache, batch.v_cache, batch.block_table, batch.cu_seqlens,
                              batch.seq_lens, want, batch.heads, batch.scale, **rules)
    got = attend(ops, batch, **rules)
    torch.testing.assert_close(got, want, rtol=0, atol=ERROR)
    for first, last in ((0, 1), (17, 90)):
        assert torch.equal(attend(ops, batch.part(0, first, last), **rules), got[first:last])


def test_larger_pages_and_rows_with_gaps(ops):
    batch = Batch([(50, 200)], heads=4, kv_heads=2, head_dim=32, page_size=64)
    assert batch.q.stride(0) > batch.q.shape[1]
    torch.testing.assert_close(attend(ops, batch), batch.run(reference), rtol=0, atol=ERROR)


@pytest.mark.parametrize(("kind", "head_dim", "page_size"),
                         [("fp32", 64, 32), ("fp16", 40, 32), ("q8", 64, 16)])
def test_what_does_not_fit_in_tiles_is_attended_to_as_ever(ops, kind: str, head_dim: int, page_size: int):
    batch = Batch([(33, 70)], heads=4, kv_heads=2, head_dim=head_dim, kind=kind, page_size=page_size)
    assert torch.equal(attend(ops, batch), batch.run(ops))


def test_prompts_whose_pages_do_not_fit_are_refused(ops):
    batch = Batch([(5, 40)], heads=2, kv_heads=2, head_dim=64)
    arguments = [batch.q, batch.k_cache, batch.v_cache, batch.block_table[0], 40, torch.empty(5, 128), 2, 1.0]
    for index, value, message in ((4, 4, "a size, stride"), (4, 100, "a size, stride"),
                                  (3, batch.block_table[0] + 9, "outside its table")):
        changed = list(arguments)
        changed[index] = value
        with pytest.raises(RuntimeError, match=message):
            ops.prompts.prompt_attention(*changed)
    with pytest.raises(ValueError, match="out is float32"):
        ops.prompts.prompt_attention(*arguments[:5], torch.empty(5, 64), *arguments[6:])
