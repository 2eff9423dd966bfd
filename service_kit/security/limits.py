"""What one caller may hold open at a time."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import unquote

import grpc

from service_kit.errors import Exhausted
from service_kit.security.auth import caller
from service_kit.status import behaviour_of, with_behaviour

MAX_STREAMS = 512
"""Streams that one caller may hold open at a time unless the settings say otherwise."""


class StreamLimit(grpc.aio.ServerInterceptor):
    """Bounds the open streams of one caller: of one token where there are tokens, else of one host."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming:
            return handler
        inner = behaviour_of(handler)

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._place(context):
                async with contextlib.aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

        async def written(request: Any, context: Any) -> None:
            with self._place(context):
                await inner(request, context)

        return with_behaviour(handler, generated if inspect.isasyncgenfunction(inner) else written)

    @contextlib.contextmanager
    def _place(self, context: Any) -> Iterator[None]:
        identity = caller.get()
        who = identity.name if identity is not None else _host(context.peer())
        if self._open[who] >= self._most:
            hint = "Close streams that are not needed, or raise BILEVEL_MAX_STREAMS."
            raise Exhausted("streams of one caller", self._most, hint)
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


def _host(peer: str) -> str:
    """The host of a gRPC peer such as ``ipv4:10.0.0.7:53412``: every connection has a port of its own."""
    return unquote(peer).rpartition(":")[0] or peer
