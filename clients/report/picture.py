"""The best-so-far curve as a PNG, for places that take no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bilevel.v1 import common_pb2, trace_pb2

from clients.report.chart import best_so_far, metric_range
from clients.report.record import RunRecord
from service_kit.extras import optional

_COLOURS = ("#8a8f98", "#0f766e", "#b45309", "#6d4fb3", "#3b6fb6")
_CONFIGURATION, _MECHANISM = "#3b6fb6", "#b45309"


def write_png(records: Sequence[RunRecord], path: Path) -> None:
    """Draw every run's best so far with its trials and the moments of levels 1.5 and 2."""
    # Here and not at the top: matplotlib takes longer to import than most commands take to run.
    optional("matplotlib", "report", "to draw the picture of a report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = _COLOURS if len(records) > 1 else _COLOURS[1:]
    drawn = metric_range(records)
    for index, record in enumerate(records if drawn is not None else ()):
        assert drawn is not None
        _draw_run(axes, record, colours[index % len(colours)], drawn, moments=index == len(records) - 1)
    objective, maximize = records[0].history.task.objective, records[0].history.maximize
    unit = f" [{objective.unit}]" if objective.unit else ""
    axes.set(xlabel="trial", ylabel=f"{objective.metric}{unit}, {'higher' if maximize else 'lower'} is better")
    scripted = any(record.scripted for record in records)
    axes.set_title(
        "Best so far" + (" (scripted researcher, no language model)" if scripted else ""), loc="left", fontsize=11
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def _draw_run(axes: Any, record: RunRecord, colour: str, drawn: tuple[float, float], *, moments: bool) -> None:
    history, points, (low, high) = record.history, best_so_far(record), drawn
    if not points:
        return
    label = f"{record.title} (levels {record.levels})"
    axes.step(*zip(*points, strict=True), where="post", color=colour, linewidth=2.2, label=label, zorder=3)
    for number, trial in history.trials.items():
        metric = history.metric(number)
        if metric is not None:
            kept = trial.state == trace_pb2.TRIAL_STATE_KEPT
            axes.plot(
                number,
                min(max(metric, low), high),
                "o",
                markersize=5 if kept else 4,
                color=colour,
                fillstyle="full" if kept else "none",
                alpha=1.0 if kept else 0.6,
                zorder=4,
            )
        elif trial.outcome != common_pb2.OUTCOME_UNSPECIFIED:
            axes.plot(number, low if history.maximize else high, "x", markersize=6, color="#b42318", zorder=4)
    if moments:
        _draw_moments(axes, record)


def _draw_moments(axes: Any, record: RunRecord) -> None:
    for index, (decided, _) in enumerate(record.history.updates):
        label = "level 1.5 changed the search" if index == 0 else None
        axes.axvline(decided + 0.5, color=_CONFIGURATION, linestyle=":", linewidth=1.2, label=label, zorder=1)
    for index, mechanism in enumerate(record.history.mechanisms.values()):
        label = "level 2 installed a mechanism" if index == 0 else None
        after = mechanism.mechanism.installed_after_trial
        axes.axvline(after + 0.5, color=_MECHANISM, linestyle="--", linewidth=1.4, label=label, zorder=1)
