"""What the service makes of a task that misbehaves."""

import math

import pytest
from bilevel.v1 import common_pb2, task_pb2

Result = task_pb2.EvaluationResult
OK = common_pb2.OUTCOME_SUCCEEDED
BREACHES = {
    "its result has no outcome": Result(),
    "it sent no metric with the outcome succeeded": Result(outcome=OK),
    "its metric is nan": Result(outcome=OK, metric=math.nan),
    "its metric is inf": Result(outcome=OK, metric=math.inf),
    "it sent a metric with the outcome diverged": Result(outcome=common_pb2.OUTCOME_DIVERGED, metric=1.0),
    "must be one of": Result(outcome=99),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("says", "result"), BREACHES.items(), ids=BREACHES)
async def test_a_result_that_breaks_the_contract_counts_as_crashed_and_says_why(inner, task, says, result) -> None:
    task.measure = lambda _values, _request: result
    name = await inner.create()
    [trial] = await inner.propose(name)
    ended = (await inner.evaluate(trial.name))[-1].trial_evaluated.result
    assert ended.outcome == common_pb2.OUTCOME_CRASHED
    assert not ended.HasField("metric")
    assert says in ended.message


async def test_measurements_that_are_not_finite_are_left_out(inner, task) -> None:
    task.measure = lambda _values, _request: Result(
        outcome=OK, metric=1.0, side_metrics={"good": 1.0, "bad": math.nan, "worse": math.inf}
    )
    name = await inner.create()
    [trial] = await inner.propose(name)
    ended = (await inner.evaluate(trial.name))[-1].trial_evaluated.result
    assert dict(ended.side_metrics) == {"good": 1.0}


async def test_a_task_that_raises_crashes_the_trial_and_not_the_run(inner, task) -> None:
    def broken(_values: object, _request: object) -> Result:
        raise RuntimeError("boom")

    name = await inner.create(max_trials=1)
    await inner.one_trial(name)
    task.measure = broken
    await inner.start(name)
    events = await inner.finished(name)
    [_, failed] = inner.of(events, "trial_evaluated")
    assert failed.result.outcome == common_pb2.OUTCOME_CRASHED
    assert (await inner.run(name)).decided_trials == 1


async def test_a_task_that_ends_without_a_result_has_crashed(inner, task) -> None:
    task.measure = lambda _values, _request: None
    name = await inner.create()
    [trial] = await inner.propose(name)
    ended = (await inner.evaluate(trial.name))[-1].trial_evaluated.result
    assert (ended.outcome, ended.message) == (
        common_pb2.OUTCOME_CRASHED,
        "the task ended the evaluation without a result",
    )


@pytest.mark.parametrize(
    ("field", "value", "says"), [("capacity", 0, "task.capacity"), ("hard_limit", 0.0, "task.hard_limit")]
)
async def test_a_task_that_describes_itself_wrongly_is_refused(inner, task, field, value, says) -> None:
    setattr(task, field, value)
    error = await inner.refusal(inner.create())
    assert error.code == "FAILED_PRECONDITION"
    assert "describes itself wrongly" in error.message
    assert says in error.message
