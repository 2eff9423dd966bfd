"""A small task that keeps the protocol, and breaks it in one way where a test asks for that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_kit.parameters import InvalidConfiguration, Kind, Objective, Parameter, ParameterSpace, Violation
from service_kit.translate import configuration_from_proto, objective_to_proto, space_to_proto

SPACE = ParameterSpace(
    (
        Parameter("depth", Kind.INTEGER, 3, "Layers.", locked=True, minimum=1, maximum=9),
        Parameter("width", Kind.REAL, 0.25, "The distance from the optimum.", minimum=0.0, maximum=1.0),
        Parameter("mode", Kind.CATEGORICAL, "plain", "Decoration.", choices=("plain", "fancy")),
        Parameter("dust", Kind.REAL, 0.5, "Changes nothing.", minimum=0.0, maximum=1.0),
        Parameter("rows", Kind.INTEGER, 4, "More rows take more memory.", minimum=1, maximum=16),
    ),
    ("fancy takes at most 8 rows",),
)
BUDGET = 0.3
"""Seconds of a full evaluation."""
STEPS = 3


class ReferenceTask(task_pb2_grpc.TaskServiceServicer):
    """Evaluations take ``BUDGET`` seconds at full budget, ``capacity`` of them at the same time."""

    capacity = 2

    def __init__(self) -> None:
        self.running = 0

    def description(self) -> task_pb2.TaskDescription:
        task = task_pb2.TaskDescription(
            name="reference",
            title="A reference",
            documentation="A distance.",
            space=space_to_proto(SPACE),
            objective=objective_to_proto(Objective("distance")),
            budget_clock="wall clock",
            capacity=self.capacity,
            deterministic=True,
        )
        task.budget.FromMilliseconds(round(1000 * BUDGET))
        task.hard_limit.FromSeconds(20)
        return task

    def violations(self, configuration: common_pb2.Configuration) -> list[Violation]:
        """What breaks the space."""
        try:
            SPACE.validate(configuration_from_proto(configuration))
        except InvalidConfiguration as error:
            return list(error.violations)
        return []

    def conflicts(self, configuration: common_pb2.Configuration) -> list[Violation]:
        """What is wrong with a combination."""
        values = SPACE.validate(configuration_from_proto(configuration))
        fancy = values["mode"] == "fancy" and int(values["rows"]) > 8  # type: ignore[arg-type]
        return [Violation("rows", "must be at most 8 where mode is fancy")] if fancy else []

    def metric(self, values: Mapping[str, Any], seed: int) -> float:
        return float(abs(values["width"] - 0.75) + 0.01 * values["rows"] + 1e-3 * (seed % 7))

    def result(self, values: Mapping[str, Any], seed: int) -> task_pb2.EvaluationResult:
        return task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=self.metric(values, seed))

    def progress(self, step: int) -> task_pb2.EvaluationProgress:
        return task_pb2.EvaluationProgress(fraction=step / STEPS, step=step, phase="measuring")

    async def work(self, seconds: float) -> None:
        """A step's work; cancelling the call ends it."""
        await asyncio.sleep(seconds)

    async def Describe(self, request: Any, context: Any) -> task_pb2.DescribeResponse:  # noqa: N802
        return task_pb2.DescribeResponse(task=self.description())

    async def Validate(self, request: task_pb2.ValidateRequest, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        found = self.violations(request.configuration) or self.conflicts(request.configuration)
        said = [task_pb2.ConfigurationViolation(parameter=v.field, description=v.description) for v in found]
        return task_pb2.ValidateResponse(violations=said)

    def wrong_fields(self, request: task_pb2.EvaluateRequest) -> list[Violation]:
        """What is wrong with a request in itself."""
        wrong = self.violations(request.configuration)
        if request.split == common_pb2.SPLIT_HELD_OUT:
            wrong.append(Violation("split", "must be SEARCH"))
        if math.isnan(request.budget_fraction) or not 0 <= request.budget_fraction <= 1:
            wrong.append(Violation("budget_fraction", "must be above 0 and at most 1"))
        return wrong

    async def Evaluate(  # noqa: N802
        self, request: task_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[task_pb2.EvaluateResponse]:
        if wrong := self.wrong_fields(request):
            await self.refuse(context, wrong)
        if conflicts := self.conflicts(request.configuration):
            said = conflicts[0].description
            result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_INFEASIBLE, message=said)
            yield task_pb2.EvaluateResponse(result=result)
            return
        if self.running >= self.capacity:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "every place is taken")
        self.running += 1
        try:
            async for response in self.evaluation(request):
                yield response
        finally:
            self.running -= 1

    async def evaluation(self, request: task_pb2.EvaluateRequest) -> AsyncIterator[task_pb2.EvaluateResponse]:
        for step in range(STEPS):
            yield task_pb2.EvaluateResponse(progress=self.progress(step))
            await self.work(BUDGET * (request.budget_fraction or 1.0) / STEPS)
        values = SPACE.validate(configuration_from_proto(request.configuration))
        yield task_pb2.EvaluateResponse(result=self.result(values, request.seed))

    async def refuse(self, context: Any, wrong: list[Violation]) -> None:
        """INVALID_ARGUMENT with everything that is wrong."""
        fields = [error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in wrong]
        status = status_pb2.Status(code=3, message="; ".join(v.field for v in wrong))
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="bilevel.v1"))
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=fields))
        wire = rpc_status.to_status(status)
        await context.abort(wire.code, wire.details, wire.trailing_metadata)


async def started(task: task_pb2_grpc.TaskServiceServicer) -> tuple[grpc.aio.Server, str]:
    """The task on a port of its own, with nothing beside it: no health, no reflection."""
    server = grpc.aio.server()
    task_pb2_grpc.add_TaskServiceServicer_to_server(task, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"
