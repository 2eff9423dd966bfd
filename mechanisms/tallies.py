"""Counts by parameter and direction: what became of each way in which a search has moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mechanisms.interface import TrialRecord
from service_kit.parameters import Objective, Value

INCREASE, DECREASE, CHANGE = "increase", "decrease", "change"


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one parameter moved in one direction."""

    parameter: str
    direction: str
    tries: int
    kept: int
    without_metric: int
    """Tries that failed before they had a metric."""
    best_gain: float | None
    """The largest gain over the incumbent of its time, in the objective's unit; negative when every try was worse."""


def incumbent_of(trial: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial that ``trial`` was a change of: the newest kept one before it with the metric that it had to beat."""
    before = [other for other in trials if other.kept and other.number < trial.number]
    exact = [other for other in before if other.metric is not None and other.metric == trial.incumbent_metric]
    candidates = exact or before
    return candidates[-1] if candidates else None


def directions(trial: TrialRecord, trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Which way each changed parameter was moved."""
    incumbent = incumbent_of(trial, trials)
    base = incumbent.configuration if incumbent is not None else {}
    return {name: _direction(base.get(name), value) for name, value in trial.changes.items()}


def _direction(old: Value | None, new: Value) -> str:
    before, after = _size(old), _size(new)
    if before is None or after is None or before == after:
        return CHANGE
    return INCREASE if after > before else DECREASE


def _size(value: Value | None) -> float | None:
    """A number to compare by, the sum of a list; None for what has no order."""
    if isinstance(value, tuple):
        return sum(element for element in value if isinstance(element, int | float))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def tallies(trials: Sequence[TrialRecord], objective: Objective) -> tuple[Tally, ...]:
    """Every parameter and direction among the decided trials, the most tried first."""
    found: defaultdict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.kept is not None:
            for name, direction in directions(trial, trials).items():
                found[name, direction].append(trial)
    rows = [_tally(name, direction, members, objective) for (name, direction), members in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.tries, row.parameter, row.direction)))


def _tally(name: str, direction: str, members: Sequence[TrialRecord], objective: Objective) -> Tally:
    gains = [
        objective.gain(trial.incumbent_metric, trial.metric)
        for trial in members
        if trial.metric is not None and trial.incumbent_metric is not None
    ]
    kept = sum(trial.kept is True for trial in members)
    lost = sum(trial.metric is None for trial in members)
    return Tally(name, direction, len(members), kept, lost, max(gains, default=None))
