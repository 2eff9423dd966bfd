"""How a client reaches a service: channel options, deadlines, retries, and errors that say what to do.

Deadlines and retries are gRPC's own, by service config (https://github.com/grpc/grpc/blob/master/doc/service_config.md):
reads and idempotent creations are repeated when the transport fails, whatever starts work exactly once is not, and a
stream has no deadline.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from clients.addresses import ServiceAddress
from service_kit.addresses import parse_address
from service_kit.errors import RemoteError, naming
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.server import MESSAGE_LIMITS
from service_kit.status import remote_error

DEADLINE = 15.0
"""Seconds that an ordinary call may take."""

LONG_DEADLINE = 180.0
"""Seconds for calls that run the gate or wait for a model."""

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class UnaryCall(Protocol[Request, Response]):
    """A unary method of a generated asynchronous stub."""

    def __call__(self, request: Request, /, *, timeout: float | None = None) -> Awaitable[Response]: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """A channel to one service, and the words for talking about that service to people."""

    channel: grpc.aio.Channel
    target: ServiceAddress

    async def call(
        self, method: UnaryCall[Request, Response], request: Request, timeout: float | None = None
    ) -> Response:
        """Answer of one call, within ``timeout`` seconds, or else the deadline of the method's service config.

        Raises :class:`RemoteError` that names the service where it cannot be reached.
        """
        try:
            return await method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self.explain(error) from None

    def explain(self, error: grpc.RpcError) -> RemoteError:
        """The typed form of a failed call. A transport failure names the service, its address and how to start it."""
        remote = remote_error(error)
        if remote.code == "UNAVAILABLE" and not remote.reason:
            return unreachable(self.target)
        if remote.code == "UNIMPLEMENTED" and not remote.reason:
            return RemoteError(
                f"what answers at {self.target.address} is not the {self.target.service}",
                code=remote.code,
                reason="WRONG_SERVICE",
                hint=f"Check the address given with {self.target.option}.",
            )
        if remote.code == "DEADLINE_EXCEEDED" and not remote.reason:
            return RemoteError(
                f"the {self.target.service} at {self.target.address} did not answer in time",
                code=remote.code,
                hint="It may be overloaded or stopped: look at its log, then try again.",
            )
        return remote

    async def healthy(self, timeout: float = DEADLINE, service: str = "") -> bool:
        """Whether the server says that it serves, or that what it calls ``service`` does. Raises :class:`RemoteError`
        where it cannot be asked, with NOT_FOUND where it knows no such ``service``."""
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await self.call(check, health_pb2.HealthCheckRequest(service=service), timeout)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel; calls that are running fail with CANCELLED."""
        await self.channel.close()


@dataclass(frozen=True, slots=True)
class Methods:
    """The methods of one service, by what gRPC may do about them."""

    service: ServiceDescriptor
    repeatable: tuple[str, ...] = ()
    """Names of those that are safe to repeat: reads, and creations with a ``request_id``."""
    slow: tuple[str, ...] = ()
    """Names of those that run the gate or wait for a model."""

    def config(self) -> dict[str, Any]:
        """The service config. Unary methods have a deadline, each by its name; streams have none."""
        unary = [method.name for method in self.service.methods if not method.server_streaming]
        unknown = {*self.repeatable, *self.slow} - set(unary)
        if unknown:
            raise ValueError(f"{self.service.full_name} has no unary methods {', '.join(sorted(unknown))}")
        return {"methodConfig": [self._method(name) for name in unary]}

    def _method(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": [{"service": self.service.full_name, "method": name}],
            "timeout": f"{LONG_DEADLINE if name in self.slow else DEADLINE:g}s",
        }
        return config | ({"retryPolicy": _RETRIES} if name in self.repeatable else {})


_RETRIES = {
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def connect(target: ServiceAddress, methods: Methods | None = None) -> Connection:
    """A connection that is opened with the first call.

    Must be called inside a running event loop. Raises :class:`InvalidArgument` for what is no HOST:PORT, and like
    :func:`service_kit.security.channels.open_channel`.
    """
    parse_address(target.address, target.option)
    options: list[tuple[str, str | int]] = [
        *MESSAGE_LIMITS,
        ("grpc.service_config", json.dumps(methods.config() if methods is not None else {})),
        # A connection that died without a word is noticed after half a minute, also while no call is running.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        # Loopback and named hosts are reached directly: a proxy for the web does not lead to them.
        ("grpc.enable_http_proxy", 0),
    ]
    security = ChannelSecurity.load()
    with naming("BILEVEL_CA"):  # the files were read just now: what is left is a token that must not go in clear text
        return Connection(open_channel(target.address, security, options), target)


def unreachable(target: ServiceAddress) -> RemoteError:
    """The error for a service that cannot be reached."""
    return RemoteError(
        f"the {target.service} at {target.address} cannot be reached",
        code="UNAVAILABLE",
        hint=f"Start it with `{target.start}`, or name another address with {target.option} HOST:PORT.",
    )


Explain = Callable[[grpc.RpcError], RemoteError]
"""Turns a failed call into an error that people can act on."""
