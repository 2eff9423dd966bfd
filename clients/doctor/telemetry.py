"""Metrics and traces, where they are asked for: whether what they need is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from clients.doctor.finding import Finding, bad, good
from clients.doctor.machine import installed
from service_kit.telemetry import tracing
from service_kit.telemetry.serving import MetricsSettings

_SECONDS = 3.0
_COLLECTOR = "http://localhost:4317"
"""Where the exporter sends traces unless it is told otherwise."""


async def telemetry() -> Sequence[Finding]:
    """Nothing where nothing is asked for. Raises InvalidArgument for a variable that is wrong in itself."""
    settings, found = MetricsSettings.load(), []
    if settings.listen is not None:
        found.append(_metrics(settings.listen))
    if tracing.asked_for():
        found.append(await _traces())
    return found


def _metrics(listen: str) -> Finding:
    if not installed("prometheus-client"):
        return bad("metrics", "prometheus-client is missing", _install("metrics"))
    return good("metrics", f"services expose them at http://{listen}/metrics")


async def _traces() -> Finding:
    if not installed("opentelemetry-exporter-otlp-proto-grpc"):
        return bad("traces", "the exporter of OpenTelemetry is missing", _install("telemetry"))
    given = (os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    endpoint = next(filter(None, given), _COLLECTOR)
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4317)
    except (OSError, ValueError) as error:  # TimeoutError is one too
        reason = str(error) or "it does not answer"
        advice = "Start the collector, mend OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_SDK_DISABLED=true."
        return bad("traces", f"the collector {endpoint} cannot be reached: {reason}", advice)
    writer.close()
    return good("traces", f"services send them to {endpoint}")


def _install(extra: str) -> str:
    return f"Install it with the extra: pip install 'bilevel-autoresearch[{extra}]'."
