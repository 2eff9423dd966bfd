from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from bilevel.v1 import task_pb2, task_pb2_grpc

from service_kit import strays, translate
from service_kit.parameters import Outcome, ParameterSpace, Value
from service_kit.processes import ProcessGroup, spawn

ROOT = Path(__file__).resolve().parents[3]
TASKS = ROOT / "clients" / "examples" / "tasks"


class ServedTask:
    """An example in a process of its own, reached over the wire."""

    def __init__(self, address: str, channel: grpc.aio.Channel, group: ProcessGroup) -> None:
        self.address, self._group = address, group
        self._stub: task_pb2_grpc.TaskServiceAsyncStub = task_pb2_grpc.TaskServiceStub(channel)

    async def describe(self) -> tuple[task_pb2.TaskDescription, ParameterSpace]:
        described = (await self._stub.Describe(task_pb2.DescribeRequest())).task
        return described, translate.space_from_proto(described.space)

    async def validate(self, **values: Value) -> list[str]:
        request = task_pb2.ValidateRequest(configuration=translate.configuration_to_proto(values))
        return [f"{v.parameter}: {v.description}" for v in (await self._stub.Validate(request)).violations]

    async def evaluate(
        self, *, fraction: float = 1.0, seed: int = 0, split: int = 0, **values: Value
    ) -> tuple[Outcome | None, task_pb2.EvaluationResult]:
        request = self._request(fraction, seed, split, values)
        events = [event async for event in self._stub.Evaluate(request)]
        assert [event.WhichOneof("event") for event in events] == ["progress"] * (len(events) - 1) + ["result"]
        result = events[-1].result
        return translate.outcome_from_proto(result.outcome), result

    async def cancel_an_evaluation(self, **values: Value) -> task_pb2.EvaluationProgress:
        """Begin one, cancel it at its first report, and return when nothing of it runs any more."""
        call = self._stub.Evaluate(self._request(1.0, 0, 0, values))
        event = await call.read()
        assert isinstance(event, task_pb2.EvaluateResponse)
        server, *below = self._group.members()
        started = [process for process in below if strays.__file__ not in process.cmdline()]  # a warden stays
        assert started
        call.cancel()
        for process in started:
            await asyncio.to_thread(process.wait, 30)
        assert server.is_running()
        return event.progress

    @staticmethod
    def _request(fraction: float, seed: int, split: int, values: dict[str, Value]) -> task_pb2.EvaluateRequest:
        configuration = translate.configuration_to_proto(values)
        return task_pb2.EvaluateRequest(
            configuration=configuration, seed=seed, budget_fraction=fraction, split=split  # type: ignore[arg-type]
        )  # fmt: skip


Serve: TypeAlias = Callable[[Sequence[str]], AbstractAsyncContextManager[ServedTask]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Runs the command of a task's server with ``--listen`` and ``--address-file`` until the block ends."""

    @asynccontextmanager
    async def served(command: Sequence[str]) -> AsyncIterator[ServedTask]:
        file = tmp_path / "address"
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
        full = [*command, "--listen", "127.0.0.1:0", "--address-file", str(file)]
        async with await spawn(full, env=environment, cwd=ROOT) as group:
            async with asyncio.timeout(60):
                while not file.exists():
                    assert group.returncode is None, "the task's server did not start"
                    await asyncio.sleep(0.02)
            address = file.read_text().strip()
            async with grpc.aio.insecure_channel(address) as channel:
                yield ServedTask(address, channel, group)
            assert await group.terminate(20) == 0

    return served


@pytest.fixture
def python_task() -> Callable[[str], list[str]]:
    """The command of an example in Python."""
    return lambda name: [sys.executable, str(TASKS / name / "task.py")]


@pytest.fixture(scope="session")
def tasks_folder() -> Path:
    return TASKS


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Runs a short search of all levels over a task, with every service, and returns its summary."""

    def run(address: str, trials: int) -> dict[str, Any]:
        arguments = ["run", "--local", "--json", "--task", address, "--trials", str(trials)]
        arguments += ["--levels", "1,1.5,2", "--confirm", "1", "--out", str(tmp_path / "results")]
        command = [sys.executable, "-c", "from clients.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    return lambda address, trials=6: asyncio.to_thread(run, address, trials)
