"""A proxy before a conforming service that breaks the protocol in the way that a test asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

Forward = Callable[[Any], Awaitable[Any]]
Items = Callable[[Any], AsyncIterator[Any]]


class Fault:
    """Breaks nothing. A subclass overrides what it breaks."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        """The answer to a request; ``forward`` asks the service behind."""
        return await forward(request)

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        """The messages that answer a request."""
        async for item in items(request):
            yield item

    def trailers(self, metadata: Any) -> Any:
        """What a refusal carries."""
        return metadata


@asynccontextmanager
async def proxied(service: str, address: str, fault: Fault) -> AsyncIterator[str]:
    """A server before the one at ``address``, for the length of the block; yields its own address."""
    described = descriptor_pool.Default().FindServiceByName(service)
    async with grpc.aio.insecure_channel(address) as channel:
        server = grpc.aio.server()
        handlers = {method.name: _handler(service, method, channel, fault) for method in described.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)


def _handler(service: str, method: Any, channel: Any, fault: Fault) -> Any:
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    path = f"/{service}/{method.name}"

    async def refuse(error: grpc.aio.AioRpcError, context: Any) -> None:
        metadata = tuple(fault.trailers(tuple(error.trailing_metadata() or ())))
        await context.abort(error.code(), error.details() or "", metadata)

    if method.server_streaming:
        behind = channel.unary_stream(path, asked.SerializeToString, answered.FromString)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for item in fault.stream(method.name, request, behind):
                    yield item
            except grpc.aio.AioRpcError as error:
                await refuse(error, context)

        return grpc.unary_stream_rpc_method_handler(stream, asked.FromString, answered.SerializeToString)

    behind_unary = channel.unary_unary(path, asked.SerializeToString, answered.FromString)

    async def unary(request: Any, context: Any) -> Any:
        try:
            return await fault.unary(method.name, request, behind_unary)
        except grpc.aio.AioRpcError as error:
            await refuse(error, context)

    return grpc.unary_unary_rpc_method_handler(unary, asked.FromString, answered.SerializeToString)
