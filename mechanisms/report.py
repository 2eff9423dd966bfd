"""The gate's report: a verdict with everything that the author of a source needs to repair it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mechanisms.findings import Finding, Stage
from mechanisms.interface import Hook
from mechanisms.replay import HookStatistics, ReplayStatistics


class Verdict(StrEnum):
    """Whether a mechanism may be installed."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict with its reasons."""

    verdict: Verdict
    stage: Stage
    """The stage that rejected, or the last one that was passed."""
    findings: tuple[Finding, ...]
    """What is wrong; remarks when accepted."""
    source_sha256: str
    name: str = ""
    """A slug from the class docstring; empty when there is none."""
    summary: str = ""
    """The first line of the class docstring."""
    hooks: frozenset[Hook] = frozenset()
    recorded: ReplayStatistics = field(default_factory=ReplayStatistics)
    """What it did on the recorded history."""
    synthetic: ReplayStatistics = field(default_factory=ReplayStatistics)
    """What it did on the longer synthetic history."""
    layers: tuple[str, ...] = ()
    """The sandbox layers under which it ran."""
    recorded_hash: str = ""
    """Digest of its state after the recorded history, every hook asked; empty without one."""
    state_hash: str = ""
    """Digest of its state after the synthetic history, every hook asked."""

    @property
    def accepted(self) -> bool:
        return self.verdict is Verdict.ACCEPTED

    def statistics(self) -> dict[Hook, HookStatistics]:
        """What each hook did on the recorded history; on the synthetic one where nothing was recorded."""
        return (self.recorded if self.recorded.trials else self.synthetic).hooks

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready built-in types."""
        return {
            "verdict": self.verdict.value,
            "stage": self.stage.value,
            "findings": [finding.to_json() for finding in self.findings],
            "name": self.name,
            "summary": self.summary,
            "hooks": [hook.value for hook in Hook if hook in self.hooks],
            "replay": {"recorded": _statistics_json(self.recorded), "synthetic": _statistics_json(self.synthetic)},
            "source_sha256": self.source_sha256,
            "sandbox_layers": list(self.layers),
        }

    def render(self) -> str:
        """The report as plain text, for people and for the model that repairs the source."""
        title = self.name or "mechanism"
        lines = [f"{title}: {self.verdict.value} at stage {self.stage.value}"]
        lines += [f"- {finding.stage.value}: {finding.render()}" for finding in self.findings]
        if self.hooks:
            lines.append("hooks: " + ", ".join(hook.value for hook in Hook if hook in self.hooks))
        for label, statistics in (("recorded", self.recorded), ("synthetic", self.synthetic)):
            if statistics.trials:
                lines.append(_statistics_text(label, statistics))
        return "\n".join(lines)


def _statistics_json(statistics: ReplayStatistics) -> dict[str, Any]:
    return {
        "trials": statistics.trials,
        "calls": statistics.calls,
        "changed_decisions": statistics.changed,
        "prompted": statistics.prompted,
        "seconds": round(statistics.seconds, 6),
        "hooks": {
            hook.value: {"calls": s.calls, "changed": s.changed, "seconds": round(s.seconds, 6)}
            for hook, s in statistics.hooks.items()
        },
    }


def _statistics_text(label: str, statistics: ReplayStatistics) -> str:
    parts = [f"{hook.value} {s.changed}/{s.calls}" for hook, s in statistics.hooks.items() if hook is not Hook.OBSERVE]
    prompted = f", prompt text at {statistics.prompted} moments" if statistics.prompted else ""
    return (
        f"{label} history, {statistics.trials} trials: {statistics.changed} decisions would have changed{prompted}"
        f" ({'; '.join(parts)} changed/calls; {statistics.seconds:.2f} s)"
    )
