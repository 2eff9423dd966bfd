"""Over real sockets: whose certificate is trusted, and what never travels in clear text."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from pydantic import SecretStr

from clients.certificates import make_certificates
from clients.token_file import add_token, remove_token
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.security.tls import ClientTls, ServerTls
from service_kit.server import ServerSettings, serving
from tests.service_kit.security.echo import LIST_RUNS, call, refusal, register


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
