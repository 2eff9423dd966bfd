"""One mechanism of a run: what it did, and how the search went before and after it came."""

from __future__ import annotations

from dataclasses import dataclass

from bilevel.v1 import trace_pb2

from clients import wording
from clients.history import MechanismHistory, RunHistory

_DECIDED = {trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED}


@dataclass(frozen=True, slots=True)
class Rate:
    """Trials that improved the best metric, out of the decided ones in a stretch of a run."""

    improved: int
    trials: int

    def __str__(self) -> str:
        if not self.trials:
            return "no trial yet"
        return f"{self.improved} of {wording.count(self.trials, 'trial')} ({self.improved / self.trials:.0%})"


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """The trials after a mechanism came, and as many before. Searches get harder as they go on, so fewer than before
    prove no harm."""

    before: Rate
    after: Rate


def state_of(mechanism: MechanismHistory) -> str:
    """active, suspended or removed."""
    if mechanism.uninstalled is not None:
        return "removed"
    return "suspended" if mechanism.suspended is not None else "active"


def reason_of(mechanism: MechanismHistory) -> str:
    """Why it is not active; empty while it is."""
    if mechanism.uninstalled is not None:
        return mechanism.uninstalled.reason
    if (failure := mechanism.suspended) is not None:
        where = f" at line {failure.line}" if failure.line else ""
        return f"{wording.hook(failure.hook)} {failure.kind.replace('_', ' ')}{where}: {failure.message}"
    return ""


def before_after(history: RunHistory, mechanism: MechanismHistory) -> BeforeAfter:
    """Counted from the trace as it is now."""
    came = mechanism.mechanism.installed_after_trial
    improved, decided = _improvements(history)
    after = [number for number in decided if number > came]
    before = [number for number in decided if number <= came][-len(after) :] if after else []
    return BeforeAfter(_rate(before, improved), _rate(after, improved))


def _rate(numbers: list[int], improved: set[int]) -> Rate:
    return Rate(sum(number in improved for number in numbers), len(numbers))


def _improvements(history: RunHistory) -> tuple[set[int], list[int]]:
    """Trials that were better than every one before, and all decided trials, the baseline aside; by number."""
    improved: set[int] = set()
    decided: list[int] = []
    best = history.baseline_metric
    for number in sorted(history.trials):
        trial = history.trials[number]
        if trial.origin == trace_pb2.TRIAL_ORIGIN_BASELINE or trial.state not in _DECIDED:
            continue
        decided.append(number)
        metric = history.metric(number)
        gain = history.gain(best, metric)
        if metric is not None and trial.budget_fraction >= 1 and (gain is None or gain > 0):
            best = metric
            improved.add(number)
    return improved, decided


def proposed_trials(history: RunHistory, name: str) -> tuple[int, int]:
    """Trials that the mechanism ``name`` proposed, and those of what it proposed or changed that were kept."""
    proposed = kept = 0
    for trial in history.trials.values():
        own = trial.origin == trace_pb2.TRIAL_ORIGIN_MECHANISM and trial.proposer == name
        proposed += own
        kept += (own or name in trial.changed_by) and trial.state == trace_pb2.TRIAL_STATE_KEPT
    return proposed, kept
