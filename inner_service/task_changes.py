"""What it means when a task describes itself differently in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from inner_service.task import TaskDescription
from inner_service.tasks import Task
from inner_service.trace import TaskChanged
from service_kit.errors import ServiceError
from service_kit.parameters import ParameterSpace

_SILENT = {"space", "objective", "sources"}
"""Fields whose values are too long for a sentence, or have sentences of their own."""


class IncompatibleTask(ServiceError):
    """The run cannot go on with what the task has become; ``change`` says what that is."""

    def __init__(self, task: str, change: TaskChanged) -> None:
        self.change = change
        super().__init__(
            f"the task {task!r} is not the one that this run began with: {'; '.join(change.differences)}",
            hint="Serve the task as it was and resume the run, or cancel the run and create a new one.",
        )


class TaskWatch:
    """Compares a run's task with what it was when the run was created."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: TaskDescription | None = None

    async def changed(self, recorded: TaskDescription) -> TaskChanged | None:
        """What is new since the last look; what is incompatible is told at every look.

        Raises :class:`Unavailable`, and like :meth:`Task.describe`.
        """
        now = await self._task.describe()
        if now == (self._known or recorded):
            return None
        change = compare(recorded, now)
        if change is None or change.compatible:
            self._known = now
        return change


def compare(old: TaskDescription, new: TaskDescription) -> TaskChanged | None:
    """How ``new`` differs from ``old``; None when it does not."""
    broken = [*_of_space(old.space, new.space), *_of_objective(old, new)]
    harmless = [] if broken or old.space == new.space else ["its parameters are described in other words"]
    harmless += [
        f"{field.name} is {str(getattr(new, field.name))[:200]!r}, was {str(getattr(old, field.name))[:200]!r}"
        for field in fields(TaskDescription)
        if field.name not in _SILENT and getattr(old, field.name) != getattr(new, field.name)
    ]
    if old.sources != new.sources:
        harmless.append("its sources are others: results before and after may not be comparable")
    differences = (*broken, *harmless)
    return TaskChanged(differences, compatible=not broken) if differences else None


def _of_space(old: ParameterSpace, new: ParameterSpace) -> Iterator[str]:
    for name in old.names:
        if name not in new:
            yield f"parameter {name} is gone"
        elif (was := old[name]).allowed() != (now := new[name]).allowed():
            yield f"parameter {name} must be {now.allowed()}, was {was.allowed()}"
    yield from (f"parameter {name} is new" for name in new.names if name not in old)


def _of_objective(old: TaskDescription, new: TaskDescription) -> Iterator[str]:
    was, now = old.objective, new.objective
    if (was.metric, was.direction, was.unit) != (now.metric, now.direction, now.unit):
        yield (
            f"the objective is to {now.direction.value} {now.metric} {now.unit}".rstrip()
            + f", was to {was.direction.value} {was.metric} {was.unit}".rstrip()
        )
