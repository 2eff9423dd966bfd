"""An inner service as the tests meet it: a client with a few words for it, and the service as its own process."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import inner_pb2_grpc, trace_pb2

from inner_service.runs import Runs
from service_kit.errors import RemoteError
from service_kit.processes import ProcessGroup, spawn
from service_kit.status import remote_error


@dataclass
class Inner:
    """A client of one inner service, with the few words that the tests need."""

    stub: Any
    runs: Runs
    address: str
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, **spec: Any) -> str:
        """The name of a new run."""
        spec = {"task": "quadratic", "max_trials": 3} | spec
        return (await self.stub.CreateRun(pb.CreateRunRequest(spec=trace_pb2.RunSpec(**spec)))).run.name

    async def run(self, name: str) -> trace_pb2.Run:
        return (await self.stub.GetRun(pb.GetRunRequest(name=name))).run

    async def start(self, name: str) -> None:
        await self.stub.StartRun(pb.StartRunRequest(name=name))

    async def resume(self, name: str) -> None:
        await self.stub.ResumeRun(pb.ResumeRunRequest(name=name))

    async def finished(self, name: str) -> list[trace_pb2.TraceEvent]:
        """Every event of a run, once it has ended."""
        return [e async for e in self.events(name)]

    async def driven(self, **spec: Any) -> tuple[trace_pb2.Run, list[trace_pb2.TraceEvent]]:
        """A run that was created, started and has ended, with its events."""
        name = await self.create(**spec)
        await self.start(name)
        events = await self.finished(name)
        return await self.run(name), events

    async def events(self, name: str, after: int = 0) -> AsyncIterator[trace_pb2.TraceEvent]:
        async for item in self.stub.WatchTrace(pb.WatchTraceRequest(run=name, after_sequence=after)):
            if item.WhichOneof("item") == "event":
                yield item.event

    async def events_so_far(self, name: str) -> AsyncIterator[trace_pb2.TraceEvent]:
        async for item in self.stub.WatchTrace(pb.WatchTraceRequest(run=name, no_follow=True)):
            if item.WhichOneof("item") == "event":
                yield item.event

    async def until(
        self, name: str, wanted: Callable[[trace_pb2.TraceEvent], bool], after: int = 0
    ) -> trace_pb2.TraceEvent:
        """The first event after number ``after`` that is ``wanted``."""
        async for event in self.events(name, after):
            if wanted(event):
                return event
        raise AssertionError("the run ended before that")

    async def until_state(self, name: str, state: str, after: int = 0) -> trace_pb2.TraceEvent:
        number = trace_pb2.RunState.Value(f"RUN_STATE_{state}")
        return await self.until(name, lambda event: event.run_state_changed.to_state == number, after)

    async def trials(self, name: str) -> list[trace_pb2.Trial]:
        return list((await self.stub.ListTrials(pb.ListTrialsRequest(parent=name, page_size=1000))).trials)

    async def propose(self, name: str, **request: Any) -> list[trace_pb2.Trial]:
        return list((await self.stub.Propose(pb.ProposeRequest(parent=name, **request))).trials)

    async def evaluate(self, trial: str) -> list[trace_pb2.TraceEvent]:
        request = pb.InnerLoopServiceEvaluateRequest(name=trial)
        return [response.event async for response in self.stub.Evaluate(request)]

    async def accept(self, trial: str) -> trace_pb2.Trial:
        return (await self.stub.Accept(pb.AcceptRequest(name=trial))).trial

    async def one_trial(self, name: str, **request: Any) -> trace_pb2.Trial:
        """One trial by hand, from its proposal to its decision."""
        [trial] = await self.propose(name, **request)
        await self.evaluate(trial.name)
        return await self.accept(trial.name)

    async def install(self, name: str, source: str, mechanism_id: str = "probe", **request: Any) -> trace_pb2.Mechanism:
        asked = pb.InstallMechanismRequest(run=name, mechanism_id=mechanism_id, source=source, **request)
        return (await self.stub.InstallMechanism(asked)).mechanism

    @staticmethod
    def kinds(events: list[trace_pb2.TraceEvent]) -> list[str]:
        return [str(event.WhichOneof("event")) for event in events]

    @staticmethod
    def of(events: list[trace_pb2.TraceEvent], kind: str) -> list[Any]:
        """The bodies of all events of one kind."""
        return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]

    @staticmethod
    async def refusal(call: Awaitable[Any]) -> RemoteError:
        """The typed error of a call that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return remote_error(caught.value)

    async def mechanism(self, name: str, mechanism_id: str = "probe") -> trace_pb2.Mechanism:
        found = (await self.stub.ListMechanisms(pb.ListMechanismsRequest(parent=name))).mechanisms
        return next(m for m in found if m.name.endswith(f"/{mechanism_id}"))


class Process:
    """The inner service as its own process; every start after the first is at the same address."""

    def __init__(self, folder: Path, task: str, model: str, database: str = "", **environment: str) -> None:
        self.folder, self.task, self.model = folder, task, model
        self.database = database or f"sqlite:///{folder / 'inner.db'}"
        self.environment = environment
        self.group: ProcessGroup | None = None
        self.address = "127.0.0.1:0"
        self.channel: Any = None

    async def start(self) -> inner_pb2_grpc.InnerLoopServiceStub:
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        options = ["--listen", self.address, "--address-file", str(address), "--task", f"quadratic={self.task}"]
        options += ["--database", self.database]
        environment = {"OPENAI_BASE_URL": self.model, "BILEVEL_MODEL": "test-model", "PATH": "/usr/bin:/bin"}
        environment |= self.environment
        self.group = await spawn([sys.executable, "-m", "inner_service", *options], env=environment)
        ended = asyncio.create_task(self.group.wait())
        while not address.exists():
            assert not ended.done(), "the service ended while it started"
            await asyncio.wait({ended}, timeout=0.02)
        ended.cancel()
        self.address = address.read_text().strip()
        self.channel = grpc.aio.insecure_channel(self.address)
        return inner_pb2_grpc.InnerLoopServiceStub(self.channel)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the service."""
        assert self.group is not None
        for process in psutil.Process(self.group.pid).children(recursive=True):
            # The first one that goes on may end the others before their turn comes.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def service_pid(self) -> int:
        """The process that serves."""
        assert self.group is not None
        below = psutil.Process(self.group.pid).children(recursive=True)
        return next(p.pid for p in below if "inner_service" in p.cmdline())

    async def kill(self) -> None:
        assert self.group is not None
        await self.group.kill()
        await self.channel.close()
