"""Counters, gauges and histograms that do nothing until metrics are served (:mod:`service_kit.telemetry.serving`).

They are declared once, in :mod:`service_kit.telemetry.metrics`, and are Prometheus's own from the moment on when they
are exposed; before that, and without the extra, using one costs a comparison.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

_LONG = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(slots=True)
class Instrument:
    """One metric. ``labels`` are the names of its labels, whose values come from small fixed sets."""

    kind: ClassVar[str] = ""
    name: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    live: Any = field(default=None, repr=False)
    """Prometheus's own, while metrics are exposed."""

    def _with(self, labels: dict[str, str]) -> Any:
        return self.live.labels(**labels) if self.labels else self.live


class Counter(Instrument):
    """Only grows, from 0 when the process starts."""

    kind = "Counter"

    def add(self, amount: float = 1.0, **labels: str) -> None:
        if self.live is not None:
            self._with(labels).inc(amount)


class Gauge(Instrument):
    """Goes up and down."""

    kind = "Gauge"

    def set(self, value: float, **labels: str) -> None:
        if self.live is not None:
            self._with(labels).set(value)

    def add(self, difference: float, **labels: str) -> None:
        if self.live is not None:
            self._with(labels).inc(difference)

    @contextmanager
    def counting(self, **labels: str) -> Iterator[None]:
        """One more for the length of the block."""
        held = self._with(labels) if self.live is not None else None
        if held is not None:
            held.inc()
        try:
            yield
        finally:
            if held is not None:
                held.dec()


class Histogram(Instrument):
    """How long things take, in seconds."""

    kind = "Histogram"
    buckets: ClassVar[tuple[float, ...]] = _LONG

    def observe(self, seconds: float, **labels: str) -> None:
        if self.live is not None:
            self._with(labels).observe(seconds)

    @contextmanager
    def timing(self, **labels: str) -> Iterator[None]:
        """Observes how long the block takes, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started, **labels)
