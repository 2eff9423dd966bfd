"""The best so far by trial: the mean of each group, and every run as a thin line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from clients.ablation.design import GROUPS
from clients.ablation.results import Results
from clients.report.chart import best_so_far
from clients.report.record import RunRecord
from service_kit.extras import optional

_LOOKS: Mapping[str, tuple[str, float, Any]] = {
    "A": ("#8a8f98", 4.4, "solid"),
    "B": ("#3b6fb6", 2.0, (0, (6, 4))),
    "C": ("#0f766e", 4.4, "solid"),
    "D": ("#b45309", 2.0, (0, (6, 4))),
    "noop": ("#6d4fb3", 2.0, (4, (2, 8))),
    "restart": ("#b0306a", 2.2, "solid"),
}
"""Colour, width and dashes: groups that do the same lie on each other and must both be seen."""


def write_figure(results: Results, path: Path) -> None:
    """Draw every group's runs as gain over the run's own baseline, so that repeats with other seeds compare."""
    optional("matplotlib", "report", "to draw the figure of an ablation")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in GROUPS:
        runs = [curve(f.record) for f in results.finished if f.cell.group.name == name]
        _draw(axes, name, [run for run in runs if run])
    axes.set(xlabel="trial", ylabel=f"gain over the baseline [{results.metric}]")
    axes.set_title("Best so far", loc="left", fontsize=11)
    who = results.answered_by if len(results.answered_by) < 90 else f"{results.answered_by[:87]}…"
    axes.set_title(f"answered by {who}", loc="right", fontsize=8, color="#b42318" if results.scripted else "#444444")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def curve(record: RunRecord) -> list[float]:
    """The gain of the best so far after each trial, the baseline's 0 first; empty without a measured baseline."""
    history, points = record.history, dict(best_so_far(record))
    baseline = history.baseline_metric
    if baseline is None or not points:
        return []
    gains, so_far = list[float](), 0.0
    for number in range(max(points) + 1):
        gain = history.gain(baseline, points.get(number))
        so_far = so_far if gain is None else gain
        gains.append(so_far)
    return gains


def _draw(axes: Any, name: str, runs: Sequence[Sequence[float]]) -> None:
    if not runs:
        return
    colour, width, dashes = _LOOKS[name]
    for run in runs:
        axes.step(range(len(run)), run, where="post", color=colour, linewidth=0.8, alpha=0.35)
    longest = max(map(len, runs))
    mean = [fmean(run[min(trial, len(run) - 1)] for run in runs) for trial in range(longest)]
    label = f"{name}: {GROUPS[name].words} (n = {len(runs)})"
    axes.step(
        range(longest), mean, where="post", color=colour, linewidth=width, linestyle=dashes, label=label, zorder=3
    )
