"""A real inner service under clients that mean it harm: nothing crashes, nothing leaks, and each gets the right status.

Everything talks to loopback, is bounded in number, and ends by itself.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from bilevel.v1 import inner_pb2, inner_pb2_grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service_kit.processes import clean_environment, spawn
from service_kit.security.limits import MAX_STREAMS
from service_kit.server import MESSAGE_BYTES

ROOT = Path(__file__).parents[3]
SERVICE = inner_pb2.DESCRIPTOR.services_by_name["InnerLoopService"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES = 50_000
FRAMES_A_CONNECTION = 100


@dataclass
class Target:
    """The service's process and address."""

    address: str
    process: psutil.Process

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, port = self.address.rsplit(":", 1)
        return host, int(port)

    async def answers(self) -> None:
        """Fails unless the service is as it was at the beginning."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            await inner_pb2_grpc.InnerLoopServiceStub(channel).ListRuns(inner_pb2.ListRunsRequest(), timeout=30)

    async def descriptors_return_to(self, number: int) -> None:
        """Fails unless the open descriptors come down to ``number`` within a minute."""
        for _ in range(600):
            if self.process.num_fds() <= number:
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{self.process.num_fds()} descriptors are open, {number} were at the beginning")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    published = tmp_path / "address"
    options = ["--listen", "127.0.0.1:0", "--address-file", str(published)]
    command = [sys.executable, "-m", "inner_service", *options, "--database", f"sqlite:///{tmp_path}/inner.db"]
    environment = clean_environment() | {"PYTHONPATH": f"{ROOT}:{ROOT}/proto", "BILEVEL_LOG_LEVEL": "error"}
    async with await spawn(command, env=environment, cwd=tmp_path) as group:
        while not published.exists():
            assert group.returncode is None, "the service did not start"
            await asyncio.sleep(0.05)
        found = Target(published.read_text().strip(), psutil.Process(group.pid))
        await found.answers()
        yield found
        assert group.returncode is None, "the service has ended"


def methods() -> list[MethodDescriptor]:
    return list(SERVICE.methods)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_requests_that_are_no_protobuf_or_the_wrong_one_get_an_answer_of_the_catalogue(target: Target) -> None:
    allowed = {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }

    async def code(method: str, body: bytes, *, stream: bool) -> grpc.StatusCode:
        try:
            async with asyncio.timeout(30):
                if stream:
                    call = channel.unary_stream(f"/{SERVICE.full_name}/{method}")(body)
                    await call.read()
                    call.cancel()
                else:
                    await channel.unary_unary(f"/{SERVICE.full_name}/{method}")(body)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    # Hypothesis drives from a thread of its own, because its examples are synchronous and the service is not.
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(method=st.sampled_from(methods()), body=st.binary(max_size=300))
    def hammer(method: MethodDescriptor, body: bytes) -> None:
        answered = asyncio.run_coroutine_threadsafe(
            code(method.name, body, stream=method.server_streaming), loop
        ).result(60)
        assert answered in allowed, (method.name, body, answered)

    async with grpc.aio.insecure_channel(target.address) as channel:
        unreadable = await code("GetRun", b"\xff\xff\xff", stream=False)
        assert unreadable is grpc.StatusCode.INVALID_ARGUMENT
        assert await code("WatchTrace", b"\xff\xff\xff", stream=True) is grpc.StatusCode.INVALID_ARGUMENT
        await asyncio.to_thread(hammer)
    await target.answers()


async def test_an_oversized_message_is_refused_and_the_connection_goes_on(target: Target) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target.address, options=options) as channel:
        stub = inner_pb2_grpc.InnerLoopServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetRun(inner_pb2.GetRunRequest(name="x" * (MESSAGE_BYTES + 1)), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.ListRuns(inner_pb2.ListRunsRequest(), timeout=30)


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1); ``length`` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size & 0xFFFFFF)[1:] + struct.pack(">BBI", kind, flags, stream & 0x7FFFFFFF) + payload


def hostile_frame(dice: random.Random) -> bytes:
    """Any kind, flag and stream, with content that is noise, a header block, or a gRPC message that lies."""
    payload = dice.choice(
        (
            lambda: dice.randbytes(dice.randrange(0, 200)),
            lambda: b"",
            lambda: b"\x83\x86\x44" + dice.randbytes(dice.randrange(0, 60)),  # :method POST, :scheme http, a bad :path
            lambda: bytes([dice.randrange(3)]) + struct.pack(">I", dice.randrange(2**32)) + dice.randbytes(20),
        )
    )()
    kind = dice.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, dice.randrange(256)))
    length = dice.choice((None, None, None, dice.randrange(2**24)))
    return frame(kind, dice.randrange(256), dice.choice((0, 1, 3, 5, dice.randrange(2**31))), payload, length)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_fifty_thousand_hostile_frames_leave_the_service_as_it_was(target: Target) -> None:
    dice = random.Random(20261124)

    def connection() -> int:
        sent = 0
        with socket.create_connection(target.host_and_port, timeout=10) as client:
            client.sendall(PREFACE + frame(4, 0, 0, b""))
            for _ in range(FRAMES_A_CONNECTION):
                try:
                    client.sendall(hostile_frame(dice))
                except OSError:  # the service has hung up, as it should; the rest goes over a connection of its own
                    break
                sent += 1
        return sent

    def attack(frames: int) -> None:
        while frames > 0:
            frames -= max(connection(), 1)

    await asyncio.to_thread(attack, FRAMES // 10)  # what is loaded and cached once is no leak
    await target.answers()
    descriptors, memory = target.process.num_fds(), target.process.memory_info().rss
    await asyncio.to_thread(attack, FRAMES)
    await target.answers()
    await target.descriptors_return_to(descriptors + 5)
    assert target.process.memory_info().rss < memory + 64 * 2**20


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_clients_that_never_finish_their_greeting_are_hung_up_on_and_delay_nobody(target: Target) -> None:
    before = target.process.num_fds()
    async with AsyncExitStack() as stack:
        for greeting in (b"", PREFACE[:1], PREFACE[:20]) * 60:
            client = stack.enter_context(socket.create_connection(target.host_and_port, timeout=10))
            client.sendall(greeting)
        await target.answers()
        await target.descriptors_return_to(before + 10)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_thousands_of_idle_streams_are_bounded_and_given_back(target: Target) -> None:
    before = target.process.num_fds()
    asked, connections = 3000, 10
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target.address, options=options))
            for _ in range(connections)
        ]
        streams = []

        async def state(channel: grpc.aio.Channel) -> grpc.StatusCode:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            stream = stub.Watch(health_pb2.HealthCheckRequest())
            streams.append(stream)
            try:
                await asyncio.wait_for(stream.read(), 60)
            except grpc.aio.AioRpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            return grpc.StatusCode.OK

        states: Counter[grpc.StatusCode] = Counter()
        for _ in range(asked // len(channels)):
            states.update(await asyncio.gather(*map(state, channels)))
        assert states == {grpc.StatusCode.OK: MAX_STREAMS, grpc.StatusCode.RESOURCE_EXHAUSTED: asked - MAX_STREAMS}
        await target.answers()
    await target.descriptors_return_to(before + 5)
    await target.answers()
