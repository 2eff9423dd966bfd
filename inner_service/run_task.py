"""The task of one run: every evaluation goes through here, and what the task does wrong goes onto the trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from inner_service import evaluation
from inner_service.evaluation import OnProgress
from inner_service.run import Search
from inner_service.store import Store
from inner_service.task import EvaluationResult, Misbehaviour
from inner_service.task_changes import IncompatibleTask, TaskWatch
from inner_service.tasks import Task
from inner_service.trace import TaskMisbehaved
from service_kit.parameters import Split

T = TypeVar("T")


class RunTask:
    """Evaluates configurations of one run's trials. Any number of callers may use it at once."""

    def __init__(self, run_id: str, store: Store, task: Task) -> None:
        self.name = task.name
        self._run_id = run_id
        self._store = store
        self._task = task
        self._watch = TaskWatch(task)

    async def outlasting(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of ``attempt``, begun again when the task is lost and comes back. Raises Unavailable."""
        return await evaluation.outlasting(self._task, attempt)

    async def evaluate(
        self,
        number: int,
        *,
        seed: int,
        fraction: float = 1.0,
        split: Split = Split.SEARCH,
        label: str = "",
        on_progress: OnProgress | None = None,
        needed: str = "",
    ) -> EvaluationResult:
        """Measure the configuration of trial ``number``; see :func:`evaluation.evaluate`.

        Raises :class:`IncompatibleTask` when the task is no longer the one that the run was created for, and
        Unavailable.
        """
        search = await self._store.search(self._run_id)
        await self._same_task(search)

        async def misbehaved(seen: Misbehaviour) -> None:
            event = TaskMisbehaved(number, seen.fault, seen.message, seen.hint)
            await self._store.commit(self._run_id, lambda _: [event])

        return await evaluation.evaluate(
            self._task,
            search.trials[number].configuration,
            seed=seed,
            hard_limit=search.run.task.hard_limit,
            fraction=fraction,
            split=split,
            label=f"{search.run.name}/trials/{number} {label}".rstrip(),
            on_progress=on_progress,
            on_misbehaviour=misbehaved,
            needed=needed,
        )

    async def _same_task(self, search: Search) -> None:
        """Record what is new about the task."""
        change = await self._watch.changed(search.run.task)
        if change is not None:
            await self._store.commit(self._run_id, lambda _: [change])
            if not change.compatible:
                raise IncompatibleTask(search.run.task.name, change)
