"""The routers of mixtures against transformers' own, and what no router of theirs settles: ties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from model.kernels.errors import KernelError
from model.kernels.reference import operations as reference
from model.kernels.routing import Routing
from tests.helpers.kernel_libraries import LIBRARIES, opened

HIDDEN, EXPERTS, ROWS = 24, 12, 200


@pytest.fixture(params=[*LIBRARIES, "reference"])
def ops(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "reference":
        yield reference
        return
    with opened(request) as one:
        yield one


def routed(ops: Any, scores: Tensor, routing: Routing, correction: Tensor | None = None,
           expert_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(chosen, shares)."""
    chosen = torch.full((len(scores), routing.top_k), -1, dtype=torch.int32)
    shares = torch.full((len(scores), routing.top_k), torch.nan)
    ops.route(scores, routing, correction, expert_scale, chosen, shares)
    return chosen, shares


def by_expert(chosen: Tensor, shares: Tensor) -> Tensor:
    """[T, EXPERTS]: the share of each expert, whatever the order they were chosen in."""
    return torch.zeros(len(chosen), EXPERTS).scatter_(1, chosen.long(), shares.float())


def small(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name + "Config")(
        hidden_size=HIDDEN, num_attention_heads=4, num_experts_per_tok=3, **settings)


def router_of(name: str, module: str, router: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"transformers.models.{name}.modeling_{name}"), module + router)


GROUPS = {"n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5}
GROUPED = Routing(3, "sigmoid", True, 1e-20, 2.5, 4, 2, 2)
ROUTERS: dict[str, tuple[tuple[str, str, str], dict[str, Any], Routing]] = {
    "qwen 3": (("qwen3_moe", "Qwen3Moe", "TopKRouter"), {"num_experts": EXPERTS, "norm_topk_prob": True},
               Routing(3, renormalized=True)),
    "qwen 2": (("qwen2_moe", "Qwen2Moe", "TopKRouter"), {"num_experts": EXPERTS}, Routing(3)),
    "gpt-oss": (("gpt_oss", "GptOss", "TopKRouter"), {"num_local_experts": EXPERTS},
                Routing(3, "softmax of chosen")),
    "glm 4": (("glm4_moe", "Glm4Moe", "TopkRouter"), {"n_routed_experts": EXPERTS, **GROUPS}, GROUPED),
    "deepseek 3": (("deepseek_v3", "DeepseekV3", "TopkRouter"), {"n_routed_experts": EXPERTS, **GROUPS},
                   GROUPED),
    "deepseek 2": (("deepseek_v2", "DeepseekV2", "TopkRouter"),
                   {"num_experts": EXPERTS, "n_routed_experts": EXPERTS, **GROUPS,
                    "topk_method": "group_limited_greedy"},
                   Routing(3, scale=2.5, num_groups=4, top_groups=2)),
    "lfm 2": (("lfm2_moe", "Lfm2Moe", "TopKRouter"),
              {"num_experts": EXPERTS, "norm_topk_prob": True, "use_expert_bias": True},
              Routing(3, "sigmoid", True, 1e-6)),
    "phi moe": (("phimoe", "Phimoe", "TopKRouter"),
                {"num_local_experts": EXPERTS, "router_jitter_noise": 0.2},
                Routing(2, "softmax of near", margin=0.4)),
    "ernie 4.5": (("ernie4_5_moe", "Ernie4_5_Moe", "TopKRouter"),
                  {"moe_num_experts": EXPERTS, "moe_k": 3}, Routing(3, renormalized=True)),
    "gemma 4": (("gemma4", "Gemma4Text", "Router"), {"num_experts": EXPERTS, "top_k_experts": 3},
                Routing(3, renormalized=True)),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_experts_and_shares_are_those_of_transformers(ops: Any, name: str):
    """The scores are theirs, too: what is compared is what becomes of these."""
    place, settings, routing = ROUTERS[name]
    torch.manual_seed(3)
    router = router_of(*place)(small(place[1], **settings)).eval()
    for part in (*router.parameters(), *router.buffers()):
        part.data.normal_()
    x = torch.randn(ROWS, HIDDEN)
    correction, scale, extra = None, None, ()
    if hasattr(router, "e_score_correction_bias"):
        correction = router.e_score_correction_bias
    if hasattr(router, "moe_statics"):
        correction = router.moe_statics.e_score_correction_bias[0].detach()
    if name == "lfm 2":
        correction = torch.randn(EXPERTS)
        extra = (correction,)
    if name == "gemma 4":
        scale = router.per_expert_scale.detach()
    with torch.no_grad():
        first, shares, chosen = router(x, *extra)
        scores = first.log() if name == "gemma 4" else first  # theirs gives the softmax
        if name in ("qwen 2", "qwen 3"):
            scores = x @ router.weight.T
        got = routed(ops, scores, routing, correction, scale)
    torch.testing.assert_close(by_expert(*got), by_expert(chosen, shares), rtol=1e-5, atol=1e-6)


def test_llama_4_takes_the_sigmoid_of_the_best_score(ops: Any):
    router = router_of("llama4", "Llama4", "Router")(small("Llama4Text", num_local_experts=EXPERTS))
    x = torch.randn(ROWS, HIDDEN)
    with torch.no_grad():
        want, scores = router(x)
        got = routed(ops, scores, Routing(3, "sigmoid"))
    torch.testing.assert_close(by_expert(*got), want)


def test_of_equal_experts_the_first_is_chosen(ops: Any):
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0, 1.0]])
    for scoring in ("softmax", "softmax of chosen", "sigmoid"):
        chosen, shares = routed(ops, scores, Routing(4, scoring))
        assert chosen.tolist() == [[1, 2, 3, 0]]
        assert torch.equal(shares[0, 0], shares[0, 1])


