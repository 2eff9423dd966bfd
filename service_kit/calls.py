"""What every call to a server leaves behind: its ids on all lines of the log below it, a line of its own, its id in the
answer's trailers (``x-request-id``), its numbers in the metrics, and a span in its caller's trace."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import structlog

from service_kit import context as ids
from service_kit.security.auth import caller_name
from service_kit.security.roles import METHODS, OPEN, Role
from service_kit.status import Behaviour, behaviour_of, with_behaviour
from service_kit.telemetry import metrics, tracing

Metadata = tuple[tuple[str, Any], ...]

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

log = structlog.get_logger("service_kit.calls")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Stands before all others, so that refusals at the door are seen too."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        # Interceptors and servicer run in one task, which is the call's own, so that all of them see this.
        ids.bind(ids.from_metadata(handler_call_details.invocation_metadata or ()))
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN:
            return handler
        metadata = tuple(handler_call_details.invocation_metadata or ())
        return with_behaviour(handler, _followed(behaviour_of(handler), method, metadata))


def _followed(inner: Behaviour, method: str, metadata: Metadata) -> Behaviour:
    if inspect.isasyncgenfunction(inner):

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            with _call(method, metadata, request, context):
                async with contextlib.aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

        return stream

    async def call(request: Any, context: Any) -> Any:
        with _call(method, metadata, request, context):
            return await inner(request, context)

    return call


@contextlib.contextmanager
def _call(method: str, metadata: Metadata, request: Any, context: Any) -> Iterator[None]:
    ids.bind(ids.named_in(request))
    context.set_trailing_metadata(((ids.HEADERS[ids.REQUEST], ids.current()[ids.REQUEST]),))
    started, code = time.perf_counter(), grpc.StatusCode.CANCELLED.name
    try:
        with tracing.answering(method, metadata), metrics.RPCS_RUNNING.counting(method=method):
            yield
        code = _name(context.code())
    except grpc.aio.AbortError:
        code = _name(context.code())
        raise
    finally:
        _report(method, code, time.perf_counter() - started)


def _name(code: Any) -> str:
    """Of a status: gRPC tells it as what it was set to, or as 0 while nobody has."""
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES[code or 0]


def _report(method: str, code: str, seconds: float) -> None:
    metrics.RPCS.add(method=method, code=code)
    metrics.RPC_SECONDS.observe(seconds, method=method)
    # Whoever looks asks often; what is changed is worth a line.
    say = log.debug if METHODS.get(method, Role.READ) is Role.READ else log.info
    by = {"caller": name} if (name := caller_name()) else {}
    say("call answered", method=method, code=code, seconds=round(seconds, 3), **by)
