"""How many evaluations a task takes, and what becomes of cancelled ones: TASK-5.

Whether work was killed shows from outside in its place: only when that is free again is another evaluation taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clients.conformance.expect import expect
from clients.conformance.suite import NotSeen
from clients.conformance.task.subject import TASK, TaskSubject
from clients.conformance.wire import EOF, Refusal, Stream
from service_kit.translate import duration_from_proto

_MOST = 8
"""A task that takes more evaluations at the same time is not filled."""
_SETTLE = 2.0
"""Seconds after which an evaluation that says nothing is taken to be at work: refusals come at once."""

_DEADLINE = 0.5
"""Seconds that a call gets which is to miss its deadline."""


class Attempt:
    """An evaluation at full budget that was begun to see whether it is taken."""

    def __init__(self, stream: Stream) -> None:
        self.refusal: Refusal | None = None
        self.finished = False
        """Whether it came to its own end."""
        self._answered = asyncio.Event()
        self._reading = asyncio.create_task(self._read(stream))

    async def _read(self, stream: Stream) -> None:
        try:
            while await stream.read() is not EOF:
                self._answered.set()
            self.finished = True
        except Refusal as refusal:
            self.refusal = refusal
        finally:
            self._answered.set()

    async def settled(self) -> None:
        """Returns when it was refused or is known to be at work."""
        try:
            async with asyncio.timeout(_SETTLE):
                await self._answered.wait()
        except TimeoutError:
            pass  # it works without a word

    async def over(self) -> None:
        await asyncio.wait([self._reading])

    @property
    def turned_away(self) -> bool:
        return self.refusal is not None and self.refusal.code == "RESOURCE_EXHAUSTED"


@asynccontextmanager
async def begun(task: TaskSubject, count: int, timeout: float | None = None) -> AsyncIterator[list[Attempt]]:
    """``count`` evaluations at full budget, begun together; cancelled at the end of the block."""
    attempts: list[Attempt] = []
    async with AsyncExitStack() as stack:
        for _ in range(min(count, _MOST)):
            asked = task.asked({}, budget_fraction=1.0)
            attempts.append(
                Attempt(await stack.enter_async_context(task.wire.stream("Evaluate", timeout=timeout, **asked)))
            )
        await asyncio.gather(*(attempt.settled() for attempt in attempts))
        yield attempts
    await asyncio.gather(*(attempt.over() for attempt in attempts))


async def _places(task: TaskSubject) -> int:
    capacity = (await task.described()).capacity
    if capacity > _MOST:
        raise NotSeen(f"the task takes {capacity} evaluations at a time; at most {_MOST} are tried")
    return capacity


@TASK.check("TASK-5.1")
async def taken(task: TaskSubject) -> None:
    """As many evaluations as the capacity says are taken at the same time"""
    capacity = min((await task.described()).capacity, _MOST)
    async with begun(task, capacity) as attempts:
        away = sum(attempt.turned_away for attempt in attempts)
        expect(not away, f"{away} of {capacity} evaluations at the same time were turned away, within the capacity")
    task.filled = True


@TASK.check("TASK-5.2")
async def turned_away(task: TaskSubject) -> None:
    """One evaluation more than the capacity is turned away with RESOURCE_EXHAUSTED"""
    capacity = await _places(task)
    if await _still_taken(task, capacity):
        raise NotSeen("the places could not be filled")
    async with begun(task, capacity) as attempts, begun(task, 1) as [extra]:
        if any(attempt.finished for attempt in attempts):
            raise NotSeen("evaluations are too short: one ended before another could be turned away")
        doing = f"evaluation {capacity + 1} must be turned away with RESOURCE_EXHAUSTED"
        expect(extra.turned_away, f"{doing}; {_said(extra)}")


@TASK.check("TASK-5.3")
async def cancelled(task: TaskSubject) -> None:
    """Cancelling an evaluation kills its work and frees its place"""
    capacity = await _places(task)
    async with begun(task, capacity) as attempts:
        if any(attempt.finished for attempt in attempts):
            raise NotSeen("evaluations are too short to be cancelled")
    await _expect_free(task, capacity, "were cancelled")


@TASK.check("TASK-5.4")
async def deadline(task: TaskSubject) -> None:
    """A call's own deadline kills its work and frees its place"""
    capacity = await _places(task)
    budget = duration_from_proto((await task.described()).budget)
    async with begun(task, capacity, timeout=min(_DEADLINE, budget / 3)) as attempts:
        await asyncio.gather(*(attempt.over() for attempt in attempts))
        if any(attempt.finished for attempt in attempts):
            raise NotSeen("evaluations are too short to miss a deadline")
    await _expect_free(task, capacity, "missed their deadline")


@TASK.check("TASK-5.5")
async def while_busy(task: TaskSubject) -> None:
    """Describe and Validate answer while every place is taken"""
    async with begun(task, (await task.described()).capacity):
        await task.wire.call("Describe")
        await task.violations({})


async def _expect_free(task: TaskSubject, capacity: int, why: str) -> None:
    if not task.filled:
        raise NotSeen("the places could not be filled in the first place")
    left = await _still_taken(task, capacity)
    expect(not left, f"{task.free_seconds:g} s after {capacity} evaluations {why}, {left} places are still taken")


async def _still_taken(task: TaskSubject, capacity: int) -> int:
    """How many places are taken after the time allowed for killing; 0 as soon as all are free."""
    ends = time.monotonic() + task.free_seconds
    while True:
        async with begun(task, capacity) as attempts:
            away = sum(attempt.turned_away for attempt in attempts)
        if not away or time.monotonic() > ends:
            return away
        await asyncio.sleep(0.1)


def _said(attempt: Attempt) -> str:
    if attempt.refusal is not None:
        return f"it was refused with {attempt.refusal}"
    return "it ended" if attempt.finished else "it was taken"
