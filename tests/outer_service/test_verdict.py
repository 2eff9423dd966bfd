"""The verdict on a mechanism follows from counted effects and measured gains."""

import pytest

from mechanisms.interface import Hook, Origin, TrialRecord
from outer_service.campaign import Installed, Policy, Verdict
from outer_service.observed import (
    MechanismEffect,
    MechanismState,
    Observation,
    ObservedMechanism,
    ObservedRun,
    ObservedTask,
    RunState,
    SearchConfig,
)
from outer_service.verdict import due, judge, least_effective
from service_kit.parameters import Direction, Kind, Objective, Outcome, Parameter, ParameterSpace

SPACE = ParameterSpace((Parameter("x", Kind.REAL, 0.0),))
POLICY = Policy(probation_trials=4)
INSTALLED = Installed("m", "a" * 64, "s", 4)


def mechanism(
    changed: int = 5,
    kept: int = 0,
    hooks: tuple[Hook, ...] = (Hook.PROPOSE,),
    state: MechanismState = MechanismState.ACTIVE,
    id_: str = "m",
) -> ObservedMechanism:
    return ObservedMechanism(id_, "", "", "", hooks, state, "it raised", MechanismEffect((), changed, 2, kept), 4, "")


def observation(*metrics: float, direction: Direction = Direction.MINIMIZE) -> Observation:
    """A baseline of the first metric and a trial for each of the others."""
    trials = tuple(
        TrialRecord(
            i, {}, {}, "", Origin.MODEL if i else Origin.BASELINE, "", Outcome.SUCCEEDED, metric, False, metrics[0]
        )
        for i, metric in enumerate(metrics)
    )
    task = ObservedTask("t", "", "", SPACE, Objective("loss", direction), 1.0, "", "")
    head = (RunState.PAUSED, "", 30, 5, len(metrics) - 1, task, SearchConfig(), 0, 0, metrics[0], 9)
    return Observation(ObservedRun("runs/r", "t", *head), trials, ())


STALLED = observation(2.0, 1.9, 1.8, 1.7, 1.6, 1.7, 1.8, 1.9, 1.7)
GAINING = observation(2.0, 2.1, 2.1, 2.1, 2.1, 1.9, 1.8, 1.7, 1.6)


def test_what_changes_nothing_is_inert() -> None:
    reached = judge(INSTALLED, mechanism(changed=0), GAINING, POLICY)
    assert reached.verdict is Verdict.RETIRE
    assert reached.reason.startswith("inert; 4 trials: it changed 0 decisions")


def test_what_only_speaks_in_the_prompt_is_not_inert() -> None:
    assert judge(INSTALLED, mechanism(changed=0, hooks=(Hook.PROMPT,)), GAINING, POLICY).verdict is Verdict.KEEP


def test_what_stops_a_gaining_search_is_harmful() -> None:
    reached = judge(INSTALLED, mechanism(), STALLED, POLICY)
    assert reached.verdict is Verdict.RETIRE
    assert "harmful" in reached.reason
    assert reached.gain_before == pytest.approx(0.1)
    assert reached.gain_during == 0.0


def test_kept_trials_speak_for_it() -> None:
    assert judge(INSTALLED, mechanism(kept=1), STALLED, POLICY).verdict is Verdict.KEEP


def test_gain_is_measured_in_the_objectives_direction() -> None:
    assert judge(INSTALLED, mechanism(), GAINING, POLICY).gain_during == pytest.approx(0.1)
    up = observation(1.0, 1.1, 1.2, 1.3, 1.4, 1.3, 1.2, 1.1, 1.0, direction=Direction.MAXIMIZE)
    reached = judge(INSTALLED, mechanism(), up, POLICY)
    assert reached.gain_before == pytest.approx(0.1)
    assert reached.verdict is Verdict.RETIRE


def test_what_failed_is_retired_with_its_error() -> None:
    suspended = mechanism(state=MechanismState.SUSPENDED)
    assert due(INSTALLED, suspended, 5, POLICY)
    assert "suspended: it raised" in judge(INSTALLED, suspended, GAINING, POLICY).reason


def test_nothing_is_judged_before_its_time_or_twice() -> None:
    assert not due(INSTALLED, mechanism(), 7, POLICY)
    assert due(INSTALLED, mechanism(), 8, POLICY)
    assert not due(Installed("m", "", "s", 4, verdict=Verdict.KEEP), mechanism(), 8, POLICY)
    assert not due(Installed("m", "", "s", 4, control=True), mechanism(changed=0), 8, POLICY)


def test_the_least_effective_has_the_fewest_kept_trials_then_changes() -> None:
    pairs = [
        (Installed("a", "", "s", 0), mechanism(changed=9, kept=1, id_="a")),
        (Installed("b", "", "s", 0), mechanism(changed=4, kept=0, id_="b")),
        (Installed("c", "", "s", 10), mechanism(changed=3, kept=0, id_="c")),
    ]
    assert least_effective(pairs, 20)[0].id == "b"
