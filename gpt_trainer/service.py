"""The benchmark as a TaskService: translates between the wire and the trainer, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from bilevel.v1 import task_pb2, task_pb2_grpc

from gpt_trainer.clock import REFERENCE_CORE, ClockKind
from gpt_trainer.event_files import EventFiles, trial_folder
from gpt_trainer.hyperparameters import OBJECTIVE, parameter_space
from gpt_trainer.presets import Preset
from gpt_trainer.trial import Progress, TrialRequest, TrialResult, plan
from gpt_trainer.workers import WorkerPool
from service_kit import translate
from service_kit.errors import InvalidArgument
from service_kit.parameters import InvalidConfiguration, Outcome
from service_kit.server import Register

SOURCES = ("training.py", "optimizer.py", "model.py", "evaluation.py", "clock.py")
"""What a language model should read to understand the task."""

log = structlog.get_logger("gpt_trainer.service")


@dataclass(frozen=True, slots=True)
class Task:
    """What this server measures, fixed while it runs."""

    preset: Preset
    budget: float
    """Seconds of training of a full-budget trial."""
    clock: ClockKind
    hard_limit: float
    """Wall-clock seconds after which a full-budget trial is killed."""
    identity: dict[str, str]
    hardware: str
    tensorboard: Path | None = None
    """Folder for event files of every trial."""


class TaskServicer(task_pb2_grpc.TaskServiceServicer):
    """Serves one :class:`Task` from a pool of warm workers."""

    def __init__(self, task: Task, pool: WorkerPool) -> None:
        self._task, self._pool = task, pool
        self._space = parameter_space(task.preset)
        self._numbers = itertools.count(1)

    async def Describe(  # noqa: N802 (the contract's name)
        self, request: task_pb2.DescribeRequest, context: Any
    ) -> task_pb2.DescribeResponse:
        task = self._task
        description = task_pb2.TaskDescription(
            name=f"gpt-{task.preset.name}",
            title=f"GPT pre-training, preset {task.preset.name}: {task.preset.summary}",
            documentation=documentation(task),
            space=translate.space_to_proto(self._space),
            objective=translate.objective_to_proto(OBJECTIVE),
            budget_clock=clock_description(task.clock),
            capacity=self._pool.capacity,
            sources=source_files(),
            has_held_out_split=True,
            deterministic=task.clock is ClockKind.VIRTUAL,
            identity=task.identity,
            hardware=task.hardware,
            intermediate_metric="val_bpb_estimate" if task.preset.estimates_at else "",
            budget=translate.duration_to_proto(task.budget),
            hard_limit=translate.duration_to_proto(task.hard_limit),
        )
        return task_pb2.DescribeResponse(task=description)

    async def Validate(  # noqa: N802
        self, request: task_pb2.ValidateRequest, context: Any
    ) -> task_pb2.ValidateResponse:
        configuration = translate.configuration_from_proto(request.configuration)
        try:
            plan(self._task.preset, TrialRequest(configuration, 0, self._task.budget, self._task.clock))
        except InvalidConfiguration as error:
            return task_pb2.ValidateResponse(
                violations=[
                    task_pb2.ConfigurationViolation(parameter=v.field, description=v.description)
                    for v in error.violations
                ]
            )
        return task_pb2.ValidateResponse()

    async def Evaluate(  # noqa: N802
        self, request: task_pb2.EvaluateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[task_pb2.EvaluateResponse]:
        began = time.monotonic()
        fraction = _fraction(request.budget_fraction)
        configuration = self._space.validate(translate.configuration_from_proto(request.configuration))
        trial = TrialRequest(
            configuration,
            request.seed,
            self._task.budget * fraction,
            self._task.clock,
            translate.split_from_proto(request.split),
        )
        finished = False
        try:
            async with contextlib.aclosing(self._events(trial)) as events, self._record(request.label) as record:
                async for event in events:
                    await record(event)
                    if isinstance(event, Progress):
                        yield task_pb2.EvaluateResponse(progress=_progress(event, time.monotonic() - began))
                        continue
                    finished = True
                    log.info("trial ended", label=request.label, outcome=event.outcome.value, metric=event.val_bpb)
                    yield task_pb2.EvaluateResponse(result=_result(event, time.monotonic() - began))
        finally:
            if not finished:
                log.info("trial ended", label=request.label, outcome=Outcome.CANCELLED.value, metric=None)

    @contextlib.asynccontextmanager
    async def _record(self, label: str) -> AsyncIterator[Callable[[Progress | TrialResult], Awaitable[None]]]:
        """Writes a trial's event files where they were asked for. Files are touched in threads only."""
        if self._task.tensorboard is None:
            yield _nothing
            return
        folder = trial_folder(self._task.tensorboard, label, next(self._numbers))
        files = await asyncio.to_thread(EventFiles, folder)

        async def record(event: Progress | TrialResult) -> None:
            await asyncio.to_thread(files.record, event)

        try:
            yield record
        finally:
            await asyncio.to_thread(files.close)

    async def _events(self, trial: TrialRequest) -> AsyncGenerator[Progress | TrialResult, None]:
        try:
            plan(self._task.preset, trial)
        except InvalidConfiguration as error:
            yield TrialResult(Outcome.INFEASIBLE, message=str(error))
            return
        async with contextlib.aclosing(self._pool.evaluate(trial, self._task.hard_limit)) as events:
            async for event in events:
                yield event


