"""Checking what a run is asked to do, against the task that it names."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from inner_service.run import RunSpec
from inner_service.task import TaskDescription
from service_kit.errors import InvalidArgument, InvalidConfiguration, Violation

MAX_TRIALS = 100_000
MAX_CONFIRMATION_SEEDS = 1000


def check_spec(spec: RunSpec) -> None:
    """Everything that does not depend on the task. Raises :class:`InvalidArgument` with all violations."""
    wrong: list[Violation] = []

    def within(field: str, value: int, low: int, high: int) -> None:
        if not low <= value <= high:
            wrong.append(Violation(f"spec.{field}", f"must be from {low} to {high}; got {value}"))

    if not spec.task:
        wrong.append(Violation("spec.task", "must be the name of a configured task; ListTasks gives them"))
    within("max_trials", spec.max_trials, 1, MAX_TRIALS)
    within("checkpoint_every", spec.checkpoint_every, 0, MAX_TRIALS)
    within("confirmation_seeds", spec.confirmation_seeds, 0, MAX_CONFIRMATION_SEEDS)
    if spec.max_tokens < 0:
        wrong.append(Violation("spec.max_tokens", f"must be at least 0, where 0 is no limit; got {spec.max_tokens}"))
    if spec.max_duration is not None and spec.max_duration <= timedelta():
        wrong.append(Violation("spec.max_duration", "must be longer than 0 s; leave it out for no limit"))
    if len(spec.display_name) > 200:
        got = len(spec.display_name)
        wrong.append(Violation("spec.display_name", f"must have at most 200 characters; got {got}"))
    if spec.compare_lessons and not spec.use_lessons:
        wrong.append(Violation("spec.compare_lessons", "compares proposals with and without lessons: set use_lessons"))
    if wrong:
        raise InvalidArgument(wrong)


def fitted(spec: RunSpec, task: TaskDescription) -> RunSpec:
    """The spec with its starting configuration typed. Raises :class:`InvalidArgument` with all violations."""
    wrong: list[Violation] = []
    parallelism, start = spec.parallelism or 1, spec.start
    if not 1 <= parallelism <= task.capacity:
        description = f"must be from 1 to {task.capacity}, which is how many evaluations the task runs at once"
        wrong.append(Violation("spec.parallelism", f"{description}; got {spec.parallelism}"))
    try:
        complete = task.space.validate(spec.start)
        start = {name: complete[name] for name in spec.start}
    except InvalidConfiguration as error:
        wrong += [Violation(f"spec.start.{v.field}", v.description) for v in error.violations]
    if wrong:
        raise InvalidArgument(wrong)
    return replace(spec, parallelism=parallelism, start=start)
