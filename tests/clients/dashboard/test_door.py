"""The dashboard's door over real sockets: who comes in, from which page, how often."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from clients.dashboard.door.guard import Guard
from clients.dashboard.door.headers import NONCE
from clients.dashboard.door.login import SESSION
from clients.dashboard.door.origins import host_allowed, origin_allowed
from clients.dashboard.door.sessions import Sessions
from clients.dashboard.door.settings import Access, DoorSettings
from service_kit.errors import InvalidArgument

PASSWORD = "correct horse battery"
VIEWER = "only ever looking on"
HTML = {"Accept": "text/html"}


async def page(request: Request) -> Response:
    return HTMLResponse(f"<p>inside as {request.scope[SESSION].access}, nonce {request.scope[NONCE]}</p>")


async def echo(socket_: WebSocket) -> None:
    await socket_.accept()
    async for text in socket_.iter_text():
        await socket_.send_text(text)


INSIDE = Starlette(
    routes=[
        Route("/", page, methods=["GET", "POST"]),
        Route("/runs/{run}", page),
        WebSocketRoute("/_nicegui_ws/socket.io", echo),
    ]
)


class Browser:
    """One browser at one dashboard: keeps cookies, and sends Origin as browsers do."""

    def __init__(self, address: str, http: aiohttp.ClientSession) -> None:
        self.address, self.origin, self.http = address, f"http://{address}", http

    async def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        async with self.http.get(self.origin + path, headers=HTML | headers, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def post(self, path: str, form: dict[str, str], **headers: str) -> tuple[int, str, Any]:
        sent = {"Origin": self.origin} | headers
        async with self.http.post(self.origin + path, data=form, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def token(self, path: str = "/login") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.get(path))[1])
        assert found is not None
        return found[1]

    async def log_in(self, password: str, following: str = "/") -> tuple[int, str, Any]:
        return await self.post("/login", {"csrf": await self.token(), "password": password, "next": following})

    def websocket(self, **headers: str) -> Any:
        sent = {"Origin": self.origin} | headers
        return self.http.ws_connect(f"ws://{self.address}/_nicegui_ws/socket.io", headers=sent)


Open = Callable[..., Awaitable[Browser]]


@pytest.fixture
async def dashboard(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens a browser at a dashboard of its own, with these settings."""
    opened: list[Any] = []

    @asynccontextmanager
    async def running(settings: dict[str, str]) -> AsyncIterator[Browser]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(
            Guard(INSIDE, DoorSettings.load()), log_config=None, lifespan="off", proxy_headers=False
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        jar = aiohttp.CookieJar(unsafe=True)
        try:
            async with aiohttp.ClientSession(cookie_jar=jar) as http:
                yield Browser(f"127.0.0.1:{listener.getsockname()[1]}", http)
        finally:
            server.should_exit = True
            await serving

    async def browser(**settings: str) -> Browser:
        context = running(settings)
        opened.append(context)
        return await context.__aenter__()

    yield browser
    for context in opened:
        await context.__aexit__(None, None, None)


async def test_without_a_password_loopback_is_trusted_and_still_guarded_against_other_sites(dashboard: Open) -> None:
    browser = await dashboard()
    status, text, headers = await browser.get("/")
    assert (status, "inside as drive" in text) == (200, True)
    assert (await browser.get("/", Host="rebound.example"))[0] == 421
    assert (await browser.post("/", {}))[0] == 200
    assert (await browser.post("/", {}, Origin="http://evil.example"))[0] == 403
    assert (await browser.post("/", {}, Origin="null"))[0] == 403
    nonce = re.search(r"nonce (\S+)<", text)
    assert nonce is not None
    assert f"script-src 'self' 'nonce-{nonce[1]}'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert headers["Referrer-Policy"] == "same-origin"


async def test_the_login_opens_the_door_and_leads_back_to_the_page(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    status, _, headers = await browser.get("/runs/one?tab=2")
    assert (status, headers["Location"]) == (303, "/login?next=%2Fruns%2Fone%3Ftab%3D2")
    assert (await browser.get("/runs/one", Accept="*/*"))[0] == 401
    assert (await browser.get("/healthz"))[0] == 200
    status, _, headers = await browser.log_in(PASSWORD, "/runs/one?tab=2")
    assert (status, headers["Location"]) == (303, "/runs/one?tab=2")
    [cookie] = [value for value in headers.getall("Set-Cookie") if value.startswith("bilevel_session=")]
    assert {"httponly", "samesite=strict", "max-age=43200"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "inside as drive" in (await browser.get("/runs/one"))[1]


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "/\r\nX: y"])
async def test_the_login_leads_nowhere_else(dashboard: Open, following: str) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    assert (await browser.log_in(PASSWORD, following))[2]["Location"] == "/"


async def test_a_wrong_password_or_a_form_of_another_browser_opens_nothing(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    status, text, _ = await browser.log_in("wrong password!")
    assert (status, "not the password" in text, "wrong password!" in text) == (403, True, False)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        foreign = await Browser(browser.address, http).token()
    for token in (foreign, "", "made-up"):
        status, text, _ = await browser.post("/login", {"csrf": token, "password": PASSWORD})
        assert (status, "too old" in text) == (403, True)
    assert (await browser.get("/"))[0] == 303


async def test_failed_attempts_to_log_in_are_limited_then_also_for_the_right_password(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    assert (await browser.log_in(PASSWORD))[0] == 303, "one that succeeds does not count"
    browser.http.cookie_jar.clear()
    statuses = [(await browser.log_in(f"wrong password {i}"))[0] for i in range(5)]
    assert statuses == [403] * 5
    status, text, headers = await browser.log_in(PASSWORD)
    assert (status, "Too many attempts" in text) == (429, True)
    assert 0 < int(headers["Retry-After"]) <= 61


async def test_requests_are_limited(dashboard: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.dashboard.door.limits.REQUESTS", RateLimitItemPerMinute(3))
    browser = await dashboard()
    assert [(await browser.get("/"))[0] for _ in range(4)] == [200, 200, 200, 429]


async def test_a_viewer_is_known_as_one(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD, BILEVEL_DASHBOARD_VIEW_PASSWORD=VIEWER)
    assert (await browser.log_in(VIEWER))[0] == 303
    assert "inside as view" in (await browser.get("/"))[1]


async def test_a_websocket_opens_for_a_page_of_the_dashboard_only(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await browser.websocket()
    await browser.log_in(PASSWORD)
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": browser.origin.replace("127.0.0.1", "localhost")},
        {"Origin": f"https://{browser.address}"},
        {"Host": "rebound.example", "Origin": "http://rebound.example"},
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await browser.websocket(**headers)
    status, *_ = await browser.post("/_nicegui_ws/socket.io", {})
    assert status == 403, "events by polling"
    async with browser.websocket() as open_socket:
        await open_socket.send_str("hello")
        assert await open_socket.receive_str(timeout=5) == "hello"


async def test_logging_out_needs_the_form_and_ends_the_session_everywhere(dashboard: Open) -> None:
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD=PASSWORD)
    await browser.log_in(PASSWORD)
    [cookie] = [c for c in browser.http.cookie_jar if c.key == "bilevel_session"]
    async with browser.websocket() as open_socket:
        assert (await browser.post("/logout", {"csrf": "made-up"}))[0] == 403
        assert (await browser.get("/"))[0] == 200
        assert (await browser.post("/logout", {"csrf": await browser.token("/logout")}))[0] == 303
        await open_socket.send_str("still here?")
        assert (await open_socket.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert (await browser.get("/", Cookie=f"bilevel_session={cookie.value}"))[0] == 303


async def test_a_changed_password_ends_sessions_and_an_unreadable_one_lets_nobody_in(
    dashboard: Open, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    browser = await dashboard(BILEVEL_DASHBOARD_PASSWORD_FILE=str(file))
    await browser.log_in(PASSWORD)
    assert (await browser.get("/"))[0] == 200
    file.write_text("another password\n")
    assert (await browser.get("/"))[0] == 303
    assert (await browser.log_in("another password"))[0] == 303
    file.unlink()
    assert (await browser.get("/"))[0] == 303
    status, text, _ = await browser.get("/login")
    assert (status, "cannot read its password file" in text, str(file) in text) == (500, True, False)


async def test_a_burst_of_messages_is_slowed_and_none_is_lost(dashboard: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.dashboard.door.limits.ACTIONS", RateLimitItemPerSecond(5))
    browser = await dashboard()
    async with browser.websocket() as open_socket:
        began = asyncio.get_running_loop().time()
        for i in range(12):
            await open_socket.send_str(str(i))
        assert [await open_socket.receive_str(timeout=20) for _ in range(12)] == [str(i) for i in range(12)]
        assert asyncio.get_running_loop().time() - began > 1.5


def test_sessions_expire_and_cannot_be_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_DASHBOARD_PASSWORD", PASSWORD)
    now = 1000.0
    sessions = Sessions(DoorSettings.load(session_hours=1), lambda: now)
    cookie = sessions.begin(Access.VIEW)
    session = sessions.read(cookie)
    assert session is not None
    assert (session.access, session.expires) == (Access.VIEW, 4600.0)
    assert Sessions(DoorSettings.load()).read(cookie) is None, "another process"
    assert sessions.read(cookie[:-2] + "xx") is None
    assert sessions.read("") is None
    now = 4600.0
    assert sessions.read(cookie) is None
    assert not sessions.alive(session)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"PASSWORD": "short"}, "BILEVEL_DASHBOARD_PASSWORD: must have at least 12 characters; it is not shown here"),
        ({"VIEW_PASSWORD": VIEWER}, "BILEVEL_DASHBOARD_VIEW_PASSWORD: needs BILEVEL_DASHBOARD_PASSWORD beside it"),
        ({"PASSWORD": PASSWORD, "PASSWORD_FILE": "x"}, "BILEVEL_DASHBOARD_PASSWORD: must not be set beside"),
        ({"SESSION_HOURS": "0"}, "BILEVEL_DASHBOARD_SESSION_HOURS: must be greater than 0"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"BILEVEL_DASHBOARD_{name}", value)
    with pytest.raises(InvalidArgument, match=re.escape(complaint)):
        DoorSettings.load()


def test_a_password_file_that_cannot_serve_is_named_and_its_content_is_not(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = DoorSettings.load(password_file=file)
    with pytest.raises(InvalidArgument, match=r"cannot read the dashboard's password file .*password"):
        settings.digests()
    file.write_text("swordfish\n")
    with pytest.raises(InvalidArgument, match="at least 12 characters") as caught:
        settings.digests()
    assert "swordfish" not in str(caught.value)


def test_one_password_cannot_be_for_driving_and_for_looking(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    settings = DoorSettings.load(password=PASSWORD, view_password_file=file)
    with pytest.raises(InvalidArgument, match="VIEW_PASSWORD: must be another password than BILEVEL_DASH") as caught:
        settings.digests()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("127.0.0.1:7404", True),
        ("[::1]:7404", True),
        ("localhost", True),
        ("LOCALHOST:7404", True),
        ("192.168.1.5:80", True),
        ("page.example:7404", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("evil.example/127.0.0.1", False),
        ("localhost:99999", False),
        ("", False),
        (None, False),
    ],
)
def test_host_headers(header: str | None, allowed: bool) -> None:
    assert host_allowed(header, {"page.example"}) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        ("http://localhost:7404", "localhost:7404", "http", True),
        ("https://page.example", "page.example:443", "https", True),
        ("http://localhost:7405", "localhost:7404", "http", False),
        ("https://localhost:7404", "localhost:7404", "http", False),
        ("http://evil.example", "localhost:7404", "http", False),
        ("null", "localhost:7404", "http", False),
        (None, "localhost:7404", "http", False),
        ("http://localhost:x", "localhost:7404", "http", False),
    ],
)
def test_origins(origin: str | None, host: str, scheme: str, allowed: bool) -> None:
    assert origin_allowed(origin, host, scheme) is allowed
