"""What every server does: health, reflection, unknown fields, and the details of its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from clients.conformance.expect import expect, refused, same
from clients.conformance.wire import Refusal, Wire
from clients.connection import DEADLINE
from service_kit.errors import RemoteError

REASONS = frozenset(
    (
        *("INVALID_ARGUMENT", "INVALID_CONFIGURATION", "NOT_FOUND", "ALREADY_EXISTS", "WRONG_STATE", "REFUSED"),
        *("CONFLICT", "EXHAUSTED", "DEPENDENCY_UNAVAILABLE", "DRAINING", "CUT_OFF", "STORAGE_FAILED"),
        *("UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED", "INTERNAL"),
    )
)
"""The reasons of docs/protocol.md."""

_UNKNOWN_FIELD = bytes([0xFA, 0x3F, 3]) + b"new"
"""Field 1023 with three bytes: what a message of a later version may hold."""


async def health(wire: Wire) -> None:
    """SERVING for the empty name and for the service."""
    check = wire.connection.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for name in ("", wire.service.full_name):
        try:
            answer = await wire.connection.call(check, health_pb2.HealthCheckRequest(service=name))
        except RemoteError as error:
            expect(False, f"Health/Check for {name!r} must be answered; it was refused with {error.code}")
            raise
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        same(f"the health of {name!r}", status, "SERVING")


async def reflection(wire: Wire) -> None:
    """The service is listed by reflection, of version 1 or 1alpha."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    listed: list[str] = []
    for version in ("v1", "v1alpha"):
        call = wire.connection.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([request]), timeout=DEADLINE)
        try:
            answer: Any = await call.read()
            listed += [service.name for service in answer.list_services_response.service]
        except Exception as error:  # noqa: BLE001 (any failure means that this version is not there)
            listed += [f"({version}: {type(error).__name__})"]
        finally:
            call.cancel()
    expect(wire.service.full_name in listed, f"reflection must list {wire.service.full_name}; it gives {listed}")


async def unknown_fields(wire: Wire, method: str, request: Message) -> None:
    """A request with a field of a later version is answered like the one without."""
    later = type(request)()
    later.MergeFromString(request.SerializeToString() + _UNKNOWN_FIELD)
    same(f"{method} with a field of a later version", await wire.call(method, later), await wire.call(method, request))


def has_info(refusal: Refusal) -> None:
    """The refusal carries ErrorInfo of our domain with a known reason."""
    same(f"the ErrorInfo domain of {refusal.method}'s {refusal.code}", refusal.info.domain, "bilevel.v1")
    expect(refusal.info.reason in REASONS, f"{refusal.method} gives the unknown reason {refusal.info.reason!r}")


def names_resource(refusal: Refusal, name: str) -> None:
    """The refusal carries ResourceInfo with the name that was asked for."""
    info = refusal.detail(error_details_pb2.ResourceInfo)
    expect(info is not None, f"{refusal.method}'s NOT_FOUND must carry ResourceInfo")
    assert info is not None
    same(f"the resource in {refusal.method}'s NOT_FOUND", info.resource_name, name)


def says_state(refusal: Refusal) -> None:
    """The refusal says in which state the resource is and which ones would do."""
    metadata: Mapping[str, str] = refusal.info.metadata
    missing = [key for key in ("state", "allowed") if key not in metadata]
    expect(not missing, f"{refusal.method}'s WRONG_STATE must carry metadata state and allowed; {missing} is missing")


async def bad_pages(wire: Wire, method: str, **fields: Any) -> None:
    """Page sizes and tokens that no page gave are refused by name."""
    for size in (-1, 1001):
        call = wire.call(method, page_size=size, **fields)
        await refused(call, f"{method} with page_size {size}", "INVALID_ARGUMENT", fields=["page_size"])
    call = wire.call(method, page_token="no page gave this", **fields)  # noqa: S106 (no secret)
    await refused(call, f"{method} with an invented page_token", "INVALID_ARGUMENT", fields=["page_token"])


async def pages(wire: Wire, method: str, items: str, size: int, most: int = 50, **fields: Any) -> list[Any]:
    """About ``most`` items, read in pages of ``size``; no page is longer and no item comes twice."""
    found: list[Any] = []
    token = ""
    while len(found) < most:
        page = await wire.call(method, page_size=size, page_token=token, **fields)
        here = list(getattr(page, items))
        expect(len(here) <= size, f"{method} must give at most {size} items a page; it gave {len(here)}")
        expect(here or not page.next_page_token, f"{method} gave an empty page that is not the last one")
        found += here
        token = page.next_page_token
        if not token:
            break
    names = [item.name for item in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    expect(not twice, f"the pages of {method} must hold every item once; {twice[:3]} came twice")
    return found
