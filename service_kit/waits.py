"""What waits for its service's database, in memory: a database that cannot be written cannot be told.

Ownership: one :class:`Waits` a store. Whoever works on a run or a campaign begins a wait where it meets
:class:`~service_kit.errors.StorageFailed`, and ends it once a write has succeeded or the work is over. All of it in
one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from service_kit.errors import StorageFailed

log = structlog.get_logger("service_kit.waits")

HEALTH_NAME = "bilevel.storage"
"""Name under which ``grpc.health.v1`` says NOT_SERVING while something waits. The service itself goes on serving: it
answers reads, and starting it anew would help nobody."""

WAITS = "waits for its database"
"""How every sentence about a wait begins."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the work is tried again: doubled with each wait since it last got on, up to the last."""


class Unexpected(StorageFailed):
    """Something else than the database's own failure kept work from being begun or told; it is tried again."""

    def __init__(self, error: Exception) -> None:
        hint = "The log of this service says more; it is tried again each second."
        super().__init__(f"internal error ({type(error).__name__})", hint=hint)
        self.__cause__ = error


@dataclass(frozen=True, slots=True)
class Wait:
    """One piece of work that waits."""

    reason: str
    pause: float = FIRST_PAUSE
    """Seconds before the work is tried again; after that the database is tried each second."""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        again = f"; it failed before, so that it rests {self.pause:g} s first" if self.pause > FIRST_PAUSE else ""
        return f"{WAITS} since {self.since:%Y-%m-%d %H:%M:%S} UTC: {self.reason}{again}"


class Waits:
    """The waits of one service, by the resource name of what waits."""

    def __init__(self) -> None:
        self._waits: dict[str, Wait] = {}
        self._failures: defaultdict[str, int] = defaultdict(int)
        self._changed = asyncio.Event()

    def begin(self, name: str, reason: str) -> Wait | None:
        """``name`` waits from now on. None where it does so already, since when and why stay as they are.

        A database that takes some writes and not others would let the work begin again and again, and ask and pay the
        model each time: the pause grows with each wait until :meth:`got_on`.
        """
        if name in self._waits:
            return None
        pause = min(FIRST_PAUSE * 2 ** min(self._failures[name], 16), LONGEST_PAUSE)
        self._failures[name] += 1
        self._waits[name] = wait = Wait(reason, pause)
        self._changed.set()
        return wait

    def rest(self, name: str, error: StorageFailed) -> float:
        """``name`` waits because of ``error``; returns for how many seconds. The first one is logged."""
        wait = self.begin(name, error.message)
        if wait is None:
            return FIRST_PAUSE
        log.error(WAITS, exc_info=error.__cause__, reason=error.message, hint=error.hint, pause=wait.pause)
        return wait.pause

    def got_on(self, name: str) -> None:
        """What ``name`` works towards has been committed: its next wait is a first one."""
        self._failures.pop(name, None)

    def of(self, name: str) -> Wait | None:
        """How ``name`` waits; None when it does not."""
        return self._waits.get(name)

    def end(self, name: str) -> None:
        """``name`` waits no longer, if it did."""
        if self._waits.pop(name, None) is not None:
            self._changed.set()

    def forget(self, name: str) -> None:
        """Nobody works on ``name`` here any more."""
        self.end(name)
        self.got_on(name)

    async def follow(self) -> AsyncIterator[bool]:
        """Whether anything waits: now, and after each change. For one follower."""
        while True:
            self._changed.clear()
            yield bool(self._waits)
            await self._changed.wait()
