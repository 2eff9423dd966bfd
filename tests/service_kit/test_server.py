"""A server starts, is found, drains and refuses what is unsafe, as a real process and in-process."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service_kit.addresses import is_loopback
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.processes import ProcessGroup, clean_environment, spawn
from service_kit.server import MESSAGE_BYTES, ServerSettings, serving

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
import grpc
from service_kit import logs
from service_kit.server import ServerSettings, run, serve

draining = asyncio.Event()

async def watch(request, context):
    yield b"watching"
    await draining.wait()
    yield b"ended"

async def stuck(request, context):
    yield b"stuck"
    await asyncio.Event().wait()

def register(server):
    stream = grpc.unary_stream_rpc_method_handler
    handlers = {"watch": stream(watch), "stuck": stream(stuck)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])
    return ["t.T"]

async def on_stop():
    print("released", flush=True)

logs.configure("test")
listen, file, grace = sys.argv[1:]
settings = ServerSettings(listen=listen, address_file=Path(file), grace=float(grace))
run(serve(register, settings, name="test", draining=draining, on_stop=on_stop))
"""


async def start(tmp_path: Path, listen: str = "127.0.0.1:0", grace: float = 30) -> ProcessGroup:
    env = clean_environment() | {"PYTHONPATH": str(ROOT), "BILEVEL_LOG_FORMAT": "json"}
    command = [sys.executable, "-c", PROGRAM, listen, str(tmp_path / "address"), str(grace)]
    return await spawn(command, env=env, stdout=PIPE, stderr=PIPE)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[ProcessGroup, grpc.aio.Channel, Path]]:
    async with await start(tmp_path) as group:
        assert group.stderr is not None
        assert b'"listening"' in await group.stderr.readline()
        file = tmp_path / "address"
        async with grpc.aio.insecure_channel(file.read_text().strip()) as channel:
            yield group, channel, file


async def ended(group: ProcessGroup) -> tuple[int, str, str]:
    assert group.stdout is not None
    assert group.stderr is not None
    out, err = await asyncio.gather(group.stdout.read(), group.stderr.read())
    return await group.wait(), out.decode(), err.decode()


def register_nothing(server: grpc.aio.Server) -> list[str]:
    return []


async def test_a_ready_server_is_healthy_and_describes_itself(server: Any) -> None:
    _, channel, _ = server
    check = health_pb2_grpc.HealthStub(channel).Check
    for service in ("", "t.T"):
        answer = await check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    listed = {service.name for service in (await call.read()).list_services_response.service}
    assert {"t.T", "grpc.health.v1.Health"} <= listed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_watch_streams_with_their_last_message_and_then_the_server(
    server: Any, number: int
) -> None:
    group, channel, file = server
    watch = channel.unary_stream("/t.T/watch")(b"")
    assert await watch.read() == b"watching"
    (program,) = group.members()
    program.send_signal(number)
    assert await watch.read() == b"ended"
    assert await watch.read() is grpc.aio.EOF
    code, out, _ = await ended(group)
    assert (code, out) == (0, "released\n")
    assert not file.exists()


async def test_health_says_not_serving_while_draining(server: Any) -> None:
    group, channel, _ = server
    statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="t.T"))
    stuck = channel.unary_stream("/t.T/stuck")(b"")
    assert await stuck.read() == b"stuck"
    assert (await statuses.read()).status == health_pb2.HealthCheckResponse.SERVING
    (program,) = group.members()
    program.terminate()
    assert (await statuses.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_second_signal_does_not_wait_for_a_stuck_call(server: Any) -> None:
    group, channel, _ = server
    stuck = channel.unary_stream("/t.T/stuck")(b"")
    assert await stuck.read() == b"stuck"
    (program,) = group.members()
    program.terminate()
    assert b'"draining"' in await group.stderr.readline()
    program.terminate()
    code, out, _ = await asyncio.wait_for(ended(group), 10)
    assert (code, out) == (0, "released\n")


async def test_a_stuck_call_is_ended_after_the_grace(tmp_path: Path) -> None:
    async with await start(tmp_path, grace=0.2) as group:
        assert group.stderr is not None
        await group.stderr.readline()
        async with grpc.aio.insecure_channel((tmp_path / "address").read_text().strip()) as channel:
            stuck = channel.unary_stream("/t.T/stuck")(b"")
            assert await stuck.read() == b"stuck"
            group.members()[0].terminate()
            assert (await asyncio.wait_for(ended(group), 10))[0] == 0


async def test_a_busy_port_is_one_clear_message_and_wrong_input(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        listen = f"127.0.0.1:{busy.getsockname()[1]}"
        async with await start(tmp_path, listen) as group:
            code, _, err = await ended(group)
    assert code == 2
    assert err == (
        f"error: --listen: cannot listen on {listen}: address already in use\n"
        "       Choose another address with --listen HOST:PORT; port 0 takes any free port.\n"
    )


async def test_two_of_our_servers_never_share_a_port() -> None:
    async with serving(register_nothing, ServerSettings(), name="a") as address:
        with pytest.raises(ServiceError, match="address already in use"):
            async with serving(register_nothing, ServerSettings(listen=address), name="b"):
                raise AssertionError


async def test_an_address_that_others_can_reach_needs_an_explicit_word() -> None:
    with pytest.raises(ServiceError, match="reachable from other machines"):
        async with serving(register_nothing, ServerSettings(listen="0.0.0.0:0"), name="a"):
            raise AssertionError
    async with serving(register_nothing, ServerSettings(listen="0.0.0.0:0", insecure=True), name="a") as address:
        assert address.startswith("0.0.0.0:")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:", "127.0.0.1:99999", ":1", "a:b"])
async def test_a_malformed_address_is_exit_code_2(listen: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="listen: must be HOST:PORT with a port from 0 to 65535"):
        async with serving(register_nothing, ServerSettings(listen=listen), name="a"):
            raise AssertionError


async def test_wrong_input_is_exit_code_2_without_a_stack_trace(tmp_path: Path) -> None:
    async with await start(tmp_path, "nonsense") as group:
        code, out, err = await ended(group)
    assert code == 2
    assert out == "released\n"
    assert err == "error: listen: must be HOST:PORT with a port from 0 to 65535; got 'nonsense'\n"


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    async with (
        serving(register_nothing, ServerSettings(listen=f"unix:{tmp_path}/s"), name="a") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_message_beyond_the_limit_is_refused() -> None:
    async with (
        serving(register_nothing, ServerSettings(), name="a") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x" * MESSAGE_BYTES))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_loopback_is_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))
