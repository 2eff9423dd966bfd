"""Start, serve and drain a gRPC server: the same for every service.

A server listens on loopback unless told otherwise, answers health checks and reflection, turns errors into statuses
(:mod:`service_kit.status`), and on SIGTERM or SIGINT drains: health says NOT_SERVING, no new call is taken, running
calls get ``grace`` seconds. A second signal ends them at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_kit.addresses import is_loopback, parse_address, publish
from service_kit.calls import CallInterceptor
from service_kit.complaint import complain
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError, naming
from service_kit.exit_codes import ExitCode
from service_kit.security.auth import AuthInterceptor
from service_kit.security.limits import MAX_STREAMS, StreamLimit
from service_kit.security.tls import ServerTls, read_pem
from service_kit.security.tokens import Tokens, read_tokens
from service_kit.settings import ServerNetworkSettings
from service_kit.settings_file import apply_config_file
from service_kit.status import ErrorInterceptor
from service_kit.telemetry import tracing
from service_kit.telemetry.serving import MetricsSettings, exposed
from service_kit.waits import HEALTH_NAME, Waits

MESSAGE_BYTES = 16 * 2**20
"""Largest message that a server takes or sends."""

MESSAGE_LIMITS = (("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES))
"""Channel and server options for that limit."""

RECONNECT_SECONDS = 1.0
"""After which a client should open a stream again that a draining server ended."""

_CONNECTIONS = (
    # A connection that does not say at once what it wants takes a place from others.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A client that vanished without a word is noticed within a minute and a half, so that its streams are not kept.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients may ask as often on a call that is silent for long, such as one that waits for a model.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Calls that have arrived and whose turn has not come. Beyond the first number gRPC drops some at random, beyond the
    # second all, as CANCELLED; at its own 1,000 a burst of streams never hears of the limit that it has met.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)

Register = Callable[[grpc.aio.Server], Iterable[str]]
"""Adds servicers to a server and returns the full names of their services, for health and reflection."""

log = structlog.get_logger("service_kit.server")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is reached and how it ends."""

    listen: str = "127.0.0.1:0"
    """HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 lets the system choose a free one."""
    address_file: Path | None = None
    """Where the bound address is written once the server is ready, and removed when it stops."""
    grace: float = 10.0
    """Seconds that running calls get to finish after SIGTERM."""
    insecure: bool = False
    """Allow a non-loopback ``listen`` without TLS and tokens."""
    tls: ServerTls | None = None
    """None speaks clear text."""
    tokens: Path | None = None
    """File of the tokens that are let in; None lets every caller in."""
    max_streams: int = MAX_STREAMS
    """Streams that one caller may hold open at a time."""

    @classmethod
    def secured(cls, listen: str, address_file: Path | None = None, *, insecure: bool = False) -> Self:
        """With the protection that the environment asks for; raises :class:`InvalidArgument` naming the variable."""
        network = ServerNetworkSettings.load()
        tls = None
        if network.certificate is not None and network.key is not None:
            tls = ServerTls(network.certificate, network.key, network.client_ca)
            named = {
                "BILEVEL_TLS_CERT": tls.certificate,
                "BILEVEL_TLS_KEY": tls.key,
                "BILEVEL_TLS_CLIENT_CA": tls.client_ca,
            }
            for variable, file in named.items():
                with naming(variable):
                    _ = read_pem(file) if file is not None else None
        if network.tokens is not None:
            read_tokens(network.tokens)
        return cls(
            listen,
            address_file,
            insecure=insecure,
            tls=tls,
            tokens=network.tokens,
            max_streams=network.max_streams,
        )


