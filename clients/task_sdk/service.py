"""An author's task as a TaskService: translates between the wire and the SDK, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import structlog
from bilevel.v1 import task_pb2, task_pb2_grpc

from clients.task_sdk.definition import CheckFailed, Task
from clients.task_sdk.evaluation import Ending, Progress, Request
from clients.task_sdk.location import Location, digest
from clients.task_sdk.pool import EvaluationPool
from service_kit import translate
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError
from service_kit.parameters import Outcome, Split, Violation
from service_kit.server import Register

log = structlog.get_logger("task_sdk")


class TaskServicer(task_pb2_grpc.TaskServiceServicer):
    """Serves one task. Raises :class:`InvalidTask` when its module cannot be found by another process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._pool = EvaluationPool(Location.of(task), task.conduct)
        self._description = describe(task)

    async def close(self) -> None:
        """Kill what is being evaluated."""
        await self._pool.stop()

    async def Describe(  # noqa: N802 (the contract's name)
        self, request: task_pb2.DescribeRequest, context: Any
    ) -> task_pb2.DescribeResponse:
        return task_pb2.DescribeResponse(task=self._description)

    async def Validate(  # noqa: N802
        self, request: task_pb2.ValidateRequest, context: Any
    ) -> task_pb2.ValidateResponse:
        try:
            configuration = self._task.space.validate(translate.configuration_from_proto(request.configuration))
            violations = await asyncio.to_thread(self._task.violations, configuration)
        except InvalidConfiguration as error:
            violations = list(error.violations)
        except CheckFailed as failure:
            log.exception("the task's own check failed")
            raise ServiceError(f"task {self._task.name}: {failure}", hint="Mend the check and serve again.") from None
        return task_pb2.ValidateResponse(
            violations=[
                task_pb2.ConfigurationViolation(parameter=v.field, description=v.description) for v in violations
            ]
        )

    async def Evaluate(  # noqa: N802
        self, request: task_pb2.EvaluateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[task_pb2.EvaluateResponse]:
        began = time.monotonic()
        asked = self._read(request)
        try:
            async with contextlib.aclosing(self._events(asked)) as events:
                async for event in events:
                    elapsed = time.monotonic() - began
                    if isinstance(event, Progress):
                        yield task_pb2.EvaluateResponse(progress=_progress(event, elapsed))
                        continue
                    _log_ending(asked, event)
                    yield task_pb2.EvaluateResponse(result=_result(event, elapsed))
        except (asyncio.CancelledError, GeneratorExit):
            _log_ending(asked, Ending(Outcome.CANCELLED))
            raise

    async def _events(self, asked: Request) -> AsyncGenerator[Progress | Ending, None]:
        try:
            violations = await asyncio.to_thread(self._task.violations, asked.configuration)
        except CheckFailed as failure:
            log.exception("the task's own check failed")
            yield Ending(Outcome.CRASHED, message=str(failure))
            return
        if violations:
            yield Ending(Outcome.INFEASIBLE, message=sentences(violations))
            return
        async with contextlib.aclosing(self._pool.evaluate(asked)) as events:
            async for event in events:
                yield event

    def _read(self, request: task_pb2.EvaluateRequest) -> Request:
        """The request, checked. Raises InvalidConfiguration and :class:`InvalidArgument`."""
        split = translate.split_from_proto(request.split)
        if split is Split.HELD_OUT and not self._task.held_out:
            raise InvalidArgument.of("split", f"must be SEARCH: the task {self._task.name} has no held-out data")
        fraction = request.budget_fraction or 1.0
        if not 0.0 < fraction <= 1.0:
            raise InvalidArgument.of("budget_fraction", f"must be above 0 and at most 1; got {fraction:g}")
        configuration = self._task.space.validate(translate.configuration_from_proto(request.configuration))
        return Request(configuration, request.seed, fraction, split, request.label)


def describe(task: Task) -> task_pb2.TaskDescription:
    """The task's description. Its identity holds the digest of the author's module and of the files shown with it."""
    files = (task.file, *task.sources)
    return task_pb2.TaskDescription(
        name=task.name,
        title=task.title,
        documentation=task.documentation,
        space=translate.space_to_proto(task.space),
        objective=translate.objective_to_proto(task.objective),
        budget=translate.duration_to_proto(task.conduct.budget),
        budget_clock="wall clock",
        capacity=task.conduct.capacity,
        hard_limit=translate.duration_to_proto(task.conduct.hard_limit),
        sources=[
            task_pb2.SourceFile(path=file.name, content=file.read_text(encoding="utf-8", errors="replace"))
            for file in files
        ],
        has_held_out_split=task.held_out,
        deterministic=task.deterministic,
        intermediate_metric=task.intermediate_metric,
        identity={**{file.name: digest(file)[:16] for file in files}, **task.identity},
        hardware=task.hardware or processor(),
    )


def processor() -> str:
    """This machine's processor, for people."""
    import os
    import platform

    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} CPUs"


def sentences(violations: Iterable[Violation]) -> str:
    """Violations as one line; a sentence that names its parameter needs no prefix."""
    return "; ".join(
        v.description if v.description.startswith(v.field) else f"{v.field}: {v.description}" for v in violations
    )


def _log_ending(asked: Request, ending: Ending) -> None:
    facts = {"outcome": ending.outcome.value, "metric": ending.metric, "message": ending.message}
    log.info("evaluation ended", label=asked.label, **facts)


def _progress(event: Progress, elapsed: float) -> task_pb2.EvaluationProgress:
    return task_pb2.EvaluationProgress(
        fraction=event.fraction,
        step=event.step,
        phase=event.phase,
        metrics=dict(event.metrics),
        elapsed=translate.duration_to_proto(elapsed),
    )


def _result(ending: Ending, elapsed: float) -> task_pb2.EvaluationResult:
    return task_pb2.EvaluationResult(
        outcome=translate.outcome_to_proto(ending.outcome),
        metric=ending.metric,
        side_metrics=dict(ending.side_metrics),
        message=ending.message,
        identity=dict(ending.identity),
        elapsed=translate.duration_to_proto(elapsed),
    )


def register(servicer: TaskServicer) -> Register:
    """How :func:`service_kit.server.serve` adds the servicer to a server."""

    def add(server: grpc.aio.Server) -> Iterable[str]:
        task_pb2_grpc.add_TaskServiceServicer_to_server(servicer, server)
        return [task_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name]

    return add
