"""A watch goes on after a lost connection from the last number it has, and misses nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from bilevel.v1 import inner_pb2, inner_pb2_grpc, trace_pb2

from clients import InnerClient
from service_kit.errors import NotFound, RemoteError
from service_kit.server import ServerSettings, serving


class Interrupted(inner_pb2_grpc.InnerLoopServiceServicer):
    """Sends ten events, ``portion`` of them a call, and then drops the connection or falls silent."""

    def __init__(
        self, portion: int = 3, *, skip: int = 0, silent: bool = False, code: Any = None, leaves: bool = False
    ) -> None:
        self.portion, self.skip, self.silent, self.code = portion, skip, silent, code
        self.leaves = leaves
        self.asked: list[int] = []

    async def WatchTrace(self, request: inner_pb2.WatchTraceRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.asked.append(request.after_sequence)
        if request.run != "runs/one":
            raise NotFound("run", request.run)
        if self.leaves and len(self.asked) > 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone for good")
        for sequence in range(request.after_sequence + 1, 11):
            if sequence == request.after_sequence + 1 + self.portion:
                if self.silent:
                    import asyncio

                    await asyncio.sleep(60)
                await context.abort(self.code or grpc.StatusCode.UNAVAILABLE, "gone for a moment")
            if sequence != self.skip:
                yield inner_pb2.WatchTraceResponse(event=trace_pb2.TraceEvent(run="runs/one", sequence=sequence))
                yield inner_pb2.WatchTraceResponse(heartbeat=inner_pb2.Heartbeat(last_sequence=10))


async def sequences(servicer: Interrupted, after: int = 0, **options: Any) -> list[int]:
    def register(server: grpc.aio.Server) -> list[str]:
        inner_pb2_grpc.add_InnerLoopServiceServicer_to_server(servicer, server)
        return ["bilevel.v1.InnerLoopService"]

    settings = ServerSettings(grace=0.1)
    async with serving(register, settings, name="interrupted") as address, InnerClient(address) as inner:
        return [event.sequence async for event in inner.watch_trace("runs/one", after, **options)]


async def test_every_event_comes_once_across_interruptions() -> None:
    servicer = Interrupted(portion=3)
    assert await sequences(servicer) == list(range(1, 11))
    assert servicer.asked == [0, 3, 6, 9]


async def test_a_watch_begins_after_the_number_given() -> None:
    assert await sequences(Interrupted(portion=20), after=7) == [8, 9, 10]


async def test_a_silent_server_is_asked_again() -> None:
    servicer = Interrupted(portion=6, silent=True)
    assert await sequences(servicer, heartbeat=0.1) == list(range(1, 11))
    assert servicer.asked == [0, 6]


async def test_a_gap_is_an_error() -> None:
    with pytest.raises(RemoteError, match="event 4 is missing"):
        await sequences(Interrupted(portion=20, skip=4))


async def test_another_refusal_is_not_retried() -> None:
    servicer = Interrupted(portion=2, code=grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(RemoteError) as caught:
        await sequences(servicer)
    assert caught.value.code == "PERMISSION_DENIED"
    assert servicer.asked == [0]


async def test_a_server_that_stays_away_is_given_up_with_what_was_received() -> None:
    with pytest.raises(RemoteError, match="could not be resumed") as caught:
        await sequences(Interrupted(portion=3, leaves=True), patience=0.5)
    assert "Everything up to event 3" in caught.value.hint


async def test_a_server_that_was_never_there_is_said_at_once() -> None:
    async with InnerClient("127.0.0.1:1") as inner:
        with pytest.raises(RemoteError, match=r"the inner service at 127\.0\.0\.1:1 cannot be reached") as caught:
            [event async for event in inner.watch_trace("runs/one", patience=3600.0)]
    assert "Start it with" in caught.value.hint
