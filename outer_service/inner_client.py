"""The inner loop as the outer loop calls it: typed, and patient where the inner service is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import structlog
from bilevel.v1 import inner_pb2, inner_pb2_grpc, trace_pb2

from outer_service.events import FreezeReason
from outer_service.inner_messages import (
    config_from_proto,
    lessons_from_proto,
    mechanism_from_proto,
    report_from_proto,
    revisions_from_proto,
    run_from_proto,
    sources_from_proto,
    touched_from_proto,
    trials_from_proto,
)
from outer_service.observed import (
    GateReport,
    Observation,
    ObservedMechanism,
    ObservedRun,
    SearchConfig,
    SearchDescription,
    TraceMoment,
)
from service_kit.errors import RemoteError
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.server import MESSAGE_LIMITS
from service_kit.status import remote_error
from service_kit.translate import duration_to_proto

ANSWER_SECONDS = 20.0
"""For calls that only read or note something."""
GATE_SECONDS = 180.0
"""For calls that run the gate."""
HEARTBEAT_SECONDS = 5.0
SILENCES = 3
"""Missed heartbeats after which a watch is taken for lost."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach an inner service that is away; the last one repeats."""
REMARK_CHARACTERS = 2000

T = TypeVar("T")

log = structlog.get_logger("outer_service.inner_client")


class GateTooSlow(RemoteError):
    """The gate took longer than it may; asking again would take as long."""


