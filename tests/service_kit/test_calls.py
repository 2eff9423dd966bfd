"""Every call has an id, the client's or a new one: on all lines of the log below it, and in its answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from bilevel.v1 import inner_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from service_kit import context as ids
from service_kit.errors import NotFound
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.server import ServerSettings, serving
from service_kit.status import remote_error

INNER = "/bilevel.v1.InnerLoopService/"
log = structlog.get_logger("tests")


async def start(request: pb.StartRunRequest, context: Any) -> bytes:
    log.info("at work")
    await asyncio.to_thread(log.info, "in a thread")
    return b""


async def create(request: Any, context: Any) -> bytes:
    raise RuntimeError("a defect")


async def get(request: pb.GetRunRequest, context: Any) -> bytes:
    raise NotFound("run", request.name)


async def watch(request: Any, context: Any) -> AsyncIterator[bytes]:
    log.info("watching")
    yield b"one"


@pytest.fixture
async def address(lines: list[dict[str, Any]]) -> AsyncIterator[str]:
    def register(server: grpc.aio.Server) -> list[str]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "StartRun": unary(start, pb.StartRunRequest.FromString),
            "GetRun": unary(get, pb.GetRunRequest.FromString),
            "CreateRun": unary(create),
            "WatchTrace": stream(watch),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bilevel.v1.InnerLoopService", handlers)])
        return ["bilevel.v1.InnerLoopService"]

    async with serving(register, ServerSettings(grace=0.1), name="test") as address:
        yield address


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(address, ChannelSecurity()) as channel:
        yield channel


def of_request(lines: list[dict[str, Any]], request: str) -> list[str]:
    return [line["event"] for line in lines if line.get("request") == request]


async def test_a_clients_id_is_on_every_line_of_its_call(
    channel: grpc.aio.Channel, lines: list[dict[str, Any]]
) -> None:
    request = pb.StartRunRequest(name="runs/r1")
    with ids.bound(request="mine", campaign="campaigns/c1"):
        call = channel.unary_unary(f"{INNER}StartRun", pb.StartRunRequest.SerializeToString)(request)
        await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
    assert of_request(lines, "mine") == ["at work", "in a thread", "call answered"]
    assert all(line["run"] == "runs/r1" for line in lines if line.get("request") == "mine")
    assert all(line["campaign"] == "campaigns/c1" for line in lines if line.get("request") == "mine")


async def test_each_call_without_an_id_gets_one_of_its_own(
    channel: grpc.aio.Channel, lines: list[dict[str, Any]]
) -> None:
    for _ in range(2):
        await channel.unary_unary(f"{INNER}StartRun", pb.StartRunRequest.SerializeToString)(pb.StartRunRequest())
    seen = [line["request"] for line in lines if line["event"] == "at work"]
    assert len(set(seen)) == 2


async def test_a_server_gives_an_id_to_whoever_sends_none_or_nonsense(
    address: str, lines: list[dict[str, Any]]
) -> None:
    async with grpc.aio.insecure_channel(address) as plain:
        for metadata in ((), (("x-request-id", "two words"),), (("x-request-id", "x" * 500),)):
            call = plain.unary_unary(f"{INNER}StartRun")(b"", metadata=metadata)
            await call
            given = dict(await call.trailing_metadata())["x-request-id"]
            assert len(given) == 16
            assert "at work" in of_request(lines, given)


async def test_a_refusal_and_a_defect_carry_the_id(channel: grpc.aio.Channel, lines: list[dict[str, Any]]) -> None:
    with ids.bound(request="mine"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(f"{INNER}GetRun", pb.GetRunRequest.SerializeToString)(
                pb.GetRunRequest(name="runs/no")
            )
        assert remote_error(refused.value).request == "mine"
        with pytest.raises(grpc.aio.AioRpcError) as defect:
            await channel.unary_unary(f"{INNER}CreateRun")(b"")
    error = remote_error(defect.value)
    assert error.request == error.metadata["request"] == "mine"
    assert f"search for {error.metadata['id']}" in error.hint
    codes = [line["code"] for line in lines if line["event"] == "call answered"]
    assert codes == ["NOT_FOUND", "INTERNAL"]
    assert of_request(lines, "mine") == ["call refused", "call answered", "unexpected error", "call answered"]


async def test_a_stream_has_its_id_too(channel: grpc.aio.Channel, lines: list[dict[str, Any]]) -> None:
    with ids.bound(request="mine"):
        assert [answer async for answer in channel.unary_stream(f"{INNER}WatchTrace")(b"")] == [b"one"]
    assert of_request(lines, "mine") == ["watching", "call answered"]


async def test_work_that_outlives_its_request_forgets_it() -> None:
    with ids.bound(request="mine", trial="runs/a/trials/1"):

        async def driver() -> dict[str, str]:
            ids.begin(run="runs/b")
            return ids.current()

        assert await asyncio.create_task(driver()) == {"run": "runs/b"}
        assert ids.current() == {"request": "mine", "trial": "runs/a/trials/1"}


def test_a_request_names_what_it_is_about() -> None:
    assert ids.named_in(pb.AcceptRequest(name="runs/a/trials/3")) == {"run": "runs/a", "trial": "runs/a/trials/3"}
    assert ids.named_in(pb.WatchTraceRequest(run="runs/a")) == {"run": "runs/a"}
    assert ids.named_in(pb.CreateRunRequest()) == {}
    assert ids.named_in(b"") == {}


@given(
    st.dictionaries(
        st.sampled_from(list(ids.HEADERS.values())), st.binary() | st.binary().map(lambda raw: raw.decode("latin1"))
    )
)
def test_whatever_a_caller_sends_only_ids_are_bound(metadata: dict[str, Any]) -> None:
    found = ids.from_metadata(list(metadata.items()))
    assert found[ids.REQUEST]
    assert all(value.isascii() and value.isprintable() and 0 < len(value) <= 128 for value in found.values())
