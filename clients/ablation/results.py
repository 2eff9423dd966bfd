"""What came of an ablation: gains by group and repeat, estimates, comparisons, and who answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from clients.ablation.design import GROUPS
from clients.ablation.folder import Plan
from clients.ablation.running import Finished
from clients.ablation.statistics import Comparison, Estimate, compare, estimate

REFERENCE = "A"
"""The group that the others are compared with."""


class Measure(StrEnum):
    """Which gain is compared."""

    SEARCH = "gain as the search saw it"
    """Best against baseline on the run's own seed, as the paper reports it."""
    CONFIRMED = "gain confirmed on fresh seeds"


@dataclass(frozen=True, slots=True)
class Row:
    """One group in numbers."""

    group: str
    words: str
    estimate: Estimate | None
    """None when none of its runs finished."""
    against_reference: Comparison | None


@dataclass(frozen=True, slots=True)
class Results:
    """An ablation's finished runs."""

    plan: Plan
    finished: Sequence[Finished]
    answered_by: str = field(init=False)
    scripted: bool = field(init=False)

    def __post_init__(self) -> None:
        summaries = [result.record.summary() for result in self.finished]
        names = dict.fromkeys(summary.answered_by for summary in summaries)
        object.__setattr__(self, "answered_by", "; ".join(names) or "no model")
        object.__setattr__(self, "scripted", any(summary.scripted for summary in summaries))

    @property
    def label(self) -> str:
        """Who answered, and what that means, in a sentence."""
        if not self.scripted:
            return f"Answered by {self.answered_by}."
        return (
            f"Answered by {self.answered_by}: a script stood in for a language model. This shows that the machinery "
            "works and is no evidence for or against the method."
        )

    @property
    def metric(self) -> str:
        """The objective's metric with its unit."""
        objective = self.finished[0].record.history.task.objective
        return f"{objective.metric}, {objective.unit}" if objective.unit else objective.metric

    @property
    def measures(self) -> list[Measure]:
        """The confirmed gain only where runs were confirmed."""
        return [Measure.SEARCH, *([Measure.CONFIRMED] if self.plan.design.confirmation_seeds else [])]

    def gains(self, group: str, measure: Measure) -> dict[int, float]:
        """Gain by repeat, of the runs that finished and have one."""
        found = {}
        for result in self.finished:
            summary = result.record.summary()
            gain = summary.search_gain if measure is Measure.SEARCH else summary.confirmed_gain
            if result.cell.group.name == group and summary.state == "finished" and gain is not None:
                found[result.cell.repeat] = gain
        return found

    def rows(self, measure: Measure) -> list[Row]:
        """A row a group, in the order of the groups."""
        chosen = [name for name in GROUPS if name in self.plan.design.groups]
        gains: Mapping[str, dict[int, float]] = {name: self.gains(name, measure) for name in chosen}
        reference = gains.get(REFERENCE)
        return [
            Row(
                name,
                GROUPS[name].words,
                estimate(list(found.values())) if found else None,
                compare(reference, found) if reference is not None and name != REFERENCE else None,
            )
            for name, found in gains.items()
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "ablation": self.plan.id,
            "design": self.plan.design.to_json(),
            "answered_by": self.answered_by,
            "scripted": self.scripted,
            "metric": self.metric,
            "results": {measure.name.lower(): [asdict(row) for row in self.rows(measure)] for measure in self.measures},
        }