class InnerClient:
    """A client of one inner service. Any number of tasks may use it; its owner closes it.

    Every method raises :class:`RemoteError` with the inner service's own words.
    """

    def __init__(self, address: str, security: ChannelSecurity | None = None) -> None:
        self.address = address
        options = [*MESSAGE_LIMITS, ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000)]
        self._channel = open_channel(address, security or ChannelSecurity(), options)
        self._stub = inner_pb2_grpc.InnerLoopServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def run(self, name: str) -> ObservedRun:
        """The head of a run."""
        response = await self._call(self._stub.GetRun(inner_pb2.GetRunRequest(name=name), timeout=ANSWER_SECONDS))
        return run_from_proto(response.run)

    async def observe(self, name: str) -> Observation:
        """The run, its ended trials and its mechanisms."""
        run = await self.run(name)
        trials: list[trace_pb2.Trial] = []
        token = ""
        while True:
            request = inner_pb2.ListTrialsRequest(parent=name, page_size=1000, page_token=token)
            page = await self._call(self._stub.ListTrials(request, timeout=ANSWER_SECONDS))
            trials.extend(page.trials)
            token = page.next_page_token
            if not token:
                break
        mechanisms = await self.mechanisms(name)
        return Observation(
            run, trials_from_proto(trials), mechanisms, touched_from_proto(trials), revisions_from_proto(trials)
        )

    async def mechanisms(self, name: str) -> tuple[ObservedMechanism, ...]:
        """Every mechanism that the run ever had, oldest first."""
        request = inner_pb2.ListMechanismsRequest(parent=name)
        response = await self._call(self._stub.ListMechanisms(request, timeout=ANSWER_SECONDS))
        return tuple(map(mechanism_from_proto, response.mechanisms))

    async def describe(self, name: str) -> SearchDescription:
        """How the search works."""
        request = inner_pb2.DescribeSearchRequest(run=name)
        response = await self._call(self._stub.DescribeSearch(request, timeout=ANSWER_SECONDS))
        return SearchDescription(
            sources_from_proto(response.loop_sources),
            response.mechanism_reference,
            sources_from_proto(response.examples),
            tuple(response.capabilities.mechanism_languages),
            response.capabilities.implementation,
            lessons_from_proto(response.lessons),
        )

    async def update_config(
        self,
        name: str,
        *,
        freeze: Sequence[FreezeReason] = (),
        unfreeze: Sequence[FreezeReason] = (),
        strategy: str | None = None,
        guidance: str | None = None,
        author: str,
        expected_revision: int,
        clear_history: bool = False,
    ) -> SearchConfig:
        """Change the control surface; None leaves a text as it is. Returns the new one."""
        request = inner_pb2.UpdateSearchConfigRequest(
            run=name,
            freeze=[trace_pb2.FreezeReason(parameter=f.parameter, reason=f.reason) for f in freeze],
            unfreeze=[trace_pb2.FreezeReason(parameter=f.parameter, reason=f.reason) for f in unfreeze],
            strategy=strategy,
            guidance=guidance,
            author=author,
            expected_revision=expected_revision,
            check_revision=True,
            clear_history=clear_history,
        )
        response = await self._call(self._stub.UpdateSearchConfig(request, timeout=ANSWER_SECONDS))
        return config_from_proto(response.search_config)

    async def check(self, name: str, source: str) -> GateReport:
        """The gate's verdict on ``source`` against the run's recorded trace."""
        request = inner_pb2.CheckMechanismRequest(run=name, source=source)
        response = await self._judged(self._stub.CheckMechanism(request, timeout=GATE_SECONDS))
        return report_from_proto(response.report)

    async def install(
        self, name: str, mechanism_id: str, source: str, *, author: str, allow_inert: bool = False
    ) -> tuple[ObservedMechanism, GateReport]:
        """Install ``source``. Also raises :class:`RemoteError` when the gate rejects it."""
        request = inner_pb2.InstallMechanismRequest(
            run=name, mechanism_id=mechanism_id, source=source, author=author, allow_inert=allow_inert
        )
        response = await self._judged(self._stub.InstallMechanism(request, timeout=GATE_SECONDS))
        return mechanism_from_proto(response.mechanism), report_from_proto(response.mechanism.report)

    async def uninstall(self, name: str, mechanism_id: str, reason: str) -> None:
        """Remove a mechanism."""
        request = inner_pb2.UninstallMechanismRequest(name=f"{name}/mechanisms/{mechanism_id}", reason=reason)
        await self._call(self._stub.UninstallMechanism(request, timeout=ANSWER_SECONDS))

    async def remark(self, name: str, author: str, text: str) -> None:
        """Leave a remark on the run's trace."""
        request = inner_pb2.RemarkRequest(run=name, author=author, text=text[:REMARK_CHARACTERS])
        await self._call(self._stub.Remark(request, timeout=ANSWER_SECONDS))

    async def pause(self, name: str) -> None:
        """Let a run pause after its current trial."""
        await self._call(self._stub.PauseRun(inner_pb2.PauseRunRequest(name=name), timeout=ANSWER_SECONDS))

    async def resume(self, name: str) -> None:
        """Let a paused run go on."""
        await self._call(self._stub.ResumeRun(inner_pb2.ResumeRunRequest(name=name), timeout=ANSWER_SECONDS))

    async def watch(self, name: str, after: int) -> AsyncIterator[TraceMoment]:
        """Every trace event after number ``after``, each once and in order, until the run has ended.

        An inner service that is away is waited for, for as long as it takes. Raises :class:`RemoteError` for refusals.
        """
        failures = 0
        while True:
            request = inner_pb2.WatchTraceRequest(
                run=name, after_sequence=after, heartbeat=duration_to_proto(HEARTBEAT_SECONDS)
            )
            call = self._stub.WatchTrace(request)
            try:
                while True:
                    item: Any = await asyncio.wait_for(call.read(), SILENCES * HEARTBEAT_SECONDS)
                    if item is grpc.aio.EOF:
                        break
                    failures = 0
                    if item.WhichOneof("item") == "event":
                        yield _moment(item.event)
                        after = item.event.sequence
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and not _cut_off(refusal := remote_error(error)):
                    raise refusal from None
            finally:
                call.cancel()
            run = await self.patiently(lambda: self.run(name))
            if run.state.terminal and after >= run.last_sequence:
                return
            await self._pause(failures, name)
            failures += 1

    async def patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """``action``'s result; repeated while the inner service is away, for as long as it takes."""
        failures = 0
        while True:
            try:
                return await action()
            except RemoteError as error:
                if not is_away(error):
                    raise
            await self._pause(failures, "")
            failures += 1

    async def _pause(self, failures: int, run: str) -> None:
        if failures in (1, 10) or failures % 60 == 59:
            log.warning("the inner service cannot be reached; trying again", address=self.address, run=run)
        await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])

    async def _judged(self, call: Any) -> Any:
        """A call that runs the gate."""
        try:
            return await self._call(call)
        except RemoteError as error:
            if error.code != "DEADLINE_EXCEEDED":
                raise
            raise GateTooSlow(f"the gate took longer than {GATE_SECONDS:g} s", code=error.code) from None

    @staticmethod
    async def _call(call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise remote_error(error) from None


def is_away(error: Exception) -> bool:
    """Whether the inner service did not answer, and may when it is asked again: it restarts, drains or stands still."""
    codes = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
    return isinstance(error, RemoteError) and not isinstance(error, GateTooSlow) and error.code in codes


def _cut_off(error: RemoteError) -> bool:
    """Whether a stream ended for want of a server. Whatever the server itself refuses has a reason."""
    return error.code == "UNAVAILABLE" or not error.reason


def _moment(event: trace_pb2.TraceEvent) -> TraceMoment:
    kind = event.WhichOneof("event") or ""
    return TraceMoment(event.sequence, kind, event.checkpoint_reached.decided_trials)
