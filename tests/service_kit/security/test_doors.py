"""Over real sockets: who gets in, with what, and what is answered to the others."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from clients.token_file import add_token, remove_token
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.security.roles import METHODS, OPEN, Role
from service_kit.security.tokens import hash_of
from service_kit.server import ServerSettings, serving
from service_kit.status import remote_error
from tests.service_kit.security.echo import RPCS, call, refusal, register

ROLES = list(Role)


def test_every_rpc_of_the_contract_needs_a_role_and_no_role_names_an_rpc_that_does_not_exist() -> None:
    contract = {name for name, _ in RPCS}
    assert {name for name in METHODS if name.startswith("/bilevel.")} == contract
    assert not OPEN & contract


def test_whatever_runs_source_has_a_role_of_its_own() -> None:
    assert METHODS["/bilevel.v1.InnerLoopService/InstallMechanism"] is Role.INSTALL
    assert METHODS["/bilevel.v1.InnerLoopService/CheckMechanism"] is Role.INSTALL


@dataclass
class Doors:
    """A server with one token for each set of roles."""

    address: str
    tokens_file: Path
    tokens: dict[str, str]

    @asynccontextmanager
    async def channel(self, token: str | None) -> AsyncIterator[grpc.aio.Channel]:
        secret = SecretStr(token) if token is not None else None
        async with open_channel(self.address, ChannelSecurity(token=secret)) as channel:
            yield channel


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    file = tmp_path / "tokens.toml"
    tokens = {}
    for count in range(1, len(ROLES) + 1):
        for roles in itertools.combinations(ROLES, count):
            name = "-".join(roles)
            tokens[name] = add_token(file, name, roles, None)
    settings = ServerSettings(tokens=file, grace=0.1, max_streams=5)
    async with serving(register, settings, name="doors") as address:
        yield Doors(address, file, tokens)


async def test_no_rpc_answers_without_a_token(doors: Doors) -> None:
    async with doors.channel(None) as channel:
        codes = {name: await refusal(channel, name, stream=method.server_streaming) for name, method in RPCS}
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes


async def test_no_rpc_answers_to_an_unknown_token(doors: Doors) -> None:
    async with doors.channel("blv_unknown") as channel:
        codes = {name: await refusal(channel, name, stream=method.server_streaming) for name, method in RPCS}
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes


@pytest.mark.parametrize("roles", [combination for n in (1, 2) for combination in itertools.combinations(ROLES, n)])
async def test_every_rpc_answers_to_its_role_and_to_no_other(doors: Doors, roles: Sequence[Role]) -> None:
    name = "-".join(roles)
    async with doors.channel(doors.tokens[name]) as channel:
        for method, descriptor in RPCS:
            if METHODS[method] in roles:
                assert await call(channel, method, stream=descriptor.server_streaming) == name.encode()
            else:
                code = await refusal(channel, method, stream=descriptor.server_streaming)
                assert code is grpc.StatusCode.PERMISSION_DENIED, method


async def test_a_method_that_no_role_names_is_refused_to_everyone(doors: Doors) -> None:
    async with doors.channel(doors.tokens["read-drive-install"]) as channel:
        assert await refusal(channel, "/test.Unlisted/WhoAmI") is grpc.StatusCode.PERMISSION_DENIED


async def test_health_is_open_and_reflection_is_not(doors: Doors) -> None:
    async with doors.channel(None) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        asking = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asking.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_expired_token_is_refused_and_says_so(doors: Doors) -> None:
    expired = add_token(doors.tokens_file, "old", ["read"], datetime.now(UTC) - timedelta(seconds=1))
    async with doors.channel(expired) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, "/bilevel.v1.InnerLoopService/ListRuns", stream=False)
    error = remote_error(caught.value)
    assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert "'old' expired" in error.message


async def test_tokens_are_rotated_and_revoked_while_the_server_runs(doors: Doors) -> None:
    method = "/bilevel.v1.InnerLoopService/ListRuns"
    fresh = add_token(doors.tokens_file, "fresh", ["read"], None)
    async with doors.channel(fresh) as channel:
        assert await call(channel, method, stream=False) == b"fresh"
        remove_token(doors.tokens_file, "fresh")
        assert await refusal(channel, method) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("damage", ["not toml [", '[tokens.a]\nsha256 = "short"\nroles = ["read"]\n', None])
async def test_a_token_file_that_cannot_be_read_lets_nobody_in(doors: Doors, damage: str | None) -> None:
    async with doors.channel(doors.tokens["read"]) as channel:
        assert await call(channel, "/bilevel.v1.InnerLoopService/ListRuns", stream=False) == b"read"
        if damage is None:
            doors.tokens_file.unlink()
        else:
            doors.tokens_file.write_text(damage)
        assert await refusal(channel, "/bilevel.v1.InnerLoopService/ListRuns") is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic eHk6eno=", "blv_x", "Bearer a b"])
async def test_credentials_of_the_wrong_form_are_refused(doors: Doors, value: str) -> None:
    async with grpc.aio.insecure_channel(doors.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/bilevel.v1.InnerLoopService/ListRuns")(
                b"", metadata=(("authorization", value),), timeout=20
            )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_two_authorization_headers_are_one_too_many(doors: Doors) -> None:
    header = ("authorization", f"Bearer {doors.tokens['read']}")
    async with grpc.aio.insecure_channel(doors.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/bilevel.v1.InnerLoopService/ListRuns")(
                b"", metadata=(header, header), timeout=20
            )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_file_holds_hashes_and_no_token(doors: Doors) -> None:
    text = doors.tokens_file.read_text()
    for token in doors.tokens.values():
        assert token not in text
        assert hash_of(token) in text


async def test_one_caller_cannot_hold_more_streams_than_allowed_and_gets_places_back(tmp_path: Path) -> None:
    method = "/test.Unlisted/Wait"
    async with (
        serving(register, ServerSettings(grace=0.1, max_streams=3), name="limited") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        streams = [channel.unary_stream(method)(b"") for _ in range(3)]
        for stream in streams:
            assert await stream.read() == b"waiting"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_stream(method)(b"").read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3" in str(caught.value.details())
        streams[0].cancel()
        again = channel.unary_stream(method)(b"")
        while (code := await _read_code(again)) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            again = channel.unary_stream(method)(b"")  # the server hears of the cancellation a moment later
        assert code is grpc.StatusCode.OK
        for stream in (*streams, again):
            stream.cancel()


@pytest.mark.long
async def test_a_burst_of_streams_on_one_connection_hears_of_the_limit_each_of_them(tmp_path: Path) -> None:
    async with (
        serving(register, ServerSettings(grace=0.1, max_streams=512), name="limited") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        streams = [channel.unary_stream("/test.Unlisted/Wait")(b"") for _ in range(2500)]
        codes = Counter(await asyncio.gather(*map(_read_code, streams)))
        assert codes == {grpc.StatusCode.OK: 512, grpc.StatusCode.RESOURCE_EXHAUSTED: 1988}
        for stream in streams:
            stream.cancel()


async def _read_code(stream: Any) -> grpc.StatusCode:
    """OK once the stream has answered, else why it did not."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
