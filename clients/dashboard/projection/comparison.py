"""Several runs side by side: which may share one scale, and a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clients import wording
from clients.dashboard.projection.run import RunView

LIMIT = 8
"""Most runs on one page."""


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One run of the comparison."""

    id: str
    title: str
    state: str
    trials: str
    baseline: str
    best: str
    gain: str
    confirmed: str
    best_at: str
    """The trial and the time at which its best was found."""
    kept: str
    """Kept trials among the decided ones."""
    mechanisms: str
    tokens: str
    scripted: bool


def chosen(wanted: str) -> tuple[list[str], list[str]]:
    """Run ids out of what an address says (separated by commas), each once; those beyond LIMIT come second."""
    ids = list(dict.fromkeys(part.strip() for part in wanted.split(",") if part.strip()))
    return ids[:LIMIT], ids[LIMIT:]


def row(run_id: str, view: RunView) -> ComparedRow:
    """What the trace of one run says, in a row."""
    best = next((point for point in view.points if point.number == view.best), None)
    kept = sum(1 for point in view.points if point.kind == "kept")
    spent = view.spending.prompt_tokens + view.spending.completion_tokens
    return ComparedRow(
        id=run_id,
        title=view.spec.display_name or run_id,
        state=wording.run_state(view.state),
        trials=f"{view.decided:,} / {view.spec.max_trials:,}",
        baseline=wording.metric(view.baseline_metric),
        best=wording.metric(view.best_metric),
        gain=wording.gain(view.search_gain),
        confirmed=wording.interval(view.confirmation),
        best_at=f"trial {best.number}, {wording.duration(best.seconds)}" if best is not None else wording.NOTHING,
        kept=f"{kept:,} of {view.decided:,}",
        mechanisms=str(len(view.mechanisms)),
        tokens=f"{spent:,}",
        scripted=view.spending.scripted_calls > 0,
    )


def one_scale(views: Sequence[RunView]) -> str:
    """Why the metrics of these runs cannot share one axis; empty where they can."""
    metrics = {(view.task.objective.metric, view.task.objective.unit, view.maximize) for view in views if view.name}
    if len(metrics) > 1:
        named = "; ".join(sorted(_named(*measured) for measured in metrics))
        return f"The runs measure different things ({named}): their gains are drawn, each over its own baseline."
    return ""


def _named(metric: str, unit: str, maximize: bool) -> str:
    return f"{metric}{f' in {unit}' if unit else ''}, {'larger' if maximize else 'smaller'} is better"
