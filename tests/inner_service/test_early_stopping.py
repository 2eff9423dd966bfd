"""Early stopping: the rules on curves, and stopped trials on the trace."""

import asyncio
import math
import random
from typing import Any

import pytest
from bilevel.v1 import common_pb2, trace_pb2
from hypothesis import given
from hypothesis import strategies as st

from inner_service.early_stopping import (
    NEAREST,
    Curve,
    EarlyStopping,
    EarlyStoppingRule,
    drawn_for_audit,
    extrapolated,
    judge,
    value_at,
)
from service_kit.parameters import Direction, Objective

LOSS, SCORE = Objective("loss"), Objective("score", Direction.MAXIMIZE)
MEDIAN, POWER = EarlyStopping(EarlyStoppingRule.MEDIAN), EarlyStopping(EarlyStoppingRule.LEARNING_CURVE)
SHARES = [i / 10 for i in range(1, 10)]
finite = st.floats(-100, 100)


def curve(end: float, number: int = 0, noise: float = 0.0, until: float = 1.0) -> Curve:
    """A power law that reaches ``end`` at the full budget."""
    rng = random.Random(number)
    points = tuple((x, end - 1 + x**-0.5 + rng.gauss(0, noise)) for x in SHARES if x <= until)
    return Curve(number, points, end if until == 1.0 else None)


FINISHED = [curve(1 + i / 10, i, 0.01) for i in range(8)]


def test_the_median_rule_stops_what_is_worse_than_the_median_there() -> None:
    bad, good = curve(1.5, until=0.5), curve(1.2, until=0.5)
    verdict = judge(MEDIAN, LOSS, bad, FINISHED, 1.0)
    assert verdict is not None
    assert (verdict.fraction, verdict.curves) == (0.5, 8)
    assert verdict.prediction == pytest.approx(0.5 + 0.5**-0.5)
    assert verdict.threshold == pytest.approx(0.35 + 0.5**-0.5, abs=0.02)
    assert "worse than" in verdict.sentence()
    assert judge(MEDIAN, LOSS, good, FINISHED, 1.0) is None


@pytest.mark.parametrize("settings", [MEDIAN, POWER])
def test_nothing_is_stopped_in_its_grace_or_with_too_few_curves(settings: EarlyStopping) -> None:
    bad = curve(9.0, until=0.5)
    assert judge(settings, LOSS, bad, FINISHED, 1.0) is not None
    assert judge(settings, LOSS, bad, FINISHED[:4], 1.0) is None
    assert judge(settings, LOSS, curve(9.0, until=0.2), FINISHED, 1.0) is None
    assert judge(settings, LOSS, Curve(1), FINISHED, 1.0) is None
    at_the_end = Curve(1, (*bad.points, (1.0, 9.0)))
    assert judge(settings, LOSS, at_the_end, FINISHED, 1.0) is None, "there is nothing left to save"


@pytest.mark.parametrize("settings", [MEDIAN, POWER])
def test_the_direction_of_the_objective_is_followed(settings: EarlyStopping) -> None:
    def mirrored(one: Curve) -> Curve:
        return Curve(one.number, tuple((x, -y) for x, y in one.points), None if one.metric is None else -one.metric)

    for end in (0.5, 1.1, 1.5, 3.0):
        running = curve(end, until=0.5)
        down = judge(settings, LOSS, running, FINISHED, 1.0)
        up = judge(settings, SCORE, mirrored(running), [mirrored(one) for one in FINISHED], -1.0)
        assert (down is None) == (up is None)


def test_the_learning_curve_rule_stops_what_its_own_errors_cannot_explain() -> None:
    verdict = judge(POWER, LOSS, curve(1.5, until=0.5), FINISHED, 1.0)
    assert verdict is not None
    assert verdict.bound is not None
    assert verdict.threshold == 1.0 < verdict.bound < verdict.prediction
    assert verdict.prediction == pytest.approx(1.5, abs=0.1)
    assert judge(POWER, LOSS, curve(1.005, until=0.5), FINISHED, 1.0) is None, "so near may be an error"
    assert judge(POWER, LOSS, curve(0.5, until=0.5), FINISHED, 1.0) is None
    wild = [curve(1 + i / 10, i, 0.5) for i in range(8)]
    assert judge(POWER, LOSS, curve(1.3, until=0.5), wild, 1.0) is None, "where the rule errs much it says little"


@given(finite, st.floats(0.1, 10), st.floats(0.1, 3))
def test_a_power_law_is_extrapolated_to_its_end(c: float, a: float, alpha: float) -> None:
    points = tuple((x, c + a * x**-alpha) for x in SHARES[:6])
    assert extrapolated(points) == pytest.approx(c + a, abs=0.05 * a + 1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), finite), min_size=1, max_size=20))
def test_any_curve_has_a_finite_extrapolation_and_its_newest_point(raw: list[tuple[float, float]]) -> None:
    built = Curve(0)
    for fraction, value in sorted(raw, key=lambda point: point[0]):
        built = built.extended(fraction, value)
        assert built.points[-1] == (fraction, value)
    assert list(built.points) == sorted(built.points, key=lambda point: point[0])
    assert len(built.points) <= 2 * 64 + 2
    assert math.isfinite(extrapolated(built.points))
    assert built.extended(-1.0, 0.0) == built, "what comes too late is no point"


