"""State is what the log says: a run, its trials and its mechanisms as the fold of their trace.

:func:`apply` is a pure function of the state so far and the next event. It is also the state machine: an event that
cannot happen in a state raises :class:`IllegalEvent`, so that no transaction can commit it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import singledispatch

from inner_service import trace
from inner_service.amendments import (
    IllegalEvent,
    busy,
    clocked,
    flight_of,
    need,
    need_active,
    restart_clock,
    trial_of,
    with_effect,
    with_flight,
    with_mechanism,
    with_spent,
    with_trial,
    without_flight,
)
from inner_service.early_stopping import Curve, EarlyStoppingEffect
from inner_service.mechanism import HookEffect, MechanismState
from inner_service.run import Flight, Remeasurement, Run, RunState, Search, TrialState
from inner_service.trace_codec import kind_of
from mechanisms.interface import Origin
from mechanisms.sandbox.failures import FailureKind

RUN_TRANSITIONS: dict[RunState, tuple[RunState, ...]] = {
    RunState.CREATED: (RunState.RUNNING, RunState.CANCELLED),
    RunState.RUNNING: (
        RunState.PAUSED,
        RunState.CONFIRMING,
        RunState.FINISHED,
        RunState.CANCELLED,
        RunState.FAILED,
    ),
    RunState.PAUSED: (RunState.RUNNING, RunState.CANCELLED),
    RunState.CONFIRMING: (RunState.PAUSED, RunState.FINISHED, RunState.CANCELLED, RunState.FAILED),
    RunState.FINISHED: (),
    RunState.CANCELLED: (),
    RunState.FAILED: (),
}
"""Where a run can go from each state."""


def apply(search: Search | None, event: trace.Event, at: datetime, sequence: int, run_id: str) -> Search:
    """The state after ``event``, which was committed ``at`` with number ``sequence`` in the trace of ``run_id``."""
    if search is None:
        if not isinstance(event, trace.RunCreated):
            raise IllegalEvent(f"a trace begins with run_created, not {kind_of(event)}")
        return Search(Run(run_id, event.spec, event.task, at, at, sequence, owner=event.owner))
    if sequence != search.run.last_sequence + 1:
        raise IllegalEvent(f"event {sequence} follows event {search.run.last_sequence}")
    after = _on(event, search, at)
    return replace(after, run=replace(after.run, last_sequence=sequence))


def fold(run_id: str, events: Iterable[tuple[trace.Event, datetime, int]]) -> Search:
    """The state after all ``events``: event, time of commit and number of each."""
    search: Search | None = None
    for event, at, sequence in events:
        search = apply(search, event, at, sequence, run_id)
    if search is None:
        raise IllegalEvent("an empty trace has no state")
    return search


@singledispatch
def _on(event: object, search: Search, at: datetime) -> Search:
    """What ``event`` changes; kinds without a function of their own are remarks that change nothing."""
    return search


@_on.register
def _(event: trace.RunCreated, search: Search, at: datetime) -> Search:
    raise IllegalEvent("a run is created once")


@_on.register
def _(event: trace.RunStateChanged, search: Search, at: datetime) -> Search:
    run = search.run
    if event.from_state is not run.state or event.to_state not in RUN_TRANSITIONS[run.state]:
        raise IllegalEvent(f"a {run.state.value} run does not go from {event.from_state} to {event.to_state}")
    if event.to_state.terminal and search.open_trials:
        raise IllegalEvent(f"trial {search.open_trials[0].number} is still open")
    run = replace(clocked(search, at), state=event.to_state, state_reason=event.reason, update_time=at)
    run = replace(run, pause_request="")
    if event.to_state is RunState.RUNNING:
        run = replace(run, start_time=run.start_time or at, failed_proposals=0)
    return restart_clock(replace(search, run=run), at)


@_on.register
def _(event: trace.TrialProposed, search: Search, at: datetime) -> Search:
    trial = event.trial
    need(not search.run.state.terminal, "a trial is proposed while the run lives")
    need(trial.number == len(search.trials), f"the next trial is number {len(search.trials)}, not {trial.number}")
    need(trial.state is TrialState.PROPOSED, "a new trial is proposed")
    trials = (*search.trials, replace(trial, create_time=at))
    return replace(search, trials=trials, open=(*search.open, trial.number))


@_on.register
def _(event: trace.TrialRejected, search: Search, at: datetime) -> Search:
    trial_of(search, event.number, TrialState.PROPOSED)
    return with_trial(search, event.number, state=TrialState.REJECTED, message=event.reason, decide_time=at)


@_on.register
def _(event: trace.TrialStarted, search: Search, at: datetime) -> Search:
    trial = trial_of(search, event.number, TrialState.PROPOSED, TrialState.RUNNING)
    need(not search.run.state.terminal, "a trial is evaluated while the run lives")
    need(event.attempt == trial.attempt + 1, f"attempt {event.attempt} follows attempt {trial.attempt}")
    # An attempt that was interrupted took time as well.
    spent = search.run.evaluation_time + flight_of(search, event.number).elapsed
    search = replace(search, run=replace(clocked(search, at), failed_proposals=0, evaluation_time=spent))
    curved = search.run.spec.early_stopping is not None and event.budget_fraction == 1.0
    search = with_flight(search, Flight(event.number, curve=Curve(event.number) if curved else None))
    if event.attempt == 1 and trial.origin is Origin.MECHANISM:
        search = with_effect(search, trial.proposer, proposed=1)
    return with_trial(
        search,
        event.number,
        state=TrialState.RUNNING,
        attempt=event.attempt,
        budget_fraction=event.budget_fraction,
        start_time=at,
    )


@_on.register
def _(event: trace.TrialProgressed, search: Search, at: datetime) -> Search:
    trial_of(search, event.number, TrialState.RUNNING)
    flight, progress = flight_of(search, event.number), event.progress
    value = progress.metrics.get(search.run.task.intermediate_metric)
    curve = flight.curve.extended(progress.fraction, value) if flight.curve and value is not None else flight.curve
    return with_flight(search, replace(flight, elapsed=progress.elapsed, curve=curve))


@_on.register
def _(event: trace.EarlyStopJudged, search: Search, at: datetime) -> Search:
    trial_of(search, event.number, TrialState.RUNNING)
    effect = search.run.early_stopping or EarlyStoppingEffect()
    if event.stopped:
        effect = replace(effect, stopped=effect.stopped + 1)
    else:
        effect = replace(effect, audited=effect.audited + 1)
        search = with_trial(search, event.number, audited=True)
    return replace(search, run=replace(search.run, early_stopping=effect))


@_on.register
def _(event: trace.TrialEvaluated, search: Search, at: datetime) -> Search:
    trial = trial_of(search, event.number, TrialState.RUNNING)
    result, flight = event.result, flight_of(search, event.number)
    search = with_spent(search, max(result.elapsed, flight.elapsed), full=trial.budget_fraction == 1.0)
    search = without_flight(search, event.number)
    search = with_trial(
        search,
        event.number,
        state=TrialState.EVALUATED,
        outcome=result.outcome,
        metric=result.metric,
        side_metrics=dict(result.side_metrics),
        message=result.message,
        elapsed=result.elapsed,
        curve=flight.curve.points if flight.curve is not None and result.metric is not None else (),
    )
    return restart_clock(search, at)


@_on.register
def _(event: trace.TrialDecided, search: Search, at: datetime) -> Search:
    trial = trial_of(search, event.number, TrialState.EVALUATED)
    need(not event.kept or trial.metric is not None, "only a measured trial is kept")
    need(not event.new_best or trial.measured, "the best is measured at full budget")
    run = search.run
    if trial.origin is not Origin.BASELINE:
        run = replace(run, decided_trials=run.decided_trials + 1)
    elif event.kept and run.baseline_metric is None:
        run = replace(run, baseline_metric=trial.metric)
    if event.kept:
        run = replace(run, incumbent=trial.number, incumbent_metric=trial.metric, update_time=at)
    if event.new_best:
        run = replace(run, best=trial.number, best_metric=trial.metric, update_time=at)
    if trial.audited and run.early_stopping is not None and event.gain is not None:
        effect = run.early_stopping
        effect = replace(effect, measured=effect.measured + 1, errors=effect.errors + (event.gain > 0))
        run = replace(run, early_stopping=effect)
    search = replace(search, run=run)
    for name in {trial.proposer, *trial.changed_by} - {""} if event.kept else ():
        search = with_effect(search, name, kept=1)
    state = TrialState.KEPT if event.kept else TrialState.DISCARDED
    said = f"{event.reason}: {trial.message}" if trial.message else event.reason
    search = replace(search, decisions=(*search.decisions, trial.number))
    return with_trial(search, trial.number, state=state, message=said, decide_time=at)


@_on.register
def _(event: trace.ProposalFailed, search: Search, at: datetime) -> Search:
    return replace(search, run=replace(search.run, failed_proposals=event.consecutive))


@_on.register
def _(event: trace.SearchConfigUpdated, search: Search, at: datetime) -> Search:
    before, after = search.run.search_config, event.search_config
    need(after.revision == before.revision + 1, f"revision {after.revision} follows {before.revision}")
    return replace(search, run=replace(search.run, search_config=after, update_time=at))


@_on.register
def _(event: trace.MechanismInstalled, search: Search, at: datetime) -> Search:
    need(search.mechanism(event.mechanism.name) is None, f"there is a mechanism {event.mechanism.name!r} already")
    return replace(search, mechanisms=(*search.mechanisms, replace(event.mechanism, install_time=at)))


@_on.register
def _(event: trace.MechanismSuspended, search: Search, at: datetime) -> Search:
    need_active(search, event.mechanism)
    where = f" (line {event.line})" if event.line else ""
    if event.kind in (FailureKind.OBSTRUCTED.value, FailureKind.CONFLICTED.value):
        # What stood in the way is gone: the search gets as many attempts as at first.
        search = replace(search, run=replace(search.run, failed_proposals=0))
    reason = f"{event.hook.value} {event.kind.replace('_', ' ')} at trial {event.trial}: {event.message}{where}"
    return with_mechanism(search, event.mechanism, state=MechanismState.SUSPENDED, state_reason=reason)


@_on.register
def _(event: trace.MechanismUninstalled, search: Search, at: datetime) -> Search:
    found = search.mechanism(event.mechanism)
    gone = found is None or found.state is MechanismState.UNINSTALLED
    need(not gone, f"there is no installed mechanism {event.mechanism!r}")
    return with_mechanism(search, event.mechanism, state=MechanismState.UNINSTALLED, state_reason=event.reason)


@_on.register
def _(event: trace.DecisionChanged, search: Search, at: datetime) -> Search:
    trial = trial_of(search, event.trial)
    changed_by = tuple(dict.fromkeys((*trial.changed_by, event.mechanism)))
    search = with_trial(search, event.trial, changed_by=changed_by)
    return with_effect(search, event.mechanism, effects=(HookEffect(event.hook, changed=1),))


@_on.register
def _(event: trace.HooksCounted, search: Search, at: datetime) -> Search:
    for counts in event.mechanisms:
        # What changed was counted by its own event already.
        effects = tuple(replace(effect, changed=0) for effect in counts.hooks)
        search = with_effect(search, counts.mechanism, effects=effects)
        digest = {"observed": counts.observed, "state_hash": counts.state_hash}
        search = with_mechanism(search, counts.mechanism, **digest)
    return search


@_on.register
def _(event: trace.ModelCalled, search: Search, at: datetime) -> Search:
    run = replace(search.run, usage=search.run.usage + event.usage)
    if not event.error:
        run = replace(run, model=event.model, scripted=run.scripted or event.scripted)
    return replace(search, run=run)


@_on.register
def _(event: trace.CheckpointReached, search: Search, at: datetime) -> Search:
    return replace(search, run=replace(search.run, checkpoint=event.decided_trials))


@_on.register
def _(event: trace.LessonsShown, search: Search, at: datetime) -> Search:
    trial_of(search, event.trial)
    return with_trial(search, event.trial, lessons=event.lessons)


@_on.register
def _(event: trace.LessonsCited, search: Search, at: datetime) -> Search:
    trial = trial_of(search, event.trial)
    need(set(event.lessons) <= set(trial.lessons), "only lessons that were in view are cited")
    return with_trial(search, event.trial, cited_lessons=event.lessons)


@_on.register
def _(event: trace.LessonsCompared, search: Search, at: datetime) -> Search:
    trial_of(search, event.trial)
    return search


@_on.register
def _(event: trace.LessonsWritten, search: Search, at: datetime) -> Search:
    need(event.decided_trials == search.run.decided_trials, "lessons are drawn from the trials decided so far")
    return replace(search, run=replace(search.run, lessons_after=event.decided_trials, update_time=at))


@_on.register
def _(event: trace.RunConfirmed, search: Search, at: datetime) -> Search:
    need(search.run.state is RunState.CONFIRMING, "a run is confirmed while it is confirming")
    return replace(search, run=replace(search.run, confirmation=event.confirmation, update_time=at))


@_on.register
def _(event: trace.PauseRequested, search: Search, at: datetime) -> Search:
    if search.run.at_checkpoint:  # whoever works at the checkpoint is not to resume it
        return replace(search, run=replace(search.run, state_reason=event.reason, update_time=at))
    need(search.run.state is RunState.RUNNING, "a run is asked to pause while it is running or at a checkpoint")
    return replace(search, run=replace(search.run, pause_request=event.reason, update_time=at))


@_on.register
def _(event: trace.TrialRemeasured, search: Search, at: datetime) -> Search:
    trial, result = trial_of(search, event.number), event.result
    need(not search.run.state.terminal, "a trial is measured again while the run lives")
    again = Remeasurement(event.purpose, event.seed, event.split, result.outcome, result.metric, result.message)
    search = with_trial(search, event.number, remeasured=(*trial.remeasured, again))
    search = with_spent(search, result.elapsed, full=True)
    return replace(search, run=busy(search, at, result.elapsed))


@_on.register
def _(event: trace.NoiseEstimated, search: Search, at: datetime) -> Search:
    need(search.run.noise_floor is None, "the noise floor is estimated once")
    return replace(search, run=replace(search.run, noise_floor=event.floor, update_time=at))
