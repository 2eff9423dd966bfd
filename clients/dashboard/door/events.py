"""Every event of an open page passes here: it must be well formed, and come from whoever opened that page."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import structlog
from socketio import AsyncServer
from socketio import exceptions as socket_errors

from clients.dashboard.door.login import SESSION
from clients.dashboard.door.sessions import Session

EVENTS = ("event", "javascript_response", "ack", "log")
"""What an open page sends once it has shaken hands."""

_GREETING = {"client_id", "tab_id", "document_id"}
_RELOAD = "Implicit handshake failed"
"""The refusal that makes NiceGUI's script load the page again, and so with the login that the browser has now."""

log = structlog.get_logger("clients.dashboard.door")


class EventGuard:
    """Stands before the handlers of NiceGUI's websockets.

    They hear of well-formed events only, and of a page only from the session that it was served to: one that
    reconnects under another login is told to load again. A socket that sends what no page sends is closed.
    """

    def __init__(self, server: AsyncServer, opened_by: Callable[[str], Session | None]) -> None:
        """Take the place of the handlers that ``server`` has.

        ``opened_by`` gives the session that a page was served to, by the page's client id; None for an unknown page.
        """
        self._server, self._opened_by = server, opened_by
        handlers = server.handlers["/"]
        self._greeted, self._shaken = handlers["connect"], handlers["handshake"]
        self._read = server.eio.handlers["message"]
        server.async_handlers = False  # engineio has a task for each message: _message sees what they raise
        server.on("connect", self._connect)
        server.on("handshake", self._handshake)
        for name in EVENTS:
            server.on(name, self._guarded(name, handlers[name]))
        server.eio.on("message", self._message)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "client_id" in query and not self._own_page(environ, query["client_id"][0]):
            raise socket_errors.ConnectionRefusedError(_RELOAD)
        await self._greeted(sid, environ, auth)

    async def _handshake(self, sid: str, *sent: Any) -> bool:
        if len(sent) != 1 or not isinstance(sent[0], dict) or not sent[0].keys() >= _GREETING:
            await self._refuse(sid, "handshake", "incomplete")
            return False
        return self._own_page(self._server.get_environ(sid), sent[0]["client_id"]) and await self._shaken(sid, sent[0])

    def _own_page(self, environ: Mapping[str, Any], client_id: object) -> bool:
        visitor = environ["asgi.scope"].get(SESSION)
        opener = self._opened_by(client_id) if isinstance(client_id, str) else None
        if visitor is None or opener is None:
            return False
        # Where nobody has to log in, the same person may come from 127.0.0.1 and from ::1.
        return bool(visitor == opener or not (visitor.by_login or opener.by_login))

    def _guarded(self, name: str, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def hear(sid: str, *sent: Any) -> Any:
            pages = self._server.rooms(sid)
            if not pages:
                return None  # closed in the meantime
            if len(sent) != 1 or not isinstance(sent[0], dict) or sent[0].get("client_id") not in pages:
                await self._refuse(sid, name, "not of the page of this socket")
                return None
            answer = handler(sid, sent[0])
            return await answer if inspect.isawaitable(answer) else answer

        return hear

    async def _message(self, eio_sid: str, message: Any) -> None:
        try:
            await self._read(eio_sid, message)
        except Exception as error:  # noqa: BLE001 (reading raises whatever the bytes happen to provoke)
            log.warning("websocket closed: malformed message", error=repr(error))
            await self._server.eio.disconnect(eio_sid)

    async def _refuse(self, sid: str, name: str, reason: str) -> None:
        log.warning("websocket closed: malformed event", event_name=name, reason=reason)
        if eio_sid := self._server.manager.eio_sid_from_sid(sid, "/"):
            await self._server.eio.disconnect(eio_sid)
