"""What early stopping did in a run, as its trace tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bilevel.v1 import trace_pb2


@dataclass(slots=True)
class Stopping:
    """Stops and audits. The error rate is that of the audited trials: of the stopped ones nobody can know."""

    verdicts: dict[int, trace_pb2.EarlyStopJudged] = field(default_factory=dict)
    """By the number of the trial."""
    errors: set[int] = field(default_factory=set)
    """Audited trials that were better than the incumbent after all."""
    measured: set[int] = field(default_factory=set)
    """Audited trials that are decided and have a metric."""

    def judged(self, what: trace_pb2.EarlyStopJudged) -> None:
        self.verdicts[what.number] = what

    def decided(self, what: trace_pb2.TrialDecided) -> None:
        verdict = self.verdicts.get(what.number)
        if verdict is None or verdict.stopped or not what.HasField("gain"):
            return
        self.measured.add(what.number)
        if what.gain > 0:
            self.errors.add(what.number)

    @property
    def stopped(self) -> int:
        return sum(verdict.stopped for verdict in self.verdicts.values())

    def sentence(self) -> str:
        """Stops, and how often the rule erred where it was checked."""
        said = f"{self.stopped} stopped early"
        if self.measured:
            rate = len(self.errors) / len(self.measured)
            return f"{said}; the rule erred in {len(self.errors)} of {len(self.measured)} audited trials ({rate:.0%})"
        return f"{said}; no stop was audited"
