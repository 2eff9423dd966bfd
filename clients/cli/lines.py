"""A search in plain lines, for logs and pipes: one for each decided trial and for each act of the outer loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients import wording
from clients.history import short
from clients.searching import Search

_QUIET = {"", "waits for the next checkpoint", "waiting for the first checkpoint"}


class LineView:
    """Writes lines about any number of searches; with more than one, each line begins with the search's title."""

    def __init__(self, write: Callable[[str], None], *, several: bool = False) -> None:
        self._write, self._several = write, several
        self._activity: dict[str, str] = {}

    def __call__(self, search: Search, event: trace_pb2.TraceEvent | outer_pb2.CampaignEvent) -> None:
        """Take note of an event that the search has taken already."""
        if isinstance(event, trace_pb2.TraceEvent):
            kind = event.WhichOneof("event") or ""
            line = _LINES[kind](search, getattr(event, kind)) if kind in _LINES else ""
        else:
            line = self._outer_line(search)
        if line:
            prefix = f"{search.title}: " if self._several else ""
            self._write(prefix + line)

    def _outer_line(self, search: Search) -> str:
        activity = search.outer.activity
        if activity in _QUIET or self._activity.get(search.run) == activity:
            return ""
        self._activity[search.run] = activity
        return f"outer loop: {activity}"


def decided_line(search: Search, number: int) -> str:
    """What became of a trial, in one line."""
    trace = search.trace
    trial = trace.trials[number]
    base = trace.trials.get(trace.bases.get(number, -1))
    what = ", ".join(wording.changes(trial, base)) or "baseline"
    by = f" [{', '.join(trial.changed_by)}]" if trial.changed_by else ""
    left = f"{number:>3}/{trace.spec.max_trials}  {wording.status(trial):<11}"
    measured = wording.metric(trial.metric if trial.HasField("metric") else None)
    return f"{left} {measured:>9}  best {wording.metric(trace.best_metric)}  {what}{by}"


def _decided(search: Search, what: trace_pb2.TrialDecided) -> str:
    return decided_line(search, what.number)


def _rejected(search: Search, what: trace_pb2.TrialRejected) -> str:
    by = f" by {what.mechanism}" if what.mechanism else ""
    return f"{what.number:>3}/{search.trace.spec.max_trials}  refused{by}: {what.reason}"


def _state(search: Search, what: trace_pb2.RunStateChanged) -> str:
    if search.trace.at_checkpoint or what.from_state == trace_pb2.RUN_STATE_PAUSED:
        return ""
    reason = f": {what.reason}" if what.reason else ""
    return f"run {wording.run_state(what.to_state)}{reason}"


def _installed(search: Search, what: trace_pb2.MechanismInstalled) -> str:
    return f"mechanism {short(what.mechanism.name)} installed: {what.mechanism.summary}"


def _suspended(search: Search, what: trace_pb2.MechanismSuspended) -> str:
    return f"mechanism {short(what.mechanism)} suspended: {wording.hook(what.hook)} {what.kind}: {what.message}"


def _confirmed(search: Search, what: trace_pb2.RunConfirmed) -> str:
    return f"confirmed gain {wording.interval(what.confirmation)} on {len(what.confirmation.seeds)} fresh seeds"


_LINES: dict[str, Callable[[Search, Any], str]] = {
    "trial_decided": _decided,
    "trial_rejected": _rejected,
    "run_state_changed": _state,
    "mechanism_installed": _installed,
    "mechanism_suspended": _suspended,
    "run_confirmed": _confirmed,
    "proposal_failed": lambda search, what: f"no proposal: {what.reason}",
    "remarked": lambda search, what: f"{what.author}: {what.text}",
}
