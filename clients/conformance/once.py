"""What several checks look at is done once: a scenario that fails is reported by the check that needs it first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from clients.conformance.suite import NotSeen

T = TypeVar("T")


class Once(Generic[T]):
    """A scenario that is played when it is first asked for. ``await once()`` gives its result every time."""

    def __init__(self, play: Callable[[], Awaitable[T]]) -> None:
        self._play = play
        self._results: list[T] = []
        self._failed = False

    async def __call__(self) -> T:
        """Raises what the scenario raises the first time and :class:`NotSeen` afterwards."""
        if self._failed:
            raise NotSeen("needs what failed in an earlier check")
        if not self._results:
            self._failed = True
            self._results.append(await self._play())
            self._failed = False
        return self._results[0]
