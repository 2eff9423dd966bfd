"""Every request and every websocket passes here before a page hears of it."""

from __future__ import annotations

import math
import secrets
from functools import partial
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.dashboard.door.headers import NONCE, protect
from clients.dashboard.door.limits import Limits, network
from clients.dashboard.door.login import COOKIE, LIVES, SESSION, LoginPages, login_address
from clients.dashboard.door.origins import host_allowed, origin_allowed
from clients.dashboard.door.sessions import Session, Sessions
from clients.dashboard.door.settings import Access, DoorSettings
from service_kit.errors import ServiceError

_READING = {"GET", "HEAD"}
_OPEN = {"/login", "/logout", "/healthz"}
_SOCKETS = "/_nicegui_ws/"
_POLICY_VIOLATION = 1008

log = structlog.get_logger("clients.dashboard.door")


class Guard:
    """An ASGI application around another.

    In order: the Host header must name this dashboard (421), the caller must be within its limits (429), whatever
    changes state and every websocket must come from a page of this dashboard (403), and there must be a session (to the
    login page, or 401). Websockets are refused before they are opened, and closed when their session ends. The scope
    of what passes holds the :class:`Session` and whether it still lives.
    """

    def __init__(self, application: ASGIApp, settings: DoorSettings, names: frozenset[str] = frozenset()) -> None:
        """``names``: by which browsers may call it, beside localhost, IP addresses and those of the settings."""
        self._application = application
        self._settings = settings
        self._names = settings.host_names | names
        self._limits = Limits()
        self._sessions = Sessions(settings)
        self._login = LoginPages(settings, self._sessions, self._limits).application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[NONCE] = nonce = secrets.token_urlsafe(18)
        connection = HTTPConnection(scope)
        session = self._session(connection)

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                protect(MutableHeaders(scope=message), nonce)
            await send(message)

        answer = self._refusal(connection, session)
        if answer is not None:
            await answer(scope, receive, protected)
            return
        if session is not None:
            scope[SESSION], scope[LIVES] = session, partial(self._alive, session)
        inside = self._application if scope["path"] not in _OPEN else self._login
        await inside(scope, receive, protected)

    def _refusal(self, connection: HTTPConnection, session: Session | None) -> Response | None:
        """What is answered in place of the page; None lets the request in."""
        scope, headers = connection.scope, connection.headers
        path, reading = scope["path"], scope["method"] in _READING
        if not host_allowed(headers.get("host"), self._names):
            return PlainTextResponse("Unknown host name. BILEVEL_DASHBOARD_HOSTS lists those that are allowed.\n", 421)
        if (seconds := self._limits.request(_who(connection, session))) is not None:
            wait = str(math.ceil(seconds))
            return PlainTextResponse(f"Too many requests. Try again in {wait} s.\n", 429, {"Retry-After": wait})
        if not reading and not origin_allowed(headers.get("origin"), headers.get("host"), scope["scheme"]):
            return PlainTextResponse("This came from another page.\n", 403)
        if path.startswith(_SOCKETS):
            # Over HTTP the same events could be polled and posted; one way in is enough.
            return PlainTextResponse("Events travel over a websocket only.\n", 403)
        if session is not None or path in _OPEN:
            return None
        if reading and "text/html" in headers.get("accept", ""):
            return RedirectResponse(login_address(path, scope["query_string"].decode("latin-1")), 303)
        return PlainTextResponse("Log in first.\n", 401)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        headers, session = connection.headers, self._session(connection)
        scheme = {"ws": "http", "wss": "https"}[scope["scheme"]]
        if (
            session is None
            or not host_allowed(headers.get("host"), self._names)
            or not origin_allowed(headers.get("origin"), headers.get("host"), scheme)
        ):
            log.warning("websocket refused", origin=headers.get("origin", ""), host=headers.get("host", ""))
            await _close(receive, send)
            return
        who = _who(connection, session)
        with self._limits.socket(who) as place:
            if not place or self._limits.request(who) is not None:
                await _close(receive, send)
                return
            scope[SESSION] = session
            receive, send = self._while_alive(session, who, receive, send)
            try:
                await self._application(scope, receive, send)
            except ValueError as error:  # engineio's, for a frame that does not begin as its own do
                log.warning("websocket closed: malformed frame", error=str(error))
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    def _while_alive(self, session: Session, who: str, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """``receive`` and ``send`` of a websocket that counts messages and closes when the session has ended."""
        closed = False

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                await self._limits.action(who)
                if not self._alive(session):
                    await close()
                    return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
            return message

        async def send_alive(message: Message) -> None:
            if closed:
                return
            if self._alive(session):
                await send(message)
            else:
                await close()

        async def close() -> None:
            nonlocal closed
            if not closed:
                closed = True
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

        return receive_counted, send_alive

    def _session(self, connection: HTTPConnection) -> Session | None:
        """Who asks; without a password everyone who reaches the port."""
        if not self._settings.wants_login:
            return Session(_address(connection), Access.DRIVE, math.inf)
        cookie = connection.cookies.get(COOKIE)
        try:
            return self._sessions.read(cookie) if cookie else None
        except ServiceError as error:
            log.error("nobody is let in", reason=str(error))
            return None

    def _alive(self, session: Session) -> bool:
        if not self._settings.wants_login:
            return True
        try:
            return self._sessions.alive(session)
        except ServiceError as error:
            log.error("nobody is let in", reason=str(error))
            return False


def _address(connection: HTTPConnection) -> str:
    return network(connection.client.host) if connection.client is not None else ""


def _who(connection: HTTPConnection, session: Session | None) -> str:
    return session.identity if session is not None else _address(connection)


async def _close(receive: Receive, send: Send) -> None:
    """Refuse a websocket before it is opened: the browser sees 403."""
    message: Any = await receive()
    if message["type"] == "websocket.connect":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
