"""A task or a model that is away for a moment: the run waits, says so on its trace, and goes on without a person."""

import asyncio

from aiohttp import web
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import trace_pb2


def changes(events: list[trace_pb2.TraceEvent]) -> list[tuple[str, bool]]:
    found = [e.availability_changed for e in events if e.HasField("availability_changed")]
    return [("task" if "task" in change.dependency else "model", change.available) for change in found]


async def test_a_task_that_restarts_in_an_evaluation_gets_a_new_attempt_of_the_same_trial(
    serve_inner, served, task
) -> None:
    async with serve_inner(patience=60) as inner:
        task.gate.clear()
        name = await inner.create(max_trials=1)
        await inner.start(name)
        await asyncio.wait_for(task.started.get(), 10)
        await served.stop()
        lost = await inner.until(name, lambda e: e.HasField("availability_changed"))
        assert lost.availability_changed.patience.seconds == 60
        task.gate.set()
        await served.start()
        events = await asyncio.wait_for(inner.finished(name), 30)
        assert changes(events) == [("task", False), ("task", True)]
        started = [(e.trial_started.number, e.trial_started.attempt) for e in events if e.HasField("trial_started")]
        assert started == [(0, 1), (0, 2), (1, 1)]
        assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def test_a_model_endpoint_that_is_overloaded_for_a_while_is_waited_for(serve_inner, endpoint) -> None:
    well, failures = endpoint.answer, [3]

    def answer(state):
        failures[0] -= 1
        return web.json_response({"error": {"message": "restarting"}}, status=503) if failures[0] >= 0 else well(state)

    endpoint.answer = answer
    async with serve_inner(patience=60) as inner:
        run, events = await inner.driven(max_trials=1)
        assert changes(events) == [("model", False), ("model", True)]
        assert not [e for e in events if e.HasField("proposal_failed")]
        assert run.state == trace_pb2.RUN_STATE_FINISHED


async def test_a_task_that_stays_away_stops_the_run_loudly(serve_inner, served, task) -> None:
    async with serve_inner(patience=1) as inner:
        task.gate.clear()
        name = await inner.create(max_trials=1)
        await inner.start(name)
        await asyncio.wait_for(task.started.get(), 10)
        await served.stop()
        paused = await asyncio.wait_for(inner.until_state(name, "PAUSED"), 40)
        assert "cannot be reached" in paused.run_state_changed.reason


async def test_a_pause_does_not_wait_for_what_is_away(serve_inner, served, task) -> None:
    async with serve_inner(patience=3600) as inner:
        task.gate.clear()
        name = await inner.create(max_trials=1)
        await inner.start(name)
        await asyncio.wait_for(task.started.get(), 10)
        await served.stop()
        await inner.until(name, lambda e: e.HasField("availability_changed"))
        await inner.stub.PauseRun(pb.PauseRunRequest(name=name, reason="enough"))
        await asyncio.wait_for(inner.until_state(name, "PAUSED"), 40)
