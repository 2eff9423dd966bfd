"""What a task says about itself and about an evaluation, in the loop's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from service_kit.parameters import Objective, Outcome, ParameterSpace


def _read_space(data: object) -> ParameterSpace:
    return data if isinstance(data, ParameterSpace) else ParameterSpace.from_json(data)  # type: ignore[arg-type]


StoredSpace = Annotated[ParameterSpace, PlainValidator(_read_space), PlainSerializer(ParameterSpace.to_json)]
"""A parameter space that goes into the trace in the space's own JSON form."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of source text; ``path`` is relative to its project."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What is optimised, over which parameters, at what cost."""

    name: str
    title: str
    documentation: str
    space: StoredSpace
    objective: Objective
    budget: timedelta
    """Of one full evaluation, on the task's own clock."""
    budget_clock: str
    capacity: int
    """Evaluations that the task runs at the same time."""
    hard_limit: timedelta
    """Wall-clock time after which a full-budget evaluation is certainly stuck."""
    sources: tuple[SourceFile, ...] = ()
    has_held_out_split: bool = False
    deterministic: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    intermediate_metric: str = ""
    """Name of the progress measurement that estimates the objective on the way; empty when there is none."""


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation is. ``metrics`` are finite."""

    fraction: float
    step: int
    elapsed: timedelta
    metrics: Mapping[str, float] = field(default_factory=dict)
    phase: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How an evaluation ended; ``metric`` is present exactly when the outcome is SUCCEEDED."""

    outcome: Outcome
    metric: float | None = None
    side_metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    elapsed: timedelta = timedelta()
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.metric is not None) != (self.outcome is Outcome.SUCCEEDED):
            raise ValueError("a result has a metric exactly when its outcome is SUCCEEDED")


class TaskFault(StrEnum):
    """What a task did that its contract does not allow; see ``TaskFault`` in trace.proto."""

    SECOND_RESULT = "second_result"
    NOT_ENDED = "not_ended"
    NO_RESULT = "no_result"
    INVALID_RESULT = "invalid_result"
    PROGRESS_FLOOD = "progress_flood"
    MESSAGE_TOO_LARGE = "message_too_large"
    REFUSED_PARAMETERS = "refused_parameters"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """A breach of the contract in one evaluation, with what was seen and what the task's author can do about it."""

    fault: TaskFault
    message: str
    hint: str
