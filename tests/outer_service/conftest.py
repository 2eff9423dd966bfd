"""A real inner service, a real scripted researcher and a small task; the outer service is started by the tests."""

import asyncio
import json
import math
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import uvicorn
from bilevel.v1 import (
    common_pb2,
    inner_pb2,
    inner_pb2_grpc,
    outer_pb2,
    outer_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
    trace_pb2,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace, Scale
from service_kit.processes import ProcessGroup, clean_environment, spawn
from service_kit.translate import configuration_from_proto, objective_to_proto, space_to_proto

ROOT = Path(__file__).parents[2]

SPACE = ParameterSpace(
    (
        Parameter("DEPTH", Kind.INTEGER, 2, locked=True, minimum=1, maximum=64),
        Parameter("TOTAL_BATCH_SIZE", Kind.INTEGER, 2**13, "Tokens of a step.", False, 2**7, 2**17, Scale.LOG2),
        Parameter("WINDOW_PATTERN", Kind.TEXT, "SSSL", max_length=16, pattern="[SL]+"),
        Parameter("EMBEDDING_LR", Kind.REAL, 0.6, minimum=1e-3, maximum=10, scale=Scale.LOG10),
        Parameter("UNEMBEDDING_LR", Kind.REAL, 0.004, minimum=1e-5, maximum=1, scale=Scale.LOG10),
        Parameter("MATRIX_LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1, scale=Scale.LOG10),
        Parameter("SCALAR_LR", Kind.REAL, 0.5, minimum=1e-3, maximum=10, scale=Scale.LOG10),
        Parameter("WEIGHT_DECAY", Kind.REAL, 0.2, minimum=0.0, maximum=2.0),
        Parameter("WARMDOWN_RATIO", Kind.REAL, 0.5, minimum=0.0, maximum=1.0),
        Parameter("DEVICE_BATCH_SIZE", Kind.INTEGER, 32, "Rows.", False, 1, 512, Scale.LOG2),
    ),
    ("TOTAL_BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE x 128.",),
)


class ValleyTask(task_pb2_grpc.TaskServiceServicer):
    """A landscape with the documented phenomenon: smaller batches are better, down to 2^11."""

    async def Describe(self, request: Any, context: Any) -> task_pb2.DescribeResponse:  # noqa: N802
        task = task_pb2.TaskDescription(
            name="valley",
            title="A valley",
            documentation="A made-up landscape.",
            space=space_to_proto(SPACE),
            objective=objective_to_proto(Objective("val_bpb", unit="bits/byte")),
            budget_clock="none",
            capacity=1,
            deterministic=True,
        )
        task.budget.FromSeconds(1)
        task.hard_limit.FromSeconds(30)
        return task_pb2.DescribeResponse(task=task)

    async def Validate(self, request: task_pb2.ValidateRequest, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        values: Any = SPACE.validate(configuration_from_proto(request.configuration))
        if values["TOTAL_BATCH_SIZE"] % (values["DEVICE_BATCH_SIZE"] * 128):
            said = "must be a multiple of DEVICE_BATCH_SIZE x 128"
            violation = task_pb2.ConfigurationViolation(parameter="TOTAL_BATCH_SIZE", description=said)
            return task_pb2.ValidateResponse(violations=[violation])
        return task_pb2.ValidateResponse()

    async def Evaluate(self, request: task_pb2.EvaluateRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        values: Any = SPACE.validate(configuration_from_proto(request.configuration))
        metric = 2.0 + 0.1 * abs(math.log2(values["TOTAL_BATCH_SIZE"]) - 11) + 0.01 * abs(values["WEIGHT_DECAY"] - 0.2)
        result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=metric)
        yield task_pb2.EvaluateResponse(result=result)


@dataclass
class Endpoint:
    """An OpenAI-compatible endpoint of the tests': answers by purpose, one after the other, the last one repeated."""

    address: str = ""
    answers: dict[str, list[Any]] = field(default_factory=dict)
    status: int = 200
    tokens: int = 100
    """Prompt tokens that it counts."""
    faults: list[Callable[[Request], Any]] = field(default_factory=list)
    """What the next calls get in place of answers."""
    asked: list[tuple[str, list[dict[str, str]]]] = field(default_factory=list)
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    """Answers that wait for an event, by purpose."""

    async def complete(self, request: Request) -> Response:
        purpose = request.headers["X-Bilevel-Purpose"]
        body = await request.json()
        self.asked.append((purpose, body["messages"]))
        if purpose in self.hold:
            await self.hold[purpose].wait()
        if self.faults:
            return await self.faults.pop(0)(request)
        queue = self.answers.get(purpose, [])
        if self.status != 200 or not queue:
            status = self.status if self.status != 200 else 400
            return JSONResponse({"error": {"message": "not today", "type": "x", "code": "x"}}, status)
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        text = answer if isinstance(answer, str) else json.dumps(answer)
        message = {"role": "assistant", "content": text, "refusal": None}
        return JSONResponse(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "test-model-1",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": self.tokens, "completion_tokens": 10, "total_tokens": self.tokens + 10},
            }
        )


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """A running endpoint."""
    served = Endpoint()
    app = Starlette(routes=[Route("/v1/chat/completions", served.complete, methods=["POST"])])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    config.load()
    listener = config.bind_socket()
    served.address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    task = asyncio.create_task(server._serve(sockets=[listener]))
    try:
        yield served
    finally:
        for event in served.hold.values():
            event.set()
        server.should_exit = True
        await task


async def process(
    module: str, folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> tuple[ProcessGroup, str]:
    """A started service and its address."""
    file = folder / f"{module}.address"
    file.unlink(missing_ok=True)
    environment = clean_environment() | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
        "BILEVEL_LOG_FORMAT": "json",
        "BILEVEL_HOME": str(folder),
        **(env or {}),
    }
    command = [sys.executable, "-m", module, "--listen", "127.0.0.1:0", "--address-file", str(file), *arguments]
    group = await spawn(command, env=environment, stdout=PIPE, stderr=PIPE)
    assert group.stderr is not None
    said = b""
    while b'"listening"' not in said:
        said = await group.stderr.readline()
        assert said, f"{module} did not start"
    drain = asyncio.create_task(group.stderr.read())
    group.drain = drain  # type: ignore[attr-defined]
    return group, file.read_text().strip()


@dataclass
class Services:
    """What the tests talk to."""

    folder: Path
    researcher: str
    inner_address: str
    inner: Any
    _names: int = 0

    def model(self) -> dict[str, str]:
        """The environment in which a service asks the scripted researcher."""
        return {"OPENAI_BASE_URL": f"http://{self.researcher}/v1", "BILEVEL_MODEL": "scripted-researcher"}

    async def run(self, trials: int = 10, checkpoint: int = 5, task: str = "valley", **more: Any) -> str:
        spec = trace_pb2.RunSpec(task=task, max_trials=trials, seed=1, checkpoint_every=checkpoint, **more)
        created = await self.inner.CreateRun(inner_pb2.CreateRunRequest(spec=spec))
        return str(created.run.name)

    async def start(self, run: str) -> None:
        await self.inner.StartRun(inner_pb2.StartRunRequest(name=run))

    async def get(self, run: str) -> trace_pb2.Run:
        return (await self.inner.GetRun(inner_pb2.GetRunRequest(name=run))).run  # type: ignore[no-any-return]

    async def ended(self, run: str) -> trace_pb2.Run:
        """The run, once it has ended."""
        async for _ in self.inner.WatchTrace(inner_pb2.WatchTraceRequest(run=run)):
            pass
        return await self.get(run)

    async def trace(self, run: str) -> list[trace_pb2.TraceEvent]:
        request = inner_pb2.WatchTraceRequest(run=run, no_follow=True)
        return [item.event async for item in self.inner.WatchTrace(request)]

    async def mechanisms(self, run: str) -> Sequence[trace_pb2.Mechanism]:
        answer = await self.inner.ListMechanisms(inner_pb2.ListMechanismsRequest(parent=run))
        return answer.mechanisms  # type: ignore[no-any-return]


@dataclass
class Outer:
    """A running outer service."""

    stub: Any
    group: ProcessGroup
    address: str

    async def campaign(self, run: str, **policy: Any) -> outer_pb2.Campaign:
        request = outer_pb2.CreateCampaignRequest(run=run, policy=outer_pb2.CampaignPolicy(**policy))
        return (await self.stub.CreateCampaign(request)).campaign  # type: ignore[no-any-return]

    async def events(self, campaign: str, until: Callable[[Any], bool] | None = None) -> list[Any]:
        """The campaign's events until it has ended, or until one that is looked for."""
        found = []
        call = self.stub.WatchCampaign(outer_pb2.WatchCampaignRequest(campaign=campaign))
        async for item in call:
            if item.WhichOneof("item") == "event":
                found.append(item.event)
                if until is not None and until(item.event):
                    call.cancel()
                    break
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    async with AsyncExitStack() as stack:
        server = grpc.aio.server()
        task_pb2_grpc.add_TaskServiceServicer_to_server(ValleyTask(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        group, researcher = await process("clients.scripted_researcher", folder)
        await stack.enter_async_context(group)
        env = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher"}
        tasks = ("--task", f"valley=127.0.0.1:{port}", "--task", f"second-valley=127.0.0.1:{port}")
        group, inner = await process("inner_service", folder, *tasks, env=env)
        await stack.enter_async_context(group)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(inner))
        yield Services(folder, researcher, inner, inner_pb2_grpc.InnerLoopServiceStub(channel))


@pytest.fixture(scope="module")
def outer_service(services: Services) -> Callable[..., Any]:
    """Starts an outer service with a database of its own: ``async with outer_service("name", model) as outer``."""

    @asynccontextmanager
    async def started(
        name: str, model: Mapping[str, str] | None = None, patience: float = 0, database: str = "", **more: str
    ) -> AsyncIterator[Outer]:
        folder = services.folder / name
        folder.mkdir(exist_ok=True)
        env = dict(model or services.model()) | {
            "BILEVEL_MODEL_RETRIES": "0",
            "BILEVEL_PATIENCE": str(patience),
            **more,
        }
        options = ["--inner", services.inner_address, *(("--database", database) if database else ())]
        group, address = await process("outer_service", folder, *options, env=env)
        async with group, grpc.aio.insecure_channel(address) as channel:
            yield Outer(outer_pb2_grpc.OuterLoopServiceStub(channel), group, address)

    return started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted_outer(outer_service: Callable[..., Any]) -> AsyncIterator[Outer]:
    """An outer service that asks the scripted researcher."""
    async with outer_service("scripted") as outer:
        yield outer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model_endpoint() -> AsyncIterator[Endpoint]:
    async with endpoint() as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outer(outer_service: Callable[..., Any], model_endpoint: Endpoint) -> AsyncIterator[Outer]:
    """An outer service that asks the endpoint of the tests."""
    model = {"OPENAI_BASE_URL": model_endpoint.address, "OPENAI_API_KEY": "a-key", "BILEVEL_MODEL": "test-model"}
    async with outer_service("endpoint", model) as started:
        yield started
