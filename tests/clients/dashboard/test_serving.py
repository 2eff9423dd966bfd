"""How the dashboard starts and ends: doors that it refuses to leave open, TLS that is rotated, and a probe."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from clients.certificates import make_certificates
from clients.dashboard.probe import alive
from clients.dashboard.serving import Dashboard, serve_dashboard
from clients.web_server import WebSettings, serve_web
from service_kit.errors import InvalidArgument
from service_kit.security.tls import ServerTls

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("password", ["", PASSWORD])
async def test_other_machines_need_tls_and_a_login(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("BILEVEL_DASHBOARD_PASSWORD", password)
    with pytest.raises(
        InvalidArgument, match=r"refusing to listen on 0\.0\.0\.0:0: .* without TLS and a login"
    ) as caught:
        await serve_dashboard(Dashboard("0.0.0.0:0", "127.0.0.1:1", "127.0.0.1:1"))
    assert "BILEVEL_DASHBOARD_PASSWORD_FILE" in (caught.value.hint or "")


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_token_of_the_services_is_lent_to_nobody_without_a_login(
    monkeypatch: pytest.MonkeyPatch, insecure: bool
) -> None:
    monkeypatch.setenv("BILEVEL_TOKEN", "blv_secret")
    with pytest.raises(
        InvalidArgument, match="refusing to serve without a login: the dashboard holds a token"
    ) as caught:
        await serve_dashboard(Dashboard("127.0.0.1:0", "127.0.0.1:1", "127.0.0.1:1", insecure))
    assert "blv_secret" not in str(caught.value)


async def test_a_password_file_that_cannot_be_read_is_named_before_anything_listens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BILEVEL_DASHBOARD_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidArgument, match=r"cannot read the dashboard's password file .*none"):
        await serve_dashboard(Dashboard("127.0.0.1:0", "127.0.0.1:1", "127.0.0.1:1"))


async def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(InvalidArgument, match="must be HOST:PORT"):
        await serve_dashboard(Dashboard(":7404", "127.0.0.1:1", "127.0.0.1:1"))


async def test_certificates_are_rotated_while_it_serves_and_a_signal_drains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_certificates(first, [], 1)
    make_certificates(second, [], 1)
    files = ServerTls(tmp_path / "server.pem", tmp_path / "server.key")
    _use(first, tmp_path)

    async def health(_: object) -> PlainTextResponse:
        return PlainTextResponse("ok")

    published, listening = tmp_path / "address", asyncio.Event()
    serving = asyncio.create_task(
        serve_web(
            Starlette(routes=[Route("/healthz", health)]),
            WebSettings("127.0.0.1:0", published, files),
            lambda _: listening.set(),
        )
    )
    await asyncio.wait_for(listening.wait(), 20)
    address = published.read_text().strip()
    assert await _trusts(first, address)
    assert not await _trusts(second, address)
    _use(second, tmp_path)
    assert await _trusts(second, address)
    (tmp_path / "server.pem").write_text("no certificate")
    assert await _trusts(second, address), "what cannot be read changes nothing"
    monkeypatch.setenv("BILEVEL_TLS_CERT", str(files.certificate))
    monkeypatch.setenv("BILEVEL_TLS_KEY", str(files.key))
    assert await asyncio.to_thread(alive, address)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 20)
    assert not published.exists()
    assert not await asyncio.to_thread(alive, address)


def _use(certificates: Path, folder: Path) -> None:
    for name in ("server.pem", "server.key"):
        draft = folder / f"{name}.new"
        draft.write_bytes((certificates / name).read_bytes())
        draft.replace(folder / name)


async def _trusts(certificates: Path, address: str) -> bool:
    """Whether a client of that authority gets an answer over a new connection."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(f"https://{address}/healthz", ssl=context) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False
