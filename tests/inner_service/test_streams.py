"""Many watchers, slow ones and a server that goes down: nobody delays the run, and everybody goes on exactly."""

import asyncio
from typing import Any

import grpc
import psutil
import pytest
from bilevel.v1 import common_pb2, inner_pb2_grpc, trace_pb2
from bilevel.v1 import inner_pb2 as pb

from clients import InnerClient
from service_kit.server import RECONNECT_SECONDS
from service_kit.status import remote_error

MIB = 2**20
STUCK, READING, REMARKS = 100, 10, 300


async def test_a_draining_server_says_when_to_come_back(inner) -> None:
    name = await inner.create()
    events = inner.events(name)
    await anext(events)
    inner.draining.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(events)
    error = remote_error(caught.value)
    assert (error.code, error.reason, error.retry_after) == ("UNAVAILABLE", "DRAINING", RECONNECT_SECONDS)


async def test_a_watch_that_has_everything_of_an_ended_run_ends_well_while_draining(inner) -> None:
    run, events = await inner.driven(max_trials=1)
    inner.draining.set()
    assert await inner.finished(run.name) == events


@pytest.mark.long
async def test_an_evaluation_by_hand_that_a_restart_cuts_off_is_a_new_attempt_and_not_cancelled(process, task) -> None:
    task.gate.clear()
    stub = await process.start()
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=trace_pb2.RunSpec(task="quadratic", max_trials=1)))).run.name
    [trial] = (await stub.Propose(pb.ProposeRequest(parent=name))).trials
    call = stub.Evaluate(pb.InnerLoopServiceEvaluateRequest(name=trial.name))
    await asyncio.wait_for(task.started.get(), 20)
    assert process.group is not None
    await process.group.terminate(30)
    with pytest.raises(grpc.aio.AioRpcError):
        [event async for event in call]
    await process.channel.close()
    task.gate.set()
    stub = await process.start()
    request = pb.InnerLoopServiceEvaluateRequest(name=trial.name)
    events = [item.event async for item in stub.Evaluate(request)]
    assert events[0].trial_started.attempt == 2
    assert events[-1].trial_evaluated.result.outcome == common_pb2.OUTCOME_SUCCEEDED


async def sequences(address: str, run: str) -> list[int]:
    async with InnerClient(address) as client:
        return [event.sequence async for event in client.watch_trace(run, patience=60)]


async def test_watchers_go_on_exactly_over_a_restart_in_the_middle_of_a_run(process, task) -> None:
    task.hold_after(3)
    stub = await process.start()
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=trace_pb2.RunSpec(task="quadratic", max_trials=6)))).run.name
    watching = [asyncio.create_task(sequences(process.address, name)) for _ in range(5)]
    await stub.StartRun(pb.StartRunRequest(name=name))
    for _ in range(4):
        await asyncio.wait_for(task.started.get(), 20)
    assert process.group is not None
    assert await process.group.terminate(30) == 0, "it drains within its grace period"
    await process.channel.close()
    task.gate.set()
    stub = await process.start()
    seen = await asyncio.wait_for(asyncio.gather(*watching), 60)
    last = (await stub.GetRun(pb.GetRunRequest(name=name))).run.last_sequence
    assert all(numbers == list(range(1, last + 1)) for numbers in seen)


@pytest.mark.long
async def test_a_hundred_watchers_that_never_read_cost_little_and_delay_nobody(process, task) -> None:
    stub = await process.start()
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=trace_pb2.RunSpec(task="quadratic", max_trials=3)))).run.name
    service = psutil.Process(process.group.members()[0].pid)
    watch = pb.WatchTraceRequest(run=name)
    # Without these options the client's side would take in megabytes ahead of its reader.
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
    sleepy = grpc.aio.insecure_channel(process.address, options=narrow)
    stuck: list[Any] = [inner_pb2_grpc.InnerLoopServiceStub(sleepy).WatchTrace(watch) for _ in range(STUCK)]
    reading = [asyncio.create_task(sequences(process.address, name)) for _ in range(READING)]
    before = service.memory_info().rss
    remark = pb.RemarkRequest(run=name, author="a talkative one", text="x" * 2000)
    for _ in range(REMARKS // 10):
        await asyncio.gather(*(stub.Remark(remark) for _ in range(10)))
    await stub.StartRun(pb.StartRunRequest(name=name))
    seen = await asyncio.wait_for(asyncio.gather(*reading), 100)
    run = (await stub.GetRun(pb.GetRunRequest(name=name))).run
    assert run.state == trace_pb2.RUN_STATE_FINISHED
    assert all(numbers == list(range(1, run.last_sequence + 1)) for numbers in seen)
    size = sum([item.ByteSize() async for item in stub.WatchTrace(watch)])
    grown = service.memory_info().rss - before
    print(f"trace {size / MIB:.2f} MiB, {STUCK} watchers that never read: the service grew by {grown / MIB:.1f} MiB")
    assert grown < STUCK * size / 2, "a watcher that never reads costs a batch and a socket's buffer, not the trace"
    assert all(not call.done() for call in stuck)
    await sleepy.close()
