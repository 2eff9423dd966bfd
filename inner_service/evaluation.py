"""One evaluation: the task does it, within a hard deadline, and says on the way how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import structlog

from inner_service.early_stopping import RESOLUTION
from inner_service.task import EvaluationProgress, EvaluationResult, Misbehaviour
from inner_service.tasks import Task, TaskBusy
from service_kit.errors import ServiceError, Unavailable
from service_kit.parameters import Configuration, Outcome, Split
from service_kit.telemetry import metrics

PROGRESS_SECONDS = 0.5
"""Progress is passed on at most this often."""
BUSY_HARD_LIMITS = 10
"""A task may be busy for so many of its own hard limits before that is taken for a mistake."""
ATTEMPTS = 8
"""Times an evaluation is begun when the task is lost on the way; one that ends its task every time stops the run."""
RECONNECT_SECONDS = 10.0
"""How long a lost task may take to come back."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds between attempts to get a place at a busy task."""

T = TypeVar("T")
log = structlog.get_logger("inner_service.evaluation")

OnProgress = Callable[[EvaluationProgress], Awaitable[None]]
OnMisbehaviour = Callable[[Misbehaviour], Awaitable[None]]


async def outlasting(task: Task, attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of ``attempt``, begun again when the task is lost and comes back. Raises :class:`Unavailable`."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return await attempt()
        except Unavailable:
            if number == ATTEMPTS:
                raise
            log.warning("task lost during an evaluation", task=task.name, attempt=number)
            await task.ready(RECONNECT_SECONDS)
    raise AssertionError("the last attempt returns or raises")


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
    needed: str = "",
) -> EvaluationResult:
    """Measure ``configuration``. Waits for a place when the task is busy; kills the work at ``hard_limit``.

    Progress that holds the measurement ``needed`` is passed on even when other progress just was, as often as a
    learning curve can use it. An exception of ``on_progress`` kills the work and is raised.

    Raises :class:`Unavailable` when the task cannot be reached or is lost on the way, and :class:`ServiceError` when it
    never has a place. Cancelling kills the work.
    """
    pause, began = _FIRST_PAUSE, time.monotonic()
    while True:
        try:
            with metrics.EVALUATIONS.counting():
                return await _attempt(
                    *(task, configuration, seed, hard_limit, fraction, split, label),
                    *(on_progress, on_misbehaviour, needed),
                )
        except TaskBusy:
            if time.monotonic() - began > BUSY_HARD_LIMITS * hard_limit.total_seconds():
                raise _never_free(task, hard_limit) from None
            with metrics.WAITING.counting():
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
    needed: str,
) -> EvaluationResult:
    started, told, reached = time.monotonic(), 0.0, -1.0
    try:
        async with (
            asyncio.timeout(hard_limit.total_seconds()),
            aclosing(task.evaluate(configuration, seed, fraction, split, label)) as events,  # type: ignore[type-var]
        ):
            async for event in events:
                if isinstance(event, Misbehaviour):
                    if on_misbehaviour is not None:
                        await on_misbehaviour(event)
                    continue
                if not event.elapsed:
                    event = replace(event, elapsed=timedelta(seconds=time.monotonic() - started))
                if isinstance(event, EvaluationResult):
                    return event
                due = needed in event.metrics and event.fraction >= reached + RESOLUTION
                if on_progress is not None and (due or time.monotonic() - told >= PROGRESS_SECONDS):
                    told, reached = time.monotonic(), event.fraction if due else reached
                    await on_progress(event)
    except TimeoutError:
        limit = hard_limit.total_seconds()
        return EvaluationResult(
            Outcome.TIMED_OUT, message=f"killed at the hard limit of {limit:g} s", elapsed=hard_limit
        )
    raise AssertionError("an evaluation ends with a result")
