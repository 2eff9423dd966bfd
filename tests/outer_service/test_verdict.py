"""The verdict on a mechanism follows from counted effects and measured gains."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanisms.interface import Hook, Origin, TrialRecord
from outer_service.campaign import Installed, Policy, Verdict
from outer_service.comparison import Comparison, wilson
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
from outer_service.verdict import due, judge, least_effective, making_room
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


def observation(
    *metrics: float, direction: Direction = Direction.MINIMIZE, touched: tuple[int, ...] = ()
) -> Observation:
    """A baseline of the first metric and a trial for each of the others; ``m`` proposed or changed some of them."""
    trials = tuple(
        TrialRecord(
            i, {}, {}, "", Origin.MODEL if i else Origin.BASELINE, "", Outcome.SUCCEEDED, metric, False, metrics[0]
        )
        for i, metric in enumerate(metrics)
    )
    task = ObservedTask("t", "", "", SPACE, Objective("loss", direction), 1.0, "", "")
    head = (RunState.PAUSED, "", 30, 5, len(metrics) - 1, task, SearchConfig(), 0, 0, metrics[0], 9)
    return Observation(ObservedRun("runs/r", "t", *head), trials, (), {"m": frozenset(touched)})


STALLED = observation(2.0, 1.9, 1.8, 1.7, 1.6, 1.7, 1.8, 1.9, 1.7)
GAINING = observation(2.0, 2.1, 2.1, 2.1, 2.1, 1.9, 1.8, 1.7, 1.6)
IDLE = observation(2.0, 2.1, 2.1, 2.1, 2.1, 2.1, 2.1, 2.1, 2.1)
WALKS = st.lists(st.integers(0, 20), min_size=9, max_size=30)


def test_what_changes_nothing_is_inert() -> None:
    reached = judge(INSTALLED, mechanism(changed=0), GAINING, POLICY)
    assert reached.verdict is Verdict.RETIRE
    assert reached.reason.startswith("inert; 4 trials: it changed 0 decisions")


def test_what_only_speaks_in_the_prompt_is_not_inert() -> None:
    assert judge(INSTALLED, mechanism(changed=0, hooks=(Hook.PROMPT,)), GAINING, POLICY).verdict is Verdict.KEEP


def test_what_stands_still_after_a_gaining_search_is_retired_without_a_claim_of_harm() -> None:
    reached = judge(INSTALLED, mechanism(kept=1), STALLED, POLICY)
    assert reached.verdict is Verdict.RETIRE
    assert "stands still with it, which proves no harm but no use" in reached.reason
    assert reached.gain_before == pytest.approx(0.1)
    assert reached.gain_during == 0.0
    assert (reached.before_after.successes_with, reached.before_after.successes_without) == (0, 4)


def test_what_answers_nothing_is_replaced() -> None:
    reached = judge(INSTALLED, mechanism(), IDLE, POLICY)
    assert reached.verdict is Verdict.REPLACE
    assert "no answer to what holds it back" in reached.reason


def test_what_wastes_its_trials_while_the_others_gain_is_harmful() -> None:
    metrics = [2.0, 2.1, 2.1, 2.1, 2.1]
    for n in range(6):
        metrics += [1.9 - 0.1 * n, 2.5]
    own = tuple(range(6, 17, 2))
    reached = judge(INSTALLED, mechanism(), observation(*metrics, touched=own), POLICY)
    assert reached.verdict is Verdict.RETIRE
    assert reached.reason.startswith("harmful: ")
    assert reached.touched == Comparison.of(0, 6, 6, 6)
    assert reached.touched.high < 0


def test_what_improves_more_often_than_the_others_is_kept_with_its_interval() -> None:
    metrics = [2.0, 2.1, 2.1, 2.1, 2.1]
    for n in range(6):
        metrics += [1.9 - 0.1 * n, 2.5]
    reached = judge(INSTALLED, mechanism(), observation(*metrics, touched=tuple(range(5, 17, 2))), POLICY)
    assert reached.verdict is Verdict.KEEP
    assert "improved more often than the others of the same period" in reached.reason
    assert "6 of 6 against 0 of 6, difference +1.00, 90 % interval [+0.56, +1.00]" in reached.reason


def test_few_trials_establish_nothing_and_the_reason_says_so() -> None:
    reached = judge(INSTALLED, mechanism(), observation(2.0, 1.9, 2.1, 2.1, 1.8, 1.7, 2.1, 2.1, 2.1), POLICY)
    assert reached.verdict is Verdict.KEEP
    assert "an effect on the gain is not established" in reached.reason


def test_advice_on_acceptance_cannot_make_improvements() -> None:
    worse = observation(2.0, 1.9, 1.8, 1.7, 1.6, 1.7, 1.65, 1.62, 1.61)
    generous = replace(worse, trials=tuple(replace(trial, kept=True) for trial in worse.trials))
    assert judge(INSTALLED, mechanism(kept=4), generous, POLICY).verdict is Verdict.RETIRE


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


def test_nothing_is_judged_before_its_time_and_what_is_gone_never_again() -> None:
    assert not due(INSTALLED, mechanism(), 7, POLICY)
    assert due(INSTALLED, mechanism(), 8, POLICY)
    for gone in (Verdict.RETIRE, Verdict.REPLACE):
        assert not due(replace(INSTALLED, verdict=gone, examinations=1), mechanism(), 99, POLICY)
    assert not due(replace(INSTALLED, control=True), mechanism(changed=0), 8, POLICY)


def test_a_kept_mechanism_is_examined_again_by_what_it_did_since() -> None:
    policy = replace(POLICY, reexamination_trials=6)
    kept = replace(INSTALLED, verdict=Verdict.KEEP, examinations=1, examined_after=8, changed_before=5)
    assert not due(kept, mechanism(), 13, policy)
    assert due(kept, mechanism(), 14, policy)
    later = observation(*[2.0 - 0.1 * n for n in range(15)])
    reached = judge(kept, mechanism(changed=5), later, policy)
    assert (reached.verdict, reached.examination, reached.trials) == (Verdict.RETIRE, 2, 6)
    assert reached.reason.startswith("its effect has faded: inert since its last verdict")
    assert judge(kept, mechanism(changed=6), later, policy).verdict is Verdict.KEEP


def test_the_least_effective_has_the_fewest_kept_trials_then_changes() -> None:
    pairs = [
        (Installed("a", "", "s", 0), mechanism(changed=9, kept=1, id_="a")),
        (Installed("b", "", "s", 0), mechanism(changed=4, kept=0, id_="b")),
        (Installed("c", "", "s", 10), mechanism(changed=3, kept=0, id_="c")),
    ]
    assert least_effective(pairs, 20)[0].id == "b"
    assert making_room(INSTALLED, mechanism(), GAINING, POLICY).verdict is Verdict.RETIRE


@given(WALKS, st.sets(st.integers(5, 30)), st.integers(0, 9), st.sampled_from(Direction))
def test_no_verdict_claims_what_was_not_measured(
    walk: list[int], touched: set[int], changed: int, direction: Direction
) -> None:
    seen = observation(*map(float, walk), direction=direction, touched=tuple(touched))
    reached = judge(INSTALLED, mechanism(changed=changed), seen, POLICY)
    own, before = reached.touched, reached.before_after
    if changed == 0:
        assert reached.reason.startswith("inert")
    if reached.reason.startswith("harmful"):
        assert own is not None
        assert own.high < 0
    if "improved more often" in reached.reason.partition(";")[0]:
        assert own is not None
        assert own.low > 0
    if "more trials improve" in reached.reason.partition(";")[0]:
        assert before is not None
        assert before.low > 0
    if reached.verdict is Verdict.KEEP:
        assert changed > 0
        assert reached.gain_during > 0
    if reached.verdict is Verdict.REPLACE:
        assert reached.gain_during == reached.gain_before == 0
    for comparison in filter(None, (own, before)):
        assert -1 <= comparison.low <= comparison.difference <= comparison.high <= 1
        assert f"[{comparison.low:+.2f}, {comparison.high:+.2f}]" in reached.reason
    if own is not None:
        assert own.trials_with + own.trials_without == reached.trials == len(walk) - 1 - INSTALLED.after_decided


def test_the_interval_is_newcombes() -> None:
    # Newcombe 1998, table II, method 10: 56/70 against 48/80 at 95 % is 0.0524 to 0.3339, 9/10 against 3/10 is 0.1705
    # to 0.8090.
    for numbers, low, high in (((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090)):
        comparison = Comparison.of(*numbers, z=1.959964)
        assert comparison is not None
        assert (comparison.low, comparison.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert Comparison.of(0, 0, 1, 5) is None


@given(st.integers(1, 60), st.data())
def test_intervals_turn_round_with_their_sides_and_narrow_with_evidence(trials: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, trials)), data.draw(st.integers(0, trials))
    one, other = Comparison.of(a, trials, b, trials), Comparison.of(b, trials, a, trials)
    more = Comparison.of(10 * a, 10 * trials, 10 * b, 10 * trials)
    assert one is not None
    assert other is not None
    assert more is not None
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert more.high - more.low < one.high - one.low
    low, high = wilson(a, trials)
    assert 0 <= low <= a / trials <= high <= 1
