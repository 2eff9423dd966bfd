"""One evaluation: the task does it, within a hard deadline, and says on the way how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

from inner_service.task import EvaluationProgress, EvaluationResult, Misbehaviour
from inner_service.tasks import Task, TaskBusy
from service_kit.errors import ServiceError
from service_kit.parameters import Configuration, Outcome, Split

PROGRESS_SECONDS = 0.5
"""Progress is passed on at most this often."""
BUSY_HARD_LIMITS = 10
"""A task may be busy for so many of its own hard limits before that is taken for a mistake."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds between attempts to get a place at a busy task."""

OnProgress = Callable[[EvaluationProgress], Awaitable[None]]
OnMisbehaviour = Callable[[Misbehaviour], Awaitable[None]]


async def evaluate(
    task: Task,
    configuration: Configuration,
    *,
    seed: int,
    hard_limit: timedelta,
    fraction: float = 1.0,
    split: Split = Split.SEARCH,
    label: str = "",
    on_progress: OnProgress | None = None,
    on_misbehaviour: OnMisbehaviour | None = None,
) -> EvaluationResult:
    """Measure ``configuration``. Waits for a place when the task is busy; kills the work at ``hard_limit``.

    Raises :class:`Unavailable` when the task cannot be reached or is lost on the way, and :class:`ServiceError` when it
    never has a place. Cancelling kills the work.
    """
    pause, began = _FIRST_PAUSE, time.monotonic()
    while True:
        try:
            return await _attempt(
                task, configuration, seed, hard_limit, fraction, split, label, on_progress, on_misbehaviour
            )
        except TaskBusy:
            if time.monotonic() - began > BUSY_HARD_LIMITS * hard_limit.total_seconds():
                raise _never_free(task, hard_limit) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _never_free(task: Task, hard_limit: timedelta) -> ServiceError:
    waited = BUSY_HARD_LIMITS * hard_limit.total_seconds()
    return ServiceError(
        f"the task {task.name!r} said for {waited:g} s that all of its places are taken",
        hint="Is something else using it? If not, its places must become free when evaluations end or are cancelled.",
    )


async def _attempt(
    task: Task,
    configuration: Configuration,
    seed: int,
    hard_limit: timedelta,
    fraction: float,
    split: Split,
    label: str,
    on_progress: OnProgress | None,
    on_misbehaviour: OnMisbehaviour | None,
) -> EvaluationResult:
    started, told = time.monotonic(), 0.0
    try:
        async with (
            asyncio.timeout(hard_limit.total_seconds()),
            aclosing(task.evaluate(configuration, seed, fraction, split, label)) as events,  # type: ignore[type-var]
        ):
            async for event in events:
                if isinstance(event, EvaluationResult):
                    spent = timedelta(seconds=time.monotonic() - started)
                    return event if event.elapsed else replace(event, elapsed=spent)
                if isinstance(event, Misbehaviour):
                    if on_misbehaviour is not None:
                        await on_misbehaviour(event)
                    continue
                if on_progress is not None and time.monotonic() - told >= PROGRESS_SECONDS:
                    told = time.monotonic()
                    await on_progress(event)
    except TimeoutError:
        limit = hard_limit.total_seconds()
        return EvaluationResult(
            Outcome.TIMED_OUT, message=f"killed at the hard limit of {limit:g} s", elapsed=hard_limit
        )
    raise AssertionError("an evaluation ends with a result")
