"""A run's budgets: what would exceed one is not begun, and the reason is on the trace."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bilevel.v1 import trace_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from inner_service.budgets import allowance, confirmable
from inner_service.run import Run, RunSpec, RunState, Search
from inner_service.task import TaskDescription
from service_kit.llm.usage import Usage
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace

TASK = TaskDescription(
    "t", "", "", ParameterSpace((Parameter("x", Kind.REAL, 0.0),)), Objective("loss"),
    timedelta(seconds=1), "", 4, timedelta(seconds=9),
)  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)
spans = st.integers(0, 1000).map(lambda seconds: timedelta(seconds=seconds))


def search_of(spec: RunSpec, *, longest: timedelta = timedelta(), **head: Any) -> Search:
    """A run that was started at START."""
    run = replace(
        Run("r", spec, TASK, START, START, 9, RunState.RUNNING, start_time=START, longest_evaluation=longest), **head
    )
    return Search(run)


@given(limit=spans, spent=spans, longest=spans, seeds=st.integers(0, 5), parallelism=st.integers(1, 4))
def test_whatever_is_begun_fits_into_the_evaluation_time_with_the_confirmation(
    limit: timedelta, spent: timedelta, longest: timedelta, seeds: int, parallelism: int
) -> None:
    spec = RunSpec("t", 50, max_evaluation_time=limit, confirmation_seeds=seeds, parallelism=parallelism)
    search = search_of(spec, longest=longest, evaluation_time=spent)
    count = allowance(search, START).trials
    if count and longest:
        assert spent + longest * (count + 2 * seeds) <= limit
        assert confirmable(search, START)
    if count < 50 and longest:
        assert spent + longest * (count + 1 + 2 * seeds) > limit, "no more is withheld than need be"


@given(limit=spans, passed=spans, longest=spans, seeds=st.integers(0, 5))
def test_whatever_is_begun_ends_before_the_time_is_over(
    limit: timedelta, passed: timedelta, longest: timedelta, seeds: int
) -> None:
    spec = RunSpec("t", 50, max_duration=limit, confirmation_seeds=seeds, parallelism=2)
    search = search_of(spec, longest=longest)
    allowed = allowance(search, START + passed)
    fits = passed < limit and passed + longest * (1 + seeds) <= limit
    assert (allowed.trials > 0) is fits
    assert fits or allowed.field == "spec.max_duration"


@pytest.mark.parametrize(
    ("spent", "reason"),
    [
        (0.40, ""),
        (0.50, "its $0.5 are used up"),
        (None, "its budget of $0.5 cannot be kept: a call of the model was made whose cost is not known"),
    ],
)
def test_money_is_never_guessed(spent: float | None, reason: str) -> None:
    search = search_of(RunSpec("t", 50, max_cost_usd=0.5), usage=Usage(3, cost_usd=spent))
    assert allowance(search, START).reason == reason if reason else allowance(search, START).trials == 50


def test_without_limits_only_trials_are_counted() -> None:
    search = search_of(RunSpec("t", 3), usage=Usage(9, 10**9, cost_usd=None), longest=timedelta(days=9))
    assert allowance(search, START + timedelta(days=999)).trials == 3
    done = allowance(search_of(RunSpec("t", 3), decided_trials=3), START)
    assert (done.trials, done.reason) == (0, "3 trials decided")


async def test_a_run_ends_before_its_evaluations_take_longer_than_allowed(inner, task) -> None:
    task.elapsed = 10.0
    run, events = await inner.driven(max_trials=50, max_evaluation_time=Duration(seconds=95), confirmation_seeds=2)
    assert run.state == trace_pb2.RUN_STATE_FINISHED
    assert run.decided_trials == 4, "the baseline, four trials, and four evaluations to confirm"
    assert run.evaluation_time.seconds == 90
    confirming = next(c for c in inner.of(events, "run_state_changed") if c.to_state == trace_pb2.RUN_STATE_CONFIRMING)
    assert confirming.reason == (
        "its evaluation time of 95 s does not pay for another trial: 50 s are used, 40 s are set aside for the "
        "confirmation, and a trial takes up to 10 s"
    )


async def test_a_baseline_that_takes_it_all_leaves_nothing_to_confirm_with(inner, task) -> None:
    task.elapsed = 60.0
    run, _ = await inner.driven(max_evaluation_time=Duration(seconds=100), confirmation_seeds=1)
    assert run.state == trace_pb2.RUN_STATE_FINISHED
    assert run.state_reason.endswith("not confirmed: what is left does not pay for it")
    assert run.decided_trials == 0


async def test_a_batch_is_cut_to_what_the_budget_pays_for(inner, task) -> None:
    task.elapsed = 10.0
    run, _ = await inner.driven(max_trials=50, parallelism=4, max_evaluation_time=Duration(seconds=75))
    assert run.decided_trials == 6, "four and then two"
    assert run.evaluation_time.seconds == 70


async def test_a_batch_is_cut_to_the_trials_that_are_left(inner) -> None:
    run, _ = await inner.driven(max_trials=5, parallelism=4)
    assert run.decided_trials == 5


async def test_a_budget_of_money_needs_a_price_and_says_how_to_set_it(inner) -> None:
    error = await inner.refusal(inner.create(max_cost_usd=1.0))
    assert error.code == "INVALID_ARGUMENT"
    assert [v.field for v in error.violations] == ["spec.max_cost_usd"]
    assert "BILEVEL_PRICE_INPUT and BILEVEL_PRICE_OUTPUT" in error.violations[0].description


async def test_a_run_ends_before_it_costs_more_than_allowed(serve_inner, endpoint) -> None:
    async with serve_inner(price_input=10.0, price_output=1000.0, max_tokens=200) as inner:
        run, events = await inner.driven(max_trials=50, max_cost_usd=0.4)
        assert run.state == trace_pb2.RUN_STATE_FINISHED
        assert "the budget of 0.4 US dollars does not cover the next call" in run.state_reason
        assert len(endpoint.prompts) == run.decided_trials == len(inner.of(events, "model_called")) > 0
        assert 0.1 < run.usage.cost_usd <= 0.4, "and not one call less than fits"


async def test_a_call_that_could_exceed_the_tokens_is_not_made(serve_inner, endpoint) -> None:
    async with serve_inner(max_tokens=10) as inner:
        run, events = await inner.driven(max_trials=50, max_tokens=4000)
        assert run.state == trace_pb2.RUN_STATE_FINISHED
        assert "the budget of 4000 tokens does not cover the next call" in run.state_reason
        assert len(endpoint.prompts) == run.decided_trials > 0
        assert not inner.of(events, "proposal_failed"), "that there is no budget is no failure of the model"


async def test_the_model_is_not_asked_again_in_one_proposal_when_it_could_exceed_its_tokens(
    serve_inner, endpoint
) -> None:
    endpoint.answer = lambda _: [({"x": 99.0}, "out of range")]
    endpoint.tokens = 2000
    async with serve_inner(max_tokens=10) as inner:
        run, _ = await inner.driven(max_trials=50, max_tokens=5000)
        assert len(endpoint.prompts) == 2, "the third call of the first proposal did not fit"
        assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 0)


async def test_a_client_is_told_which_budget_is_used_up(serve_inner) -> None:
    async with serve_inner(max_tokens=10) as inner:
        name = await inner.create(max_trials=9, max_tokens=100)
        await inner.one_trial(name)
        error = await inner.refusal(inner.propose(name))
        assert (error.code, error.metadata["field"]) == ("RESOURCE_EXHAUSTED", "spec.max_tokens")
        assert "StartRun or ResumeRun finishes the run" in str(error)


async def test_starting_a_run_that_was_driven_by_hand_to_its_end_confirms_and_finishes_it(inner) -> None:
    name = await inner.create(max_trials=1, confirmation_seeds=2)
    await inner.one_trial(name)
    await inner.one_trial(name)
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_CREATED, "who drives by hand says when it is over"
    await inner.start(name)
    await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, len(run.confirmation.seeds)) == (trace_pb2.RUN_STATE_FINISHED, 2)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"max_evaluation_time": Duration()}, "spec.max_evaluation_time"),
        ({"max_cost_usd": -1.0}, "spec.max_cost_usd"),
        ({"max_cost_usd": float("nan")}, "spec.max_cost_usd"),
        ({"parallel_mode": 7}, "spec.parallel_mode"),
        ({"noise": trace_pb2.NoiseRule(baseline_repeats=1)}, "spec.noise.baseline_repeats"),
        ({"noise": trace_pb2.NoiseRule(baseline_repeats=2, multiple=-1)}, "spec.noise.multiple"),
        ({"early_stopping": trace_pb2.EarlyStopping()}, "spec.early_stopping.rule"),
        ({"early_stopping": trace_pb2.EarlyStopping(rule=1)}, "spec.early_stopping"),
        ({"early_stopping": trace_pb2.EarlyStopping(rule=1, grace_fraction=1)}, "spec.early_stopping.grace_fraction"),
        ({"early_stopping": trace_pb2.EarlyStopping(rule=1, min_curves=2)}, "spec.early_stopping.min_curves"),
        ({"early_stopping": trace_pb2.EarlyStopping(rule=1, audit_fraction=2)}, "spec.early_stopping.audit_fraction"),
        ({"early_stopping": trace_pb2.EarlyStopping(rule=2, confidence=0.4)}, "spec.early_stopping.confidence"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_field(inner, spec: dict[str, Any], field: str) -> None:
    error = await inner.refusal(inner.create(**spec))
    assert error.code == "INVALID_ARGUMENT"
    assert [violation.field for violation in error.violations] == [field]
