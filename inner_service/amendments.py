"""The state of a run with one thing changed: what the fold is made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from inner_service.mechanism import HookEffect, Mechanism, MechanismEffect, MechanismState
from inner_service.run import Flight, Run, RunState, Search, Trial, TrialState
from mechanisms.interface import Hook


class IllegalEvent(Exception):
    """The event cannot happen in this state. Reaching it is a bug: callers check what a client asks for."""


def need(condition: bool, rule: str) -> None:
    if not condition:
        raise IllegalEvent(rule)


def trial_of(search: Search, number: int, *states: TrialState) -> Trial:
    need(0 <= number < len(search.trials), f"there is no trial {number}")
    trial = search.trials[number]
    wanted = " or ".join(state.value for state in states)
    need(not states or trial.state in states, f"trial {number} is {trial.state.value}, must be {wanted}")
    return trial


def need_active(search: Search, name: str) -> Mechanism:
    found = search.mechanism(name)
    if found is None or found.state is not MechanismState.ACTIVE:
        raise IllegalEvent(f"there is no active mechanism {name!r}")
    return found


def with_trial(search: Search, number: int, **changes: object) -> Search:
    trial = replace(search.trials[number], **changes)  # type: ignore[arg-type]
    trials = (*search.trials[:number], trial, *search.trials[number + 1 :])
    still_open = search.open if trial.state.open else tuple(n for n in search.open if n != number)
    return replace(search, trials=trials, open=still_open)


def flight_of(search: Search, number: int) -> Flight:
    return next((flight for flight in search.run.flights if flight.number == number), Flight(number))


def with_flight(search: Search, flight: Flight) -> Search:
    search = without_flight(search, flight.number)
    return replace(search, run=replace(search.run, flights=(*search.run.flights, flight)))


def without_flight(search: Search, number: int) -> Search:
    flights = tuple(flight for flight in search.run.flights if flight.number != number)
    return replace(search, run=replace(search.run, flights=flights))


def with_spent(search: Search, elapsed: timedelta, *, full: bool) -> Search:
    """Count an evaluation's time, of the ``full`` budget or of a part of it."""
    run = search.run
    longest = max(run.longest_evaluation, elapsed) if full else run.longest_evaluation
    return replace(search, run=replace(run, evaluation_time=run.evaluation_time + elapsed, longest_evaluation=longest))


def with_mechanism(search: Search, name: str, **changes: object) -> Search:
    mechanisms = tuple(replace(m, **changes) if m.name == name else m for m in search.mechanisms)  # type: ignore[arg-type]
    return replace(search, mechanisms=mechanisms)


def with_effect(
    search: Search, name: str, effects: tuple[HookEffect, ...] = (), proposed: int = 0, kept: int = 0
) -> Search:
    found = search.mechanism(name)
    if found is None:
        raise IllegalEvent(f"there is no mechanism {name!r}")
    by_hook = {effect.hook: effect for effect in found.effect.hooks}
    for new in effects:
        old = by_hook.get(new.hook, HookEffect(new.hook))
        by_hook[new.hook] = HookEffect(new.hook, old.calls + new.calls, old.changed + new.changed, old.time + new.time)
    effect = MechanismEffect(
        hooks=tuple(by_hook[hook] for hook in Hook if hook in by_hook),
        proposed_trials=found.effect.proposed_trials + proposed,
        kept_trials=found.effect.kept_trials + kept,
    )
    return with_mechanism(search, name, effect=effect)


def clocked(search: Search, at: datetime) -> Run:
    """The run with its idle clock read and stopped."""
    run = search.run
    if run.idle_since is None:
        return run
    return replace(run, idle_time=run.idle_time + (at - run.idle_since), idle_since=None)


def busy(search: Search, at: datetime, elapsed: timedelta) -> Run:
    """The run when an evaluation that took ``elapsed`` and is no trial's ends: it was not idle meanwhile."""
    run = search.run
    if run.idle_since is None:
        return run
    idle = max(timedelta(), at - elapsed - run.idle_since)
    return replace(run, idle_time=run.idle_time + idle, idle_since=at)


def restart_clock(search: Search, at: datetime) -> Search:
    """Let the idle clock run while the run is RUNNING and nothing is being evaluated."""
    evaluating = any(trial.state is TrialState.RUNNING for trial in search.open_trials)
    if search.run.state is not RunState.RUNNING or evaluating or search.run.idle_since is not None:
        return search
    return replace(search, run=replace(search.run, idle_since=at))
