"""Every examination, one after the other: they are quick, and a reader sees them come."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from clients.doctor import machine, services
from clients.doctor.finding import Finding
from clients.doctor.telemetry import telemetry
from clients.wrong_settings import wrong_settings
from service_kit.errors import InvalidArgument, Violation


async def examine(inner: str, outer: str, in_file: Sequence[Violation] = ()) -> AsyncIterator[Finding]:
    """All findings; ``inner`` and ``outer`` are the addresses at which those services may run.

    A setting that is wrong in itself is a finding too, and what needs it is passed over. ``in_file`` is what is wrong
    with the settings file, none of whose settings then holds.
    """
    wrong = [*in_file, *wrong_settings()]

    async def ready(found: Sequence[Finding]) -> Sequence[Finding]:
        return found

    async def single(examined: Awaitable[Finding]) -> Sequence[Finding]:
        return [await examined]

    examinations: tuple[Callable[[], Awaitable[Sequence[Finding]]], ...] = (
        lambda: ready(machine.installation()),
        lambda: ready([*services.unknown_settings(list(os.environ)), *services.invalid_settings(wrong)]),
        lambda: ready([machine.clock()]),
        lambda: ready(machine.disk()),
        machine.processors,
        lambda: single(services.sandbox()),
        lambda: single(services.model()),
        services.databases,
        telemetry,
        lambda: services.running(inner, outer),
    )
    for examination in examinations:
        try:
            found = await examination()
        except InvalidArgument as error:
            found = services.invalid_settings([v for v in error.violations if v not in wrong])
        for finding in found:
            yield finding
