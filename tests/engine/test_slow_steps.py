"""tests/helpers/slow_steps.py: a reason for a slow step must be as long as what it explains."""

from __future__ import annotations

import gc
import sys
import threading
import time
from dataclasses import replace

import pytest

from tests.helpers.slow_steps import Lost, LostTime, Step, explain, usual_seconds

USUAL = [Step(seconds=0.010 + 0.001 * (index % 3), rows=8, keys=800 + index) for index in range(60)]
LARGE = [Step(seconds=0.050 + 0.001 * (index % 3), rows=136, keys=900 + index, prompt_tokens=128)
         for index in range(20)]


def reason(step: Step) -> str:
    found, = [why for slow, why in explain([*USUAL, *LARGE, step]) if slow is step]
    return found


def test_steps_over_twice_the_median_are_told_and_no_others():
    assert [step for step, _ in explain([*USUAL, *LARGE])] == LARGE
    assert {found for _, found in explain([*USUAL, *LARGE])} == {"as much work as takes that long"}


def test_what_so_much_work_usually_takes_is_found_despite_slow_steps():
    disturbed = [replace(step, seconds=0.5) if index % 4 == 0 else step for index, step in enumerate(LARGE)]
    usual = usual_seconds([*USUAL, *disturbed])
    assert usual[0] == pytest.approx(0.011, abs=0.002) and usual[-1] == pytest.approx(0.051, abs=0.003)


@pytest.mark.parametrize(("lost", "expected"), [
    (Lost(waiting=0.019), "a thread waited for a core"),  # 40 ms are 18 more than twice the usual 11
    (Lost(waiting=0.010, waiting_all=0.019), "threads waited for a core, one after the other"),
    (Lost(collecting=0.019), "garbage collection"),
    (Lost(stolen=0.019), "the host took a core away"),
    (Lost(asleep=0.019), "the engine's thread waited for the interpreter's lock"),
    (Lost(waiting=0.010, waiting_all=0.010, asleep=0.010), "several of these causes together"),
    (Lost(waiting=0.015, waiting_all=0.015), ""),
    (Lost(), ""),
])
def test_a_cause_counts_only_if_it_is_as_long_as_what_it_is_to_explain(lost: Lost, expected: str):
    assert reason(Step(seconds=0.040, rows=8, keys=830, lost=lost)) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells how long threads wait")
def test_time_asleep_and_collecting_is_measured():
    lost_time = LostTime(threading.current_thread())
    gc.callbacks.append(lost_time.collected)
    lost_time.begin()
    time.sleep(0.05)
    gc.collect()
    lost = lost_time.end()
    gc.callbacks.remove(lost_time.collected)
    assert lost.asleep > 0.04 and lost.collecting > 0
