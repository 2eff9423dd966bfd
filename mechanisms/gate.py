"""The gate: one verdict on a mechanism's source, with everything that its author needs to repair it.

Size, language, conformance, replay, effect, in this order; the first stage that finds something ends it. The same code
judges for the outer loop before it installs and for the inner service, whose verdict counts. The source is parsed and
run in jailed workers only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mechanisms.findings import Finding, Stage
from mechanisms.interface import Hook, TrialRecord
from mechanisms.replay import HookStatistics, ReplayStatistics, replay
from mechanisms.sandbox.failures import MechanismFailure, MechanismRejected
from mechanisms.sandbox.host import MechanismProcess
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Objective, ParameterSpace

SYNTHETIC_TRIALS = 80
"""The synthetic history is at least this long, and longer than the recorded one up to MAX_SYNTHETIC_TRIALS."""
MAX_SYNTHETIC_TRIALS = 240


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


async def check(
    source: str,
    *,
    space: ParameterSpace,
    objective: Objective,
    history: Sequence[TrialRecord],
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    allow_inert: bool = False,
    language_only: bool = False,
    limits: SandboxLimits | None = None,
    policy: SandboxPolicy | None = None,
) -> GateReport:
    """Judge ``source`` on ``history``, the decided trials of a run so far, the baseline first; it may be empty.

    ``allow_inert`` accepts a mechanism that changes nothing (the no-op control). ``language_only`` stops after the
    language and conformance of the source. Raises SandboxUnavailable when this machine cannot run mechanisms.
    """
    check_ = _Check(
        source, space, objective, dict(settings or {}), seed, limits or SandboxLimits(), policy or SandboxPolicy()
    )
    report = check_.size()
    if report is None:
        report = await (check_.language() if language_only else check_.run(tuple(history), allow_inert))
    return report


@dataclass(slots=True)
class _Check:
    source: str
    space: ParameterSpace
    objective: Objective
    settings: dict[str, Any]
    seed: int
    limits: SandboxLimits
    policy: SandboxPolicy

    def size(self) -> GateReport | None:
        """A rejection when the source is no text of acceptable length; judged without parsing."""
        problem = self._size_problem()
        return None if problem is None else self._rejected(Finding(Stage.SIZE, None, *problem))

    def _size_problem(self) -> tuple[str, str] | None:
        if not self.source.strip():
            return "the source is empty", "write one class Mechanism with at least one hook"
        if "\x00" in self.source:
            return "the source holds a null character", "send plain UTF-8 text"
        try:
            length = len(self.source.encode("utf-8"))
        except UnicodeEncodeError:
            return "the source is not valid Unicode text", "send plain UTF-8 text"
        if length > self.limits.source_bytes:
            return (
                f"the source has {length} bytes; at most {self.limits.source_bytes} are allowed",
                "a mechanism is 20 to 200 lines",
            )
        return None

    async def language(self) -> GateReport:
        """Language and conformance only."""
        try:
            process = await MechanismProcess.check_language(
                self.source, self.space, self.objective, limits=self.limits, policy=self.policy
            )
        except MechanismRejected as rejected:
            return self._rejected(*rejected.findings)
        except MechanismFailure as failure:
            return self._rejected(_failure_finding(Stage.LANGUAGE, failure, "while compiling"))
        return _described(process, self._sha256())

    async def run(self, history: tuple[TrialRecord, ...], allow_inert: bool) -> GateReport:
        """Every stage."""
        report = await self._replayed(history, "recorded", None)
        if report.accepted:
            length = min(MAX_SYNTHETIC_TRIALS, max(SYNTHETIC_TRIALS, 2 * len(history)))
            synthetic = synthetic_history(self.space, self.objective, length, self.seed)
            report = await self._replayed(synthetic, "synthetic", report)
        if not report.accepted:
            return report
        return self._effect(report, allow_inert)

    async def _replayed(self, history: tuple[TrialRecord, ...], label: str, before: GateReport | None) -> GateReport:
        """Replay ``history`` in two workers at the same time and compare what they answered."""
        outcomes = await asyncio.gather(self._once(history, label), self._once(history, label), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        first, second = (outcome for outcome in outcomes if isinstance(outcome, _Outcome))
        base = before or first.described(self._sha256())
        for outcome in (first, second):
            if outcome.findings:
                described = base if base.name or base.hooks else outcome.described(self._sha256())
                return replace(
                    described, verdict=Verdict.REJECTED, stage=outcome.findings[0].stage, findings=outcome.findings
                )
        if first.output_hash != second.output_hash:
            message = f"two replays of the {label} history gave different answers"
            hint = "answers may depend on trials, the view and rng only, not on addresses or the repr of functions"
            return replace(
                base,
                verdict=Verdict.REJECTED,
                stage=Stage.REPLAY,
                findings=(Finding(Stage.REPLAY, None, message, hint),),
            )
        if label == "recorded":
            return replace(base, stage=Stage.REPLAY, recorded=first.statistics)
        return replace(base, stage=Stage.REPLAY, synthetic=first.statistics)

    async def _once(self, history: tuple[TrialRecord, ...], label: str) -> _Outcome:
        outcome = _Outcome()
        try:
            process = await MechanismProcess.start(
                *(self.source, self.space, self.objective, self.settings, self.seed),
                name="candidate",
                limits=self.limits,
                policy=self.policy,
            )
        except MechanismRejected as rejected:
            outcome.findings = rejected.findings
            return outcome
        except MechanismFailure as failure:
            outcome.findings = (_failure_finding(Stage.CONFORMANCE, failure, "when it was constructed"),)
            return outcome
        outcome.process = process
        try:
            outcome.statistics = await replay(process, history, self.space, self.objective)
            outcome.output_hash = process.output_hash
        except MechanismFailure as failure:
            outcome.findings = (_failure_finding(Stage.REPLAY, failure, f"in the replay of the {label} history"),)
        finally:
            await process.close()
        return outcome

    @staticmethod
    def _effect(report: GateReport, allow_inert: bool) -> GateReport:
        statistics = (report.recorded, report.synthetic)
        passed = replace(report, stage=Stage.EFFECT)
        if any(s.changed or s.prompted for s in statistics):
            if report.recorded.trials and not report.recorded.changed and not report.recorded.prompted:
                trials = report.recorded.trials
                message = f"it would have changed none of the {trials} recorded decisions, only synthetic ones"
                return replace(
                    passed, findings=(Finding(Stage.EFFECT, None, message, "it may need a longer history to act"),)
                )
            return passed
        asked = sum(s.calls for s in statistics)
        trials = sum(s.trials for s in statistics)
        message = f"inert: {asked} calls on {trials} trials, no decision changed and no prompt text"
        if allow_inert:
            return replace(passed, findings=(Finding(Stage.EFFECT, None, message, "accepted as a control"),))
        hint = "make a hook return something other than None under conditions that occur"
        return replace(passed, verdict=Verdict.REJECTED, findings=(Finding(Stage.EFFECT, None, message, hint),))

    def _rejected(self, *findings: Finding) -> GateReport:
        return GateReport(Verdict.REJECTED, findings[0].stage, findings, self._sha256())

    def _sha256(self) -> str:
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Outcome:
    findings: tuple[Finding, ...] = ()
    statistics: ReplayStatistics = field(default_factory=ReplayStatistics)
    output_hash: str = ""
    process: MechanismProcess | None = None

    def described(self, sha256: str) -> GateReport:
        if self.process is None:
            return GateReport(Verdict.ACCEPTED, Stage.SIZE, (), sha256)
        return _described(self.process, sha256)


def _described(process: MechanismProcess, sha256: str) -> GateReport:
    p = process
    return GateReport(Verdict.ACCEPTED, Stage.CONFORMANCE, (), sha256, p.title, p.summary, p.hooks, layers=p.layers)


def _failure_finding(stage: Stage, failure: MechanismFailure, moment: str) -> Finding:
    kind = failure.kind.value.replace("_", " ")
    return Finding(stage, failure.line, f"{failure.hook.value} {kind} {moment}: {failure.message}")


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
