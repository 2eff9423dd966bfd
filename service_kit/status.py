"""Errors on the wire: the catalogue of :mod:`service_kit.errors` as ``google.rpc.Status``, both ways.

See https://google.aip.dev/193 for the meaning of ErrorInfo, BadRequest, PreconditionFailure and ResourceInfo.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_kit import context as ids
from service_kit.errors import (
    AlreadyExists,
    Conflict,
    CutOff,
    Draining,
    Exhausted,
    InvalidArgument,
    InvalidConfiguration,
    NotFound,
    PermissionDenied,
    RemoteError,
    ServiceError,
    StorageFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
    WrongState,
)
from service_kit.translate import duration_to_proto

DOMAIN = "bilevel.v1"
"""The ErrorInfo domain in which the reasons below are defined."""

CODES: dict[type[Exception], tuple[grpc.StatusCode, str]] = {
    InvalidArgument: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    InvalidConfiguration: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CONFIGURATION"),
    NotFound: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    AlreadyExists: (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    WrongState: (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
    Conflict: (grpc.StatusCode.ABORTED, "CONFLICT"),
    PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Unavailable: (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
    Draining: (grpc.StatusCode.UNAVAILABLE, "DRAINING"),
    CutOff: (grpc.StatusCode.UNAVAILABLE, "CUT_OFF"),
    StorageFailed: (grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED"),
    Exhausted: (grpc.StatusCode.RESOURCE_EXHAUSTED, "EXHAUSTED"),
    Unimplemented: (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"),
    ServiceError: (grpc.StatusCode.FAILED_PRECONDITION, "REFUSED"),
}
"""The one table: what each error is on the wire. A subclass counts as its nearest listed base."""

_DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries a google.rpc.Status."""

_OWN_FAULT = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
"""Refusals by another server that concern this server's credentials and not those of its caller."""

_UNREACHABLE = {
    "UNAVAILABLE": ("the server cannot be reached", "Check that it runs and that the address is right."),
    "DEADLINE_EXCEEDED": ("the server did not answer in time", "Try again, or allow the call more time."),
}

log = structlog.get_logger("service_kit.status")


def status_of(error: Exception) -> status_pb2.Status | None:
    """The status for an error of the catalogue; None for any other exception, which is a bug and not an answer."""
    if isinstance(error, RemoteError):
        return _forwarded(error)
    for base in type(error).__mro__:
        if base in CODES:
            code, reason = CODES[base]
            message = error.message if isinstance(error, ServiceError) else str(error)
            return _status(code, message, [_info(reason, _facts(error)), *_details(error)])
    return None


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        if isinstance(detail, AnyMessage):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return status


def _info(reason: str, facts: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts)


def _facts(error: Exception) -> dict[str, str]:
    names = ("resource", "name", "state", "action", "role", "dependency", "field", "limit", "current", "feature")
    facts = {name: str(getattr(error, name)) for name in names if hasattr(error, name)}
    if isinstance(error, WrongState):
        facts["allowed"] = ",".join(error.allowed)
    return facts


def _details(error: Exception) -> Iterator[Message]:
    if isinstance(error, InvalidArgument | InvalidConfiguration | RemoteError) and error.violations:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                for v in error.violations
            ]
        )
    if isinstance(error, WrongState):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="STATE", subject=error.name, description=f"must be {' or '.join(error.allowed)}; is {error.state}"
        )
        yield error_details_pb2.PreconditionFailure(violations=[violation])
    if isinstance(error, NotFound | AlreadyExists | WrongState | Conflict):
        yield error_details_pb2.ResourceInfo(
            resource_type=error.resource, resource_name=error.name, description=error.message
        )
    if isinstance(error, Draining):
        yield error_details_pb2.RetryInfo(retry_delay=duration_to_proto(error.retry_after))
    if isinstance(error, ServiceError) and error.hint:
        yield error_details_pb2.Help(links=[error_details_pb2.Help.Link(description=error.hint)])
    if isinstance(error, ServiceError):
        yield from error.attachments


def _forwarded(error: RemoteError) -> status_pb2.Status | None:
    """Another server's refusal, passed on as this server's answer; its bugs and our bad credentials are not."""
    code = grpc.StatusCode[error.code]
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS):
        return None
    if error.code in _OWN_FAULT:
        return status_of(Unavailable("a server that this one depends on", "It refused this server's credentials."))
    return _status(code, error.message, [_info(error.reason or error.code, error.metadata), *_details(error)])


