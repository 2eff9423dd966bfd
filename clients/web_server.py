"""Serve an ASGI application until a signal: the same for the dashboard and for the scripted researcher.

SIGTERM and SIGINT drain: no new connection is taken, running requests get ``grace`` seconds, websockets are told to
come back later. A second signal ends them at once. Whoever connects is who the connection says: headers that proxies
add are not believed.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from service_kit.addresses import parse_address, publish
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.security.tls import ServerTls

MOST_CONNECTIONS = 1024
"""Connections that are served at the same time; more are answered 503."""
MOST_WEBSOCKET_BYTES = 2**20
"""Largest message that a websocket takes."""

log = structlog.get_logger("clients.web_server")


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How an application is reached and how it ends."""

    listen: str
    """HOST:PORT or [IPV6]:PORT; port 0 takes any free port."""
    address_file: Path | None = None
    """Where the bound address is written once the server is ready, and removed when it stops."""
    tls: ServerTls | None = None
    """None speaks clear text."""
    lifespan: bool = False
    """Whether the application wants to hear of start and end."""
    grace: int = 5
    """Seconds that running requests get to finish after SIGTERM."""
    field: str = "--listen"
    """The option that chose it, for messages."""


async def serve_web(application: Any, settings: WebSettings, on_listening: Callable[[str], None]) -> None:
    """Serve until a signal; ``on_listening`` is told the bound address.

    Raises :class:`InvalidArgument` when the address cannot be had, :class:`ServiceError` for a certificate that cannot.
    """
    listener = _bind(settings.listen, settings.field)
    host = parse_address(settings.listen)[0]
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        ws_max_size=MOST_WEBSOCKET_BYTES,
        timeout_graceful_shutdown=settings.grace,
        lifespan="on" if settings.lifespan else "off",
    )
    config.load()
    if settings.tls is not None:
        config.ssl = _context(settings.tls)
    bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    server = _Server(config, bound, settings.address_file, on_listening)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop)
    await server.serve(sockets=[listener])
    if not server.started:
        raise ServiceError("the server could not start", hint="Its log says why.")


def _bind(listen: str, field: str) -> socket.socket:
    host, port = parse_address(listen, field)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise InvalidArgument.of(
            field,
            f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}",
            hint="Choose another address; port 0 takes any free port.",
        ) from error
    return listener


def _context(tls: ServerTls) -> ssl.SSLContext:
    """TLS 1.2 or newer. Certificate files are looked at with every handshake and read again when they have changed."""
    current, seen = _read(tls), tls.stamps()

    def refresh(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current, seen
        try:
            if (now := tls.stamps()) != seen:
                current, seen = _read(tls), now
                log.info("certificates read again", path=str(tls.certificate))
        except ServiceError as error:
            log.error("certificate files cannot be read: the old ones stay in use", reason=str(error))
        connection.context = current

    front = _read(tls)
    front.sni_callback = refresh
    return front


def _read(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(
            f"cannot use the certificate {tls.certificate} with its key: {error}",
            hint="`bilevel certs` makes certificates for development.",
        ) from None
    return context


class _Server(uvicorn.Server):
    """A server that says where it listens, and ends with success after a signal."""

    def __init__(
        self, config: uvicorn.Config, address: str, address_file: Path | None, on_listening: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._address, self._address_file, self._on_listening = address, address_file, on_listening

    def stop(self) -> None:
        """Begin to stop; a second call ends running requests at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # ours are set already; uvicorn's would end the process by the signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            publish(self._address_file, self._address)
            self._on_listening(self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._address_file is not None:
            self._address_file.unlink(missing_ok=True)
        await super().shutdown(sockets)