def test_near_scores_have_a_share_and_those_chosen_before_have_none(ops: Any):
    """Of 4 only 3.5 is within a quarter; of 3.5 nothing that is left; of -4, -5 is a quarter of 4 away, but a
    fifth of its own size."""
    scores = torch.tensor([[1.0, 3.5, 4.0], [-9.0, -4.0, -5.0]])
    chosen, shares = routed(ops, scores, Routing(2, "softmax of near", margin=0.25))
    assert chosen.tolist() == [[2, 1], [1, 2]]
    halves = [1 / (1 + 2.718281828 ** -0.5), 1 / (1 + 2.718281828 ** -1)]
    torch.testing.assert_close(shares, torch.tensor([[halves[0], 1.0], [halves[1], 1.0]]))


def test_a_correction_changes_who_is_chosen_but_no_share(ops: Any):
    scores = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    chosen, shares = routed(ops, scores, Routing(2, "sigmoid"), correction=torch.tensor([5.0, 0.0, 0.0, 0.0]))
    assert chosen.tolist() == [[0, 3]]
    torch.testing.assert_close(shares, torch.tensor([[0.5, 1 / (1 + 2.718281828 ** -3)]]))


def test_shares_are_renormalized_scaled_and_multiplied_by_the_experts_own_numbers(ops: Any):
    scores = torch.tensor([[1.0, 3.0]]).log()
    own = torch.tensor([7.0, 3.0])
    _, shares = routed(ops, scores, Routing(1, renormalized=True, scale=2.0), expert_scale=own)
    assert shares.tolist() == [[6.0]]
    _, shares = routed(ops, scores, Routing(2))
    torch.testing.assert_close(shares, torch.tensor([[0.75, 0.25]]))


def test_scores_that_are_no_numbers_choose_experts_that_exist(ops: Any):
    scores = torch.randn(4, EXPERTS)
    scores[0, 3], scores[1] = torch.nan, torch.nan
    chosen, shares = routed(ops, scores, Routing(3))
    assert ((chosen >= 0) & (chosen < EXPERTS)).all()
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    assert shares[1].isnan().all() and not shares[2:].isnan().any()


def test_many_experts_of_many_rows_are_chosen_as_the_reference_chooses(ops: Any):
    scores, correction = torch.randn(64, 512), torch.randn(512)
    for routing in (Routing(10), Routing(16, "sigmoid", True, 1e-20, 2.5, 8, 3, 2)):
        got, want = (routed(each, scores, routing, correction) for each in (ops, reference))
        assert torch.equal(got[0], want[0])
        torch.testing.assert_close(got[1], want[1])


def test_rules_that_do_not_fit_are_refused(ops: Any):
    if ops is reference:
        pytest.skip("the reference takes what it is given")
    for routing in (Routing(EXPERTS + 1), Routing(2, num_groups=5), Routing(5, num_groups=4, top_groups=1)):
        with pytest.raises(KernelError):
            routed(ops, torch.randn(1, EXPERTS), routing)
