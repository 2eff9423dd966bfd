"""Measuring a trial's configuration again on other seeds. Each result goes onto the trace; none is asked for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from inner_service.run import RemeasurePurpose, Search
from inner_service.run_task import RunTask
from inner_service.store import Store
from inner_service.task import EvaluationResult
from inner_service.trace import Event, TrialRemeasured
from service_kit.errors import Unavailable
from service_kit.parameters import Outcome, Split

T = TypeVar("T")
Pair = tuple[int, int]
"""A trial's number and a seed."""


class Remeasuring:
    """Measures the configurations of one run's trials again, as many at a time as the run may evaluate."""

    def __init__(self, run_id: str, store: Store, task: RunTask) -> None:
        self._run_id = run_id
        self._store = store
        self._task = task

    async def measure(self, purpose: RemeasurePurpose, pairs: Iterable[Pair], split: Split) -> Search:
        """The search once all ``pairs`` are measured; those that were measured before an interruption stay measured.

        A measurement that fails is a result as well. Raises :class:`Unavailable` when the task is lost.
        """
        search = await self._store.search(self._run_id)
        known, places = search.remeasured(purpose), asyncio.Semaphore(search.run.spec.parallelism)

        async def measured(number: int, seed: int) -> None:
            async with places:
                result = await self._task.outlasting(lambda: self._evaluate(number, seed, split))
            event = TrialRemeasured(number, purpose, seed, split, result)
            await self._store.commit(self._run_id, lambda s: _unless_ended(s, event))

        await together(measured(*pair) for pair in pairs if pair not in known)
        return await self._store.search(self._run_id)

    async def _evaluate(self, number: int, seed: int, split: Split) -> EvaluationResult:
        result = await self._task.evaluate(number, seed=seed, split=split, label="again")
        if result.outcome is Outcome.CANCELLED:
            raise Unavailable(f"the task {self._task.name!r}, which cancelled an evaluation ({result.message}),")
        return result


def _unless_ended(search: Search, event: TrialRemeasured) -> list[Event]:
    return [] if search.run.state.terminal else [event]


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of ``work``, done at the same time; the first failure ends the others and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