@given(st.floats(0, 1))
def test_values_between_reports_lie_on_the_line_and_far_from_any_there_are_none(fraction: float) -> None:
    points = ((0.25, 4.0), (0.5, 2.0), (0.75, 1.0))
    value = value_at(points, fraction)
    if 0.25 <= fraction <= 0.75:
        assert value is not None
        assert 1.0 <= value <= 4.0
    else:
        assert (value is not None) == (min(abs(0.25 - fraction), abs(0.75 - fraction)) <= NEAREST)


def test_the_audit_is_a_seeded_sample_of_the_given_size() -> None:
    half = EarlyStopping(EarlyStoppingRule.MEDIAN, audit_fraction=0.5)
    drawn = [drawn_for_audit(half, 7, number) for number in range(1000)]
    assert drawn == [drawn_for_audit(half, 7, number) for number in range(1000)]
    assert 430 < sum(drawn) < 570
    assert not any(drawn_for_audit(EarlyStopping(EarlyStoppingRule.MEDIAN, audit_fraction=0), 7, n) for n in range(99))


# On the trace


def early(**settings: Any) -> trace_pb2.EarlyStopping:
    chosen = {"rule": trace_pb2.EARLY_STOPPING_RULE_MEDIAN, "min_curves": 3, "audit_fraction": 0.0}
    return trace_pb2.EarlyStopping(**chosen | settings)


@pytest.fixture
def curves(task: Any, endpoint: Any) -> Any:
    """A task that streams its curve, and a model that proposes three good configurations and then bad ones."""
    task.progress = 8
    task.curve = lambda values, share: (values["x"] - 3.0) ** 2 + 4 - share
    xs = iter([7.0, 6.0, 5.0, 9.0, 10.0, 9.5, 8.5, 9.25])
    endpoint.answer = lambda _: [({"x": next(xs)}, "move x")]
    return task


RULES = [trace_pb2.EARLY_STOPPING_RULE_MEDIAN, trace_pb2.EARLY_STOPPING_RULE_LEARNING_CURVE]


@pytest.mark.parametrize("rule", RULES)
async def test_a_trial_that_will_not_win_is_stopped_with_its_reason(inner, curves, rule) -> None:
    never = asyncio.Event()
    curves.wait_for = lambda values: never if values["x"] >= 9.0 else None
    run, events = await inner.driven(max_trials=5, early_stopping=early(rule=rule))
    judged = inner.of(events, "early_stop_judged")
    assert [(j.number, j.rule, j.stopped) for j in judged] == [(4, rule, True), (5, rule, True)]
    assert judged[0].fraction == 0.25, "right after its grace"
    assert (judged[0].curves, judged[0].HasField("bound")) == (4, rule == RULES[1])
    trial = (await inner.trials(run.name))[4]
    assert (trial.outcome, trial.state) == (common_pb2.OUTCOME_STOPPED_EARLY, trace_pb2.TRIAL_STATE_DISCARDED)
    assert not trial.HasField("metric")
    assert trial.message.startswith("stopped early: at 25% of the budget")
    assert [await asyncio.wait_for(curves.killed.get(), 10) for _ in range(2)], "the work itself was killed"
    assert (run.early_stopping.stopped, run.early_stopping.audited) == (2, 0)
    kinds = [e.WhichOneof("event") for e in events if e.WhichOneof("event") != "trial_progressed"]
    at = kinds.index("early_stop_judged")
    assert kinds[at + 1] == "trial_evaluated"


async def test_without_the_option_nothing_is_stopped(inner, curves) -> None:
    run, events = await inner.driven(max_trials=5)
    assert not inner.of(events, "early_stop_judged")
    assert not run.HasField("early_stopping")


async def test_audited_trials_run_to_the_end_and_count_the_rules_errors(inner, curves, endpoint) -> None:
    xs = iter([7.0, 6.0, 5.0, 9.0, 3.0])
    endpoint.answer = lambda _: [({"x": next(xs)}, "move x")]
    # The last one looks bad on the way and wins in the end: the rule's error.
    curves.curve = lambda values, share: 99.0 if values["x"] == 3.0 else (values["x"] - 3.0) ** 2 + 4 - share
    run, events = await inner.driven(max_trials=5, early_stopping=early(audit_fraction=1.0))
    assert [(j.number, j.stopped) for j in inner.of(events, "early_stop_judged")] == [(4, False), (5, False)]
    trials = await inner.trials(run.name)
    assert [t.audited for t in trials] == [False] * 4 + [True, True]
    assert all(t.outcome == common_pb2.OUTCOME_SUCCEEDED for t in trials)
    effect = run.early_stopping
    assert (effect.stopped, effect.audited, effect.measured, effect.errors) == (0, 2, 2, 1)


async def test_a_task_may_not_say_that_it_stopped_early(inner, task) -> None:
    task.fail("STOPPED_EARLY", when=lambda values: values["x"] != 8.0)
    run, _ = await inner.driven(max_trials=1)
    trial = (await inner.trials(run.name))[1]
    assert trial.outcome == common_pb2.OUTCOME_CRASHED
    assert "the search's to give" in trial.message


async def test_a_restart_rebuilds_the_curves(serve_inner, curves) -> None:
    async with serve_inner() as inner:
        name = await inner.create(max_trials=5, checkpoint_every=3, early_stopping=early())
        await inner.start(name)
        await inner.until_state(name, "PAUSED")
    async with serve_inner() as inner:
        await inner.resume(name)
        events = await inner.finished(name)
    assert [j.number for j in inner.of(events, "early_stop_judged")] == [4, 5]
