"""A task under examination."""

from __future__ import annotations

import random
from typing import Any

from bilevel.v1 import task_pb2

from clients.conformance.expect import expect, shown
from clients.conformance.once import Once
from clients.conformance.suite import Suite
from clients.conformance.values import sample
from clients.conformance.wire import Refusal, Wire
from service_kit import translate
from service_kit.errors import InvalidArgument
from service_kit.parameters import Configuration, InvalidConfiguration, ParameterSpace, Value

SERVICE = "bilevel.v1.TaskService"
SEED = 7
_SAMPLES = 24


class TaskSubject:
    """Reaches a task. Evaluations that are to end spend ``fraction`` of the budget."""

    def __init__(self, wire: Wire, fraction: float, free_seconds: float = 5.0) -> None:
        self.wire, self.wires = wire, (wire,)
        self.fraction = fraction
        self.free_seconds = free_seconds
        """How long the place of a cancelled evaluation may stay taken."""
        self.filled = False
        """Whether as many evaluations as the capacity says were once taken at the same time."""
        self.patience = 120.0
        self.described = Once(self._describe)
        self.space = Once(self._space)
        self.default = Once(lambda: self.evaluate({}))
        self.judged = Once(self._judged)

    async def reach(self) -> None:
        """Raises :class:`service_kit.errors.RemoteError` where nothing answers."""
        await self.wire.reachable()

    async def close(self) -> None:
        await self.wire.close()

    async def _describe(self) -> task_pb2.TaskDescription:
        task: task_pb2.TaskDescription = (await self.wire.call("Describe")).task
        # Starting up may take far longer than a small budget; what hangs is cut off all the same.
        self.patience = 60.0 + 6 * translate.duration_from_proto(task.budget) * self.fraction
        return task

    async def _space(self) -> ParameterSpace:
        try:
            return translate.space_from_proto((await self.described()).space)
        except (InvalidArgument, InvalidConfiguration) as error:
            expect(False, f"the space is not valid: {error}")
            raise

    async def _judged(self) -> list[tuple[dict[str, Value], list[str]]]:
        """Sampled configurations with what Validate finds wrong with each."""
        space, rng = await self.space(), random.Random(SEED)  # noqa: S311
        samples = [sample(space, rng) for _ in range(_SAMPLES)]
        return [(configuration, await self.violations(configuration)) for configuration in samples]

    async def violations(self, configuration: Configuration) -> list[str]:
        """What Validate finds: the parameter of each violation, or its description where it is about none."""
        answer = await self.wire.call("Validate", configuration=translate.configuration_to_proto(configuration))
        return [violation.parameter or violation.description for violation in answer.violations]

    async def evaluate(self, configuration: Configuration, **fields: Any) -> list[task_pb2.EvaluateResponse]:
        """Every message of an evaluation that may take ``fraction`` of the budget."""
        return await self.wire.messages("Evaluate", timeout=self.patience, **self.asked(configuration, **fields))

    def asked(self, configuration: Configuration, **fields: Any) -> dict[str, Any]:
        """The fields of an EvaluateRequest."""
        complete = {"budget_fraction": self.fraction, "seed": SEED, "label": "conformance"} | fields
        return {"configuration": translate.configuration_to_proto(configuration), **complete}

    async def outcome(self, configuration: Configuration, **fields: Any) -> task_pb2.EvaluationResult | Refusal:
        """The result of an evaluation, or its refusal."""
        try:
            messages = await self.evaluate(configuration, **fields)
        except Refusal as refusal:
            return refusal
        expect(messages and messages[-1].HasField("result"), f"the evaluation of {shown(configuration)} gave no result")
        return messages[-1].result


TASK: Suite[TaskSubject] = Suite("task", ("full",))
