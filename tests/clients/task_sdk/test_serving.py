"""An author's tasks over a real socket: every way an evaluation can end, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import grpc
import psutil
import pytest
import pytest_asyncio
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc

from clients.task_sdk import InvalidTask, task
from service_kit import translate
from service_kit.parameters import Outcome, Value
from service_kit.server import ServerSettings
from service_kit.status import remote_error

Stub: TypeAlias = "task_pb2_grpc.TaskServiceAsyncStub"
Ended = tuple[list[task_pb2.EvaluationProgress], task_pb2.EvaluationResult]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(samples: ModuleType) -> AsyncIterator[Stub]:
    async with samples.endings.serving() as address, grpc.aio.insecure_channel(address) as channel:
        yield task_pb2_grpc.TaskServiceStub(channel)


def asked(seed: int = 0, fraction: float = 0.0, split: int = 0, **values: Value) -> task_pb2.EvaluateRequest:
    return task_pb2.EvaluateRequest(
        configuration=translate.configuration_to_proto(values),
        seed=seed,
        budget_fraction=fraction,
        split=split,  # type: ignore[arg-type]
        label="trial 7",
    )


async def evaluate(stub: Stub, request: task_pb2.EvaluateRequest) -> Ended:
    """Progress and the result, which must come last and once."""
    events = [event async for event in stub.Evaluate(request)]
    assert [event.WhichOneof("event") for event in events] == ["progress"] * (len(events) - 1) + ["result"]
    return [event.progress for event in events[:-1]], events[-1].result


def exists(path: str) -> bool:
    return Path(path).exists()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_describe_says_what_the_author_wrote(stub: Stub, samples: ModuleType) -> None:
    described = (await stub.Describe(task_pb2.DescribeRequest())).task
    assert (described.name, described.title, described.documentation) == (
        "endings", "Ends as it is told.", "Ends as it is told.\n\nFor tests.",
    )  # fmt: skip
    assert translate.space_from_proto(described.space) == samples.endings.space
    assert list(described.space.constraints) == [
        "threads must be at most 32 unless cached is set",
        "threads must not be 63",
    ]
    objective = described.objective
    assert (objective.metric, objective.direction, objective.unit) == (
        "latency_ms",
        common_pb2.DIRECTION_MINIMIZE,
        "ms",
    )
    assert (described.budget.seconds, described.hard_limit.seconds, described.capacity) == (8, 20, 1)
    assert (described.has_held_out_split, described.deterministic) == (True, False)
    assert described.intermediate_metric == "latency_so_far"
    (source,) = described.sources
    assert (source.path, "def endings" in source.content) == ("sample_tasks.py", True)
    assert described.identity["data"] == "none"
    assert len(described.identity["sample_tasks.py"]) == 16
    assert "CPUs" in described.hardware


async def test_validate_names_every_wrong_parameter_and_what_the_checks_say(stub: Stub) -> None:
    async def violations(**values: Value) -> list[tuple[str, str]]:
        request = task_pb2.ValidateRequest(configuration=translate.configuration_to_proto(values))
        return [(v.parameter, v.description) for v in (await stub.Validate(request)).violations]

    assert await violations(threads=8) == []
    assert [field for field, _ in await violations(threads=80, how="odd")] == ["how", "threads"]
    assert await violations(threads=63, cached=False) == [
        ("", "threads must be at most 32 unless cached is set"),
        ("threads", "is 63, which no scheduler takes"),
    ]


@pytest.mark.parametrize(
    ("how", "outcome", "words"),
    [
        ("nothing", Outcome.CRASHED, "endings returned nothing: return the metric latency_ms as one number"),
        ("nan", Outcome.DIVERGED, "endings returned nan as latency_ms"),
        ("raise", Outcome.CRASHED, "ValueError: threads do not fit the socket (sample_tasks.py, line"),
        ("refuse", Outcome.INFEASIBLE, "threads must be at most 8 on this socket"),
        ("memory", Outcome.OUT_OF_MEMORY, "the system refused memory (sample_tasks.py, line"),
        ("segfault", Outcome.CRASHED, "the process ended by signal SIGSEGV"),
    ],
)
async def test_every_ending_has_its_outcome_and_no_metric(stub: Stub, how: str, outcome: Outcome, words: str) -> None:
    _, result = await evaluate(stub, asked(how=how))
    assert translate.outcome_from_proto(result.outcome) is outcome
    assert not result.HasField("metric")
    assert words in result.message


async def test_a_kill_from_outside_is_begun_again_until_it_happens_every_time(stub: Stub) -> None:
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError, match="killed from outside") as cut_off:
            await evaluate(stub, asked(how="abort"))
        assert cut_off.value.code() is grpc.StatusCode.UNAVAILABLE
    _, result = await evaluate(stub, asked(how="abort"))
    assert result.outcome == common_pb2.OUTCOME_CRASHED
    assert "the process ended by signal SIGKILL 3 times" in result.message


async def test_a_number_is_the_metric_and_the_function_knows_seed_budget_and_split(stub: Stub) -> None:
    progress, result = await evaluate(stub, asked(threads=4))
    assert (progress, result.outcome, result.metric) == ([], common_pb2.OUTCOME_SUCCEEDED, 4 + 0 + 8.0)
    _, result = await evaluate(stub, asked(threads=4, seed=100, fraction=0.25, split=common_pb2.SPLIT_HELD_OUT))
    assert result.metric == 4 + 100 + 2.0 + 0.5


async def test_a_result_brings_side_metrics_a_remark_and_facts(stub: Stub) -> None:
    _, result = await evaluate(stub, asked(how="result"))
    assert (result.metric, dict(result.side_metrics), result.message) == (1.0, {"rows": 3.0}, "a remark")
    assert not exists(result.identity["folder"])


async def test_a_flood_of_progress_arrives_as_a_few_finite_reports(stub: Stub) -> None:
    progress, result = await evaluate(stub, asked(how="flood"))
    assert result.metric == 1.0
    assert 1 <= len(progress) <= 1 + 10 * (result.elapsed.seconds + 1)
    assert progress[0].phase == "counting"
    assert all(set(report.metrics) == {"loss"} for report in progress)


async def test_what_a_check_forbids_never_starts_a_process(stub: Stub) -> None:
    before = {child.pid for child in psutil.Process().children()}
    progress, result = await evaluate(stub, asked(threads=64, cached=False))
    assert (progress, result.outcome) == ([], common_pb2.OUTCOME_INFEASIBLE)
    assert result.message == "threads must be at most 32 unless cached is set"
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (asked(thread=1), "thread", "did you mean threads?"),
        (asked(threads=65), "threads", "an integer from 1 to 64"),
        (asked(fraction=1.5), "budget_fraction", "at most 1"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_field(
    stub: Stub, request_: task_pb2.EvaluateRequest, field: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await evaluate(stub, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = remote_error(caught.value).violations
    assert (violation.field, words in violation.description) == (field, True)


async def test_cancelling_kills_what_the_function_started_and_frees_its_place(stub: Stub) -> None:
    call = stub.Evaluate(asked(how="endless"))
    event = await call.read()
    assert isinstance(event, task_pb2.EvaluateResponse)
    grandchild = psutil.Process(int(event.progress.metrics["child"]))
    assert (event.progress.fraction, event.progress.phase) == (0.25, "waiting")
    with pytest.raises(grpc.aio.AioRpcError) as beyond:
        await evaluate(stub, asked())
    assert beyond.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    call.cancel()
    await asyncio.to_thread(grandchild.wait, 30)
    _, result = await evaluate(stub, asked())
    assert result.outcome == common_pb2.OUTCOME_SUCCEEDED
    assert not grandchild.is_running()


async def test_a_reused_process_keeps_its_imports_until_something_goes_wrong(samples: ModuleType) -> None:
    async with samples.reused.serving() as address, grpc.aio.insecure_channel(address) as channel:
        stub: Stub = task_pb2_grpc.TaskServiceStub(channel)
        _, first = await evaluate(stub, asked(x=0.5, seed=1))
        _, second = await evaluate(stub, asked(x=0.5, seed=1))
        assert (first.metric, first.side_metrics) == (second.metric, second.side_metrics)
        _, failed = await evaluate(stub, asked(x=0.0))
        assert "RuntimeError: worn out" in failed.message
        _, fresh = await evaluate(stub, asked(x=0.5, seed=1))
        assert fresh.metric != first.metric
        assert fresh.side_metrics == first.side_metrics
        _, stuck = await evaluate(stub, asked(x=1.0))
        assert translate.outcome_from_proto(stuck.outcome) is Outcome.TIMED_OUT
        assert "hard limit of 3 s" in stuck.message
        together = await asyncio.gather(*(evaluate(stub, asked(x=0.5)) for _ in range(2)))
        assert len({result.metric for _, result in together}) == 2
        children = psutil.Process().children(recursive=True)
    assert not [child for child in children if child.is_running() and "task_sdk" in " ".join(child.cmdline())]


async def test_a_cancelled_function_may_tidy_up(
    samples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDY_NOTE", str(tmp_path / "note"))
    async with samples.tidy.serving() as address, grpc.aio.insecure_channel(address) as channel:
        stub: Stub = task_pb2_grpc.TaskServiceStub(channel)
        call = stub.Evaluate(asked())
        assert await call.read() is not grpc.aio.EOF
        call.cancel()
    assert (tmp_path / "note").read_text() == "tidied up"


async def test_a_mistake_in_a_check_is_told_to_its_author_and_judges_nothing(samples: ModuleType) -> None:
    async with samples.misjudged.serving() as address, grpc.aio.insecure_channel(address) as channel:
        stub: Stub = task_pb2_grpc.TaskServiceStub(channel)
        for x, words in ((1, "its check forgets must return True or False; got None"), (2, "ZeroDivisionError")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Validate(task_pb2.ValidateRequest(configuration=translate.configuration_to_proto({"x": x})))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert words in (caught.value.details() or "")
            _, result = await evaluate(stub, asked(x=x))
            assert translate.outcome_from_proto(result.outcome) is Outcome.CRASHED
            assert words in result.message
        with pytest.raises(grpc.aio.AioRpcError, match="has no held-out data"):
            await evaluate(stub, asked(x=0, split=common_pb2.SPLIT_HELD_OUT))


async def test_a_stopping_server_says_cancelled_and_leaves_no_folder(
    samples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with samples.endings.serving(ServerSettings(grace=0.1)) as address:
        channel = grpc.aio.insecure_channel(address)
        call = task_pb2_grpc.TaskServiceStub(channel).Evaluate(asked(how="endless"))
        event = await call.read()
        assert isinstance(event, task_pb2.EvaluateResponse)
        grandchild = psutil.Process(int(event.progress.metrics["child"]))
        assert names(tmp_path)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call.read()
    await channel.close()
    assert not grandchild.is_running()
    assert not names(tmp_path)


async def test_a_task_that_no_other_process_could_find_is_not_served() -> None:
    @task(metric="x", goal="minimize", space={"x": range(3)})
    def local(x: int) -> float:
        return float(x)

    with pytest.raises(InvalidTask, match="move it to the top of its module"):
        async with local.serving():
            pass
