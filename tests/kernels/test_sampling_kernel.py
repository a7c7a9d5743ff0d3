"""The sampling chain of both libraries against the float64 reference, step by step and in combinations."""

import math
import random
from dataclasses import replace

import pytest
import torch

from model.engine.request import SAMPLERS, SamplingParams
from model.kernels import load_kernels
from model.kernels.errors import KernelError
from model.kernels.reference import sampling as reference
from model.kernels.sampling import SamplingRow
from tests.helpers.kernel_libraries import GPUS, ON_GPU, is_gpu, opened

OFF = SamplingParams(temperature=1.0, top_p=1.0, min_p=0.0)
"""Every step off: the plain softmax."""
BOTH = pytest.mark.parametrize("kind", ["kernel", "reference"])


@pytest.fixture(params=["cpu", *GPUS, ON_GPU])
def ops(request):
    """Either library: the CPU's; the GPU's played by the CPU, and on a GPU."""
    if request.param == "cpu":
        yield load_kernels(threads=2)
        return
    with opened(request) as one:
        yield one


@pytest.fixture
def cpu():
    return load_kernels(threads=2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


def row(params, history=(), *, prompt_length=0, seed=0, eos=(), breaks=None):
    tokens = torch.tensor(list(history), dtype=torch.int32)
    made = SamplingRow(params, history=tokens, num_tokens=len(tokens), prompt_length=prompt_length, seed=seed,
                       eos_token_ids=eos)
    made.breaks = None if breaks is None else torch.tensor(breaks, dtype=torch.uint8)
    return made


def distribution(ops, logits, params, history=(), **options):
    """What the kernel chose from, after a check that the reference has the same."""
    logits = torch.as_tensor(logits, dtype=torch.float32).reshape(1, -1)
    ours, theirs = torch.full_like(logits, 7.0), torch.full_like(logits, 8.0)
    one, bits, expected_bits = row(params, history, **options), *torch.full((2, 1), 9.0, dtype=torch.float64)
    expected = reference.sample(logits, [one], theirs, expected_bits)
    assert torch.equal(ops.sample(logits, [one], ours, bits), expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(bits, expected_bits, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours > 0, theirs > 0)
    return ours[0]


def softmax(values):
    return torch.tensor(values, dtype=torch.float64).softmax(0).float()


# ---- each step by hand -------------------------------------------------------------------------------------


def test_without_any_step_it_is_the_softmax(ops):
    torch.testing.assert_close(distribution(ops, [1.0, 2.0, 3.0], OFF), softmax([1.0, 2.0, 3.0]))


def test_temperature_divides_the_logits(ops):
    torch.testing.assert_close(distribution(ops, [1.0, 2.0, 4.0], replace(OFF, temperature=0.5)),
                               softmax([2.0, 4.0, 8.0]))
    torch.testing.assert_close(distribution(ops, [1.0, 2.0, 4.0], replace(OFF, temperature=5.0)),
                               softmax([0.2, 0.4, 0.8]))


def test_temperature_zero_takes_the_first_of_the_largest(ops):
    assert distribution(ops, [1.0, 5.0, 5.0, 2.0], replace(OFF, temperature=0.0)).tolist() == [0, 1, 0, 0]


def test_what_the_mask_does_not_allow_is_never_chosen(ops):
    """Bits of tokens 1 and 33 only; the rest of the chain works on what is left."""
    logits = torch.randn(1, 40)
    logits[0, [1, 33]] = torch.tensor([-1.0, -2.0])
    sampled = row(OFF)
    sampled.allowed = torch.tensor([1 << 1, 1 << 1], dtype=torch.int32)
    found, expected = torch.empty(1, 40), torch.empty(1, 40)
    ops.sample(logits, [sampled], found)
    reference.sample(logits, [sampled], expected)
    torch.testing.assert_close(found, expected)
    assert (found[0] > 0).nonzero().flatten().tolist() == [1, 33]
    torch.testing.assert_close(found[0, [1, 33]], softmax([-1.0, -2.0]))
    sampled.allowed = torch.zeros(2, dtype=torch.int32)
    assert ops.sample(logits, [sampled]).tolist() == reference.sample(logits, [sampled]).tolist() == [-1]
    sampled.allowed = torch.tensor([0, -(1 << 31)], dtype=torch.int32)
    assert ops.sample(torch.randn(1, 64), [sampled]).tolist() == [63], "the sign bit is a bit like others"
    with pytest.raises(ValueError, match="expected contiguous int32"):
        sampled.allowed = torch.zeros(2, dtype=torch.int64)


def test_a_row_at_another_place_counts_on_the_history_up_to_there(ops):
    params = replace(OFF, temperature=0.0, presence_penalty=2.0)
    whole = row(params, [0, 1, 2], prompt_length=0)
    logits = torch.tensor([[3.0, 2.9, 2.8, 2.7]])
    chosen = [int(ops.sample(logits, [whole.at(count)])) for count in range(4)]
    assert chosen == [0, 1, 2, 3] and whole.num_tokens == 3


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits(ops):
    got = distribution(ops, [2.0, -2.0, 1.0], replace(OFF, repetition_penalty=2.0), history=[0, 1, 1])
    torch.testing.assert_close(got, softmax([1.0, -4.0, 1.0]))


def test_repetition_penalty_is_full_in_its_range_and_fades_over_the_decay(ops):
    """History 0..5, range 2, decay 2: tokens 5, 4 and 3 (just beyond) have 2.0, 2 has 1.5, 1 and 0 none."""
    params = replace(OFF, repetition_penalty=2.0, repetition_range=2, repetition_decay=2)
    got = distribution(ops, [6.0] * 7, params, history=[0, 1, 2, 3, 4, 5])
    torch.testing.assert_close(got, softmax([6.0, 6.0, 4.0, 3.0, 3.0, 3.0, 6.0]))


def test_the_latest_occurrence_counts_for_the_repetition_penalty(ops):
    params = replace(OFF, repetition_penalty=2.0, repetition_range=1)
    got = distribution(ops, [4.0, 4.0], params, history=[1, 0, 0, 1])
    torch.testing.assert_close(got, softmax([4.0, 2.0]))


def test_a_repetition_range_of_zero_covers_the_whole_history(ops):
    params = replace(OFF, repetition_penalty=2.0, repetition_range=0)
    got = distribution(ops, [4.0, 4.0, 4.0], params, history=[1, *[0] * 3000])
    torch.testing.assert_close(got, softmax([2.0, 2.0, 4.0]))


def test_presence_and_frequency_count_the_reply_only(ops):
    params = replace(OFF, presence_penalty=0.5, frequency_penalty=0.25)
    got = distribution(ops, [1.0, 1.0, 1.0, 1.0], params, history=[0, 0, 1, 1, 1, 2], prompt_length=3)
    torch.testing.assert_close(got, softmax([1.0, 0.0, 0.25, 1.0]))


def test_logit_bias_and_banned_tokens(ops):
    params = replace(OFF, logit_bias={0: 2.0, 3: -1.0, 99: 5.0}, banned_tokens=(1, 77))
    got = distribution(ops, [0.0, 9.0, 1.0, 0.0], params)
    torch.testing.assert_close(got, softmax([2.0, -math.inf, 1.0, -1.0]))
    assert got[1] == 0


def test_a_ban_wins_over_a_bias(ops):
    params = replace(OFF, logit_bias={0: 100.0}, banned_tokens=(0,))
    assert distribution(ops, [0.0, 0.0], params).tolist() == [0.0, 1.0]


def test_the_end_is_forbidden_before_the_fewest_tokens(ops):
    params = replace(OFF, min_new_tokens=2, temperature=0.0)
    for reply_length, expected in ((0, 0), (1, 0), (2, 2), (3, 2)):
        got = distribution(ops, [1.0, 0.0, 5.0, 4.0], params, history=[0] * (4 + reply_length),
                           prompt_length=4, eos=(2, 3))
        assert got.argmax() == expected


def test_top_k_keeps_the_largest_and_ties_go_to_the_lower_id(ops):
    got = distribution(ops, [1.0, 3.0, 2.0, 2.0, 2.0], replace(OFF, top_k=3))
    torch.testing.assert_close(got, softmax([-math.inf, 3.0, 2.0, 2.0, -math.inf]))
    assert distribution(ops, [1.0, 2.0], replace(OFF, top_k=5)).count_nonzero() == 2


def test_top_p_keeps_the_shortest_run_that_reaches_the_share(ops):
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    for top_p, kept in ((0.0, [1]), (0.49, [1]), (0.51, [1, 3]), (0.76, [1, 2, 3]), (0.91, [0, 1, 2, 3])):
        assert distribution(ops, logits, replace(OFF, top_p=top_p)).nonzero().flatten().tolist() == kept


def test_top_p_takes_its_share_of_what_top_k_left(ops):
    """Of 0.4, 0.3, 0.2, 0.1 top-k leaves 4/7 and 3/7: the first alone reaches 0.55 only after the cut."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert distribution(ops, logits, replace(OFF, top_p=0.55)).count_nonzero() == 2
    assert distribution(ops, logits, replace(OFF, top_p=0.55, top_k=2)).count_nonzero() == 1


def test_min_p_is_relative_to_the_likeliest(ops):
    logits = torch.tensor([0.5, 0.26, 0.14, 0.1]).log()
    assert distribution(ops, logits, replace(OFF, min_p=0.25)).count_nonzero() == 3
    assert distribution(ops, logits, replace(OFF, min_p=1.0)).count_nonzero() == 1


def test_typical_prefers_the_expected_surprise_over_the_likeliest(ops):
    """p = 0.4, 0.15 x 4: the entropy is 1.50; -ln 0.15 = 1.90 lies nearer to it than -ln 0.4 = 0.92."""
    logits = torch.tensor([0.4, 0.15, 0.15, 0.15, 0.15]).log()
    got = distribution(ops, logits, replace(OFF, typical_p=0.4))
    assert got.nonzero().flatten().tolist() == [1, 2, 3]
    assert distribution(ops, logits, replace(OFF, typical_p=0.7)).count_nonzero() == 5


def kept(ops, logits, params, history=(), **options):
    return distribution(ops, logits, params, history, **options).nonzero().flatten().tolist()


def test_top_n_sigma_keeps_what_lies_near_the_largest_logit_at_any_temperature(ops):
    """Of 0, 0, 0, 4 the mean is 1, the deviation sqrt(3): 4 lies 2.31 deviations above the others."""
    for temperature in (0.1, 1.0, 4.0):
        params = replace(OFF, temperature=temperature)
        for sigmas, expected in ((2.3, [3]), (2.32, [0, 1, 2, 3])):
            assert kept(ops, [0.0, 0.0, 0.0, 4.0], replace(params, top_n_sigma=sigmas)) == expected
    banned = replace(OFF, top_n_sigma=1.0, banned_tokens=(0,))
    assert kept(ops, [9.0, 1.0, 2.0, 3.0], banned) == [3], "of 1, 2, 3 the deviation is 0.82"
    assert kept(ops, [2.0, 2.0], replace(OFF, top_n_sigma=0.5)) == [0, 1]


def test_dynamic_temperature_is_high_where_the_model_is_unsure(ops):
    """Even tokens have all the entropy there can be, so temperature + range. 0.9 and 0.1 have 0.469 of it."""
    params = replace(OFF, temperature=1.0, dynatemp_range=0.5)
    assert distribution(ops, [1.0, 1.0], params).tolist() == [0.5, 0.5]
    logits = torch.tensor([0.9, 0.1]).log()
    for exponent in (1.0, 2.0):
        temperature = 0.5 + 0.4689956 ** exponent
        torch.testing.assert_close(distribution(ops, logits, replace(params, dynatemp_exponent=exponent)),
                                   softmax((logits / temperature).tolist()), rtol=1e-5, atol=0)
    assert distribution(ops, [1.0, 40.0], replace(params, dynatemp_range=1.0)).tolist() == [0.0, 1.0], \
        "the least temperature is none"
    assert kept(ops, [1.0, 2.0, 3.0], replace(params, top_k=1, samplers=("top_k", "temperature"))) == [2]


def test_xtc_leaves_the_least_likely_of_the_likely_tokens_as_often_as_is_said(ops):
    logits = torch.tensor([0.4, 0.05, 0.3, 0.2, 0.05]).log()
    params = replace(OFF, xtc_probability=1.0, xtc_threshold=0.1)
    torch.testing.assert_close(distribution(ops, logits, params), torch.tensor([0, 0.05, 0, 0.2, 0.05]) / 0.3)
    assert kept(ops, logits, replace(params, xtc_threshold=0.35)) == [0, 1, 2, 3, 4], "one alone is likely"
    assert kept(ops, logits, replace(params, xtc_threshold=0.6)) == [0, 1, 2, 3, 4]
    assert kept(ops, [2.0, 2.0, 2.0], replace(params, xtc_threshold=0.3)) == [2], "of equals the last"
    often = replace(params, xtc_probability=0.25)
    for seed in range(12):
        applies = reference.philox_uniforms(seed, 0)[1] < 0.25
        assert (0 not in kept(ops, logits, often, seed=seed)) == applies


def test_xtc_before_a_low_temperature_leaves_something(ops):
    params = replace(OFF, temperature=0.001, xtc_probability=1.0, samplers=("xtc", "temperature"))
    assert kept(ops, torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), params) == [2]


def test_dry_lowers_what_would_go_on_with_a_repetition(ops):
    """1 2 3 4 .. 1 2 3: 4 follows three repeated tokens, and 1 * 2 ** (3 - 2) is its penalty."""
    params = replace(OFF, dry_multiplier=1.0, dry_base=2.0)
    got = distribution(ops, [1.0] * 6, params, history=[1, 2, 3, 4, 0, 1, 2, 3])
    torch.testing.assert_close(got, softmax([1.0, 1.0, 1.0, 1.0, -1.0, 1.0]))
    for changes in ({"dry_allowed_length": 4}, {"dry_penalty_last_n": 4}, {"dry_penalty_last_n": 0}):
        got = distribution(ops, [1.0] * 6, replace(params, **changes), history=[1, 2, 3, 4, 0, 1, 2, 3])
        torch.testing.assert_close(got, softmax([1.0] * 6))


def test_the_longest_repetition_counts_for_dry_and_may_overlap_itself(ops):
    """The last three of 5 5 5 5 repeat the first three; before a 3 there is 7 2 twice, and never 1 7 2."""
    params = replace(OFF, dry_multiplier=1.0, dry_base=2.0)
    got = distribution(ops, [3.0] * 6, params, history=[5, 5, 5, 5])
    torch.testing.assert_close(got, softmax([3.0] * 5 + [1.0]))
    got = distribution(ops, [3.0] * 9, params, history=[1, 7, 2, 3, 8, 7, 2, 3, 0, 1, 7, 2])
    torch.testing.assert_close(got, softmax([3.0] * 3 + [1.0] + [3.0] * 5))


def test_a_break_ends_what_dry_takes_for_a_repetition(ops):
    """As above, with a break at one of the tokens at the end, and at the token that would follow."""
    params, history = replace(OFF, dry_multiplier=1.0, dry_base=2.0), [1, 2, 3, 4, 0, 1, 2, 3]
    even = softmax([1.0] * 6)
    for at, lowered in ((0, -1.0), (5, 0.0), (6, 1.0), (7, 1.0), (3, 1.0)):
        got = distribution(ops, [1.0] * 6, params, history=history, breaks=[int(i == at) for i in range(8)])
        torch.testing.assert_close(got, softmax([1.0, 1.0, 1.0, 1.0, lowered, 1.0]))
    torch.testing.assert_close(distribution(ops, [1.0] * 6, params, history, breaks=[1] * 8), even)
    with pytest.raises(ValueError, match=r"breaks is torch.uint8 \(3,\); expected contiguous uint8 \(8,\)"):
        row(params, history, breaks=[0, 0, 0])


def test_a_long_repetition_counts_no_more_than_some_hundred_tokens(ops):
    """1.75 ** 998 is no number any more; a token is still chosen."""
    params = replace(OFF, dry_multiplier=100.0, temperature=0.0)
    assert ops.sample(torch.zeros(1, 3), [row(params, [1] * 1000)]).tolist() == [0]
    params = replace(params, temperature=1.0)
    assert distribution(ops, [0.0, 0.0], params, history=[1] * 300).tolist() == [1, 0]


def test_mirostat_cuts_what_is_too_surprising(ops):
    """Half a bit of surprise leaves no token but the likeliest, 1.5 bits those above 0.35."""
    logits = torch.tensor([0.4, 0.36, 0.14, 0.1]).log()
    for tau, expected in ((0.25, [0]), (0.75, [0, 1]), (1.6, [0, 1, 2]), (5.0, [0, 1, 2, 3])):
        assert kept(ops, logits, replace(OFF, mirostat=2, mirostat_tau=tau)) == expected
    others = replace(OFF, mirostat=2, mirostat_tau=5.0, top_k=1, min_p=1.0, top_p=0.1, xtc_probability=1.0)
    assert kept(ops, logits, others) == [0, 1, 2, 3], "it stands for all other cuts"
    assert kept(ops, logits, replace(others, temperature=0.0)) == [0]


def test_mirostat_comes_to_the_surprise_that_is_wanted(ops):
    """As the paper has it: mu -= eta * (surprise - tau); here beside that computed in plain float64."""
    logits = torch.randn(300) * 2
    params = replace(OFF, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.2)
    one, mu, found = row(params, [0] * 200, seed=5), 6.0, []
    for position in range(40 if is_gpu(ops) else 150):
        one.num_tokens = position
        p = logits.double().softmax(0)
        p = torch.where(-p.log2() <= mu, p, 0.0)
        p /= p.sum()
        bits = torch.zeros(1, dtype=torch.float64)
        chosen = int(ops.sample(logits[None], [one], None, bits))
        assert float(bits) == pytest.approx(-math.log2(p[chosen]), abs=1e-6)
        one.learn(float(bits))
        mu -= 0.2 * (-math.log2(p[chosen]) - 3.0)
        found.append(float(bits))
        assert one.mirostat_mu == pytest.approx(mu, abs=1e-6)
    assert abs(sum(found) / len(found) - 3.0) < 0.5


def test_samplers_come_in_the_order_that_is_asked_for(ops):
    """A temperature of 4 makes 0.7, 0.2, 0.1 so even that top-p 0.75 needs three; before it two do."""
    logits, params = torch.tensor([0.7, 0.2, 0.1]).log(), replace(OFF, temperature=4.0, top_p=0.75)
    assert kept(ops, logits, params) == [0, 1, 2]
    got = distribution(ops, logits, replace(params, samplers=("top_p", "temperature")))
    torch.testing.assert_close(got, softmax([math.log(0.7) / 4, math.log(0.2) / 4, -math.inf]))
    assert kept(ops, logits, replace(params, samplers=("temperature",))) == [0, 1, 2], "left out: off"
    torch.testing.assert_close(distribution(ops, logits, replace(params, samplers=())), logits.exp())
    assert kept(ops, logits, replace(params, temperature=0.0, samplers=())) == [0, 1, 2]


def test_penalties_and_dry_come_in_their_order(ops):
    """-4 * 2 - 1, or (-4 - 1) * 2: a logit that is negative is multiplied."""
    params = replace(OFF, dry_multiplier=1.0, dry_allowed_length=1, repetition_penalty=2.0)
    for samplers, expected in ((("penalties", "dry"), -9.0), (("dry", "penalties"), -10.0)):
        got = distribution(ops, [0.0, -4.0], replace(params, samplers=samplers), history=[1, 1])
        torch.testing.assert_close(got, softmax([0.0, expected]))


def test_what_each_stage_leaves_can_be_seen(ops):
    """A row up to some stage gives the distribution there."""
    params = replace(OFF, temperature=0.5, top_k=3, min_p=0.5)
    one, seen = row(params), []
    assert one.stages == ("temperature", "top_k", "min_p")
    for num_stages in range(4):
        found = torch.empty(1, 5)
        ops.sample(torch.tensor([[1.0, 2.0, 3.0, 2.9, 0.0]]), [one.up_to(num_stages)], found)
        seen.append(found[0].nonzero().flatten().tolist())
    assert seen == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3], [2, 3]]


def test_stages_that_are_unknown_or_out_of_order_are_refused(ops):
    for stages in (0xF, 0x25, 0x16, 0x0A06 << 4):
        one = row(OFF)
        one.struct.stages = stages
        if is_gpu(ops):
            assert ops.sample(torch.zeros(1, 4), [one]).tolist() == [-1]
            continue
        with pytest.raises(KernelError, match="sample: an argument lies"):
            ops.sample(torch.zeros(1, 4), [one])


# ---- random numbers ----------------------------------------------------------------------------------------


def test_philox_gives_the_published_blocks():
    """Known answers of Random123 (kat_vectors, philox4x32-10)."""
    assert reference.philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert (reference.philox4x32((ones,) * 4, (ones,) * 2)
            == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD))


@pytest.mark.parametrize("seed", [0, 1, (1 << 53) - 1, (1 << 64) - 1])
def test_the_choice_follows_the_random_number_by_token_id(ops, seed):
    """With 1,000 equal tokens the chosen one is floor(1000 u)."""
    logits = torch.zeros(1, 1000)
    for position in (0, 1, 2, 77, 4000):
        u = reference.philox_uniforms(seed, position)[0]
        chosen = ops.sample(logits, [row(OFF, [0] * position, seed=seed)])
        assert int(chosen[0]) == math.floor(1000 * u)


def test_frequencies_follow_the_distribution(cpu):
    """20,000 draws of one seed; a chi-square of 9 degrees stays below 33.7 in all but 1 of 10,000 cases."""
    logits = torch.randn(10)
    expected = logits.double().softmax(0) * 20_000
    one = row(OFF, [0] * 20_000, seed=5)
    counts = torch.zeros(10, dtype=torch.float64)
    for position in range(20_000):
        one.num_tokens = position
        counts[int(cpu.sample(logits[None], [one])[0])] += 1
    assert ((counts - expected) ** 2 / expected).sum() < 33.7


# ---- random combinations -----------------------------------------------------------------------------------


def order(rng):
    """The usual one, or another, of which some are left out."""
    first, others = list(SAMPLERS[:2]), list(SAMPLERS[2:])
    if rng.random() < 0.5:
        return SAMPLERS
    rng.shuffle(first)
    rng.shuffle(others)
    return tuple(name for name in first + others if rng.random() < 0.9)


def random_params(rng):
    def maybe(value, off):
        return value if rng.random() < 0.6 else off

    def rarely(value, off):
        return value if rng.random() < 0.3 else off

    return SamplingParams(
        repetition_penalty=maybe(round(rng.uniform(1, 2), 2), 1.0),
        repetition_range=rng.choice([0, 1, 5, 30, 1024]), repetition_decay=rng.choice([0, 1, 7, 100]),
        presence_penalty=maybe(rng.uniform(-2, 2), 0.0), frequency_penalty=maybe(rng.uniform(-2, 2), 0.0),
        temperature=rng.choice([0.0, 0.1, 0.8, 1.0, 1.7, 5.0]), top_k=maybe(rng.randint(1, 200), 0),
        top_p=maybe(rng.random(), 1.0), min_p=maybe(rng.random() ** 4, 0.0),
        typical_p=maybe(rng.random(), 1.0), top_n_sigma=rarely(rng.uniform(0, 3), 0.0),
        dynatemp_range=rarely(rng.uniform(0, 1), 0.0), dynatemp_exponent=rng.choice([0.5, 1.0, 2.0]),
        xtc_probability=rarely(rng.random(), 0.0), xtc_threshold=rng.uniform(0.001, 0.4),
        dry_multiplier=rarely(rng.uniform(0, 2), 0.0), dry_base=rng.uniform(1, 2),
        dry_allowed_length=rng.randint(1, 3), dry_penalty_last_n=rng.choice([-1, 0, 5, 1000]),
        mirostat=rng.choice([0, 0, 0, 2]), mirostat_tau=rng.uniform(0, 4), samplers=order(rng),
        min_new_tokens=rng.choice([0, 10]),
        logit_bias={rng.randrange(60): rng.uniform(-5, 5) for _ in range(rng.randint(0, 4))},
        banned_tokens=tuple(rng.randrange(60) for _ in range(rng.randint(0, 3))))


@pytest.mark.parametrize("vocab_size", [1, 2, 33, 64, 1000, 5003])
def test_random_settings_agree_with_the_reference(ops, vocab_size):
    rng = random.Random(vocab_size)
    for _ in range(12 if is_gpu(ops) else 60):
        prompt = rng.randint(0, 40)
        history = [rng.randrange(vocab_size) for _ in range(prompt + rng.randint(0, 60))]
        params, seed = random_params(rng), rng.randrange(1 << 53)
        if vocab_size <= 2:
            params = replace(params, banned_tokens=())
        logits = torch.randn(vocab_size) * rng.choice([0.1, 1, 3, 10])
        if rng.random() < 0.3:
            logits = logits.round()  # many exact ties
        distribution(ops, logits, params, history, prompt_length=prompt, seed=seed, eos=(vocab_size - 1,)
                     if vocab_size > 2 else (), breaks=[int(rng.random() < 0.1) for _ in history])


def test_a_large_vocabulary_agrees_with_the_reference(ops):
    logits = torch.randn(20_011 if is_gpu(ops) else 128_256) * 2
    for params in (SamplingParams(), OFF, replace(OFF, top_p=0.9), replace(OFF, typical_p=0.5),
                   replace(OFF, top_n_sigma=1.5), replace(OFF, dynatemp_range=0.5), replace(OFF, mirostat=2),
                   replace(OFF, top_k=500, top_p=0.8, min_p=0.01)):
        distribution(ops, logits, params, [5, 6, 7], seed=99)


def test_a_sequence_gets_the_same_token_alone_and_in_a_batch_on_any_number_of_threads(ops):
    rng = random.Random(4)
    memory = torch.randn(40, 700)
    logits = memory[:, :600]
    rows = [row(random_params(rng), [rng.randrange(600) for _ in range(50)], prompt_length=20, seed=i)
            for i in range(40)]
    alone = torch.cat([ops.sample(logits[i:i + 1], rows[i:i + 1]) for i in range(40)])
    for threads in (1, 3, 2):
        if not is_gpu(ops):
            ops.set_threads(threads)
        assert torch.equal(ops.sample(logits, rows), alone)
    order = torch.randperm(40)
    assert torch.equal(ops.sample(logits[order].contiguous(), [rows[i] for i in order]), alone[order])
    assert torch.equal(memory[:, :600], logits)


# ---- edges -------------------------------------------------------------------------------------------------


@BOTH
def test_nothing_possible_is_minus_one(ops, kind):
    chain = ops if kind == "kernel" else reference
    everything = replace(OFF, banned_tokens=(0, 1, 2))
    assert chain.sample(torch.zeros(1, 3), [row(everything)]).tolist() == [-1]
    assert chain.sample(torch.full((1, 3), math.nan), [row(OFF)]).tolist() == [-1]
    assert chain.sample(torch.full((1, 3), -math.inf), [row(replace(OFF, temperature=0.0))]).tolist() == [-1]


def test_nan_and_infinite_logits(ops):
    assert distribution(ops, [math.nan, 1.0, -math.inf], OFF).tolist() == [0.0, 1.0, 0.0]
    assert distribution(ops, [1.0, math.inf, 2.0, math.inf], OFF).tolist() == [0.0, 0.5, 0.0, 0.5]


def test_a_tiny_temperature_is_nearly_greedy(ops):
    assert distribution(ops, [1.0, 3.0, 2.0], replace(OFF, temperature=1e-9)).tolist() == [0.0, 1.0, 0.0]


def test_no_rows_no_tokens(ops):
    assert ops.sample(torch.zeros(0, 5), []).shape == (0,)


def test_the_history_may_grow_in_place(ops):
    history = torch.tensor([1, 0], dtype=torch.int32)
    one = SamplingRow(replace(OFF, repetition_penalty=2.0, temperature=0.0), history=history, num_tokens=1,
                      prompt_length=1, seed=0)
    logits = torch.tensor([[3.0, 4.0, 1.0]])
    assert ops.sample(logits, [one]).tolist() == [0]
    one.num_tokens = 2
    assert ops.sample(logits, [one]).tolist() == [1]
    with pytest.raises(ValueError, match="num_tokens is 3; expected 1 to 2"):
        one.num_tokens = 3


def test_bad_rows_are_refused():
    with pytest.raises(ValueError, match="history is torch"):
        SamplingRow(OFF, history=torch.zeros(3, dtype=torch.int64), num_tokens=3, prompt_length=0, seed=0)
    with pytest.raises(ValueError, match="do not fit a history of 3"):
        SamplingRow(OFF, history=torch.zeros(3, dtype=torch.int32), num_tokens=4, prompt_length=0, seed=0)


def test_values_outside_their_range_are_refused(ops):
    for name, value in (("temperature", -1.0), ("temperature", math.nan), ("top_p", 1.5), ("min_p", -0.1),
                        ("typical_p", math.nan), ("repetition_penalty", 0.0), ("top_k", -1),
                        ("top_n_sigma", -1.0), ("dynatemp_range", math.inf),
                        ("dynatemp_exponent", -1.0), ("xtc_probability", 1.5),
                        ("xtc_threshold", math.nan), ("dry_multiplier", -1.0), ("dry_base", 0.5),
                        ("dry_allowed_length", 0), ("dry_penalty_last_n", -2),
                        ("mirostat_mu", math.nan)):
        one = row(OFF)
        setattr(one.struct, name, value)
        if is_gpu(ops):  # cannot say so without a wait
            assert ops.sample(torch.zeros(1, 4), [one]).tolist() == [-1]
            continue
        with pytest.raises(KernelError, match="sample: an argument lies"):
            ops.sample(torch.zeros(1, 4), [one])


def test_the_last_token_of_a_history_may_be_one_that_only_the_device_knows(ops):
    """Two rows with all penalties: as if the host had known it, and the host's own histories stay."""
    if not ops.runs_ahead:
        pytest.skip("what it calls is done when it returns")
    params = replace(OFF, repetition_penalty=1.7, presence_penalty=0.9, frequency_penalty=0.5,
                     temperature=0.7)
    logits, known, unknown = torch.randn(2, 40), torch.zeros(2, 40), torch.zeros(2, 40)
    expected = ops.sample(logits, [row(params, [1, 2, last], seed=last) for last in (3, 9)], known)
    rows = [row(params, [1, 2, 0], seed=last) for last in (3, 9)]
    chosen = ops.sample(logits, rows, unknown, previous=torch.tensor([3, 9], dtype=torch.int32))
    assert torch.equal(chosen, expected) and torch.equal(known, unknown)
    assert [one.history.tolist() for one in rows] == [[1, 2, 0]] * 2
