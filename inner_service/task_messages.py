"""What a task answers, from the wire: checked, because anyone may have written the task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from bilevel.v1 import task_pb2
from google.protobuf.duration_pb2 import Duration

from inner_service.task import EvaluationProgress, EvaluationResult, SourceFile, TaskDescription
from service_kit.errors import InvalidArgument
from service_kit.parameters import Outcome
from service_kit.translate import (
    duration_from_proto,
    duration_to_proto,
    objective_from_proto,
    objective_to_proto,
    outcome_from_proto,
    space_from_proto,
    space_to_proto,
)

LONGEST_SECONDS = 366 * 86_400.0
"""Of any duration that a task states."""
SOURCES_CHARACTERS = 2**20
"""Of all of a task's sources together: they are part of the trace and of prompts."""


def description_from_proto(message: task_pb2.TaskDescription) -> TaskDescription:
    """Raises :class:`InvalidArgument` or InvalidConfiguration naming the wrong field."""
    budget, limit = duration_from_proto(message.budget), duration_from_proto(message.hard_limit)
    if not message.name:
        raise InvalidArgument.of("task.name", "must not be empty")
    if not message.space.parameters:
        raise InvalidArgument.of("task.space.parameters", "must hold at least one parameter")
    for field, seconds in (("task.budget", budget), ("task.hard_limit", limit)):
        if not 0 < seconds <= LONGEST_SECONDS:
            text = f"must be longer than 0 s and at most {LONGEST_SECONDS:.0f} s; got {seconds:g} s"
            raise InvalidArgument.of(field, text)
    if message.capacity < 1:
        raise InvalidArgument.of("task.capacity", f"must be at least 1; got {message.capacity}")
    if (size := sum(len(file.content) for file in message.sources)) > SOURCES_CHARACTERS:
        raise InvalidArgument.of(
            "task.sources", f"must have at most {SOURCES_CHARACTERS} characters together; got {size}"
        )
    return TaskDescription(
        name=message.name,
        title=message.title,
        documentation=message.documentation,
        space=space_from_proto(message.space, "task.space"),
        objective=objective_from_proto(message.objective, "task.objective"),
        budget=timedelta(seconds=budget),
        budget_clock=message.budget_clock,
        capacity=message.capacity,
        hard_limit=timedelta(seconds=limit),
        sources=tuple(SourceFile(file.path, file.content) for file in message.sources),
        has_held_out_split=message.has_held_out_split,
        deterministic=message.deterministic,
        identity=dict(message.identity),
        hardware=message.hardware,
        intermediate_metric=message.intermediate_metric,
    )


def description_to_proto(task: TaskDescription) -> task_pb2.TaskDescription:
    return task_pb2.TaskDescription(
        name=task.name,
        title=task.title,
        documentation=task.documentation,
        space=space_to_proto(task.space),
        objective=objective_to_proto(task.objective),
        budget=duration_to_proto(task.budget.total_seconds()),
        budget_clock=task.budget_clock,
        capacity=task.capacity,
        hard_limit=duration_to_proto(task.hard_limit.total_seconds()),
        sources=[task_pb2.SourceFile(path=file.path, content=file.content) for file in task.sources],
        has_held_out_split=task.has_held_out_split,
        deterministic=task.deterministic,
        identity=task.identity,
        hardware=task.hardware,
        intermediate_metric=task.intermediate_metric,
    )


def progress_from_proto(message: task_pb2.EvaluationProgress) -> EvaluationProgress:
    """Measurements that are not finite are left out: progress is for watching, and JSON has no such numbers."""
    return EvaluationProgress(
        fraction=min(1.0, max(0.0, message.fraction)) if math.isfinite(message.fraction) else 0.0,
        step=message.step,
        elapsed=_elapsed(message.elapsed),
        metrics=_finite(message.metrics),
        phase=message.phase,
    )


def result_problem(message: task_pb2.EvaluationResult) -> str:
    """How a result contradicts itself; empty when it does not."""
    try:
        return _problem(outcome_from_proto(message.outcome), message.metric if message.HasField("metric") else None)
    except InvalidArgument as error:
        return str(error)


def result_from_proto(message: task_pb2.EvaluationResult) -> EvaluationResult:
    """A result that breaks the contract becomes CRASHED with a message that says so: it has no metric to trust."""
    elapsed = _elapsed(message.elapsed)
    if problem := result_problem(message):
        return EvaluationResult(Outcome.CRASHED, message=f"the task broke its contract: {problem}", elapsed=elapsed)
    outcome = outcome_from_proto(message.outcome)
    assert outcome is not None
    return EvaluationResult(
        outcome=outcome,
        metric=message.metric if message.HasField("metric") else None,
        side_metrics=_finite(message.side_metrics),
        message=message.message,
        elapsed=elapsed,
        identity=dict(message.identity),
    )


def _problem(outcome: Outcome | None, metric: float | None) -> str:
    if outcome is None:
        return "its result has no outcome"
    if outcome is Outcome.STOPPED_EARLY:
        return "it sent the outcome stopped_early, which is the search's to give"
    if outcome is not Outcome.SUCCEEDED:
        return f"it sent a metric with the outcome {outcome.value}" if metric is not None else ""
    if metric is None:
        return "it sent no metric with the outcome succeeded"
    return "" if math.isfinite(metric) else f"its metric is {metric}"


def _elapsed(message: Duration) -> timedelta:
    return timedelta(seconds=min(LONGEST_SECONDS, max(0.0, duration_from_proto(message))))


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
