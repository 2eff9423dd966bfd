"""What an operator sees of a run: for every commit the lines of the log, the numbers and the end of a trial's trace.

The trace has everything; the log has what one follows a trial or a run by, each line with its name.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from inner_service import trace
from inner_service.run import Search, Trial
from inner_service.trace_codec import kind_of
from service_kit.telemetry import metrics, tracing

log = structlog.get_logger("inner_service.chronicle")


def tell(after: Search, events: Sequence[trace.Event]) -> None:
    """Say what was committed; ``after`` is the state with it."""
    for event in events:
        _tell(after, event)


def _tell(after: Search, event: trace.Event) -> None:
    run = after.run.name

    def trial(number: int) -> str:
        return f"{run}/trials/{number}"

    match event:
        case trace.RunStateChanged():
            log.info("run changed", run=run, state=event.to_state.value, reason=event.reason)
        case trace.TrialProposed():
            log.info("trial proposed", run=run, trial=trial(event.trial.number), origin=event.trial.origin.value)
        case trace.TrialRejected():
            log.info("trial rejected", run=run, trial=trial(event.number), reason=event.reason)
            _ended(after, after.trials[event.number], "rejected")
        case trace.TrialStarted():
            log.info("trial started", run=run, trial=trial(event.number), attempt=event.attempt)
        case trace.TrialEvaluated():
            outcome, seconds = event.result.outcome.value, event.result.elapsed.total_seconds()
            log.info("trial evaluated", run=run, trial=trial(event.number), outcome=outcome, seconds=seconds)
            metrics.TRIALS.add(outcome=outcome)
            metrics.TRIAL_SECONDS.observe(seconds, outcome=outcome)
        case trace.TrialDecided():
            log.info("trial decided", run=run, trial=trial(event.number), kept=event.kept)
            _ended(after, after.trials[event.number], "kept" if event.kept else "discarded")
        case trace.MechanismInstalled():
            log.info("mechanism installed", run=run, mechanism=event.mechanism.name)
        case trace.MechanismUninstalled():
            log.info("mechanism uninstalled", run=run, mechanism=event.mechanism, reason=event.reason)
        case _:
            log.debug("event", run=run, kind=kind_of(event))


def _ended(after: Search, trial: Trial, decision: str) -> None:
    metrics.DECISIONS.add(decision=decision)
    outcome = {"bilevel.outcome": trial.outcome.value} if trial.outcome is not None else {}
    tracing.trial_ended(
        f"{after.run.name}/trials/{trial.number}",
        trial.create_time,
        trial.decide_time or after.run.update_time,
        {"bilevel.run": after.run.name, "bilevel.decision": decision, **outcome},
    )
