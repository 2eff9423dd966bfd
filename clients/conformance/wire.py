"""Calling any method of a service by its name, with what came back and every detail of a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from clients.addresses import ServiceAddress
from clients.connection import DEADLINE, Connection, connect
from service_kit.errors import RemoteError

EOF = grpc.aio.EOF
_DETAILS = "grpc-status-details-bin"
M = TypeVar("M", bound=Message)


class Refusal(Exception):
    """A call that ended with another status than OK, with the details that the server attached."""

    def __init__(self, method: str, error: grpc.aio.AioRpcError) -> None:
        self.method = method
        self.code = error.code().name
        self.status = status_pb2.Status()
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS and isinstance(value, bytes):
                self.status.ParseFromString(value)
        super().__init__(f"{self.code}: {error.details() or '(no message)'}")

    def detail(self, kind: type[M]) -> M | None:
        """The attached message of a type, or None."""
        found = kind()
        return found if any(any_.Unpack(found) for any_ in self.status.details) else None

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """The ErrorInfo; an empty one where there is none."""
        return self.detail(error_details_pb2.ErrorInfo) or error_details_pb2.ErrorInfo()

    @property
    def fields(self) -> list[str]:
        """Fields that BadRequest names."""
        request = self.detail(error_details_pb2.BadRequest)
        return [violation.field for violation in request.field_violations] if request is not None else []


class Stream:
    """A call that is being answered with messages."""

    def __init__(self, method: str, call: Any) -> None:
        self.method, self._call = method, call

    async def read(self) -> Any:
        """The next message, or :data:`EOF`. Raises :class:`Refusal`."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Refusal(self.method, error) from None

    async def rest(self) -> list[Any]:
        """Every message that is left."""
        messages = []
        while (message := await self.read()) is not EOF:
            messages.append(message)
        return messages

    async def cancel(self) -> None:
        """Cancels the call and waits until that has been sent."""
        self._call.cancel()
        await asyncio.sleep(0)


class Wire:
    """One service at one address, called by the names in the protocol's descriptors."""

    def __init__(self, connection: Connection, service: str) -> None:
        self.connection = connection
        self.service = descriptor_pool.Default().FindServiceByName(service)
        self.called: set[str] = set()
        """Full names of the methods called so far."""

    @classmethod
    def to(cls, service: str, words: str, address: str, option: str = "HOST:PORT") -> Wire:
        """A wire to the service at ``address``. Raises InvalidArgument naming ``option`` for what is no address."""
        return cls(connect(ServiceAddress(words, address, "the server under test", option)), service)

    async def call(
        self, method: str, /, request: Message | None = None, *, timeout: float = DEADLINE, **fields: Any
    ) -> Any:
        """The answer of a unary method to a request with ``fields``. Raises :class:`Refusal`."""
        kinds, request = self._prepared(method, request, fields)
        call = self.connection.channel.unary_unary(self._path(method), *kinds)
        try:
            return await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise Refusal(method, error) from None

    @asynccontextmanager
    async def stream(self, method: str, /, *, timeout: float | None = None, **fields: Any) -> AsyncIterator[Stream]:
        """A streaming method's call, cancelled at the end of the block."""
        kinds, request = self._prepared(method, None, fields)
        call = self.connection.channel.unary_stream(self._path(method), *kinds)(request, timeout=timeout)
        try:
            yield Stream(method, call)
        finally:
            call.cancel()

    async def messages(self, method: str, /, *, timeout: float | None = None, **fields: Any) -> list[Any]:
        """Every message of a streaming method's answer."""
        async with self.stream(method, timeout=timeout, **fields) as stream:
            return await stream.rest()

    async def close(self) -> None:
        await self.connection.close()

    async def reachable(self) -> None:
        """Raises :class:`RemoteError` where nothing answers at the address."""
        try:
            await self.connection.healthy()
        except RemoteError as error:
            if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                return  # something answers; whether it should have known the call is a check's business
            target = self.connection.target
            error.message = f"the {target.service} at {target.address} cannot be reached"
            error.hint = "Start it, or name the address of a running one."
            raise

    def _path(self, method: str) -> str:
        return f"/{self.service.full_name}/{method}"

    def _prepared(
        self, method: str, request: Message | None, fields: dict[str, Any]
    ) -> tuple[tuple[Any, Any], Message]:
        self.called.add(f"{self.service.full_name}/{method}")
        described = self.service.methods_by_name[method]
        asked, answered = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        return (asked.SerializeToString, answered.FromString), request if request is not None else asked(**fields)
