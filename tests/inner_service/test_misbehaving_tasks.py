"""Tasks that break their contract, each on a socket of its own: a typed outcome, an event, a message for the author."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from bilevel.v1 import common_pb2, task_pb2, trace_pb2

from inner_service import evaluation, task_stream

Response = task_pb2.EvaluateResponse
Result = task_pb2.EvaluationResult
Progress = task_pb2.EvaluationProgress
OK = common_pb2.OUTCOME_SUCCEEDED
Says = Callable[[Any], AsyncIterator[Response]]


def measured(metric: float, **fields: Any) -> Response:
    return Response(result=Result(outcome=OK, metric=metric, **fields))


async def twice(_: Any) -> AsyncIterator[Response]:
    yield measured(1.0)
    yield measured(0.5)


async def never(_: Any) -> AsyncIterator[Response]:
    yield Response(progress=Progress(fraction=0.5))


async def goes_on(_: Any) -> AsyncIterator[Response]:
    yield measured(1.0)
    yield Response(progress=Progress(fraction=0.9))


async def stays_open(_: Any) -> AsyncIterator[Response]:
    yield measured(1.0)
    await asyncio.Event().wait()


async def fails_afterwards(context: Any) -> AsyncIterator[Response]:
    yield measured(1.0)
    await context.abort(grpc.StatusCode.INTERNAL, "the tidying up failed")


async def not_a_number(_: Any) -> AsyncIterator[Response]:
    yield measured(math.nan)


async def floods(_: Any) -> AsyncIterator[Response]:
    for step in range(1_000_000):
        yield Response(progress=Progress(fraction=0.1, step=step))
    yield measured(1.0)


async def shows_everything(_: Any) -> AsyncIterator[Response]:
    yield Response(progress=Progress(metrics={f"weight-{i}": 1.0 for i in range(20_000)}))
    yield measured(1.0)


async def tells_everything(_: Any) -> AsyncIterator[Response]:
    yield measured(1.0, message="x" * (task_stream.RESULT_BYTES + 1))


async def sends_too_much(_: Any) -> AsyncIterator[Response]:
    yield measured(1.0, message="x" * (17 * 2**20))


async def refuses(context: Any) -> AsyncIterator[Response]:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "x must be at most 5")
    yield measured(1.0)


CASES: dict[str, tuple[Says, str, str, str]] = {
    # what the task says: outcome, fault, part of the message
    "answers twice": (twice, "SUCCEEDED", "SECOND_RESULT", "a second result came, with 0.5; the first one counts"),
    "never answers": (never, "CRASHED", "NO_RESULT", "without a result"),
    "goes on after its result": (goes_on, "SUCCEEDED", "NOT_ENDED", "progress came after the result"),
    "leaves the stream open": (stays_open, "SUCCEEDED", "NOT_ENDED", "still open"),
    "fails after its result": (fails_afterwards, "SUCCEEDED", "NOT_ENDED", "the tidying up failed"),
    "returns NaN": (not_a_number, "CRASHED", "INVALID_RESULT", "its metric is nan"),
    "floods progress": (floods, "CRASHED", "PROGRESS_FLOOD", "progress messages in"),
    "sends all weights as progress": (shows_everything, "CRASHED", "MESSAGE_TOO_LARGE", "a progress message of"),
    "sends a result for a novel": (tells_everything, "CRASHED", "MESSAGE_TOO_LARGE", "a result of"),
    "sends more than a message": (sends_too_much, "CRASHED", "MESSAGE_TOO_LARGE", "larger than max"),
    "lies about its parameters": (refuses, "INFEASIBLE", "REFUSED_PARAMETERS", "x must be at most 5"),
}


@pytest.fixture
def misbehave(task) -> Callable[[Says], None]:
    """From now on every evaluation of the task is what the script says."""

    def begin(says: Says) -> None:
        async def evaluate(request: Any, context: Any) -> AsyncIterator[Response]:
            async for response in says(context):
                yield response

        task.Evaluate = evaluate

    return begin


@pytest.mark.parametrize(("says", "outcome", "fault", "message"), CASES.values(), ids=CASES)
async def test_each_breach_has_a_typed_outcome_and_an_event_for_the_author(
    serve_inner, served, misbehave, monkeypatch, says, outcome, fault, message
) -> None:
    monkeypatch.setattr(task_stream, "LINGER_SECONDS", 0.2)
    await served.stop()
    misbehave(says)
    await served.start()
    async with serve_inner() as inner:
        name = await inner.create()
        [trial] = await inner.propose(name)
        await inner.evaluate(trial.name)
        events = [event async for event in inner.events_so_far(name)]
    [seen], [ended] = inner.of(events, "task_misbehaved"), inner.of(events, "trial_evaluated")
    assert common_pb2.Outcome.Name(ended.result.outcome) == f"OUTCOME_{outcome}"
    assert ended.result.HasField("metric") == (outcome == "SUCCEEDED")
    assert trace_pb2.TaskFault.Name(seen.fault) == f"TASK_FAULT_{fault}"
    assert message in seen.message
    assert seen.number == 0
    assert seen.hint.endswith((".", "them."))
    kinds = inner.kinds(events)
    assert kinds.index("task_misbehaved") < kinds.index("trial_evaluated")


async def test_the_first_of_two_results_is_the_one_that_counts(serve_inner, served, misbehave) -> None:
    await served.stop()
    misbehave(twice)
    await served.start()
    async with serve_inner() as inner:
        name = await inner.create()
        trial = await inner.one_trial(name)
    assert trial.metric == 1.0


async def test_a_task_that_keeps_its_contract_causes_no_such_event(inner) -> None:
    _, events = await inner.driven(max_trials=2, confirmation_seeds=1)
    assert not {"task_misbehaved", "task_changed"} & set(inner.kinds(events))


async def test_a_busy_task_is_waited_for(inner, task) -> None:
    task.capacity, task.running = 1, 1
    name = await inner.create()
    [trial] = await inner.propose(name)
    evaluating = asyncio.create_task(inner.evaluate(trial.name))
    await inner.until(name, lambda event: event.WhichOneof("event") == "trial_started")
    task.running = 0
    assert (await evaluating)[-1].trial_evaluated.result.outcome == OK


async def test_a_task_that_never_has_a_place_pauses_the_run(inner, task, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "BUSY_HARD_LIMITS", 0)
    task.capacity, task.running = 1, 1
    name = await inner.create(max_trials=1)
    await inner.start(name)
    paused = await inner.until_state(name, "PAUSED")
    assert "all of its places are taken" in paused.run_state_changed.reason
    task.running = 0
    await inner.resume(name)
    await inner.finished(name)
    assert (await inner.run(name)).decided_trials == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": "narrower"}, "parameter x must be a number from -10 to 9, was a number from -10 to 10"),
        ({"space": "without"}, "parameter mode is gone"),
        ({"direction": common_pb2.DIRECTION_MAXIMIZE}, "the objective is to maximize loss points, was to minimize"),
    ],
)
async def test_a_task_that_becomes_another_one_pauses_the_run_until_it_is_itself_again(
    serve_inner, served, task, change, says
) -> None:
    describe = task.Describe

    async def described(request: Any, context: Any) -> task_pb2.DescribeResponse:
        response = await describe(request, context)
        parameters = response.task.space.parameters
        match change:
            case {"space": "narrower"}:
                parameters[0].maximum = 9
            case {"space": "without"}:
                del parameters[2]
            case {"direction": direction}:
                response.task.objective.direction = direction
        return response

    async with serve_inner() as inner:
        name = await inner.create(max_trials=2)
        await inner.one_trial(name)
        await served.stop()
        task.Describe = described
        await served.start()
        await inner.start(name)
        paused = await inner.until_state(name, "PAUSED")
        assert says in paused.run_state_changed.reason
        assert "create a new one" in paused.run_state_changed.reason
        [changed] = inner.of([event async for event in inner.events_so_far(name)], "task_changed")
        assert not changed.compatible
        assert any(says in difference for difference in changed.differences)

        await inner.resume(name)  # it is still another task
        await inner.until_state(name, "PAUSED", paused.sequence)
        await served.stop()
        task.Describe = describe
        await served.start()
        await inner.resume(name)
        await inner.finished(name)
        assert (await inner.run(name)).decided_trials == 2


async def test_harmless_changes_are_on_the_trace_once_and_the_run_goes_on(serve_inner, served, task) -> None:
    async with serve_inner() as inner:
        name = await inner.create(max_trials=3)
        await inner.one_trial(name)
        await served.stop()
        task.capacity = 2
        await served.start()
        await inner.start(name)
        events = await inner.finished(name)
    [changed] = inner.of(events, "task_changed")
    assert changed.compatible
    assert list(changed.differences) == ["capacity is '2', was '4'"]
    assert len(inner.of(events, "trial_decided")) == 4


async def test_a_task_that_goes_away_and_comes_back_is_measured_again(inner, served, task) -> None:
    task.gate.clear()
    name = await inner.create(max_trials=1)
    await inner.start(name)
    await task.started.get()
    await served.stop()
    task.gate.set()
    await served.start()
    events = await inner.finished(name)
    assert [e.attempt for e in inner.of(events, "trial_started") if e.number == 0] == [1, 2]
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


@pytest.mark.parametrize(
    ("field", "says"),
    [("budget", "task.budget: must be longer than 0 s and at most"), ("sources", "task.sources: must have at most")],
)
async def test_a_description_beyond_all_measure_is_refused_by_its_field(inner, served, task, field, says) -> None:
    describe = task.Describe

    async def described(request: Any, context: Any) -> task_pb2.DescribeResponse:
        response = await describe(request, context)
        if field == "budget":
            response.task.budget.seconds = 2**62
        else:
            response.task.sources.add(path="novel.txt", content="x" * 2**20)
        return response

    await served.stop()
    task.Describe = described
    await served.start()
    error = await inner.refusal(inner.create())
    assert says in error.message
