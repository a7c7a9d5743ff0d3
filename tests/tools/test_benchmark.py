"""tools/benchmark: its floors, ratios and tables by hand, a peer's output, and the command itself."""

from __future__ import annotations

import json
import sys

import pytest

from model.engine.loading import synthetic_engine
from model.formats.synthetic import SHAPES
from tests.helpers.gguf_models import Type, write_llama
from tests.helpers.tiny_models import TINY, random_tensors
from tools.benchmark.__main__ import main
from tools.benchmark.cases import Case, Run, make_cases
from tools.benchmark.engine import Round, summary, whole_runs
from tools.benchmark.limits import ModelWork, Rates, Work
from tools.benchmark.peer import PeerError, PeerRun, Result, parse, run_peer
from tools.benchmark.report import engine_table

COUNTS = ["--prompts", "8", "--contexts", "0,20", "--batches", "2", "--new-tokens", "3", "--repeats", "2",
          "--threads", "1"]
"""A benchmark of a few tokens."""


@pytest.fixture(autouse=True)
def tiny_shape(monkeypatch):
    monkeypatch.setitem(SHAPES, "tiny", TINY)


def test_the_slower_of_memory_and_arithmetic_bounds():
    rates = Rates(read_gb_s=10.0, products_top_s=0.5)
    assert rates.least_seconds(Work(20e9, 0.5e12)) == pytest.approx(2.0)
    assert rates.bound(Work(20e9, 0.5e12)) == "memory"
    assert rates.least_seconds(Work(20e9, 2e12)) == pytest.approx(4.0)
    assert rates.bound(Work(20e9, 2e12)) == "arithmetic"


def test_the_work_of_a_step_by_hand():
    """Cache and attention count with every token that is seen; a prompt reads the weights once."""
    model = ModelWork(step_bytes=1000, cache_bytes=10, layer_operations=200, head_operations=50,
                      attention_operations=4)
    assert model.prompt(3) == Work(1000 + 3 * 10, 3 * 200 + 50 + (1 + 2 + 3) * 4)
    # two requests, two steps: with 5 tokens before, the steps see 6 and 7
    assert model.decoding(5, batch=2, steps=2) == Work(2 * 1000 + 2 * 13 * 10, 4 * 250 + 2 * 13 * 4)


def test_the_work_of_a_model_is_that_of_its_sizes():
    """TINY has two layers: q and o of 64x64, k and v of 32x64, three times 96x64; and a head of 96x64."""
    from model.config import EngineConfig

    engine = synthetic_engine("tiny", EngineConfig(threads=1, max_seq_len=64))
    try:
        model = ModelWork.of(engine)
        info = engine.describe()
    finally:
        engine.close()
    weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
    assert model.layer_operations == pytest.approx(2 * weights, rel=0.02)  # the norms are few
    assert model.head_operations == 2 * 96 * 64
    assert model.attention_operations == 2 * (2 * 2) * 2 * 32  # layers, a product and a sum twice, heads, dim
    assert model.cache_bytes == 2 * 2 * 32 * 2                 # keys and values, layers, one head, 2 bytes
    assert info["weight_bytes"] - model.step_bytes == 96 * 64 * 2


def test_requests_together_find_room_in_the_cache_together():
    assert Case(batch=8, steps=32).cache_tokens == 8 * 64, "34 tokens take two pages of 32"
    assert Case(context=2048, steps=32).cache_tokens == 2112
    assert Case(prompt=128).cache_tokens == 160, "the token that comes out takes a page, too"


def test_cases_are_prompts_contexts_and_batches_without_a_context():
    assert make_cases([128], [0, 2048], [1, 4], 32) == [
        Case(prompt=128), Case(context=0, steps=32), Case(context=2048, steps=32), Case(batch=4, steps=32)]
    assert [str(case) for case in make_cases([2048], [8192], [4], 2)] == [
        "prompt of 2,048", "decode at 8,192", "decode at 0, 4 together"]


