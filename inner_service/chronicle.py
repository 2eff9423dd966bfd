"""What an operator sees of a run: for every commit, the lines of the log that tell what happened.

The trace has everything; the log has what one follows a trial or a run by, each line with its name.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from inner_service import trace

log = structlog.get_logger("inner_service.chronicle")


def tell(run_id: str, events: Sequence[trace.Event]) -> None:
    """Say what was committed."""
    for event in events:
        _tell(f"runs/{run_id}", event)


def _tell(run: str, event: trace.Event) -> None:
    def trial(number: int) -> str:
        return f"{run}/trials/{number}"

    match event:
        case trace.RunStateChanged():
            log.info("run changed", run=run, state=event.to_state.value, reason=event.reason)
        case trace.TrialProposed():
            log.info("trial proposed", run=run, trial=trial(event.trial.number), origin=event.trial.origin.value)
        case trace.TrialRejected():
            log.info("trial rejected", run=run, trial=trial(event.number), reason=event.reason)
        case trace.TrialStarted():
            log.info("trial started", run=run, trial=trial(event.number), attempt=event.attempt)
        case trace.TrialEvaluated():
            outcome, seconds = event.result.outcome.value, event.result.elapsed.total_seconds()
            log.info("trial evaluated", run=run, trial=trial(event.number), outcome=outcome, seconds=seconds)
        case trace.TrialDecided():
            log.info("trial decided", run=run, trial=trial(event.number), kept=event.kept)
        case trace.MechanismInstalled():
            log.info("mechanism installed", run=run, mechanism=event.mechanism.name)
        case trace.MechanismUninstalled():
            log.info("mechanism uninstalled", run=run, mechanism=event.mechanism, reason=event.reason)
        case _:
            log.debug("event", run=run, kind=trace.kind_of(event))
