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
from typing import Any

from mechanisms.findings import Finding, Stage, size_finding
from mechanisms.interface import TrialRecord
from mechanisms.replay import ReplayStatistics, rebuild, replay
from mechanisms.report import GateReport, Verdict
from mechanisms.sandbox.failures import MechanismFailure, MechanismRejected
from mechanisms.sandbox.host import MechanismProcess
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Objective, ParameterSpace

__all__ = ["GateReport", "Verdict", "check"]

SYNTHETIC_TRIALS = 80
"""The synthetic history is at least this long, and longer than the recorded one up to MAX_SYNTHETIC_TRIALS."""
MAX_SYNTHETIC_TRIALS = 240


async def check(
    source: str,
    *,
    space: ParameterSpace,
    objective: Objective,
    history: Sequence[TrialRecord],
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    synthetic_seed: int = 0,
    allow_inert: bool = False,
    language_only: bool = False,
    limits: SandboxLimits | None = None,
    policy: SandboxPolicy | None = None,
) -> GateReport:
    """Judge ``source`` on ``history``, the decided trials of a run so far, the baseline first; it may be empty.

    ``seed`` is the mechanism's own, ``synthetic_seed`` that of the made-up history: with the same one, a verdict does
    not depend on what the mechanism will be called. ``allow_inert`` accepts a mechanism that changes nothing (the no-op
    control). ``language_only`` stops after the language and conformance of the source. Raises SandboxUnavailable when
    this machine cannot run mechanisms.
    """
    check_ = _Check(
        source,
        space,
        objective,
        dict(settings or {}),
        seed,
        synthetic_seed,
        limits or SandboxLimits(),
        policy or SandboxPolicy(),
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
    synthetic_seed: int
    limits: SandboxLimits
    policy: SandboxPolicy

    def size(self) -> GateReport | None:
        """A rejection when the source is no text of acceptable length; judged without parsing."""
        found = size_finding(self.source, self.limits.source_bytes, "write one class Mechanism with at least one hook")
        return None if found is None else self._rejected(found)

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
            synthetic = synthetic_history(self.space, self.objective, length, self.synthetic_seed)
            report = await self._replayed(synthetic, "synthetic", report)
            if report.accepted:
                report = await self._rebuilt(synthetic, report)
        return self._effect(report, allow_inert) if report.accepted else report

    async def _replayed(self, history: tuple[TrialRecord, ...], label: str, before: GateReport | None) -> GateReport:
        """Replay ``history`` in two workers at the same time and compare what they answered."""
        try:
            process = await self._start()
        except MechanismRejected as rejected:
            return self._rejected(*rejected.findings)
        except MechanismFailure as failure:
            return self._rejected(_failure_finding(Stage.CONFORMANCE, failure, "when it was constructed"))
        base = before or _described(process, self._sha256())
        outcomes = await asyncio.gather(
            self._walk(process, history, label), self._again(history, label), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        first, second = (outcome for outcome in outcomes if isinstance(outcome, _Outcome))
        for outcome in (first, second):
            if outcome.findings:
                return replace(
                    base, verdict=Verdict.REJECTED, stage=outcome.findings[0].stage, findings=outcome.findings
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
            return replace(base, stage=Stage.REPLAY, recorded=first.statistics, recorded_hash=first.state_hash)
        return replace(base, stage=Stage.REPLAY, synthetic=first.statistics, state_hash=first.state_hash)

    async def _rebuilt(self, history: tuple[TrialRecord, ...], report: GateReport) -> GateReport:
        """Remark when observations alone do not bring back the state that the replay left behind."""
        try:
            async with await self._start() as process:
                rebuilt = await rebuild(process, history)
        except MechanismFailure as failure:
            finding = _failure_finding(Stage.REPLAY, failure, "when its state was rebuilt from observations")
            return replace(report, verdict=Verdict.REJECTED, findings=(finding,))
        if rebuilt == report.state_hash:
            return report
        message = (
            "hooks other than observe change its state; after a restart the state is rebuilt from observations alone"
        )
        return replace(
            report, findings=(Finding(Stage.REPLAY, None, message, "change attributes of self in observe only"),)
        )

    async def _start(self) -> MechanismProcess:
        arguments = (self.source, self.space, self.objective, self.settings, self.seed)
        return await MechanismProcess.start(*arguments, name="candidate", limits=self.limits, policy=self.policy)

    async def _again(self, history: tuple[TrialRecord, ...], label: str) -> _Outcome:
        try:
            return await self._walk(await self._start(), history, label)
        except (MechanismRejected, MechanismFailure) as error:
            # The same source compiled and constructed a moment ago.
            message = f"a second worker did not start like the first: {error}"
            return _Outcome((Finding(Stage.REPLAY, None, message, "answers may not depend on chance"),))

    async def _walk(self, process: MechanismProcess, history: tuple[TrialRecord, ...], label: str) -> _Outcome:
        outcome = _Outcome()
        async with process:
            try:
                outcome.statistics = await replay(process, history, self.space, self.objective)
                outcome.output_hash, outcome.state_hash = process.output_hash, process.state_hash
            except MechanismFailure as failure:
                outcome.findings = (_failure_finding(Stage.REPLAY, failure, f"in the replay of the {label} history"),)
        return outcome

    @staticmethod
    def _effect(report: GateReport, allow_inert: bool) -> GateReport:
        statistics = (report.recorded, report.synthetic)
        passed = replace(report, stage=Stage.EFFECT)
        if any(s.changed or s.prompted for s in statistics):
            if report.recorded.trials and not report.recorded.changed and not report.recorded.prompted:
                trials = report.recorded.trials
                message = f"it would have changed none of the {trials} recorded decisions, only synthetic ones"
                remark = Finding(Stage.EFFECT, None, message, "it may need a longer history to act")
                return replace(passed, findings=(*passed.findings, remark))
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
    state_hash: str = ""


def _described(process: MechanismProcess, sha256: str) -> GateReport:
    p = process
    return GateReport(Verdict.ACCEPTED, Stage.CONFORMANCE, (), sha256, p.title, p.summary, p.hooks, layers=p.layers)


def _failure_finding(stage: Stage, failure: MechanismFailure, moment: str) -> Finding:
    kind = failure.kind.value.replace("_", " ")
    return Finding(stage, failure.line, f"{failure.hook.value} {kind} {moment}: {failure.message}")
