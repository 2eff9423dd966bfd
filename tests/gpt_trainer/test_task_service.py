"""The trainer as a TaskService over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import grpc
import psutil
import pytest
import pytest_asyncio
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from gpt_trainer.clock import ClockKind
from gpt_trainer.dataset import Dataset
from gpt_trainer.hyperparameters import OBJECTIVE, parameter_space
from gpt_trainer.presets import Preset
from gpt_trainer.service import SOURCES, Task, TaskServicer, register
from gpt_trainer.workers import WorkerPool, WorkerSettings
from service_kit import translate
from service_kit.parameters import Value
from service_kit.server import ServerSettings, serving
from service_kit.status import remote_error

Stub: TypeAlias = "task_pb2_grpc.TaskServiceAsyncStub"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(cache: Path) -> AsyncIterator[WorkerPool]:
    opened = WorkerPool(WorkerSettings("laptop", cache, "cpu"), (None,))
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture(scope="module")
def event_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorboard")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(pool: WorkerPool, laptop: Preset, dataset: Dataset, event_files: Path) -> AsyncIterator[Stub]:
    task = Task(laptop, 0.8, ClockKind.VIRTUAL, 60.0, {"corpus": dataset.corpus}, "a test CPU", event_files)
    async with (
        serving(register(TaskServicer(task, pool)), ServerSettings(), name="gpt_trainer") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield task_pb2_grpc.TaskServiceStub(channel)


def configuration(**values: Value) -> common_pb2.Configuration:
    return translate.configuration_to_proto(values)


async def evaluate(stub: Stub, request: task_pb2.EvaluateRequest) -> tuple[int, task_pb2.EvaluationResult]:
    """The number of progress messages, and the result, which must come last and once."""
    events = [event async for event in stub.Evaluate(request)]
    assert [event.WhichOneof("event") for event in events] == ["progress"] * (len(events) - 1) + ["result"]
    return len(events) - 1, events[-1].result


async def test_describe_says_what_is_optimised(stub: Stub, laptop: Preset) -> None:
    task = (await stub.Describe(task_pb2.DescribeRequest())).task
    assert translate.space_from_proto(task.space) == parameter_space(laptop)
    assert translate.objective_from_proto(task.objective) == OBJECTIVE
    assert task.intermediate_metric == "val_bpb_estimate"
    assert (task.name, task.capacity, task.has_held_out_split, task.deterministic) == ("gpt-laptop", 1, True, True)
    assert translate.duration_from_proto(task.budget) == pytest.approx(0.8)
    assert [source.path for source in task.sources] == [f"gpt_trainer/{name}" for name in SOURCES]
    assert "optimiser steps" in task.documentation
    assert "corpus standard-library-python" in task.documentation
    assert all(parameter.documentation for parameter in task.space.parameters)
    assert [p.name for p in task.space.parameters if p.locked] == ["DEPTH", "ASPECT_RATIO"]


async def test_validate_names_every_wrong_field(stub: Stub) -> None:
    request = task_pb2.ValidateRequest(configuration=configuration(HEAD_DIM=24, TOTAL_BATCH_SIZE=2**11))
    violations = (await stub.Validate(request)).violations
    assert [violation.parameter for violation in violations] == ["HEAD_DIM", "TOTAL_BATCH_SIZE"]
    fine = task_pb2.ValidateRequest(configuration=configuration(TOTAL_BATCH_SIZE=2**12))
    assert not (await stub.Validate(fine)).violations


async def test_evaluate_streams_progress_and_the_same_result_for_the_same_seed(stub: Stub) -> None:
    request = task_pb2.EvaluateRequest(configuration=configuration(TOTAL_BATCH_SIZE=2**12), seed=3)
    count, first = await evaluate(stub, request)
    assert count >= 2
    assert first.outcome == common_pb2.OUTCOME_SUCCEEDED
    assert first.side_metrics["num_steps"] >= 4
    assert first.identity["corpus"]
    _, again = await evaluate(stub, request)
    assert again.metric == first.metric
    request.split, request.budget_fraction = common_pb2.SPLIT_HELD_OUT, 0.5
    _, held_out = await evaluate(stub, request)
    assert held_out.metric != first.metric
    assert held_out.side_metrics["num_steps"] < first.side_metrics["num_steps"]


def scalars(event_files: Path, tag: str) -> list[float]:
    (folder,) = event_files.glob("runs-a-trials-1-*")
    read = EventAccumulator(str(folder))
    read.Reload()
    return [event.value for event in read.Scalars(tag)]


async def test_estimates_of_the_metric_stream_on_the_way_and_event_files_hold_them(
    stub: Stub, event_files: Path
) -> None:
    request = task_pb2.EvaluateRequest(label="runs/a/trials/1", configuration=configuration(TOTAL_BATCH_SIZE=2**12))
    reports = [event.progress async for event in stub.Evaluate(request) if event.HasField("progress")]
    estimates = [report.metrics["val_bpb_estimate"] for report in reports if "val_bpb_estimate" in report.metrics]
    assert len(estimates) == 3
    assert estimates[0] > estimates[-1] > 1.0
    assert scalars(event_files, "validation/bpb_estimate") == pytest.approx(estimates)
    assert len(scalars(event_files, "validation/bpb")) == 1


async def test_a_combination_that_cannot_be_built_is_an_outcome_and_not_an_error(stub: Stub) -> None:
    count, result = await evaluate(stub, task_pb2.EvaluateRequest(configuration=configuration(TOTAL_BATCH_SIZE=2**11)))
    assert count == 0
    assert result.outcome == common_pb2.OUTCOME_INFEASIBLE
    assert not result.HasField("metric")
    assert "set DEVICE_BATCH_SIZE to at most 16" in result.message


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (task_pb2.EvaluateRequest(configuration=configuration(MATRX_LR=0.1)), "MATRX_LR", "did you mean MATRIX_LR?"),
        (task_pb2.EvaluateRequest(configuration=configuration(MATRIX_LR=5.0)), "MATRIX_LR", "from 0.0001 to 1"),
        (task_pb2.EvaluateRequest(configuration=configuration(DEPTH=3)), "DEPTH", "locked at 2"),
        (task_pb2.EvaluateRequest(budget_fraction=1.5), "budget_fraction", "at most 1"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_field(
    stub: Stub, request_: task_pb2.EvaluateRequest, field: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await evaluate(stub, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = remote_error(caught.value).violations
    assert violation.field == field
    assert words in violation.description


async def test_cancelling_the_call_kills_the_trainer_and_frees_its_slot(stub: Stub, pool: WorkerPool) -> None:
    call = stub.Evaluate(task_pb2.EvaluateRequest(seed=1))
    assert (await call.read()).HasField("progress")  # type: ignore[union-attr]
    (worker,) = pool._busy
    assert worker is not None
    trainer = psutil.Process(worker.pid)
    with pytest.raises(grpc.aio.AioRpcError) as beyond:
        await evaluate(stub, task_pb2.EvaluateRequest())
    assert beyond.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    call.cancel()
    await asyncio.to_thread(trainer.wait, 30)
    assert not trainer.is_running()
    _, result = await evaluate(stub, task_pb2.EvaluateRequest(budget_fraction=0.5))
    assert result.outcome == common_pb2.OUTCOME_SUCCEEDED
