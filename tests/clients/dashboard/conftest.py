"""An inner service that tells recorded runs over a real socket, can be lost and comes back, and notes requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from bilevel.v1 import inner_pb2, inner_pb2_grpc, trace_pb2

from clients.dashboard.projection.run import RunView
from clients.report.record import RunRecord


class RecordedInner(inner_pb2_grpc.InnerLoopServiceServicer):
    """Tells traces. ``add`` appends an event, which open streams receive; ``lose`` and ``serve`` are a restart."""

    def __init__(self) -> None:
        self.traces: dict[str, list[trace_pb2.TraceEvent]] = {}
        self.asked: list[object] = []
        """What clients asked to change."""
        self.watched_after: list[int] = []
        """From which number every stream was opened."""
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        """What it answers to every request for a change."""
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self) -> None:
        """Listen: on a port of the kernel's choice first, later on the same one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        inner_pb2_grpc.add_InnerLoopServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def lose(self) -> None:
        """Break every connection and listen no more."""
        assert self._server is not None
        await self._server.stop(None)

    def tell(self, record: RunRecord, count: int | None = None) -> str:
        """Know the first ``count`` events of a run; returns its name."""
        events = list(record.events)[:count]
        self.traces[events[0].run] = events
        return events[0].run

    def add(self, event: trace_pb2.TraceEvent) -> None:
        """Append an event, numbered and dated after the last one."""
        events = self.traces[event.run]
        event.sequence = len(events) + 1
        event.time.FromNanoseconds(events[-1].time.ToNanoseconds() + 10**9)
        events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    async def GetRun(self, request, context) -> inner_pb2.GetRunResponse:  # noqa: N802
        if request.name not in self.traces:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"run {request.name!r} does not exist")
        return inner_pb2.GetRunResponse(run=self._run(request.name))

    async def ListRuns(self, request, context) -> inner_pb2.ListRunsResponse:  # noqa: N802
        return inner_pb2.ListRunsResponse(runs=[self._run(name) for name in self.traces])

    async def WatchTrace(self, request, context) -> AsyncIterator[inner_pb2.WatchTraceResponse]:  # noqa: N802
        self.watched_after.append(request.after_sequence)
        sent, events = request.after_sequence, self.traces[request.run]
        while True:
            changed = self._changed
            for event in events[sent:]:
                yield inner_pb2.WatchTraceResponse(event=event)
            sent = len(events)
            if RunView.of(events).state == trace_pb2.RUN_STATE_FINISHED:
                return
            await changed.wait()

    async def PauseRun(self, request, context) -> inner_pb2.PauseRunResponse:  # noqa: N802
        if request.name not in self.traces:  # how the dashboard asks whether its token may drive
            await context.abort(*(self.refusal or (grpc.StatusCode.NOT_FOUND, "no such run")))
        await self._note(request, context)
        reason = trace_pb2.PauseRequested(reason=request.reason)
        self.add(trace_pb2.TraceEvent(run=request.name, pause_requested=reason))
        return inner_pb2.PauseRunResponse(run=self._run(request.name))

    async def CancelRun(self, request, context) -> inner_pb2.CancelRunResponse:  # noqa: N802
        await self._note(request, context)
        changed = trace_pb2.RunStateChanged(to_state=trace_pb2.RUN_STATE_CANCELLED, reason=request.reason)
        self.add(trace_pb2.TraceEvent(run=request.name, run_state_changed=changed))
        return inner_pb2.CancelRunResponse(run=self._run(request.name))

    async def UpdateSearchConfig(self, request, context) -> inner_pb2.UpdateSearchConfigResponse:  # noqa: N802
        await self._note(request, context)
        config = trace_pb2.SearchConfig(guidance=request.guidance, revision=request.expected_revision + 1)
        updated = trace_pb2.SearchConfigUpdated(search_config=config, author=request.author)
        self.add(trace_pb2.TraceEvent(run=request.run, search_config_updated=updated))
        return inner_pb2.UpdateSearchConfigResponse(search_config=config)

    async def UninstallMechanism(self, request, context) -> inner_pb2.UninstallMechanismResponse:  # noqa: N802
        await self._note(request, context)
        run, _, name = request.name.partition("/mechanisms/")
        gone = trace_pb2.MechanismUninstalled(mechanism=name, reason=request.reason)
        self.add(trace_pb2.TraceEvent(run=run, mechanism_uninstalled=gone))
        return inner_pb2.UninstallMechanismResponse()

    async def _note(self, request, context) -> None:
        if self.refusal is not None:
            await context.abort(*self.refusal)
        self.asked.append(request)

    def _run(self, name: str) -> trace_pb2.Run:
        view = RunView.of(self.traces[name])
        run = trace_pb2.Run(
            name=name,
            spec=view.spec,
            task=view.task,
            state=view.state,
            state_reason=view.state_reason,
            decided_trials=view.decided,
            last_sequence=view.last_sequence,
        )
        if view.best_metric is not None and view.baseline_metric is not None:
            run.best_metric, run.baseline_metric = view.best_metric, view.baseline_metric
        run.create_time.FromSeconds(int(view.created))
        return run


@pytest.fixture
async def recorded() -> AsyncIterator[RecordedInner]:
    """A recorded inner service that listens."""
    inner = RecordedInner()
    await inner.serve()
    yield inner
    await inner.lose()
