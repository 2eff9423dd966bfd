"""Spans for OpenTelemetry, sent by OTLP over gRPC to where the standard ``OTEL_*`` variables say.

Without such a variable nothing is imported, and a span is a context manager that does nothing.

**One trial is one trace.** Its steps happen in calls that know nothing of each other, perhaps of several services one
after the other, so its trace id and the id of its root span follow from its name: whoever takes a step hangs it below
that root (:func:`trial`), and whoever decides the trial sends the root (:func:`trial_ended`). Spans cross to other
services as W3C ``traceparent`` in a call's metadata.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import structlog

from service_kit.errors import InvalidArgument
from service_kit.extras import optional

Attributes = Mapping[str, str | int | float | bool]
HEADER = "traceparent"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = structlog.get_logger("service_kit.tracing")


def asked_for() -> bool:
    """Whether the environment wants traces. Raises :class:`InvalidArgument` for what this program does not offer."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    if exporter not in ("", "otlp"):
        raise InvalidArgument.of("OTEL_TRACES_EXPORTER", f"must be otlp or none; got {exporter!r}")
    for name in _PROTOCOLS:
        if (protocol := os.environ.get(name, "grpc").strip().lower()) != "grpc":
            raise InvalidArgument.of(name, f"must be grpc; got {protocol!r}")
    return True


class _Tracing:
    """OpenTelemetry at work. There is one of it in a process, while a server runs that was asked for traces."""

    def __init__(self, service: str) -> None:
        self.api = optional("opentelemetry.trace", "telemetry", "to send traces (OTEL_EXPORTER_OTLP_ENDPOINT)")
        sdk = optional("opentelemetry.sdk.trace", "telemetry", "to send traces")
        export = optional("opentelemetry.sdk.trace.export", "telemetry", "to send traces")
        otlp = optional("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "telemetry", "to send traces")
        self.contexts = optional("opentelemetry.context", "telemetry", "to send traces")
        self.w3c = optional(
            "opentelemetry.trace.propagation.tracecontext", "telemetry", "to send traces"
        ).TraceContextTextMapPropagator()
        self.ids = _ids_of(optional("opentelemetry.sdk.trace.id_generator", "telemetry", "to send traces"))
        resources = optional("opentelemetry.sdk.resources", "telemetry", "to send traces")
        named = resources.Resource.create()
        if str(named.attributes.get("service.name", "")).startswith("unknown_service"):
            named = named.merge(resources.Resource({"service.name": service}))
        self.provider = sdk.TracerProvider(resource=named, id_generator=self.ids)
        self.provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("bilevel")
        self.began: dict[str, int] = {}
        """When the first step of each open trial began, nanoseconds since 1970."""

    def root_of(self, trial: str) -> Any:
        """The context below which a trial's steps belong; sampled or not as the sampler says of its trace."""
        trace_id, span_id = _trial_ids(trial)
        decided = self.provider.sampler.should_sample(None, trace_id, "trial")
        flags = self.api.TraceFlags(int(decided.decision.is_sampled()))
        root = self.api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return self.api.set_span_in_context(self.api.NonRecordingSpan(root), self.contexts.Context())


_active: _Tracing | None = None


@contextlib.asynccontextmanager
async def exported(service: str) -> AsyncIterator[None]:
    """Traces for the length of the block where the environment asks for them; what is left is sent at its end.

    Raises :class:`ServiceError` without the extra and :class:`InvalidArgument` for a wrong variable.
    """
    global _active
    if _active is not None or not asked_for():
        yield
        return
    _active = tracing = _Tracing(service)
    log.info("traces", name=tracing.provider.resource.attributes["service.name"])
    try:
        yield
    finally:
        _active = None
        await asyncio.to_thread(tracing.provider.shutdown)


@contextlib.contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[Any]:
    """A step of whatever is current, with an exception that leaves it; yields the span, or None without tracing."""
    if _active is None:
        yield None
        return
    with _active.tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


@contextlib.contextmanager
def trial(name: str, step: str, attributes: Attributes | None = None) -> Iterator[Any]:
    """A step of the trial ``name``, linked to the request within which it is taken."""
    if _active is None:
        yield None
        return
    request = _active.api.get_current_span().get_span_context()
    links = [_active.api.Link(request)] if request.is_valid else []
    with _active.tracer.start_as_current_span(
        step, context=_active.root_of(name), links=links, attributes={"bilevel.trial": name, **(attributes or {})}
    ) as current:
        _active.began.setdefault(name, getattr(current, "start_time", 0))
        yield current


def trial_ended(name: str, began: datetime | None, ended: datetime, attributes: Attributes) -> None:
    """Send the root of a trial's trace: the trial was decided, or refused before it ran."""
    if _active is None:
        return
    ends = _nanoseconds(ended)
    starts = _active.began.pop(name, 0) or (_nanoseconds(began) if began is not None else ends)
    with _active.ids.forced(*_trial_ids(name)):
        root = _active.tracer.start_span(
            "trial", _active.contexts.Context(), attributes={"bilevel.trial": name, **attributes}, start_time=starts
        )
    root.end(max(starts, ends))


def measured(name: str, began: int, ended: int, attributes: Attributes) -> None:
    """A step of whatever is current that another process timed, in nanoseconds since 1970."""
    if _active is not None:
        _active.tracer.start_span(name, attributes=attributes, start_time=began).end(ended)


def for_logs() -> dict[str, str]:
    """The id of the current trace, under which a line of a log names it; nothing without one."""
    if _active is None or not (current := _active.api.get_current_span().get_span_context()).is_valid:
        return {}
    return {"trace": format(current.trace_id, "032x")}


def to_metadata() -> list[tuple[str, str]]:
    """The current span as a call carries it; nothing without one."""
    if _active is None:
        return []
    carrier: dict[str, str] = {}
    _active.w3c.inject(carrier)
    return [(HEADER, carrier[HEADER])] if HEADER in carrier else []


@contextlib.contextmanager
def answering(method: str, metadata: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """A call that is answered: part of its caller's trace, and no span where the caller has none.

    Most calls are people and pages that look; a trace of each would bury those of the trials.
    """
    given = dict(metadata).get(HEADER) if _active is not None else None
    if _active is None or not isinstance(given, str):
        yield None
        return
    with _active.tracer.start_as_current_span(
        method.lstrip("/"), _active.w3c.extract({HEADER: given}), kind=_active.api.SpanKind.SERVER
    ) as current:
        yield current


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


def _trial_ids(name: str) -> tuple[int, int]:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def _ids_of(generators: Any) -> Any:
    class Ids(generators.RandomIdGenerator):  # type: ignore[misc]  # the extra may not be there
        """Random ids, except for a span whose ids are known."""

        _known: tuple[int, int] | None = None

        @contextlib.contextmanager
        def forced(self, trace_id: int, span_id: int) -> Iterator[None]:
            """Within the block, which must not await, a new root has these ids."""
            self._known = trace_id, span_id
            try:
                yield
            finally:
                self._known = None

        def generate_trace_id(self) -> int:
            return self._known[0] if self._known is not None else int(super().generate_trace_id())

        def generate_span_id(self) -> int:
            return self._known[1] if self._known is not None else int(super().generate_span_id())

    return Ids()