async def _nothing(event: Progress | TrialResult) -> None:
    """Records nothing."""


def documentation(task: Task) -> str:
    """What the task is, for people and for a language model."""
    planned = plan(task.preset, TrialRequest({}, 0, task.budget, task.clock))
    built = planned.architecture
    steps = ""
    if task.clock is ClockKind.VIRTUAL:
        steps = f" The default configuration takes {int(task.budget / planned.step_seconds)} optimiser steps in it."
    return (
        f"A GPT of depth {built.depth} and width {built.width} is trained from scratch on the corpus "
        f"{task.identity['corpus']} with a vocabulary of {built.vocabulary} tokens and rows of {built.context} tokens, "
        f"for {task.budget:g} seconds on the {clock_description(task.clock)}; then its loss on validation text is "
        f"measured in bits per byte.{steps} The budget is fixed and the number of steps is not: whatever makes a step "
        "cheaper buys more steps. Schedules follow the share of the budget spent. DEPTH and ASPECT_RATIO are locked. A "
        "training loss that is not finite or above twice ln(vocabulary) ends the trial as diverged."
    )


def clock_description(clock: ClockKind) -> str:
    """How the budget is measured, for people."""
    if clock is ClockKind.WALL:
        return "wall clock"
    return f"virtual clock (analytic cost, {REFERENCE_CORE.version})"


def source_files() -> list[task_pb2.SourceFile]:
    """The trainer's own source, as it runs."""
    here = Path(__file__).parent
    return [
        task_pb2.SourceFile(path=f"{here.name}/{name}", content=(here / name).read_text(encoding="utf-8"))
        for name in SOURCES
    ]


def _fraction(value: float) -> float:
    if value == 0.0:
        return 1.0
    if not 0.0 < value <= 1.0:
        raise InvalidArgument.of("budget_fraction", f"must be above 0 and at most 1; got {value:g}")
    return value


def _progress(event: Progress, elapsed: float) -> task_pb2.EvaluationProgress:
    metrics = {
        "train_loss": event.train_loss,
        "tokens": float(event.tokens),
        "clock_seconds": event.clock_seconds,
        "training_wall_seconds": event.wall_seconds,
    }
    if event.val_bpb_estimate is not None and math.isfinite(event.val_bpb_estimate):
        metrics["val_bpb_estimate"] = event.val_bpb_estimate
    return task_pb2.EvaluationProgress(
        fraction=event.fraction,
        step=event.step,
        metrics=metrics,
        phase=event.phase,
        elapsed=translate.duration_to_proto(elapsed),
    )


def _result(event: TrialResult, elapsed: float) -> task_pb2.EvaluationResult:
    return task_pb2.EvaluationResult(
        outcome=translate.outcome_to_proto(event.outcome),
        metric=event.val_bpb,
        side_metrics=dict(event.side_metrics),
        message=event.message,
        identity=dict(event.identity),
        elapsed=translate.duration_to_proto(elapsed),
    )


def register(servicer: TaskServicer) -> Register:
    """How :func:`service_kit.server.serve` adds the servicer to a server."""

    def add(server: grpc.aio.Server) -> Iterable[str]:
        task_pb2_grpc.add_TaskServiceServicer_to_server(servicer, server)
        return [task_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name]

    return add
