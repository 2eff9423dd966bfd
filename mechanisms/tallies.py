"""Counts by parameter and direction: what became of each way in which a search has moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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


class Incumbents:
    """Which kept trial each trial was a change of."""

    def __init__(self, trials: Iterable[TrialRecord]) -> None:
        self._kept = [trial for trial in trials if trial.kept]
        self._by_metric: defaultdict[float | None, list[TrialRecord]] = defaultdict(list)
        for trial in self._kept:
            if trial.metric is not None:
                self._by_metric[trial.metric].append(trial)

    def of(self, trial: TrialRecord) -> TrialRecord | None:
        """The newest kept trial before ``trial`` with the metric that it had to beat; else the newest kept one."""
        for candidates in (self._by_metric.get(trial.incumbent_metric, ()), self._kept):
            for other in reversed(candidates):
                if other.number < trial.number:
                    return other
        return None


def directions(trial: TrialRecord, incumbents: Incumbents) -> dict[str, str]:
    """Which way each changed parameter was moved."""
    incumbent = incumbents.of(trial)
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
    incumbents = Incumbents(trials)
    for trial in trials:
        if trial.kept is not None:
            for name, direction in directions(trial, incumbents).items():
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
