"""Watching a trace: every event once and in order, from any number, for any number of watchers."""

import asyncio

from bilevel.v1 import inner_pb2 as pb
from google.protobuf.duration_pb2 import Duration


async def test_a_watch_resumes_exactly_from_every_number(inner) -> None:
    run, events = await inner.driven(max_trials=2)
    for after in range(len(events) + 1):
        assert [e async for e in inner.events(run.name, after)] == events[after:]


async def test_watchers_that_join_at_any_moment_see_the_same(inner, task) -> None:
    task.hold_after(2)
    name = await inner.create(max_trials=4)
    early = asyncio.create_task(inner.finished(name))
    await inner.start(name)
    for _ in range(3):
        await task.started.get()
    late = [asyncio.create_task(inner.finished(name)) for _ in range(3)]
    task.gate.set()
    first, *others = await asyncio.gather(early, *late)
    assert [e.sequence for e in first] == list(range(1, len(first) + 1))
    assert all(other == first for other in others)


async def test_a_watch_without_following_ends_with_what_is_there(inner) -> None:
    name = await inner.create()
    await inner.one_trial(name)
    last = (await inner.run(name)).last_sequence
    request = pb.WatchTraceRequest(run=name, after_sequence=2, no_follow=True)
    sequences = [item.event.sequence async for item in inner.stub.WatchTrace(request)]
    assert sequences == list(range(3, last + 1))


async def test_an_idle_watch_sends_heartbeats_with_the_newest_number(inner) -> None:
    name = await inner.create()
    request = pb.WatchTraceRequest(run=name, after_sequence=1, heartbeat=Duration(nanos=100_000_000))
    call = inner.stub.WatchTrace(request)
    beats = [await call.read(), await call.read()]
    assert [beat.heartbeat.last_sequence for beat in beats] == [1, 1]
    call.cancel()


async def test_a_watcher_that_reads_nothing_delays_nobody(inner) -> None:
    name = await inner.create(max_trials=3)
    stuck = inner.stub.WatchTrace(pb.WatchTraceRequest(run=name))
    await inner.start(name)
    events = await asyncio.wait_for(inner.finished(name), 20)
    assert (await inner.run(name)).decided_trials == 3
    late = [item.event async for item in stuck if item.HasField("event")]
    assert late == events


async def test_state_is_what_the_log_says(serve_inner) -> None:
    async with serve_inner() as inner:
        run, _ = await inner.driven(max_trials=3, confirmation_seeds=2)
        run = await inner.run(run.name)
        trials = await inner.trials(run.name)
        assert [t async for t in _each(inner, run.name, len(trials))] == trials
        [listed] = (await inner.stub.ListRuns(pb.ListRunsRequest())).runs
        assert listed == run, "the row in the table repeats the fold of the log"
    async with serve_inner() as again:
        assert await again.run(run.name) == run, "a new process folds the same state"
        assert await again.trials(run.name) == trials


async def _each(inner, name, count):
    for number in range(count):
        yield (await inner.stub.GetTrial(pb.GetTrialRequest(name=f"{name}/trials/{number}"))).trial
