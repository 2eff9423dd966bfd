"""The conformance kit on tasks: one that keeps the protocol, one of the SDK, and many that break it in one way each."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from bilevel.v1 import common_pb2, task_pb2
from processes import ROOT, served
from reference_task import SPACE, ReferenceTask, started

from clients.conformance.suite import Examination, Verdict
from clients.conformance.task import TASK, TaskSubject
from clients.conformance.wire import Wire
from clients.task_sdk.serving import serving
from service_kit.parameters import Violation
from service_kit.server import ServerSettings
from service_kit.translate import configuration_from_proto

SERVICE = "bilevel.v1.TaskService"


async def examined(address: str, patience: float = 0.0, free_seconds: float = 1.0) -> Examination:
    subject = TaskSubject(Wire.to(SERVICE, "task", address), 0.1, free_seconds=free_seconds)
    await subject.reach()
    if patience:
        await subject.described()
        subject.patience = patience
    try:
        return await TASK.examine(subject, address, "full")
    finally:
        await subject.close()


def violated(examination: Examination) -> set[str]:
    return {finding.clause for finding in examination.of(Verdict.VIOLATED)}


async def test_a_task_that_keeps_the_protocol_passes_every_check() -> None:
    server, address = await started(ReferenceTask())
    examination = await examined(address)
    await server.stop(None)
    assert not examination.of(Verdict.VIOLATED, Verdict.NOT_SEEN, Verdict.UNDECIDED)
    assert {finding.clause for finding in examination.of(Verdict.ADVICE)} == {"COMMON-1.1", "COMMON-1.2"}
    assert examination.exit_code == 0
    assert len(examination.called) == 3


@pytest.mark.long
async def test_a_task_of_the_sdk_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("sdk_task", None)
    from sdk_task import paced

    async with serving(paced, ServerSettings()) as address:
        examination = await examined(address, free_seconds=5.0)
    assert not examination.of(Verdict.VIOLATED, Verdict.ADVICE, Verdict.UNDECIDED), examination.findings
    seen = {finding.clause for finding in examination.of(Verdict.HOLDS)}
    assert {"TASK-5.1", "TASK-5.2", "TASK-5.3", "TASK-5.4", "TASK-4.1", "TASK-3.7", "TASK-2.3"} <= seen


@pytest.mark.long
async def test_the_trainer_passes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpt_trainer", "serve", "--preset", "laptop", "--budget", "4"]
    async with served(command, tmp_path) as address:
        examination = await examined(address, free_seconds=5.0)
    assert not examination.of(Verdict.VIOLATED, Verdict.ADVICE, Verdict.UNDECIDED), examination.findings
    seen = {finding.clause for finding in examination.of(Verdict.HOLDS)}
    assert {"TASK-5.1", "TASK-5.2", "TASK-5.3", "TASK-3.7"} <= seen


@pytest.mark.long
async def test_the_example_of_a_task_without_the_sdk_passes(tmp_path: Path) -> None:
    async with served([sys.executable, str(ROOT / "clients" / "examples" / "own_task.py")], tmp_path) as address:
        examination = await examined(address)
    assert not examination.of(Verdict.VIOLATED, Verdict.ADVICE, Verdict.UNDECIDED), examination.findings


class UnspeakableName(ReferenceTask):
    def description(self) -> task_pb2.TaskDescription:
        task = super().description()
        task.name = "The Reference Task"
        return task


class DefaultOutOfRange(ReferenceTask):
    def description(self) -> task_pb2.TaskDescription:
        task = super().description()
        task.space.parameters[1].default_value.double_value = 7.0
        return task


class Fickle(ReferenceTask):
    numbers = count()

    def description(self) -> task_pb2.TaskDescription:
        task = super().description()
        task.title = f"Description {next(self.numbers)}"
        return task


class Credulous(ReferenceTask):
    """Validate accepts everything that Evaluate refuses."""

    async def Validate(self, request: Any, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        return task_pb2.ValidateResponse()


class Unaware(ReferenceTask):
    """Validate knows nothing of the combinations that Evaluate finds infeasible."""

    async def Validate(self, request: Any, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        if self.violations(request.configuration):
            return await super().Validate(request, context)
        return task_pb2.ValidateResponse()

    def conflicts(self, configuration: common_pb2.Configuration) -> list[Violation]:
        values: Any = SPACE.validate(configuration_from_proto(configuration))
        return [Violation("rows", "must be at most 4")] if values["rows"] > 4 else []


class FailingValidate(ReferenceTask):
    async def Validate(self, request: Any, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        if wrong := self.violations(request.configuration):
            await self.refuse(context, wrong)
        return await super().Validate(request, context)


class MoreStrictThanItself(ReferenceTask):
    """Measures combinations that Validate finds wrong."""

    async def evaluation(self, request: Any) -> AsyncIterator[Any]:
        async for response in super().evaluation(request):
            yield response

    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        if not self.violations(request.configuration) and self.conflicts(request.configuration):
            request.configuration.values["mode"].string_value = "plain"
        async for response in super().Evaluate(request, context):
            yield response


class TwoResults(ReferenceTask):
    async def evaluation(self, request: Any) -> AsyncIterator[Any]:
        async for response in super().evaluation(request):
            yield response
            if response.HasField("result"):
                yield response


class NoResult(ReferenceTask):
    async def evaluation(self, request: Any) -> AsyncIterator[Any]:
        async for response in super().evaluation(request):
            if not response.HasField("result"):
                yield response


class NeverEnds(ReferenceTask):
    async def evaluation(self, request: Any) -> AsyncIterator[Any]:
        yield task_pb2.EvaluateResponse(progress=self.progress(0))
        await asyncio.Event().wait()


class NotANumber(ReferenceTask):
    def metric(self, values: Any, seed: int) -> float:
        return math.nan


class SentinelScore(ReferenceTask):
    """Has a metric for what failed."""

    def result(self, values: Any, seed: int) -> task_pb2.EvaluationResult:
        return task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_CRASHED, metric=999.0, message="crashed")


class Backwards(ReferenceTask):
    def progress(self, step: int) -> task_pb2.EvaluationProgress:
        return task_pb2.EvaluationProgress(fraction=1 - step / 4, step=step)


class UnmeasurableDefaults(ReferenceTask):
    def result(self, values: Any, seed: int) -> task_pb2.EvaluationResult:
        return task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_CRASHED, message="crashed")


class TakesAnything(ReferenceTask):
    """Evaluates the defaults in place of what it does not know."""

    def wrong_fields(self, request: task_pb2.EvaluateRequest) -> list[Violation]:
        if self.violations(request.configuration):
            request.configuration.Clear()
        return super().wrong_fields(request)


class AnyFraction(ReferenceTask):
    def wrong_fields(self, request: task_pb2.EvaluateRequest) -> list[Violation]:
        request.budget_fraction = 0.1
        return super().wrong_fields(request)


class MadeUpSplit(ReferenceTask):
    def wrong_fields(self, request: task_pb2.EvaluateRequest) -> list[Violation]:
        request.split = common_pb2.SPLIT_SEARCH
        return super().wrong_fields(request)


class Wordless(ReferenceTask):
    def conflicts(self, configuration: common_pb2.Configuration) -> list[Violation]:
        return [Violation(v.field, "") for v in super().conflicts(configuration)]


class Dice(ReferenceTask):
    """Says that it is deterministic."""

    numbers = count()

    def metric(self, values: Any, seed: int) -> float:
        return super().metric(values, seed) + 1e-12 * next(self.numbers)


class OnePlace(ReferenceTask):
    """Says that it takes two evaluations."""

    def description(self) -> task_pb2.TaskDescription:
        task = super().description()
        self.capacity = 1
        task.capacity = 2
        return task


class EndlessPlaces(ReferenceTask):
    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.running = 0
        async for response in super().Evaluate(request, context):
            yield response


class KeepsOnWorking(ReferenceTask):
    """Keeps the place of a cancelled evaluation."""

    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        ended = False
        try:
            async for response in super().Evaluate(request, context):
                yield response
            ended = True
        finally:
            if not ended and request.budget_fraction == 1.0 and self.running < self.capacity:
                self.running += 1


class Unexplained(ReferenceTask):
    """Refuses without details."""

    async def refuse(self, context: Any, wrong: list[Violation]) -> None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")


class RejectsTheFuture(ReferenceTask):
    """Refuses messages of later versions."""

    async def Validate(self, request: Any, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        known = task_pb2.ValidateRequest()
        known.CopyFrom(request)
        known.DiscardUnknownFields()
        if known.ByteSize() != request.ByteSize():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "what is this?")
        return await super().Validate(request, context)


class DefaultsForget(ReferenceTask):
    """Reads an absent parameter as something else than its default."""

    async def evaluation(self, request: Any) -> AsyncIterator[Any]:
        if "width" not in configuration_from_proto(request.configuration):
            request.configuration.values["width"].double_value = SPACE["width"].maximum
        async for response in super().evaluation(request):
            yield response


FAULTS = {
    UnspeakableName: {"TASK-1.1"},
    DefaultOutOfRange: {"TASK-1.2"},
    Fickle: {"TASK-1.3"},
    Credulous: {"TASK-2.2"},
    Unaware: {"TASK-2.3"},
    FailingValidate: {"TASK-2.2"},
    MoreStrictThanItself: {"TASK-2.3"},
    TwoResults: {"TASK-3.1"},
    NoResult: {"TASK-3.1", "TASK-2.3"},
    NotANumber: {"TASK-3.2", "TASK-4.1"},
    SentinelScore: {"TASK-3.2", "TASK-3.4"},
    Backwards: {"TASK-3.3"},
    UnmeasurableDefaults: {"TASK-3.4"},
    TakesAnything: {"TASK-3.5", "COMMON-2.2"},
    AnyFraction: {"TASK-3.6"},
    MadeUpSplit: {"TASK-3.7"},
    Wordless: {"TASK-3.8"},
    Dice: {"TASK-4.1"},
    DefaultsForget: {"TASK-4.1"},
    OnePlace: {"TASK-5.1"},
    EndlessPlaces: {"TASK-5.2"},
    Unexplained: {"TASK-3.5", "TASK-3.6", "TASK-3.7", "COMMON-2.2"},
    RejectsTheFuture: {"COMMON-1.3"},
}
"""Every fault with all the clauses that it breaks."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_task_that_breaks_the_protocol_is_caught_by_its_clause(fault: type[ReferenceTask]) -> None:
    server, address = await started(fault())
    examination = await examined(address)
    await server.stop(None)
    assert violated(examination) == FAULTS[fault]
    assert examination.exit_code == 1
    assert all(finding.message for finding in examination.of(Verdict.VIOLATED))


@pytest.mark.parametrize(("fault", "clauses"), [(KeepsOnWorking, {"TASK-5.3", "TASK-5.4"}), (NeverEnds, {"TASK-3.1"})])
async def test_work_that_does_not_end_is_caught(fault: type[ReferenceTask], clauses: set[str]) -> None:
    server, address = await started(fault())
    examination = await examined(address, patience=1.5)
    await server.stop(None)
    assert clauses <= violated(examination)
