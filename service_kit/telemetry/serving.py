"""Expose the metrics at ``http://HOST:PORT/metrics``, for Prometheus to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog
from pydantic import Field, model_validator

from service_kit.addresses import is_loopback, parse_address
from service_kit.errors import InvalidArgument
from service_kit.extras import optional
from service_kit.settings import EnvironmentSettings
from service_kit.telemetry.instruments import Histogram
from service_kit.telemetry.metrics import ALL

log = structlog.get_logger("service_kit.metrics")


class MetricsSettings(EnvironmentSettings):
    """Whether this process exposes metrics, and where."""

    listen: str | None = Field(None, alias="BILEVEL_METRICS")
    """HOST:PORT; port 0 takes any free one, which the log names. None exposes nothing."""
    insecure: bool = Field(False, alias="BILEVEL_METRICS_INSECURE")
    """Allow an address that other machines can reach: whoever reaches it reads the numbers."""

    @model_validator(mode="after")
    def _is_asked_for(self) -> Self:
        if self.listen is not None:
            host, _ = parse_address(self.listen, "BILEVEL_METRICS")
            if not self.insecure and not is_loopback(host):
                raise ValueError(
                    "BILEVEL_METRICS must be an address that only this machine reaches, such as 127.0.0.1:9400, unless "
                    f"BILEVEL_METRICS_INSECURE=1 says that the network is trusted; got {self.listen}"
                )
        return self


@asynccontextmanager
async def exposed(settings: MetricsSettings) -> AsyncIterator[str | None]:
    """Metrics for the length of the block; yields the address, or None where none were asked for.

    Raises :class:`ServiceError` without the extra, :class:`InvalidArgument` for an address that cannot be had.
    """
    if settings.listen is None:
        yield None
        return
    host, port = parse_address(settings.listen, "BILEVEL_METRICS")
    prometheus = optional("prometheus_client", "metrics", "to expose metrics (BILEVEL_METRICS)")
    prometheus.disable_created_metrics()  # a sample more for each counter and histogram, which nobody asks for
    registry = prometheus.CollectorRegistry()
    for collector in (prometheus.ProcessCollector, prometheus.PlatformCollector, prometheus.GCCollector):
        collector(registry=registry)
    try:
        server, thread = prometheus.start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidArgument.of(
            "BILEVEL_METRICS",
            f"cannot expose metrics on {settings.listen}: {(error.strerror or str(error)).lower()}",
            hint="Give each service a BILEVEL_METRICS of its own; port 0 takes any free port.",
        ) from None
    for instrument in ALL:
        buckets = {"buckets": instrument.buckets} if isinstance(instrument, Histogram) else {}
        make = getattr(prometheus, instrument.kind)
        instrument.live = make(instrument.name, instrument.meaning, instrument.labels, registry=registry, **buckets)
    address = f"{host}:{server.server_port}"
    log.info("metrics", url=f"http://{address}/metrics")
    try:
        yield address
    finally:
        for instrument in ALL:
            instrument.live = None
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
