"""The figures of tools/measure_page.py by hand; Chromium itself is only asked by the tool."""

from tools.measure_page import BESIDE, BUDGETS, report
from tools.page_watch import Recorded, delays, p95


def test_a_token_counts_from_when_it_was_made_to_the_first_paint_that_has_it():
    paints = [[1030, "10"], [1060, "40"], [1065, 17], [1100, "40"]]  # the wall clock is 1,000 ahead
    assert delays(paints, " 10 25 40 90", 1000) == [20, 35, 20]


def test_the_95th_percentile_by_hand():
    assert p95([1.0]) == 1.0
    assert p95(list(range(100))) == 95


def test_work_counts_from_the_beginning_of_the_page_and_of_a_flush_until_the_next():
    """Tasks of 1, 2, 4, 8, 16 ms; the page is begun at 10, flushes are made in the 2nd, 4th and 5th."""
    recorded = Recorded([(5, 1), (10, 2), (20, 4), (30, 8), (40, 16)], [11, 31, 41], 10)
    assert recorded.work_until(20) == 2 + 4 + 8
    assert recorded.flushes() == [2 + 4, 8]
    assert recorded.longest() == 16


def test_a_budget_is_held_by_the_median_and_the_worst_is_told_too(capsys):
    found = {name: [budget, budget, budget + 5.0] for name, budget in BUDGETS.items()}
    found["open the session, ms"] = [299.0, 301.0, 302.0]
    found |= {name: [3.0, 1.0, 2.0] for name in BESIDE}
    made = report(1000, found)
    assert made["beside"] == [{"what": name, "median": 2.0} for name in BESIDE]
    figures = made["figures"]
    missed = [figure for figure in figures if not figure["held"]]
    assert missed == [{"what": "open the session, ms", "budget": 300, "median": 301.0, "worst": 302.0,
                       "held": False}]
    assert capsys.readouterr().out.count("MISSED") == 1