def remote_error(error: grpc.RpcError) -> RemoteError:
    """The typed form of a failed call, from the details that the server attached or, without any, from its code."""
    if not isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return RemoteError(str(error), code=grpc.StatusCode.UNKNOWN.name)
    code, text = error.code().name, error.details() or ""
    status = status_pb2.Status()
    trailers = dict(error.trailing_metadata() or ())
    if _DETAILS_KEY in trailers:
        status.ParseFromString(cast(bytes, trailers[_DETAILS_KEY]))
    if not status.details:
        message, hint = _UNREACHABLE.get(code, ("", ""))
        return RemoteError(": ".join(filter(None, (message, text))) or code, code=code, hint=hint)
    info, request, help_ = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.Help()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for target in (info, request, help_, retry):
            detail.Unpack(target)
    remote = RemoteError(
        status.message,
        code=code,
        reason=info.reason,
        violations=[Violation(v.field, v.description) for v in request.field_violations],
        metadata=dict(info.metadata),
        hint=" ".join(link.description for link in help_.links),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )
    remote.request = trailers.get(ids.HEADERS[ids.REQUEST], "")
    remote.attachments = [detail for detail in status.details if "/google.rpc." not in detail.type_url]
    return remote


_Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, _Context], Any]
"""What answers a method: a coroutine function, or for streams an asynchronous generator function."""


Deserializer = Callable[[bytes], Any]


class _Unreadable:
    """Stands for a request that is no message of its type, until the method's turn to answer."""


def _readable(deserializer: Deserializer | None) -> Deserializer | None:
    """gRPC answers what cannot be read as a fault of the server; it is one of the caller."""
    if deserializer is None:
        return None

    def read(content: bytes) -> Any:
        try:
            return deserializer(content)
        except DecodeError:
            return _Unreadable()

    return read


def _check_read(request: Any, method: str) -> None:
    if isinstance(request, _Unreadable):
        raise InvalidArgument.of(
            "request", f"must be a message that {method.rpartition('/')[2]} takes, encoded as protobuf"
        )


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Answers every exception of a servicer with a status: the catalogue's own, or INTERNAL with an id.

    The text of an unexpected exception goes to the log under that id and never to the client. Cancellation and
    ``context.abort`` pass untouched.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler  # the method is unknown; grpc answers UNIMPLEMENTED itself
        guarded = _guard(behaviour_of(handler), handler_call_details.method)
        return with_behaviour(handler, guarded, _readable(handler.request_deserializer))


def behaviour_of(handler: grpc.RpcMethodHandler[Any, Any]) -> Behaviour:
    """The function that answers a method."""
    return cast(Behaviour, getattr(handler, _kind(handler)))


def with_behaviour(
    handler: grpc.RpcMethodHandler[Any, Any], behaviour: Behaviour, deserializer: Deserializer | None = None
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of the same method with another function that answers it, and perhaps another that reads requests."""
    make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
    made = make(behaviour, deserializer or handler.request_deserializer, handler.response_serializer)
    return cast("grpc.RpcMethodHandler[Any, Any]", made)


def _kind(handler: grpc.RpcMethodHandler[Any, Any]) -> str:
    return "_".join("stream" if flag else "unary" for flag in (handler.request_streaming, handler.response_streaming))


def _guard(method: Behaviour, name: str) -> Behaviour:
    if inspect.isasyncgenfunction(method):

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            try:
                _check_read(request, name)
                async with contextlib.aclosing(method(request, context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:  # noqa: BLE001 (this is the boundary)
                await _refuse(error, context, name)

        return stream

    async def call(request: Any, context: _Context) -> Any:
        try:
            _check_read(request, name)
            return await method(request, context)
        except Exception as error:  # noqa: BLE001
            await _refuse(error, context, name)

    return call


async def _refuse(error: Exception, context: _Context, method: str) -> NoReturn:
    # CancelledError is a BaseException and never gets here; an abort by the servicer has chosen its own status.
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = status_of(error)
    if status is None:
        id_ = secrets.token_hex(4)
        log.error("unexpected error", method=method, error_id=id_, exc_info=error)
        facts = {"id": id_, **ids.current()}
        help_ = error_details_pb2.Help.Link(description=f"The server's log says more about it: search for {id_}.")
        details = [_info("INTERNAL", facts), error_details_pb2.Help(links=[help_])]
        status = _status(grpc.StatusCode.INTERNAL, f"internal error, id {id_}", details)
    else:
        log.info("call refused", method=method, code=code_pb2.Code.Name(status.code), reason=status.message)
    wire = rpc_status.to_status(status)
    await context.abort(wire.code, wire.details, (*wire.trailing_metadata, *context.trailing_metadata()))
    raise AssertionError("abort always raises")
