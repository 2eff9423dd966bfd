"""Errors keep their meaning across a real gRPC connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from bilevel.v1.common_pb2 import Value
from structlog.testing import capture_logs

from service_kit.errors import (
    AlreadyExists,
    Conflict,
    CutOff,
    Draining,
    Exhausted,
    InvalidArgument,
    InvalidConfiguration,
    NotFound,
    PermissionDenied,
    RemoteError,
    ServiceError,
    StorageFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
    WrongState,
)
from service_kit.status import CODES, ErrorInterceptor, remote_error, status_of


@asynccontextmanager
async def channel_to(**methods: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A server whose methods take and give bytes, named and shaped by the keyword: ``unary=…`` or ``stream=…``."""
    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler,
        "stream": grpc.unary_stream_rpc_method_handler,
        "written": grpc.unary_stream_rpc_method_handler,
        "collect": grpc.stream_unary_rpc_method_handler,
        "echo": grpc.stream_stream_rpc_method_handler,
    }
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    table = {name: handlers[name](method) for name, method in methods.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", table)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def raising(error: BaseException) -> Callable[..., Any]:
    async def method(request: bytes, context: Any) -> bytes:
        raise error

    return method


async def refusal(error: BaseException) -> RemoteError:
    """What a client learns when a servicer raises ``error``."""
    async with channel_to(unary=raising(error)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/unary")(b"")
        return remote_error(caught.value)


EXAMPLES = [
    (InvalidArgument.of("count", "must be 1 to 100; got 0"), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    (InvalidConfiguration([Violation("DEPTH", "is locked")]), "INVALID_ARGUMENT", "INVALID_CONFIGURATION"),
    (NotFound("run", "runs/r1", "bilevel runs lists them"), "NOT_FOUND", "NOT_FOUND"),
    (AlreadyExists("run", "runs/r1"), "ALREADY_EXISTS", "ALREADY_EXISTS"),
    (WrongState("run", "runs/r1", "FINISHED", "pause", ["RUNNING"]), "FAILED_PRECONDITION", "WRONG_STATE"),
    (Conflict("run", "runs/r1"), "ABORTED", "CONFLICT"),
    (PermissionDenied("InstallMechanism", "install"), "PERMISSION_DENIED", "PERMISSION_DENIED"),
    (Unauthenticated("no token"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
    (Unavailable("task gpt"), "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"),
    (Draining("the trace of runs/r1", 1.0), "UNAVAILABLE", "DRAINING"),
    (CutOff("the process was killed"), "UNAVAILABLE", "CUT_OFF"),
    (StorageFailed("the database is full", hint="make room"), "UNAVAILABLE", "STORAGE_FAILED"),
    (Exhausted("tokens", 1000), "RESOURCE_EXHAUSTED", "EXHAUSTED"),
    (Unimplemented("held-out evaluation"), "UNIMPLEMENTED", "UNIMPLEMENTED"),
    (ServiceError("the port is busy"), "FAILED_PRECONDITION", "REFUSED"),
]


def test_the_examples_cover_the_whole_catalogue() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == set(CODES)


@pytest.mark.parametrize(("error", "code", "reason"), EXAMPLES, ids=lambda x: type(x).__name__)
async def test_each_error_arrives_with_code_reason_message_and_hint(error: Exception, code: str, reason: str) -> None:
    remote = await refusal(error)
    assert (remote.code, remote.reason) == (code, reason)
    assert remote.message == getattr(error, "message", str(error))
    assert remote.hint == getattr(error, "hint", "")
    assert list(remote.violations) == list(getattr(error, "violations", ()))


async def test_a_wrong_state_says_which_states_would_do() -> None:
    remote = await refusal(WrongState("run", "runs/r1", "FINISHED", "pause", ["RUNNING", "PENDING"]))
    assert remote.message == "cannot pause run 'runs/r1': it is FINISHED, must be RUNNING or PENDING"
    assert remote.metadata["allowed"] == "RUNNING,PENDING"


async def test_an_unexpected_exception_reaches_the_client_as_an_id_and_the_log_as_text() -> None:
    with capture_logs() as logs:
        remote = await refusal(RuntimeError("password is swordfish"))
    assert remote.code == "INTERNAL"
    assert "swordfish" not in str(remote)
    (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["error_id"] in remote.message
    assert str(entry["exc_info"]) == "password is swordfish"


async def test_another_servers_refusal_is_passed_on_but_not_its_bugs_or_our_bad_credentials() -> None:
    passed = await refusal(
        RemoteError("no", code="NOT_FOUND", reason="NOT_FOUND", metadata={"name": "runs/x"}, hint="h")
    )
    assert (passed.code, passed.message, passed.hint, passed.metadata["name"]) == ("NOT_FOUND", "no", "h", "runs/x")
    assert (await refusal(RemoteError("internal error", code="INTERNAL"))).code == "INTERNAL"
    assert (await refusal(RemoteError("no token", code="UNAUTHENTICATED"))).code == "UNAVAILABLE"


async def test_attachments_arrive_with_the_error_and_are_passed_on() -> None:
    error = ServiceError("the gate rejected it")
    error.attachments = [Value(string_value="why")]
    remote = await refusal(error)
    remote = await refusal(remote)
    value = Value()
    assert [detail.Unpack(value) for detail in remote.attachments] == [True]
    assert value.string_value == "why"


async def test_streams_deliver_what_they_had_before_they_fail() -> None:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        raise NotFound("run", "runs/r1")

    async def written(request: bytes, context: Any) -> None:
        await context.write(b"1")
        raise NotFound("run", "runs/r1")

    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            raise NotFound("run", "runs/r1")

    async with channel_to(stream=stream, written=written, echo=echo) as channel:
        for call in (
            channel.unary_stream("/t.T/stream")(b""),
            channel.unary_stream("/t.T/written")(b""),
            channel.stream_stream("/t.T/echo")(iter([b"1"])),
        ):
            assert await call.read() == b"1"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert remote_error(caught.value).reason == "NOT_FOUND"


async def test_a_client_stream_is_guarded_and_answers_normally_when_nothing_is_wrong() -> None:
    async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
        parts = [request async for request in requests]
        if not parts:
            raise InvalidArgument.of("requests", "must hold at least one")
        return b"".join(parts)

    async with channel_to(collect=collect) as channel:
        call = channel.stream_unary("/t.T/collect")
        assert await call(iter([b"a", b"b"])) == b"ab"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(iter([]))
        assert remote_error(caught.value).violations == (Violation("requests", "must hold at least one"),)


async def test_cancelling_a_call_cancels_the_servicer_and_closes_its_generator() -> None:
    started, closed = asyncio.Event(), asyncio.Event()

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"1"
            started.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    with capture_logs() as logs:
        async with channel_to(stream=stream) as channel:
            call = channel.unary_stream("/t.T/stream")(b"")
            await call.read()
            await started.wait()
            call.cancel()
            await asyncio.wait_for(closed.wait(), 5)
    assert logs == []


async def test_an_abort_keeps_the_status_that_the_servicer_chose() -> None:
    async def unary(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "past the end")
        raise AssertionError

    async with channel_to(unary=unary) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/unary")(b"")
    assert (remote_error(caught.value).code, remote_error(caught.value).message) == ("OUT_OF_RANGE", "past the end")


async def test_an_unreachable_server_and_an_unknown_method_read_well_at_a_terminal() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/unary")(b"")
    text = str(remote_error(caught.value))
    assert text.startswith("the server cannot be reached: ")
    assert text.endswith("the address is right.")
    async with channel_to(unary=raising(ServiceError("x"))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/nothing")(b"")
    assert remote_error(caught.value).code == "UNIMPLEMENTED"


async def test_the_synchronous_client_gets_the_same_typed_error() -> None:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    handler = grpc.unary_unary_rpc_method_handler(raising(NotFound("run", "runs/r1")))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", {"unary": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def call() -> RemoteError:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t.T/unary")(b"")
        return remote_error(caught.value)

    assert (await asyncio.to_thread(call)).reason == "NOT_FOUND"
    await server.stop(None)


def test_an_exception_outside_the_catalogue_has_no_status() -> None:
    assert status_of(KeyError("x")) is None