async def serve(
    register: Register,
    settings: ServerSettings,
    *,
    name: str,
    draining: asyncio.Event | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    waits: Waits | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. See :func:`serving` for the arguments and errors."""
    loop, draining, hurry = asyncio.get_running_loop(), draining or asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if draining.is_set() else draining).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        async with serving(register, settings, name=name, draining=draining, hurry=hurry, on_stop=on_stop, waits=waits):
            await draining.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def serving(
    register: Register,
    settings: ServerSettings,
    *,
    name: str,
    draining: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    waits: Waits | None = None,
) -> AsyncIterator[str]:
    """A running server for the length of the block; yields the address it is bound to.

    ``draining`` is set when the server begins to stop: give the same event to servicers, whose watch streams must then
    end with :class:`Draining`, which tells clients to open them again. ``hurry`` cuts the grace short.
    ``on_stop`` runs after the last call has ended, whatever happened before. While one of ``waits`` lasts, health says
    NOT_SERVING for HEALTH_NAME of :mod:`service_kit.waits`, and for that name only.
    Raises :class:`InvalidArgument` for a bad ``listen`` and for an address that cannot be bound.
    """
    async with (
        exposed(MetricsSettings.load()),
        tracing.exported(name),
        _serving(register, settings, name, draining or asyncio.Event(), hurry, on_stop, waits) as address,
    ):
        yield address


@asynccontextmanager
async def _serving(
    register: Register,
    settings: ServerSettings,
    name: str,
    draining: asyncio.Event,
    hurry: asyncio.Event | None,
    on_stop: Callable[[], Awaitable[None]] | None,
    waits: Waits | None,
) -> AsyncIterator[str]:
    tokens = [AuthInterceptor(Tokens(settings.tokens))] if settings.tokens is not None else []
    server = grpc.aio.server(
        interceptors=[CallInterceptor(), ErrorInterceptor(), *tokens, StreamLimit(settings.max_streams)],
        # Without this option, two servers share a port silently and each gets half of the calls.
        options=[("grpc.so_reuseport", 0), *MESSAGE_LIMITS, *_CONNECTIONS],
    )
    telling: asyncio.Task[None] | None = None
    try:
        address = _bind(server, settings)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        names = [*register(server), health.SERVICE_NAME]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        await server.start()
        for service in (health.OVERALL_HEALTH, *names):
            await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        if waits is not None:
            telling = asyncio.create_task(_tell(healthy, waits))
        publish(settings.address_file, address)
        log.info("listening", name=name, address=address)
        try:
            yield address
        finally:
            draining.set()
            log.info("draining", name=name, grace_seconds=settings.grace)
            await healthy.enter_graceful_shutdown()
            if settings.address_file is not None:
                settings.address_file.unlink(missing_ok=True)
            await _drain(server, settings.grace, hurry or asyncio.Event())
            log.info("stopped", name=name)
    finally:
        if telling is not None:
            telling.cancel()
        if on_stop is not None:
            await on_stop()


async def _tell(healthy: health.aio.HealthServicer, waits: Waits) -> None:
    """Keep the health of the storage true."""
    async for waiting in waits.follow():
        status = health_pb2.HealthCheckResponse
        await healthy.set(HEALTH_NAME, status.NOT_SERVING if waiting else status.SERVING)


async def _drain(server: grpc.aio.Server, grace: float, hurry: asyncio.Event) -> None:
    stopping = asyncio.create_task(server.stop(grace))
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        await server.stop(None)
    hurried.cancel()
    await stopping


def must_be_free(settings: ServerSettings) -> None:
    """Raises :class:`InvalidArgument` where ``settings.listen`` cannot or must not be served: for a service to find out
    before it touches its database. Another process may still take the address before :func:`serve` does."""
    if not settings.listen.startswith("unix:"):
        host, port = parse_address(settings.listen)
        open_to_all = settings.tls is None or settings.tokens is None
        if open_to_all and not settings.insecure and not is_loopback(host):
            raise InvalidArgument.of(
                "--listen",
                f"refusing to listen on {settings.listen}: it is reachable from other machines without TLS and tokens",
                hint="Listen on 127.0.0.1; or set BILEVEL_TLS_CERT, BILEVEL_TLS_KEY and BILEVEL_TOKENS, which "
                "`bilevel certs` and `bilevel tokens add` make; or pass --insecure if the network is trusted.",
            )
        try:
            _try_bind(host, port)
        except OSError as error:
            raise _taken(settings, error) from error


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> str:
    """Bind ``settings.listen`` and return the address with its real port."""
    must_be_free(settings)
    try:
        if settings.tls is None:
            bound = server.add_insecure_port(settings.listen)
        else:
            bound = server.add_secure_port(settings.listen, settings.tls.credentials())
    except (OSError, RuntimeError) as error:
        raise _taken(settings, error) from error
    if settings.listen.startswith("unix:"):
        return settings.listen
    host, _ = parse_address(settings.listen)
    return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"


def _taken(settings: ServerSettings, error: OSError | RuntimeError) -> InvalidArgument:
    why = (getattr(error, "strerror", None) or str(error)).lower()
    hint = "Choose another address with --listen HOST:PORT; port 0 takes any free port."
    return InvalidArgument.of("--listen", f"cannot listen on {settings.listen}: {why}", hint=hint)


def _try_bind(host: str, port: int) -> None:
    """Raise the system's own OSError where the address cannot be had: gRPC says only that it failed."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: a port in TIME_WAIT is free
        probe.bind(address)


def run(main: Coroutine[Any, Any, None], *, json: bool = False) -> None:
    """Run a program: an error of the catalogue becomes one message on stderr and an exit code, not a stack trace."""
    try:
        apply_config_file()
        asyncio.run(main)
    except (ServiceError, InvalidConfiguration) as error:
        sys.exit(complain(error, json=json))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
