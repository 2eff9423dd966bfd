"""The trial table: which trials a filter leaves, one page of rows, and a trial's difference from another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bilevel.v1 import trace_pb2

from clients import wording
from clients.dashboard.projection.run import RunView, kind_of

KINDS = ("kept", "discarded", "failed", "refused", "running", "waiting", "baseline")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which trials to show; empty fields leave all."""

    kind: str = ""
    """One of KINDS."""
    proposer: str = ""
    """As :func:`clients.wording.origin` says it."""
    text: str = ""
    """Words that must all occur in the trial's number, changes, hypothesis, message or mechanisms."""

    @property
    def all(self) -> bool:
        return not (self.kind or self.proposer or self.text.strip())


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial in the table."""

    number: int
    kind: str
    status: str
    metric: str
    gain: str
    """Over the incumbent that it was compared with."""
    changes: str
    hypothesis: str
    proposer: str
    changed_by: str
    """Mechanisms that changed a decision about it, beside the one that proposed it."""
    elapsed: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One parameter in which two trials differ."""

    parameter: str
    old: str
    new: str


def matching(view: RunView, wanted: Filter, *, by: str = "number", descending: bool = True) -> Sequence[int]:
    """Numbers of the trials that the filter leaves, sorted by ``number``, ``metric``, ``gain`` or ``elapsed``.

    Trials without the value that they are sorted by come last.
    """
    numbers = list(view.trials)
    if not wanted.all:
        words = wanted.text.lower().split()
        numbers = [number for number in numbers if _passes(view.trials[number], wanted, words)]
    key = _SORTED_BY[by]
    if by == "number":
        return sorted(numbers, reverse=descending)
    values = {number: key(view, number) for number in numbers}
    with_value = sorted(
        (number for number in numbers if values[number] is not None),
        key=lambda number: values[number] or 0.0,
        reverse=descending,
    )
    return with_value + [number for number in numbers if values[number] is None]


def row(view: RunView, number: int) -> TrialRow:
    """The row of one trial."""
    trial = view.trials[number]
    base = view.base_of(number)
    return TrialRow(
        number=number,
        kind=kind_of(trial),
        status=wording.status(trial),
        metric=wording.metric(view.metric(number)),
        gain=wording.signed(view.gains.get(number)),
        changes=", ".join(wording.changes(trial, view.trials.get(base) if base is not None else None)),
        hypothesis=wording.visible(trial.hypothesis),
        proposer=wording.origin(trial),
        changed_by=", ".join(name for name in trial.changed_by if name != trial.proposer),
        elapsed=wording.duration(wording.seconds(trial.elapsed)) if trial.HasField("elapsed") else wording.NOTHING,
    )


def proposers(view: RunView) -> list[str]:
    """Everyone who proposed a trial so far, in the order of their first."""
    return list(dict.fromkeys(wording.origin(trial) for trial in view.trials.values()))


def differences(trial: trace_pb2.Trial, base: trace_pb2.Trial) -> list[Difference]:
    """The parameters whose values differ, by name."""
    old, new = base.configuration.values, trial.configuration.values
    return [
        Difference(
            name,
            wording.value(old[name]) if name in old else wording.NOTHING,
            wording.value(new[name]) if name in new else wording.NOTHING,
        )
        for name in sorted({*old, *new})
        if (name in old) != (name in new) or old[name] != new[name]
    ]


def _passes(trial: trace_pb2.Trial, wanted: Filter, words: Sequence[str]) -> bool:
    if wanted.kind and kind_of(trial) != wanted.kind:
        return False
    if wanted.proposer and wording.origin(trial) != wanted.proposer:
        return False
    if not words:
        return True
    said = " ".join(
        (str(trial.number), *trial.changes.values, trial.hypothesis, trial.message, trial.proposer, *trial.changed_by)
    ).lower()
    return all(word in said for word in words)


_SORTED_BY: dict[str, Callable[[RunView, int], float | None]] = {
    "number": lambda view, number: number,
    "metric": lambda view, number: view.metric(number),
    "gain": lambda view, number: view.gains.get(number),
    "elapsed": lambda view, number: (
        wording.seconds(view.trials[number].elapsed) if view.trials[number].HasField("elapsed") else None
    ),
}
