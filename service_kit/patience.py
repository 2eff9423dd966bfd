"""Waiting out what is away for a moment: a task, a model or another service that restarts.

A loss that may pass by itself is waited out with back-off, for a stated time, and told to whoever keeps the record.
What stays away for longer is a failure like any other. ``BILEVEL_PATIENCE`` is that time in seconds.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

from pydantic import Field

from service_kit.settings import EnvironmentSettings

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between attempts: the first, doubled each time up to the last."""

T = TypeVar("T")


class PatienceSettings(EnvironmentSettings):
    """How long this process waits for what it depends on."""

    seconds: float = Field(900.0, alias="BILEVEL_PATIENCE", ge=0, le=7 * 86_400)
    """0 waits for nothing."""


@dataclass(frozen=True, slots=True)
class AvailabilityChanged:
    """Something that the work depends on was lost, or answers again after it was."""

    dependency: str
    """For example "the task 'gpt' at 127.0.0.1:7401"."""
    available: bool
    reason: str = ""
    """Why it counts as lost."""
    patience: timedelta | None = None
    """When lost: how long it is waited for; None for as long as it takes."""
    away: timedelta | None = None
    """When it answers again: how long it was away."""


Tell = Callable[[AvailabilityChanged], Awaitable[None]]
Away = Callable[[Exception], bool]
"""Whether an error means that the dependency is away and may come back by itself."""


async def _always() -> bool:
    return True


class Waiting:
    """Waits on behalf of one piece of work, and tells its record. Any number of calls may wait at the same time."""

    def __init__(
        self,
        patience: float | None,
        tell: Tell,
        worthwhile: Callable[[], Awaitable[bool]] = _always,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``patience`` is in seconds, None without an end; ``worthwhile`` is asked before each pause."""
        self._patience = patience
        self._tell = tell
        self._worthwhile = worthwhile
        self._sleep = sleep
        self._lost: dict[str, float] = {}
        """When each dependency that is away was lost, in monotonic seconds."""

    async def out(self, dependency: str, action: Callable[[], Awaitable[T]], away: Away) -> T:
        """``action``'s result; it is repeated while it fails with an error that means ``away``.

        Raises the last such error when the patience is at its end or waiting is not worthwhile, and every other error.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                result = await action()
            except Exception as error:
                if not away(error):
                    await self._back(dependency)  # it answers, if only with a refusal
                    raise
                if not await self._may_wait(dependency, pause):
                    self._lost.pop(dependency, None)
                    raise
                await self._gone(dependency, error)
            else:
                await self._back(dependency)
                return result
            await self._sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 (so that not all come back at once)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _may_wait(self, dependency: str, pause: float) -> bool:
        waited = time.monotonic() - self._lost.get(dependency, time.monotonic())
        if self._patience is not None and waited + pause > self._patience:
            return False
        return await self._worthwhile()

    async def _gone(self, dependency: str, error: Exception) -> None:
        if dependency not in self._lost:
            self._lost[dependency] = time.monotonic()
            patience = None if self._patience is None else timedelta(seconds=self._patience)
            reason = str(error).partition("\n")[0]
            await self._tell(AvailabilityChanged(dependency, available=False, reason=reason, patience=patience))

    async def _back(self, dependency: str) -> None:
        since = self._lost.pop(dependency, None)
        if since is not None:
            away = timedelta(seconds=time.monotonic() - since)
            await self._tell(AvailabilityChanged(dependency, available=True, away=away))


class Patient:
    """Mixin of a client that can wait on someone's behalf; without :meth:`patient` it waits for nobody."""

    waiting: Waiting | None = None

    def patient(self, waiting: Waiting) -> Self:
        """The same client, waiting out with ``waiting`` what is away."""
        other = copy.copy(self)
        other.waiting = waiting
        return other

    async def _wait_out(self, dependency: str, action: Callable[[], Awaitable[T]], away: Away) -> T:
        return await action() if self.waiting is None else await self.waiting.out(dependency, action, away)
