"""Runs and trials as state machines: random lives, checked against the rules after every event."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inner_service import acceptance
from inner_service.amendments import IllegalEvent
from inner_service.early_stopping import EarlyStopping, EarlyStoppingRule
from inner_service.fold import RUN_TRANSITIONS, apply, fold
from inner_service.run import RemeasurePurpose, RunSpec, RunState, Search, Trial, TrialState
from inner_service.task import EvaluationProgress, EvaluationResult, TaskDescription
from inner_service.trace import (
    EarlyStopJudged,
    Event,
    RunCreated,
    RunStateChanged,
    TrialDecided,
    TrialEvaluated,
    TrialProgressed,
    TrialProposed,
    TrialRejected,
    TrialRemeasured,
    TrialStarted,
)
from mechanisms.interface import Origin
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace, Split

TASK = TaskDescription(
    "t", "", "", ParameterSpace((Parameter("x", Kind.REAL, 0.0),)), Objective("loss"),
    timedelta(seconds=1), "", 2, timedelta(seconds=9), intermediate_metric="so_far",
)  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = {
    TrialState.PROPOSED: {TrialState.RUNNING, TrialState.REJECTED},
    TrialState.RUNNING: {TrialState.RUNNING, TrialState.EVALUATED},
    TrialState.EVALUATED: {TrialState.KEPT, TrialState.DISCARDED},
    TrialState.KEPT: set(),
    TrialState.DISCARDED: set(),
    TrialState.REJECTED: set(),
}

metrics = st.floats(-10, 10)
failures = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
numbers = st.integers(0, 12)


class Life(RuleBasedStateMachine):
    """Throws events at a run, sensible ones and senseless ones, and keeps its own simple account of it."""

    def __init__(self) -> None:
        super().__init__()
        self.search: Search | None = None
        self.log: list[tuple[Event, datetime, int]] = []
        self.now = START
        self.running_seconds = timedelta()

    @initialize(trials=st.integers(1, 5))
    def create(self, trials: int) -> None:
        stopping = EarlyStopping(EarlyStoppingRule.MEDIAN)
        self.happens(RunCreated(RunSpec("t", trials, early_stopping=stopping), TASK))

    def happens(self, event: Event) -> bool:
        """Whether the event could happen; if not, nothing has changed."""
        before, sequence = self.search, len(self.log) + 1
        try:
            after = apply(before, event, self.now, sequence, "r")
        except IllegalEvent:
            assert self.search is before
            return False
        self.check_transitions(before, after)
        self.search = after
        self.log.append((event, self.now, sequence))
        return True

    @staticmethod
    def check_transitions(before: Search | None, after: Search) -> None:
        if before is None:
            assert after.run.state is RunState.CREATED
            return
        if before.run.state is not after.run.state:
            assert after.run.state in RUN_TRANSITIONS[before.run.state]
        for old, new in zip(before.trials, after.trials, strict=False):
            assert old.state is new.state or new.state in LIFE[old.state]

    @rule(seconds=st.integers(0, 60))
    def time_passes(self, seconds: int) -> None:
        assert self.search is not None
        if self.search.run.state is RunState.RUNNING:
            self.running_seconds += timedelta(seconds=seconds)
        self.now += timedelta(seconds=seconds)

    @rule(state=st.sampled_from(RunState))
    def change_state(self, state: RunState) -> None:
        assert self.search is not None
        happened = self.happens(RunStateChanged(self.search.run.state, state, "because"))
        allowed = state in RUN_TRANSITIONS[LAST(self, happened)]
        assert happened == (allowed and not (state.terminal and self.open_before)), state

    @property
    def open_before(self) -> bool:
        assert self.search is not None
        return bool([t for t in self.search.trials if t.state.open])

    @rule(number=numbers)
    def propose(self, number: int) -> None:
        assert self.search is not None
        origin = Origin.MODEL if self.search.incumbent else Origin.BASELINE
        happened = self.happens(TrialProposed(Trial(number, {"x": 0.0}, {}, "", origin)))
        assert not (happened and number != len(self.search.trials) - 1)

    @precondition(lambda self: self.search is not None and not self.search.run.state.terminal)
    @rule()
    def propose_next(self) -> None:
        assert self.search is not None
        origin = Origin.MODEL if self.search.incumbent else Origin.BASELINE
        assert self.happens(TrialProposed(Trial(len(self.search.trials), {"x": 0.0}, {}, "", origin)))

    @rule(number=numbers)
    def reject(self, number: int) -> None:
        self.happens(TrialRejected(number, "no"))

    @rule(number=numbers, wrong_attempt=st.booleans())
    def start(self, number: int, wrong_attempt: bool) -> None:
        assert self.search is not None
        attempt = self.search.trials[number].attempt + 1 if number < len(self.search.trials) else 1
        happened = self.happens(TrialStarted(number, attempt + wrong_attempt, 0))
        assert not (happened and wrong_attempt)

    @rule(number=numbers)
    def progress(self, number: int) -> None:
        self.happens(TrialProgressed(number, EvaluationProgress(0.5, 1, timedelta(seconds=1))))

    @rule(number=numbers, share=st.floats(0, 1), value=metrics)
    def progress_along_a_curve(self, number: int, share: float, value: float) -> None:
        self.happens(TrialProgressed(number, EvaluationProgress(share, 1, timedelta(seconds=2), {"so_far": value})))

    @rule(number=numbers, stopped=st.booleans())
    def judge(self, number: int, stopped: bool) -> None:
        self.happens(EarlyStopJudged(number, EarlyStoppingRule.MEDIAN, 0.5, 2.0, 2.0, 1.0, 5, stopped))

    @rule(number=numbers, seed=st.integers(0, 3), metric=metrics, purpose=st.sampled_from(RemeasurePurpose))
    def measure_again(self, number: int, seed: int, metric: float, purpose: RemeasurePurpose) -> None:
        assert self.search is not None
        result = EvaluationResult(Outcome.SUCCEEDED, metric, elapsed=timedelta(seconds=3))
        before = self.search.run.evaluation_time
        if self.happens(TrialRemeasured(number, purpose, seed, Split.SEARCH, result)):
            assert self.search.run.evaluation_time == before + timedelta(seconds=3)
            assert self.search.remeasured(purpose)[number, seed].metric == metric

    @rule(number=numbers, metric=metrics)
    def succeed(self, number: int, metric: float) -> None:
        self.happens(TrialEvaluated(number, EvaluationResult(Outcome.SUCCEEDED, metric)))

    @rule(number=numbers, outcome=failures)
    def fail(self, number: int, outcome: Outcome) -> None:
        self.happens(TrialEvaluated(number, EvaluationResult(outcome, message="went wrong")))

    @rule(number=numbers)
    def decide(self, number: int) -> None:
        assert self.search is not None
        if number < len(self.search.trials):
            decision = acceptance.greedy(self.search.run, self.search.trials[number])
            self.happens(decision.event(number))

    @rule(number=numbers, kept=st.booleans())
    def decide_at_random(self, number: int, kept: bool) -> None:
        self.happens(TrialDecided(number, kept, "a mechanism said so"))

    @invariant()
    def state_is_what_the_log_says(self) -> None:
        if self.search is not None:
            assert fold("r", self.log) == self.search

    @invariant()
    def counts_add_up(self) -> None:
        if self.search is None:
            return
        run, trials = self.search.run, self.search.trials
        decided = [t for t in trials if t.state in (TrialState.KEPT, TrialState.DISCARDED)]
        assert run.decided_trials == sum(t.origin is not Origin.BASELINE for t in decided)
        assert sorted(self.search.decisions) == [t.number for t in decided]
        assert [t.number for t in trials] == list(range(len(trials)))
        assert list(self.search.open) == [t.number for t in trials if t.state.open]
        assert not (run.state.terminal and self.search.open)

    @invariant()
    def the_best_is_the_best_that_was_decided_to_be_one(self) -> None:
        if self.search is None or self.search.run.best is None:
            return
        best = self.search.trials[self.search.run.best]
        assert best.metric == self.search.run.best_metric
        assert best.measured

    @invariant()
    def what_flies_is_what_runs(self) -> None:
        if self.search is not None:
            running = [t.number for t in self.search.trials if t.state is TrialState.RUNNING]
            assert sorted(flight.number for flight in self.search.run.flights) == running
            assert all(curve.metric is not None for curve in self.search.curves())

    @invariant()
    def only_success_has_a_metric(self) -> None:
        for trial in self.search.trials if self.search is not None else ():
            assert (trial.metric is not None) == (trial.outcome is Outcome.SUCCEEDED)

    @invariant()
    def a_run_is_never_idle_for_longer_than_it_runs(self) -> None:
        if self.search is not None:
            run = self.search.run
            since = self.now - run.idle_since if run.idle_since is not None else timedelta()
            assert timedelta() <= run.idle_time + since <= self.running_seconds


def LAST(life: Life, happened: bool) -> RunState:  # noqa: N802
    """The state before the last state change that was tried."""
    assert life.search is not None
    event = life.log[-1][0]
    return event.from_state if happened and isinstance(event, RunStateChanged) else life.search.run.state


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def greedy_life(metrics_: list[float | None]) -> Search:
    """A run whose trials were measured as given and decided greedily."""
    events: list[Event] = [RunCreated(RunSpec("t", 100), TASK)]
    search = None
    for number, metric in enumerate([5.0, *metrics_]):
        outcome = Outcome.SUCCEEDED if metric is not None else Outcome.CRASHED
        origin = Origin.MODEL if number else Origin.BASELINE
        events += [
            TrialProposed(Trial(number, {"x": 0.0}, {}, "", origin)),
            TrialStarted(number, 1, 0),
            TrialEvaluated(number, EvaluationResult(outcome, metric)),
        ]
        search = numbered(events)
        events.append(acceptance.greedy(search.run, search.trials[number]).event(number))
    return numbered(events)


def numbered(events: list[Event]) -> Search:
    return fold("r", [(event, START, i) for i, event in enumerate(events, start=1)])


@pytest.mark.parametrize(
    ("measured", "incumbent"),
    [([4.0, 4.5, 3.0], 3), ([6.0, 5.0, None], 0), ([None, 1.0, 1.0], 2)],
)
def test_greedy_decisions_keep_incumbent_and_best_the_same(measured: list[Any], incumbent: int) -> None:
    run = greedy_life(measured).run
    assert (run.incumbent, run.best) == (incumbent, incumbent)


def test_a_trace_begins_with_its_creation_and_its_numbers_have_no_gaps() -> None:
    with pytest.raises(IllegalEvent, match="begins with run_created"):
        numbered([TrialRejected(0, "no")])
    search = numbered([RunCreated(RunSpec("t", 1), TASK)])
    with pytest.raises(IllegalEvent, match="event 3 follows event 1"):
        apply(search, RunStateChanged(RunState.CREATED, RunState.RUNNING, ""), START, 3, "r")


def test_a_short_trial_is_never_the_best_and_a_mechanisms_advice_cannot_make_it_so() -> None:
    search = greedy_life([])
    short = replace(search.trials[0], number=1, origin=Origin.MODEL, metric=1.0, budget_fraction=0.5)
    decision = acceptance.greedy(search.run, short)
    assert (decision.kept, decision.new_best) == (False, False)
    advised, changed = acceptance.advised(decision, short, [("generous", True)])
    assert (advised.kept, advised.new_best) == (True, False)
    assert changed is not None


def test_advice_about_a_failed_trial_is_not_followed() -> None:
    search = greedy_life([None])
    decision = acceptance.greedy(search.run, search.trials[1])
    assert acceptance.advised(decision, search.trials[1], [("generous", True)]) == (decision, None)
