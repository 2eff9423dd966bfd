"""Counts by parameter and direction: what became of each way in which a search has moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import is_not

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

    def __init__(self, trials: Iterable[TrialRecord] = ()) -> None:
        self._kept: list[TrialRecord] = []
        self._by_metric: defaultdict[float | None, list[TrialRecord]] = defaultdict(list)
        self.add(trials)

    def add(self, trials: Iterable[TrialRecord]) -> None:
        """Further trials, in the order of decision."""
        for trial in trials:
            if trial.kept:
                self._kept.append(trial)
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


class Tallying:
    """The counts of one search, kept up to date as it goes on: a fold of its decided trials, which may be asked at any
    time for any list of them and is quick when the list goes on where the last one ended."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._folded: tuple[TrialRecord, ...] = ()
        self._highest = -1
        self._incumbents = Incumbents()
        self._rows: dict[tuple[str, str], Tally] = {}

    def of(self, trials: Sequence[TrialRecord]) -> tuple[Tally, ...]:
        """Every parameter and direction among the decided trials, the most tried first."""
        folded = len(self._folded)
        new = trials[folded:]
        if not self._goes_on(trials[:folded], new):
            self._highest, self._incumbents, self._rows = -1, Incumbents(), {}
            new = trials
        self._incumbents.add(new)
        for trial in new:
            self._count(trial)
        self._folded = tuple(trials)
        return tuple(sorted(self._rows.values(), key=lambda row: (-row.tries, row.parameter, row.direction)))

    def _goes_on(self, known: Sequence[TrialRecord], new: Sequence[TrialRecord]) -> bool:
        """Whether ``new`` trials can be added to what was counted: not where one was kept that is older than a trial
        which was counted already, because that one may have been a change of it."""
        if len(known) < len(self._folded) or any(map(is_not, known, self._folded)):
            return False
        return not any(trial.kept and trial.number < self._highest for trial in new)

    def _count(self, trial: TrialRecord) -> None:
        self._highest = max(self._highest, trial.number)
        if trial.kept is None:
            return
        gain: float | None = None
        if trial.metric is not None and trial.incumbent_metric is not None:
            gain = self._objective.gain(trial.incumbent_metric, trial.metric)
        for name, direction in directions(trial, self._incumbents).items():
            row = self._rows.get((name, direction)) or Tally(name, direction, 0, 0, 0, None)
            self._rows[name, direction] = Tally(
                *(name, direction, row.tries + 1, row.kept + trial.kept, row.without_metric + (trial.metric is None)),
                max((known for known in (row.best_gain, gain) if known is not None), default=None),
            )


def tallies(trials: Sequence[TrialRecord], objective: Objective) -> tuple[Tally, ...]:
    """Every parameter and direction among the decided trials, the most tried first."""
    return Tallying(objective).of(trials)