LLAMA_BENCH = [
    {"n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 70.5, "flash_attn": 0},
    {"n_prompt": 0, "n_gen": 32, "n_depth": 2048, "avg_ts": 9.0, "flash_attn": 1},
    {"n_prompt": 0, "n_gen": 32, "n_depth": 2048, "avg_ts": 12.0, "flash_attn": 0},
    {"n_prompt": 512, "n_gen": 0, "n_depth": 2048, "avg_ts": 50.0, "flash_attn": 0},  # not a case of ours
    {"n_prompt": 512, "n_gen": 32, "n_depth": 0, "avg_ts": 60.0, "flash_attn": 0},    # nor this one
]


def test_llama_bench_is_read_by_case_and_the_faster_setting_counts():
    output = "warming up\n" + "\n".join(map(json.dumps, LLAMA_BENCH)) + "\n[1, 2]\n"
    assert parse(output) == {Case(prompt=512): Result(70.5, "-fa 0"),
                             Case(context=2048, steps=1): Result(12.0, "-fa 0")}
    assert Case(context=2048, steps=64).kind() in parse(output)


def test_llama_batched_bench_is_read_as_a_batch():
    row = {"pp": 1, "tg": 32, "pl": 4, "speed_pp": 30.0, "speed_tg": 49.0, "flash_attn": 1}
    assert parse(json.dumps(row)) == {Case(batch=4, steps=1): Result(49.0, "-fa 1")}


def test_a_peer_is_run_in_a_shell_and_its_memory_is_seen():
    run = run_peer(f"echo '{json.dumps(LLAMA_BENCH[0])}'")
    assert run.results == {Case(prompt=512): Result(70.5, "-fa 0")}
    assert run.seconds > 0 and run.peak_bytes >= 0


def test_a_peer_that_fails_is_an_error_with_its_words():
    with pytest.raises(PeerError, match=r"ended with 3\. no such model"):
        run_peer("echo no such model >&2; exit 3")


def test_interrupted_measurements_keep_their_whole_rounds(monkeypatch, capsys):
    import tools.benchmark.engine as engine

    rounds = iter([Round(), Round()])

    def one_round(*_):
        try:
            return next(rounds)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(engine, "_one_round", one_round)
    assert len(engine.measure_rounds(None, None, [], 5, None)) == 2
    assert "2 whole rounds count" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        engine.measure_rounds(None, None, [], 5, None)


CASE = Case(context=2048, steps=32)


def rounds_by_hand(peers=(10.0, 20.0, 10.0)):
    """Ours 30, 40, 50 tokens a second; the least time of MODEL's 32 steps is 0.32, 0.64, 0.32 seconds."""
    return [Round(2.0, {CASE: Run(speed, 0.01)}, {CASE: Rates(gb_s, 1.0)},
                  PeerRun(6.0, 1 << 30, {CASE.kind(): Result(peer, "-fa 0")} if peer else {}))
            for speed, gb_s, peer in zip((30.0, 40.0, 50.0), (100.0, 50.0, 100.0), peers, strict=True)]


MODEL = ModelWork(step_bytes=10**9, cache_bytes=0, layer_operations=1, head_operations=0,
                  attention_operations=0)


def test_shares_and_ratios_are_taken_within_each_round():
    row = summary(CASE, rounds_by_hand(), MODEL)
    assert row["tokens_per_second"] == {"median": 40.0, "min": 30.0, "max": 50.0}
    assert row["limit"]["median"] == pytest.approx(100.0) and row["bound"] == "memory"
    assert row["share"] == pytest.approx({"median": 0.5, "min": 0.3, "max": 0.8})
    assert row["ratio"] == pytest.approx({"median": 3.0, "min": 2.0, "max": 5.0})


def test_without_a_matching_result_only_whole_runs_are_compared():
    rounds = rounds_by_hand(peers=(10.0, None, 10.0))
    assert "ratio" not in summary(CASE, rounds, MODEL)
    assert whole_runs(rounds)["peer_seconds_to_ours"] == {"median": 3.0, "min": 3.0, "max": 3.0}
    for one in rounds:
        one.peer = None
    assert whole_runs(rounds) == {}


def test_the_table_shows_medians_limits_shares_and_ratios():
    rounds = rounds_by_hand()
    report = {"memory": {"peak_bytes": 1200 << 20, "weight_bytes": 1000 << 20, "beyond_weights": 0.2},
              **whole_runs(rounds)}
    text = engine_table([summary(CASE, rounds, MODEL)], report)
    for part in ("decode at 2,048", "40.0 (30.0-50.0)", "100.0  memory", "50%", "10 ms", "3.00 (2.00-5.00)",
                 "-fa 0", "1.2 GiB: the weights, 1,000 MiB, and 20%", "ratio 3.00", "peak memory: 1.0 GiB"):
        assert part in text, part


def test_the_command_measures_compares_and_draws(tmp_path, capsys):
    peer = tmp_path / "peer.py"
    peer.write_text(f"import json; print(json.dumps({dict(LLAMA_BENCH[0], n_prompt=8)}))\n")
    result, picture = tmp_path / "result.json", tmp_path / "picture.png"
    assert main(["--synthetic", "tiny", *COUNTS, "--json", str(result), "--plot", str(picture),
                 "--compare", f'"{sys.executable}" "{peer}"']) == 0
    report = json.loads(result.read_text())
    prompt, *others = report["results"]
    assert [row["what"] for row in report["results"]] == [
        "prompt of 8", "decode at 0", "decode at 20", "decode at 0, 2 together"]
    assert prompt["peer_tokens_per_second"]["median"] == 70.5
    assert prompt["ratio"]["median"] == pytest.approx(prompt["tokens_per_second"]["median"] / 70.5, rel=0.5)
    assert all(row["share"]["median"] > 0 and "ratio" not in row for row in others)
    assert report["model"]["name"] == "tiny" and "--synthetic tiny" in report["command"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "prompt of 8" in capsys.readouterr().out


def test_a_model_folder_is_measured_as_well(capsys):
    assert main(["-d", "starter", *COUNTS]) == 0
    assert "decode at 20" in capsys.readouterr().out


def test_a_gguf_file_is_measured_as_well(tmp_path, capsys):
    write_llama(tmp_path / "tiny.gguf", TINY, random_tensors(TINY), Type.Q8_0)
    assert main(["-d", str(tmp_path / "tiny.gguf"), *COUNTS]) == 0
    assert "decode at 20" in capsys.readouterr().out


def test_the_linear_layers_alone(monkeypatch, capsys):
    import tools.benchmark.linear_layers as layers

    monkeypatch.setattr(layers, "SHAPES", {"down": (64, 128)})
    monkeypatch.setattr(layers, "NUM_LAYERS", 2)
    assert main(["--kernels", "--rows", "1,16", "--repeats", "1", "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert "linear layers, 1 rows" in output and "TOP/s" in output


def test_what_does_not_fit_the_context_is_left_out_and_named(capsys):
    no_decoding = ["--contexts", "", "--batches", "", "--repeats", "1", "--threads", "1"]
    assert main(["--synthetic", "tiny", "--prompts", "8,1000", *no_decoding]) == 0
    assert "left out: prompt of 1,000, since tiny was made for 256 tokens" in capsys.readouterr().err
    assert main(["--synthetic", "tiny", "--prompts", "1000", *no_decoding]) == 1
    assert "no case is left for the 256 tokens of tiny" in capsys.readouterr().err


def test_a_shape_that_does_not_fit_the_memory_is_the_plans_error(monkeypatch, capsys):
    monkeypatch.setattr("model.devices.free_memory", lambda: 4 << 30)
    assert main(["--synthetic", "llama-2-70b", *COUNTS]) == 1
    assert "llama-2-70b: the weights need" in capsys.readouterr().err
    assert main(["--synthetic", "gpt-5", *COUNTS]) == 1
    assert "no synthetic model 'gpt-5'" in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_an_error_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--synthetic", "tiny", "--plot", "x.png"]) == 1
    assert "--plot needs matplotlib" in capsys.readouterr().err
