"""The engine measured round by round, in turn with the limits and, if there is one, with a peer."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.engine.engine import Engine
from model.machine import resident_memory
from tools.benchmark.cases import Case, Run, Runner
from tools.benchmark.limits import Limits, ModelWork, Rates, Work, spread, timed
from tools.benchmark.peer import PeerRun, run_peer


@dataclass
class Round:
    """Every case once, each right after the limits; then the peer."""

    seconds: float = 0.0
    runs: dict[Case, Run] = field(default_factory=dict)
    rates: dict[Case, Rates] = field(default_factory=dict)
    peer: PeerRun | None = None


def measure_rounds(engine: Engine, limits: Limits, cases: list[Case], repeats: int, command: str | None,
                   ) -> list[Round]:
    """`repeats` rounds, fewer if interrupted, after one run of every case that is not counted."""
    runner = Runner(engine)
    for case in cases:
        print(f"preparing: {case}", file=sys.stderr)
        runner.prepare(case)
    rounds: list[Round] = []
    try:
        for number in range(repeats):
            print(f"round {number + 1} of {repeats}", file=sys.stderr)
            rounds.append(_one_round(runner, limits, cases, command))
    except KeyboardInterrupt:
        if not rounds:
            raise
        print(f"interrupted: {len(rounds)} whole rounds count", file=sys.stderr)
    return rounds


def _one_round(runner: Runner, limits: Limits, cases: list[Case], command: str | None) -> Round:
    one = Round()

    def run_all() -> None:
        for case in cases:
            one.rates[case] = limits.now()
            one.runs[case] = runner.run(case)

    one.seconds = timed(run_all)
    one.peer = run_peer(command) if command else None
    return one


def work_of(case: Case, model: ModelWork) -> Work:
    return (model.prompt(case.prompt) if case.prompt
            else model.decoding(max(case.context, 1), case.batch, case.steps))


def summary(case: Case, rounds: list[Round], model: ModelWork) -> dict[str, Any]:
    """One row of the results: medians with min and max, shares and ratios taken within each round."""
    work = work_of(case, model)
    tokens = case.prompt or case.batch * case.steps
    speeds = [one.runs[case].tokens_per_second for one in rounds]
    limits = [tokens / one.rates[case].least_seconds(work) for one in rounds]
    row = {
        "what": str(case), "prompt": case.prompt, "context": case.context, "batch": case.batch,
        "new_tokens": case.steps, "tokens_per_second": spread(speeds),
        "first_token_seconds": spread([one.runs[case].first_token_seconds for one in rounds]),
        "bound": rounds[0].rates[case].bound(work), "limit": spread(limits),
        "share": spread([speed / limit for speed, limit in zip(speeds, limits, strict=True)]),
        "read_gb_s": spread([one.rates[case].read_gb_s for one in rounds]),
        "products_top_s": spread([one.rates[case].products_top_s for one in rounds])}
    peers = [one.peer.results.get(case.kind()) for one in rounds if one.peer]
    if peers and all(peers):
        found = [peer for peer in peers if peer]
        row["peer_tokens_per_second"] = spread([peer.tokens_per_second for peer in found])
        row["peer_setting"] = found[0].setting
        row["ratio"] = spread([speed / peer.tokens_per_second
                               for speed, peer in zip(speeds, found, strict=True)])
    return row


def whole_runs(rounds: list[Round]) -> dict[str, Any]:
    """Seconds of the whole rounds, and the peer's peak memory."""
    peers = [one.peer for one in rounds if one.peer]
    if not peers:
        return {}
    ours = [one.seconds for one in rounds]
    return {"our_seconds": spread(ours), "peer_seconds": spread([peer.seconds for peer in peers]),
            "peer_seconds_to_ours": spread([peer.seconds / mine
                                            for mine, peer in zip(ours, peers, strict=True)]),
            "peer_peak_bytes": max(peer.peak_bytes for peer in peers)}


class PeakMemory:
    """The most memory that this process uses from here on, beyond what it uses now."""

    def __init__(self) -> None:
        self._before = resident_memory()
        with suppress(OSError):  # Linux: the peak begins anew
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        """0 where the system does not tell."""
        return max(0, _peak() - self._before)


def _peak() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
