"""What evaluations report on the way: one curve a measurement, thinned as it grows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bilevel.v1 import trace_pb2

from clients.wording import seconds

LIMIT = 160
"""Most samples that are kept of one trial; at the limit every second one is dropped."""

_PREFERRED = ("train_loss", "loss")


@dataclass(slots=True)
class Training:
    """The progress of one trial's newest attempt."""

    number: int
    fraction: float = 0.0
    """Share of the budget spent, 0 to 1."""
    step: int = 0
    elapsed: float = 0.0
    """Seconds."""
    phase: str = ""
    newest: dict[str, float] = field(default_factory=dict)
    """The newest measurements by name."""
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """Shares of the budget, each with its measurements."""
    _stride: int = 1
    _seen: int = 0

    def add(self, what: trace_pb2.TrialProgressed) -> None:
        """Take the next report."""
        progress = what.progress
        self.fraction, self.step, self.phase = progress.fraction, progress.step, progress.phase
        self.elapsed = seconds(progress.elapsed)
        if not progress.metrics:
            return
        measured = dict(progress.metrics)
        self.newest.update(measured)
        if self._seen % self._stride == 0:
            self.samples.append((progress.fraction, measured))
        self._seen += 1
        if len(self.samples) >= LIMIT:
            self.samples = self.samples[::2]
            self._stride *= 2

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """Shares of the budget with the values of one measurement."""
        return [(fraction, values[metric]) for fraction, values in self.samples if metric in values]


def curve_metric(trainings: Iterable[Training], intermediate: str) -> str:
    """The measurement to draw: a training loss, else what the task names as intermediate, else the first there is."""
    names = {name: None for training in trainings for _, values in training.samples for name in values}
    for name in (*_PREFERRED, intermediate):
        if name in names:
            return name
    return next(iter(names), "")
