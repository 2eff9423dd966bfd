"""What a service only lists: read again and again while pages look at it, once however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from clients.dashboard.feeds import LINGER, Feed, Status

ItemT = TypeVar("ItemT")

EVERY = 4.0
"""Seconds between two readings."""


class PolledFeed(Feed, Generic[ItemT]):
    """The newest answer of ``fetch``. It rests when no page has looked for a while."""

    def __init__(self, fetch: Callable[[], Awaitable[list[ItemT]]]) -> None:
        super().__init__()
        self.items: list[ItemT] = []
        self.was_read = False
        """Whether ``items`` is an answer, be it empty."""
        self._fetch = fetch
        self._awake = asyncio.Event()

    def look(self) -> int:
        version = super().look()
        self._awake.set()
        return version

    async def read(self) -> None:
        while True:
            if self.idle > LINGER:
                self._awake.clear()
                await self._awake.wait()
            items = await self._fetch()
            if not self.was_read or items != self.items:
                self.items, self.was_read = items, True
                self.version += 1
            self.say(Status.LIVE)
            await asyncio.sleep(EVERY)
