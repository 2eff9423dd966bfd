"""Over real sockets: who gets in, with what, and what is answered to the others."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from bilevel.v1 import inner_pb2, outer_pb2, task_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from clients.certificates import make_certificates
from clients.token_file import add_token, remove_token
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.security.auth import caller
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.security.roles import METHODS, OPEN, Role
from service_kit.security.tls import ClientTls, ServerTls
from service_kit.security.tokens import hash_of
from service_kit.server import ServerSettings, serving
from service_kit.status import remote_error

SERVICES = [
    file.services_by_name[name]
    for file in (task_pb2.DESCRIPTOR, inner_pb2.DESCRIPTOR, outer_pb2.DESCRIPTOR)
    for name in file.services_by_name
]
RPCS = [(f"/{service.full_name}/{method.name}", method) for service in SERVICES for method in service.methods]
ROLES = list(Role)
LIST_RUNS = "/bilevel.v1.InnerLoopService/ListRuns"


def test_every_rpc_of_the_contract_needs_a_role_and_no_role_names_an_rpc_that_does_not_exist() -> None:
    contract = {name for name, _ in RPCS}
    assert {name for name in METHODS if name.startswith("/bilevel.")} == contract
    assert not OPEN & contract


def test_whatever_runs_source_has_a_role_of_its_own() -> None:
    assert METHODS["/bilevel.v1.InnerLoopService/InstallMechanism"] is Role.INSTALL
    assert METHODS["/bilevel.v1.InnerLoopService/CheckMechanism"] is Role.INSTALL


def register(server: grpc.aio.Server) -> Iterable[str]:
    """Every RPC of the contract, answering with an empty message: only the doors are under test."""
    for service in SERVICES:
        handlers = {}
        for method in service.methods:
            handlers[method.name] = _stream() if method.server_streaming else _unary()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])
    extra = {
        "WhoAmI": grpc.unary_unary_rpc_method_handler(_who_am_i),
        "Wait": grpc.unary_stream_rpc_method_handler(_wait),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Unlisted", extra)])
    return [service.full_name for service in SERVICES]


def _unary() -> Any:
    async def answer(_request: bytes, _context: Any) -> bytes:
        return (identity.name if (identity := caller.get()) is not None else "").encode()

    return grpc.unary_unary_rpc_method_handler(answer)


def _stream() -> Any:
    async def answer(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield (identity.name if (identity := caller.get()) is not None else "").encode()

    return grpc.unary_stream_rpc_method_handler(answer)


async def _who_am_i(_request: bytes, _context: Any) -> bytes:
    return b"unlisted"


async def _wait(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    yield b"waiting"
    await asyncio.Event().wait()


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


async def call(channel: grpc.aio.Channel, method: str, *, stream: bool) -> bytes:
    if stream:
        return b"".join([answer async for answer in channel.unary_stream(method)(b"", timeout=20)])
    answer: bytes = await channel.unary_unary(method)(b"", timeout=20)
    return answer


async def refusal(channel: grpc.aio.Channel, method: str, *, stream: bool = False) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, stream=stream)
    return caught.value.code()


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


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "certs")
    return tmp_path / "certs"


def server_tls(folder: Path, *, mutual: bool = False) -> ServerTls:
    return ServerTls(folder / "server.pem", folder / "server.key", folder / "ca.pem" if mutual else None)


async def test_tls_with_a_token(certificates: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    token = tmp_path / "token"
    token.write_text(add_token(file, "notebook", ["read"], None) + "\n")
    settings = ServerSettings(tls=server_tls(certificates), tokens=file, grace=0.1)
    security = ChannelSecurity(ClientTls(certificates / "ca.pem"), token_file=token)
    async with serving(register, settings, name="tls") as address, open_channel(address, security) as channel:
        assert await call(channel, LIST_RUNS, stream=False) == b"notebook"
        assert await call(channel, "/bilevel.v1.InnerLoopService/WatchTrace", stream=True) == b"notebook"
        remove_token(file, "notebook")
        assert await refusal(channel, LIST_RUNS) is grpc.StatusCode.UNAUTHENTICATED
        token.write_text(add_token(file, "notebook-2", ["read"], None))
        assert await call(channel, LIST_RUNS, stream=False) == b"notebook-2"


async def test_clear_text_to_a_tls_port_and_tls_to_a_clear_port_are_refused(certificates: Path) -> None:
    secure, clear = ServerSettings(tls=server_tls(certificates), grace=0.1), ServerSettings(grace=0.1)
    trusting = ChannelSecurity(ClientTls(certificates / "ca.pem"))
    async with AsyncExitStack() as stack:
        tls_port = await stack.enter_async_context(serving(register, secure, name="tls"))
        clear_port = await stack.enter_async_context(serving(register, clear, name="clear"))
        for address, security in ((tls_port, ChannelSecurity()), (clear_port, trusting)):
            async with open_channel(address, security) as channel:
                assert await refusal(channel, LIST_RUNS) is grpc.StatusCode.UNAVAILABLE
        async with open_channel(tls_port, trusting) as channel:
            assert await call(channel, LIST_RUNS, stream=False) == b""


async def test_a_server_of_another_authority_is_not_trusted(certificates: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "others")
    settings = ServerSettings(tls=server_tls(certificates), grace=0.1)
    security = ChannelSecurity(ClientTls(tmp_path / "others" / "ca.pem"))
    async with serving(register, settings, name="tls") as address, open_channel(address, security) as channel:
        assert await refusal(channel, LIST_RUNS) is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_wants_a_certificate_of_its_authority(certificates: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "others")
    settings = ServerSettings(tls=server_tls(certificates, mutual=True), grace=0.1)
    own = ClientTls(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    none = ClientTls(certificates / "ca.pem")
    foreign = ClientTls(certificates / "ca.pem", tmp_path / "others" / "client.pem", tmp_path / "others" / "client.key")
    async with serving(register, settings, name="mutual") as address:
        async with open_channel(address, ChannelSecurity(own)) as channel:
            assert await call(channel, LIST_RUNS, stream=False) == b""
        for tls in (none, foreign):
            async with open_channel(address, ChannelSecurity(tls)) as channel:
                assert await refusal(channel, LIST_RUNS) is grpc.StatusCode.UNAVAILABLE


async def test_new_certificates_are_shown_without_a_restart(certificates: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "renewed")
    settings = ServerSettings(tls=server_tls(certificates), grace=0.1)
    renewed = ChannelSecurity(ClientTls(tmp_path / "renewed" / "ca.pem"))
    async with serving(register, settings, name="tls") as address:
        async with open_channel(address, renewed) as channel:
            assert await refusal(channel, LIST_RUNS) is grpc.StatusCode.UNAVAILABLE
        for name in ("server.key", "server.pem"):
            (tmp_path / "renewed" / name).replace(certificates / name)
        async with open_channel(address, renewed) as channel:
            assert await call(channel, LIST_RUNS, stream=False) == b""


async def test_a_server_other_machines_can_reach_needs_both_tls_and_tokens(certificates: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    add_token(file, "someone", ["read"], None)
    tls = server_tls(certificates)
    for settings in (
        ServerSettings("0.0.0.0:0"),
        ServerSettings("0.0.0.0:0", tls=tls),
        ServerSettings("0.0.0.0:0", tokens=file),
    ):
        with pytest.raises(ServiceError, match="without TLS and tokens"):
            async with serving(register, settings, name="open"):
                pass
    async with serving(
        register, ServerSettings("0.0.0.0:0", tls=tls, tokens=file, grace=0.1), name="locked"
    ) as address:
        assert address.startswith("0.0.0.0:")


async def test_a_token_does_not_travel_to_another_machine_in_clear_text() -> None:
    security = ChannelSecurity(token=SecretStr("blv_secret"))
    with pytest.raises(ServiceError, match="refusing to send a token") as caught:
        open_channel("192.0.2.7:7402", security)
    assert "blv_secret" not in str(caught.value)
    await open_channel("192.0.2.7:7402", ChannelSecurity(token=SecretStr("blv_secret"), insecure=True)).close()


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"BILEVEL_TLS_CERT": "a.pem"}, "BILEVEL_TLS_CERT: must be set together with BILEVEL_TLS_KEY"),
        ({"BILEVEL_TLS_CLIENT_CA": "a.pem"}, "BILEVEL_TLS_CLIENT_CA: needs"),
        ({"BILEVEL_MAX_STREAMS": "0"}, "BILEVEL_MAX_STREAMS"),
    ],
)
def test_wrong_server_settings_name_the_variable(
    variables: dict[str, str], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument, match=wrong):
        ServerSettings.secured("127.0.0.1:0")


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"BILEVEL_TOKEN": "a b"}, "BILEVEL_TOKEN"),
        ({"BILEVEL_TOKEN": "a", "BILEVEL_TOKEN_FILE": "b"}, "BILEVEL_TOKEN: must not"),
        ({"BILEVEL_CLIENT_CERT": "a", "BILEVEL_CLIENT_KEY": "b"}, "BILEVEL_CA: must be set"),
        ({"BILEVEL_CLIENT_CERT": "a"}, "must be set together"),
    ],
)
def test_wrong_client_settings_name_the_variable(
    variables: dict[str, str], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument, match=wrong) as caught:
        ChannelSecurity.load()
    assert "a b" not in str(caught.value)


async def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("nothing")
    for path, complaint in ((tmp_path / "gone.pem", "cannot read"), (no_pem, "not in PEM form")):
        with pytest.raises(ServiceError, match=complaint):
            open_channel("127.0.0.1:1", ChannelSecurity(ClientTls(path)))
    with pytest.raises(ServiceError, match="cannot read the token file"):
        open_channel("127.0.0.1:1", ChannelSecurity(token_file=tmp_path / "gone"))
