"""A server with every RPC of the contract that answers with its caller's name: only its doors are under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from bilevel.v1 import inner_pb2, outer_pb2, task_pb2

from service_kit.security.auth import caller

SERVICES = [
    file.services_by_name[name]
    for file in (task_pb2.DESCRIPTOR, inner_pb2.DESCRIPTOR, outer_pb2.DESCRIPTOR)
    for name in file.services_by_name
]
RPCS = [(f"/{service.full_name}/{method.name}", method) for service in SERVICES for method in service.methods]
LIST_RUNS = "/bilevel.v1.InnerLoopService/ListRuns"


def register(server: grpc.aio.Server) -> Iterable[str]:
    """Every RPC of the contract, answering with an empty message: only the doors are under test."""
    for service in SERVICES:
        handlers = {}
        for method in service.methods:
            handlers[method.name] = _stream() if method.server_streaming else _unary()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])
    extra = {
        "WhoAmI": grpc.unary_unary_rpc_method_handler(_who_am_i),
        "Wait": grpc.unary_stream_rpc_method_handler(_wait),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Unlisted", extra)])
    return [service.full_name for service in SERVICES]


def _unary() -> Any:
    async def answer(_request: bytes, _context: Any) -> bytes:
        return (identity.name if (identity := caller.get()) is not None else "").encode()

    return grpc.unary_unary_rpc_method_handler(answer)


def _stream() -> Any:
    async def answer(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield (identity.name if (identity := caller.get()) is not None else "").encode()

    return grpc.unary_stream_rpc_method_handler(answer)


async def _who_am_i(_request: bytes, _context: Any) -> bytes:
    return b"unlisted"


async def _wait(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    yield b"waiting"
    await asyncio.Event().wait()


async def call(channel: grpc.aio.Channel, method: str, *, stream: bool) -> bytes:
    if stream:
        return b"".join([answer async for answer in channel.unary_stream(method)(b"", timeout=20)])
    answer: bytes = await channel.unary_unary(method)(b"", timeout=20)
    return answer


async def refusal(channel: grpc.aio.Channel, method: str, *, stream: bool = False) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, stream=stream)
    return caught.value.code()
