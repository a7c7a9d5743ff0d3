"""Results for people: a text table, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.machine import readable_size

Row = dict[str, Any]


class PlotError(RuntimeError):
    """The plot cannot be drawn."""


def layers_table(rows: list[Row]) -> str:
    """Of the linear kernels alone."""
    lines = [f"{'':24}{'tokens/s':>10}{'achieved':>16}{'limit':>10}{'share':>8}"]
    for row in rows:
        speed, achieved, limit, share = (row[key]["median"] for key in
                                         ("tokens_per_second", "achieved", "limit", "share"))
        reached = f"{achieved:.2f} {row['unit']}"
        lines.append(f"{row['what']:24}{speed:10.1f}{reached:>16}{limit:10.2f}{share:8.0%}")
    return "\n".join(lines)


def engine_table(rows: list[Row], report: Row) -> str:
    """Of the engine: medians, (min-max) behind them."""
    compared = any("ratio" in row for row in rows)
    lines = [f"{'':26}{'tokens/s':>24}{'limit':>9}  {'bound by':11}{'share':>6}{'first token':>13}"
             + (f"{'peer':>10}{'ratio':>21}" if compared else "")]
    for row in rows:
        first = row["first_token_seconds"]["median"]
        line = (f"{row['what']:26}{_spread(row['tokens_per_second'], '.1f'):>24}{row['limit']['median']:9.1f}"
                f"  {row['bound']:11}{row['share']['median']:6.0%}{first * 1000:10,.0f} ms")
        if "ratio" in row:
            line += f"{row['peer_tokens_per_second']['median']:10.1f}{_spread(row['ratio'], '.2f'):>21}"
            line += f"  {row['peer_setting']}"
        lines.append(line.rstrip())
    lines += ["", "Medians (min-max). Limits were measured in turn with the cases: "
              f"{_spread(_all(rows, 'read_gb_s'), '.1f')} GB/s, "
              f"{_spread(_all(rows, 'products_top_s'), '.2f')} TOP/s."]
    memory = report["memory"]
    if memory["peak_bytes"]:
        lines.append(f"Peak memory {readable_size(memory['peak_bytes'])}: the weights, "
                     f"{readable_size(memory['weight_bytes'])}, and {memory['beyond_weights']:.0%} of that.")
    if "peer_seconds" in report:
        lines.append(f"The peer's whole run took {_spread(report['peer_seconds'], '.1f')} s, ours "
                     f"{_spread(report['our_seconds'], '.1f')} s, ratio "
                     f"{_spread(report['peer_seconds_to_ours'], '.2f')}. Its peak memory: "
                     f"{readable_size(report['peer_peak_bytes'])}.")
    return "\n".join(lines)


def _spread(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def _all(rows: list[Row], key: str) -> dict[str, float]:
    """Over all rows; the median is the upper one of their medians' middle."""
    medians = sorted(row[key]["median"] for row in rows)
    return {"median": medians[len(medians) // 2], "min": min(row[key]["min"] for row in rows),
            "max": max(row[key]["max"] for row in rows)}


def check_plot() -> None:
    """Raises PlotError without matplotlib: before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotError("--plot needs matplotlib, which is not installed. "
                        "Use: pip install -r requirements-dev.txt") from None


def plot(rows: list[Row], title: str, path: Path) -> None:
    """Two panels over the cases: tokens a second with min and max, and the share of the limit."""
    from matplotlib.figure import Figure  # without pyplot: no display, no state
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    speeds, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(rows))
    compared = any("ratio" in row for row in rows)
    height = 0.38 if compared else 0.6
    shift = height / 2 if compared else 0
    _bars(speeds, [p - shift for p in places], rows, "tokens_per_second", height, "#2f6f6a", "Parlor")
    if compared:
        _bars(speeds, [p + shift for p in places], rows, "peer_tokens_per_second", height, "#b9a37e", "peer")
    speeds.scatter([row["limit"]["median"] for row in rows], list(places), marker="|", s=220, color="#333333",
                   label="limit", zorder=3)
    speeds.set_xscale("log")
    speeds.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    speeds.xaxis.set_major_formatter("{x:g}")
    speeds.xaxis.set_minor_locator(NullLocator())
    speeds.set_xlabel("tokens a second")
    speeds.set_yticks(list(places), [row["what"] for row in rows])
    speeds.invert_yaxis()
    speeds.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False)
    shares.barh(list(places), [100 * row["share"]["median"] for row in rows], 0.6, color="#2f6f6a")
    shares.set_xlim(0, 100)
    shares.set_xlabel("% of the limit of memory or arithmetic")
    for axes in (speeds, shares):
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130)


def _bars(axes: Any, places: list[float], rows: list[Row], key: str, height: float, color: str, label: str,
          ) -> None:
    there = [(place, row[key]) for place, row in zip(places, rows, strict=True) if key in row]
    middles = [values["median"] for _, values in there]
    errors = [[values["median"] - values["min"] for _, values in there],
              [values["max"] - values["median"] for _, values in there]]
    axes.barh([place for place, _ in there], middles, height, xerr=errors, color=color, ecolor="#555555",
              capsize=2, label=label)
