"""A search in plain lines, for logs and pipes: one for each decided trial and for each act of the outer loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients import wording
from clients.history import short
from clients.searching import Search


class LineView:
    """Writes lines about any number of searches; with more than one, each line begins with the search's title."""

    def __init__(self, write: Callable[[str], None], *, several: bool = False) -> None:
        self._write, self._several = write, several

    def __call__(self, search: Search, event: trace_pb2.TraceEvent | outer_pb2.CampaignEvent) -> None:
        """Take note of an event that the search has taken already."""
        if isinstance(event, trace_pb2.TraceEvent):
            kind = event.WhichOneof("event") or ""
            line = _LINES[kind](search, getattr(event, kind)) if kind in _LINES else ""
        else:
            line = _outer_line(event)
        if line:
            prefix = f"{search.title}: " if self._several else ""
            self._write(prefix + line)


_EXPECTED = {outer_pb2.CAMPAIGN_STATE_ACTIVE, outer_pb2.CAMPAIGN_STATE_FINISHED}


def _outer_line(event: outer_pb2.CampaignEvent) -> str:
    """What the outer loop's own remarks on the trace leave out."""
    match event.WhichOneof("event"):
        case "mechanism_judged" if event.mechanism_judged.report.verdict == trace_pb2.GATE_VERDICT_REJECTED:
            judged = event.mechanism_judged
            findings = "; ".join(finding.message for finding in judged.report.findings)
            return f"outer loop: the gate rejected attempt {judged.attempt}: {findings}"
        case "campaign_state_changed" if event.campaign_state_changed.to_state not in _EXPECTED:
            changed = event.campaign_state_changed
            state = wording.member(outer_pb2.CampaignState.Name(changed.to_state), "CAMPAIGN_STATE_")
            return f"outer loop {state}: {changed.reason}"
        case "availability_changed":
            return f"outer loop: {wording.availability(event.availability_changed)}"
        case "cycle_finished" if event.cycle_finished.error:
            return f"outer loop: cycle {event.cycle_finished.cycle} failed: {event.cycle_finished.error}"
    return ""


def decided_line(search: Search, number: int) -> str:
    """What became of a trial, in one line."""
    trace = search.trace
    trial = trace.trials[number]
    base = trace.trials.get(trace.bases.get(number, -1))
    what = ", ".join(wording.changes(trial, base)) or "baseline"
    by = f" [{', '.join(trial.changed_by)}]" if trial.changed_by else ""
    why = f": {complaint}" if (complaint := trace.complaints.get(number)) else ""
    left = f"{trace.decided:>3}/{trace.spec.max_trials}  {wording.status(trial):<11}"
    measured = wording.metric(trial.metric if trial.HasField("metric") else None)
    return f"{left} {measured:>9}  best {wording.metric(trace.best_metric)}  {what}{by}{why}"


def _decided(search: Search, what: trace_pb2.TrialDecided) -> str:
    return decided_line(search, what.number)


def _rejected(search: Search, what: trace_pb2.TrialRejected) -> str:
    by = f" by {what.mechanism}" if what.mechanism else ""
    return f"        refused{by}: {what.reason}"


def _state(search: Search, what: trace_pb2.RunStateChanged) -> str:
    if search.trace.at_checkpoint or what.from_state == trace_pb2.RUN_STATE_PAUSED:
        return ""
    reason = f": {what.reason}" if what.reason else ""
    return f"run {wording.run_state(what.to_state)}{reason}"


def _pausing(search: Search, what: trace_pb2.PauseRequested) -> str:
    return f"asked to pause: {what.reason}. `bilevel resume {short(search.run)}` goes on"


def _installed(search: Search, what: trace_pb2.MechanismInstalled) -> str:
    return f"mechanism {short(what.mechanism.name)} installed: {what.mechanism.summary}"


def _suspended(search: Search, what: trace_pb2.MechanismSuspended) -> str:
    return f"mechanism {short(what.mechanism)} suspended: {wording.hook(what.hook)} {what.kind}: {what.message}"


def _confirmed(search: Search, what: trace_pb2.RunConfirmed) -> str:
    return f"confirmed gain {wording.interval(what.confirmation)} on {len(what.confirmation.seeds)} fresh seeds"


def _judged(search: Search, what: trace_pb2.EarlyStopJudged) -> str:
    done = "stopped early" if what.stopped else "would be stopped early, runs on to check the rule"
    return f"trial {what.number} {done} at {what.fraction:.0%} of the budget"


def _noise(search: Search, what: trace_pb2.NoiseEstimated) -> str:
    deviation, small = wording.metric(what.floor.standard_deviation), wording.metric(what.floor.small_gain)
    return f"noise {deviation}; gains below {small} are checked on a second seed"


def _gain(search: Search, what: trace_pb2.GainChecked) -> str:
    second = wording.signed(what.second_gain) if what.HasField("second_gain") else "not measured"
    held = "holds" if what.held else "does not hold"
    return f"trial {what.number}: small gain {wording.signed(what.first_gain)} {held} on a second seed: {second}"


def _remeasured(search: Search, what: trace_pb2.TrialRemeasured) -> str:
    why = wording.member(trace_pb2.RemeasurePurpose.Name(what.purpose), "REMEASURE_PURPOSE_")
    result = what.result
    said = wording.metric(result.metric) if result.HasField("metric") else wording.outcome(result.outcome)
    return f"{why}: trial {what.number} on seed {what.seed}: {said}"


_LINES: dict[str, Callable[[Search, Any], str]] = {
    "trial_decided": _decided,
    "trial_rejected": _rejected,
    "run_state_changed": _state,
    "pause_requested": _pausing,
    "mechanism_installed": _installed,
    "mechanism_suspended": _suspended,
    "mechanisms_conflicted": lambda search, what: (
        f"mechanisms {' and '.join(map(short, what.mechanisms))} conflict: {what.evidence}"
    ),
    "run_confirmed": _confirmed,
    "early_stop_judged": _judged,
    "noise_estimated": _noise,
    "gain_checked": _gain,
    "trial_remeasured": _remeasured,
    "availability_changed": lambda search, what: wording.availability(what),
    "proposal_failed": lambda search, what: f"no proposal: {what.reason}",
    "task_misbehaved": lambda search, what: (
        f"task broke its contract in trial {what.number}: {what.message}. {what.hint}"
    ),
    "task_changed": lambda search, what: f"task describes itself differently: {'; '.join(what.differences)}",
    "remarked": lambda search, what: f"{what.author}: {what.text}",
}
