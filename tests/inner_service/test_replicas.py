"""Several inner services on one PostgreSQL: any of them answers for any run, one of them drives it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import trace_pb2

from inner_service.store import Store
from tests.inner_service.conftest import Inner, Process, QuadraticTask, Serve

LEASE = 2.0
COUNTER = '''
class Mechanism:
    """Counter: say how many trials were seen."""

    def __init__(self, space, settings, rng):
        self.seen = 0

    def observe(self, trial):
        self.seen += 1

    def prompt(self, view):
        return f"{self.seen} trials were seen"
'''


@pytest.fixture
def url(postgres: Any) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
async def pair(serve_inner: Serve, url: str) -> AsyncIterator[tuple[Inner, Inner]]:
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(serve_inner(database=url, lease_seconds=LEASE)) for _ in range(2)]
        yield one, two
    store = await Store.open(url)
    assert await store.verify() == [], "whatever happened, rows and traces agree"
    await store.close()


async def driving(one: Inner, task: QuadraticTask, trials: int = 3, **spec: Any) -> str:
    """A run that ``one`` drives, held in the evaluation of its baseline."""
    task.gate.clear()
    name = await one.create(max_trials=trials, **spec)
    await one.start(name)
    await asyncio.wait_for(task.started.get(), 20)
    return name


def decided_once(events: list[trace_pb2.TraceEvent], trials: int) -> None:
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == list(range(trials + 1))


async def test_what_one_drives_the_other_shows_to_its_end(pair, task) -> None:
    one, two = pair
    name = await driving(one, task)
    watching = asyncio.create_task(two.finished(name))
    task.gate.set()
    events = await asyncio.wait_for(watching, 30)
    decided_once(events, 3)
    assert await one.finished(name) == events
    assert (await two.run(name)).state == trace_pb2.RUN_STATE_FINISHED
    assert len(await two.trials(name)) == 4


async def test_a_pause_is_asked_for_anywhere_and_another_service_goes_on(pair, task) -> None:
    one, two = pair
    name = await driving(one, task)
    await two.stub.PauseRun(pb.PauseRunRequest(name=name, reason="lunch"))
    assert (await two.run(name)).pause_request == "lunch"
    task.gate.set()
    await asyncio.wait_for(one.until_state(name, "PAUSED"), 20)
    run = await two.run(name)
    assert (run.state_reason, run.pause_request, run.decided_trials) == ("lunch", "", 0)
    await two.resume(name)
    decided_once(await asyncio.wait_for(one.finished(name), 20), 3)
    assert name.split("/")[1] not in one.runs._drivers._driving or one.runs._drivers._driving[name.split("/")[1]].done()


async def test_cancelling_anywhere_kills_the_work(pair, task) -> None:
    one, two = pair
    name = await driving(one, task)
    await two.stub.CancelRun(pb.CancelRunRequest(name=name, reason="enough"))
    assert (await one.run(name)).state == trace_pb2.RUN_STATE_CANCELLED
    assert await asyncio.wait_for(task.killed.get(), 20) == f"{name}/trials/0"
    last = (await asyncio.wait_for(one.finished(name), 20))[-1]
    assert last.run_state_changed.reason == "enough"


async def test_the_driver_follows_what_others_change(pair, task, endpoint) -> None:
    one, two = pair
    name = await driving(one, task)
    await two.stub.UpdateSearchConfig(pb.UpdateSearchConfigRequest(run=name, guidance="go west"))
    await two.install(name, COUNTER, "counter")
    await two.stub.Remark(pb.RemarkRequest(run=name, author="two", text="hello"))
    task.hold_after(2)
    task.gate.set()
    await asyncio.wait_for(one.until(name, lambda e: e.trial_started.number == 2), 20)
    assert endpoint.states[-1]["guidance"] == "go west"
    assert endpoint.states[-1]["mechanisms"][0]["prompt"] == "2 trials were seen"
    mechanism = pb.UninstallMechanismRequest(name=f"{name}/mechanisms/counter", reason="done")
    await two.stub.UninstallMechanism(mechanism)
    task.gate.set()
    events = await asyncio.wait_for(two.finished(name), 20)
    decided_once(events, 3)
    assert endpoint.states[-1]["mechanisms"][0]["prompt"] == ""
    assert not one.of(events, "mechanism_suspended")


async def test_steps_by_hand_may_go_through_any_service(pair, task) -> None:
    one, two = pair
    name = await one.create()
    [trial] = await two.propose(name)
    task.gate.clear()
    evaluating = asyncio.create_task(one.evaluate(trial.name))
    await asyncio.wait_for(task.started.get(), 20)
    refused = await two.refusal(collect(two.stub.Evaluate(pb.InnerLoopServiceEvaluateRequest(name=trial.name))))
    assert "being evaluated" in refused.message
    refused = await two.refusal(two.stub.StartRun(pb.StartRunRequest(name=name)))
    assert "being evaluated by hand" in refused.message
    task.gate.set()
    await evaluating
    assert (await two.accept(trial.name)).state == trace_pb2.TRIAL_STATE_KEPT
    assert (await two.one_trial(name)).number == 1
    assert (await one.one_trial(name)).number == 2


async def collect(call: Any) -> None:
    async for _ in call:
        pass


@pytest.mark.parametrize(
    "stop",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="frozen", marks=pytest.mark.long)],
)
async def test_a_driver_that_is_gone_is_taken_over_and_one_that_comes_back_does_no_harm(
    served, task, endpoint, tmp_path, url, serve_inner, stop
) -> None:
    process = Process(tmp_path, served.address, endpoint.url, url, BILEVEL_LEASE_SECONDS=str(LEASE))
    stub = await process.start()
    task.gate.clear()
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=3)
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=spec))).run.name
    await stub.InstallMechanism(pb.InstallMechanismRequest(run=name, mechanism_id="counter", source=COUNTER))
    await stub.StartRun(pb.StartRunRequest(name=name))
    await asyncio.wait_for(task.started.get(), 20)
    async with serve_inner(database=url, lease_seconds=LEASE) as other:
        process.signal(stop)
        again = await asyncio.wait_for(task.started.get(), 30)
        assert again.label == f"{name}/trials/0"
        if stop == signal.SIGSTOP:
            process.signal(signal.SIGCONT)
        task.gate.set()
        events = await asyncio.wait_for(other.finished(name), 30)
        decided_once(events, 3)
        started = [(e.trial_started.number, e.trial_started.attempt) for e in events if e.HasField("trial_started")]
        assert started == [(0, 1), (0, 2), (1, 1), (2, 1), (3, 1)]
        assert (await other.run(name)).state == trace_pb2.RUN_STATE_FINISHED
    await process.kill()
    store = await Store.open(url)
    assert await store.verify() == []
    await store.close()
