"""What waits for its service's database, in memory: a database that cannot be written cannot be told.

Ownership: one :class:`Waits` a store. Whoever works on a run or a campaign begins a wait where it meets
:class:`~service_kit.errors.StorageFailed`, and ends it once a write has succeeded or the work is over. All of it in
one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

HEALTH_NAME = "bilevel.storage"
"""Name under which ``grpc.health.v1`` says NOT_SERVING while something waits. The service itself goes on serving: it
answers reads, and starting it anew would help nobody."""

WAITS = "waits for its database"
"""How every sentence about a wait begins."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One piece of work that waits."""

    reason: str
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        return f"{WAITS} since {self.since:%Y-%m-%d %H:%M:%S} UTC: {self.reason}"


class Waits:
    """The waits of one service, by the resource name of what waits."""

    def __init__(self) -> None:
        self._waits: dict[str, Wait] = {}
        self._changed = asyncio.Event()

    def begin(self, name: str, reason: str) -> bool:
        """``name`` waits from now on. False where it does so already, since when and why stay as they are."""
        if name in self._waits:
            return False
        self._waits[name] = Wait(reason)
        self._changed.set()
        return True

    def of(self, name: str) -> Wait | None:
        """How ``name`` waits; None when it does not."""
        return self._waits.get(name)

    def end(self, name: str) -> None:
        """``name`` waits no longer, if it did."""
        if self._waits.pop(name, None) is not None:
            self._changed.set()

    async def follow(self) -> AsyncIterator[bool]:
        """Whether anything waits: now, and after each change. For one follower."""
        while True:
            self._changed.clear()
            yield bool(self._waits)
            await self._changed.wait()
