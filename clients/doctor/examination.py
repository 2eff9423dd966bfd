"""Every examination, one after the other: they are quick, and a reader sees them come."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from clients.doctor import machine, services
from clients.doctor.finding import Finding


async def examine(inner: str, outer: str) -> AsyncIterator[Finding]:
    """All findings; ``inner`` and ``outer`` are the addresses at which those services may run.

    Raises :class:`InvalidArgument` for a setting that is wrong in itself.
    """
    for finding in (*machine.installation(), *services.unknown_settings(list(os.environ)), machine.clock()):
        yield finding
    for finding in machine.disk():
        yield finding
    for finding in await machine.processors():
        yield finding
    yield await services.sandbox()
    yield await services.model()
    for finding in (*await services.databases(), *await services.running(inner, outer)):
        yield finding
