"""The real process, killed at any moment: no committed event is lost, no decided trial repeated, the run goes on."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import trace_pb2

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


async def watched(stub: Any, name: str, after: int = 0) -> list[trace_pb2.TraceEvent]:
    request = pb.WatchTraceRequest(run=name, after_sequence=after)
    return [item.event async for item in stub.WatchTrace(request) if item.HasField("event")]


@pytest.mark.parametrize("trial", [0, 2], ids=["in the baseline", "in the second trial"])
async def test_a_killed_service_goes_on_with_its_run(process, task, endpoint, trial) -> None:
    task.hold_after(trial) if trial else task.gate.clear()
    stub = await process.start()
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=3, seed=1)
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=spec))).run.name
    await stub.InstallMechanism(pb.InstallMechanismRequest(run=name, mechanism_id="counter", source=COUNTER))
    await stub.StartRun(pb.StartRunRequest(name=name))
    for _ in range(trial + 1):
        await asyncio.wait_for(task.started.get(), 20)
    no_follow = pb.WatchTraceRequest(run=name, no_follow=True)
    seen = [item.event async for item in stub.WatchTrace(no_follow)]
    await process.kill()
    assert await asyncio.wait_for(task.killed.get(), 20) == f"{name}/trials/{trial}", "the work died with its service"
    task.gate.set()

    stub = await process.start()
    events = await asyncio.wait_for(watched(stub, name), 30)
    assert events[: len(seen)] == seen
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    started = [(e.trial_started.number, e.trial_started.attempt) for e in events if e.HasField("trial_started")]
    assert started == [(n, a) for n in range(4) for a in ((1, 2) if n == trial else (1,))]
    decided = [e.trial_decided.number for e in events if e.HasField("trial_decided")]
    assert decided == [0, 1, 2, 3], "each trial is decided once"
    replayed = [e.mechanism_replayed for e in events if e.HasField("mechanism_replayed")]
    assert [(r.trials, r.matches) for r in replayed] == ([(trial, True)] if trial else []), "nothing seen, nothing said"
    assert endpoint.states[-1]["mechanisms"][0]["prompt"] == "3 trials were seen"
    run = (await stub.GetRun(pb.GetRunRequest(name=name))).run
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 3)


async def test_a_second_service_on_the_same_database_is_refused(process, tmp_path: Path) -> None:
    await process.start()
    options = ["--listen", "127.0.0.1:0", "--task", "quadratic=127.0.0.1:9"]
    options += ["--database", f"sqlite:///{tmp_path / 'inner.db'}"]
    environment = {"OPENAI_BASE_URL": process.model, "BILEVEL_MODEL": "test-model", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "inner_service", *options]
    second = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    _, said = await second.communicate()
    assert second.returncode == 1
    assert "is in use by another process" in said.decode()


async def test_a_service_killed_while_it_confirms_goes_on_with_what_is_missing(process, task) -> None:
    task.hold_after(4)  # the baseline, a trial, and two of the four evaluations that confirm
    stub = await process.start()
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=1, seed=1, confirmation_seeds=2)
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=spec))).run.name
    await stub.StartRun(pb.StartRunRequest(name=name))
    for _ in range(5):
        await asyncio.wait_for(task.started.get(), 20)
    async for item in stub.WatchTrace(pb.WatchTraceRequest(run=name)):
        if item.event.HasField("trial_remeasured") and item.event.trial_remeasured.number == 1:
            break
    await process.kill()
    task.gate.set()

    stub = await process.start()
    events = await asyncio.wait_for(watched(stub, name), 30)
    measured = [(e.trial_remeasured.number, e.trial_remeasured.seed) for e in events if e.HasField("trial_remeasured")]
    assert len(measured) == len(set(measured)) == 4
    assert len(task.requests) == 2 + 4 + 1, "only the one that was cut off is begun again"
    run = (await stub.GetRun(pb.GetRunRequest(name=name))).run
    assert (run.state, len(run.confirmation.seeds)) == (trace_pb2.RUN_STATE_FINISHED, 2)


async def test_a_paused_run_stays_paused_over_a_restart(process, task) -> None:
    stub = await process.start()
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=4, checkpoint_every=2)
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=spec))).run.name
    await stub.StartRun(pb.StartRunRequest(name=name))
    async for item in stub.WatchTrace(pb.WatchTraceRequest(run=name)):
        if item.event.run_state_changed.to_state == trace_pb2.RUN_STATE_PAUSED:
            break
    await process.kill()
    stub = await process.start()
    run = (await stub.GetRun(pb.GetRunRequest(name=name))).run
    assert (run.state, run.state_reason) == (trace_pb2.RUN_STATE_PAUSED, "checkpoint")
    await stub.ResumeRun(pb.ResumeRunRequest(name=name))
    await asyncio.wait_for(watched(stub, name), 20)
    assert (await stub.GetRun(pb.GetRunRequest(name=name))).run.decided_trials == 4


async def test_it_stops_on_sigterm_in_the_middle_of_an_evaluation(process, task) -> None:
    task.gate.clear()
    stub = await process.start()
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=1)
    name = (await stub.CreateRun(pb.CreateRunRequest(spec=spec))).run.name
    await stub.StartRun(pb.StartRunRequest(name=name))
    await asyncio.wait_for(task.started.get(), 20)
    assert process.group is not None
    assert await process.group.terminate(20) == 0
    assert await asyncio.wait_for(task.killed.get(), 20) == f"{name}/trials/0"
