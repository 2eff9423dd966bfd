"""A real task, a real model endpoint and a real inner service, each small and on a socket of its own."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from aiohttp import web
from bilevel.v1 import common_pb2, inner_pb2_grpc, task_pb2, task_pb2_grpc, trace_pb2
from bilevel.v1 import inner_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from inner_service.runs import Runs
from inner_service.service import NAME, InnerLoopServicer
from inner_service.store import Store
from inner_service.task_address import TaskAddress
from inner_service.tasks import Tasks
from service_kit.context import from_metadata
from service_kit.errors import RemoteError
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Direction, Kind, Objective, Parameter, ParameterSpace
from service_kit.processes import ProcessGroup, spawn
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.server import ServerSettings, serving
from service_kit.settings import ModelSettings
from service_kit.status import remote_error
from service_kit.translate import configuration_from_proto, objective_to_proto, space_to_proto

SPACE = ParameterSpace(
    (
        Parameter("x", Kind.REAL, 8.0, "the first coordinate", minimum=-10, maximum=10),
        Parameter("y", Kind.INTEGER, 5, "the second coordinate", minimum=0, maximum=10),
        Parameter("mode", Kind.CATEGORICAL, "plain", "decoration", choices=("plain", "fancy")),
        Parameter("betas", Kind.LIST, (0.5, 0.5), "a pair", minimum=0, maximum=1, length=2),
        Parameter("depth", Kind.INTEGER, 3, "fixed", locked=True, minimum=1, maximum=9),
    ),
    ("x plus y must stay below 19",),
)
OBJECTIVE = Objective("loss", Direction.MINIMIZE, "points", "distance from the optimum")

Result = task_pb2.EvaluationResult
Measure = Callable[[dict[str, Any], task_pb2.EvaluateRequest], Result | None]


def loss(configuration: dict[str, Any], seed: int = 0) -> float:
    """What the task measures: smallest at x = 3, y = 2; the seed shifts all configurations alike."""
    return (configuration["x"] - 3.0) ** 2 + (configuration["y"] - 2) ** 2 + seed * 1e-3


def succeeded(configuration: dict[str, Any], request: task_pb2.EvaluateRequest) -> Result:
    return Result(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=loss(configuration, request.seed % 1000))


class QuadraticTask(task_pb2_grpc.TaskServiceServicer):
    """A task whose outcomes the test controls: ``measure`` answers, a cleared ``gate`` holds evaluations back."""

    def __init__(self) -> None:
        self.measure: Measure = succeeded
        self.gate = asyncio.Event()
        self.gate.set()
        self.capacity, self.hard_limit, self.held_out = 4, 30.0, False
        self.started: asyncio.Queue[task_pb2.EvaluateRequest] = asyncio.Queue()
        """Every evaluation that began."""
        self.killed: asyncio.Queue[str] = asyncio.Queue()
        """Labels of evaluations that the caller cancelled."""
        self.requests: list[task_pb2.EvaluateRequest] = []
        self.ids: list[dict[str, str]] = []
        """What each evaluation belongs to, as its call said."""
        self.running = self.most_running = 0
        self.progress, self.elapsed = 2, 0.0
        self.wait_for: Callable[[dict[str, Any]], asyncio.Event | None] = lambda _: None
        """What the evaluation of a configuration waits for, beside the gate."""
        self.curve: Callable[[dict[str, Any], float], float] | None = None
        """The intermediate value of a configuration at a share of the budget; None streams none."""

    def fail(self, outcome: str, message: str = "", when: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        """From now on configurations for which ``when`` holds end with ``outcome``."""
        bad = Result(outcome=common_pb2.Outcome.Value(f"OUTCOME_{outcome}"), message=message)
        self.measure = lambda values, request: bad if when(values) else succeeded(values, request)

    def hold_after(self, count: int) -> None:
        """Hold evaluations back once ``count`` of them have been measured; setting ``gate`` lets them go on."""
        left = [count]

        def measure(values: dict[str, Any], request: task_pb2.EvaluateRequest) -> Result:
            left[0] -= 1
            if left[0] == 0:
                self.gate.clear()
            return succeeded(values, request)

        self.measure = measure

    @staticmethod
    def loss(configuration: common_pb2.Configuration, seed: int = 0) -> float:
        """What the task measures for a configuration on the wire."""
        return loss(dict(configuration_from_proto(configuration)), seed)

    async def Describe(self, request: Any, context: Any) -> task_pb2.DescribeResponse:  # noqa: N802
        return task_pb2.DescribeResponse(
            task=task_pb2.TaskDescription(
                name="quadratic",
                title="A paraboloid",
                documentation="Find the bottom.",
                space=space_to_proto(SPACE),
                objective=objective_to_proto(OBJECTIVE),
                budget=Duration(seconds=1),
                budget_clock="wall clock",
                capacity=self.capacity,
                hard_limit=Duration(nanos=round(self.hard_limit % 1 * 1e9), seconds=int(self.hard_limit)),
                sources=[task_pb2.SourceFile(path="quadratic.py", content="def loss(x, y): ...")],
                has_held_out_split=self.held_out,
                deterministic=True,
                hardware="paper",
                intermediate_metric="loss_so_far" if self.curve is not None else "",
            )
        )

    async def Validate(self, request: task_pb2.ValidateRequest, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        values = configuration_from_proto(request.configuration)
        if float(values["x"]) + float(values["y"]) < 19:  # type: ignore[arg-type]
            return task_pb2.ValidateResponse()
        violation = task_pb2.ConfigurationViolation(parameter="x", description="x plus y must stay below 19")
        return task_pb2.ValidateResponse(violations=[violation])

    async def Evaluate(  # noqa: N802
        self, request: task_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[task_pb2.EvaluateResponse]:
        if self.running >= self.capacity:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all places are taken")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.requests.append(request)
        self.ids.append(from_metadata(context.invocation_metadata()))
        self.started.put_nowait(request)
        try:
            values = dict(configuration_from_proto(request.configuration))
            for step in range(self.progress):
                share = step / self.progress
                seen = {"loss_so_far": self.curve(values, share)} if self.curve is not None else {}
                progress = task_pb2.EvaluationProgress(fraction=share, step=step, phase="measuring", metrics=seen)
                yield task_pb2.EvaluateResponse(progress=progress)
            await self.gate.wait()
            if (held := self.wait_for(values)) is not None:
                await held.wait()
            result = self.measure(values, request)
            if result is not None:
                result.elapsed.FromNanoseconds(round(self.elapsed * 1e9))
                yield task_pb2.EvaluateResponse(result=result)
        except (asyncio.CancelledError, GeneratorExit):
            self.killed.put_nowait(request.label)
            raise
        finally:
            self.running -= 1


Change = dict[str, Any]
Answer = list[tuple[Change, str]]


def towards_the_optimum(state: dict[str, Any]) -> Answer:
    """The default model: halves the distance of x, which always improves, and never proposes what is under way."""
    x, first = state["incumbent"]["configuration"]["x"], len(state.get("under_way", []))
    steps = range(first, first + state["count"])
    return [({"x": round(3.0 + (x - 3.0) / 2 + 0.001 * i, 6)}, "go half the way") for i in steps]


class ModelEndpoint:
    """An OpenAI-compatible endpoint that answers with what the test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Answer | str | web.Response] = towards_the_optimum
        self.lessons: Callable[[dict[str, Any]], list[dict[str, Any]] | str | web.Response] = lambda _: []
        """What it writes when it is asked for lessons; its prompts are kept apart, in ``lesson_prompts``."""
        self.lesson_prompts: list[list[dict[str, str]]] = []
        self.states: list[dict[str, Any]] = []
        self.prompts: list[list[dict[str, str]]] = []
        self.name = "test-model"
        self.tokens = 100
        """Tokens that it says a prompt had."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self.gate.wait()
        answer = self._answer(request.headers["X-Bilevel-Purpose"], body["messages"])
        if isinstance(answer, web.Response):
            return answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        message = {"role": "assistant", "content": text}
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": self.name,
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": self.tokens, "completion_tokens": 10, "total_tokens": self.tokens + 10},
            }
        )

    def _answer(self, purpose: str, messages: list[dict[str, str]]) -> dict[str, Any] | str | web.Response:
        found = re.search(r"```json search-state\n(.*?)\n```", messages[-1]["content"], re.DOTALL)
        state = json.loads(found[1]) if found is not None else self.states[-1]
        if purpose == "lessons":
            self.lesson_prompts.append(messages)
            written = self.lessons(state)
            return {"lessons": written} if isinstance(written, list) else written
        self.prompts.append(messages)
        self.states.append(state)
        answer = self.answer(state)
        return {"candidates": [_candidate(*one) for one in answer]} if isinstance(answer, list) else answer


def _candidate(changes: Change, hypothesis: str) -> dict[str, Any]:
    listed = [{"parameter": name, "value": value} for name, value in changes.items()]
    return {"changes": listed, "hypothesis": hypothesis}


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    model = ModelEndpoint()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", model.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield model
    model.gate.set()
    await runner.cleanup()


@dataclass
class ServedTask:
    """The quadratic task on its socket, which can go away and come back."""

    task: QuadraticTask
    address: str = ""
    server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        task_pb2_grpc.add_TaskServiceServicer_to_server(self.task, self.server)
        port = self.server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None


@pytest.fixture
async def served() -> AsyncIterator[ServedTask]:
    served = ServedTask(QuadraticTask())
    await served.start()
    yield served
    served.task.gate.set()
    await served.stop()


@pytest.fixture
def task(served: ServedTask) -> QuadraticTask:
    return served.task


@dataclass
class Inner:
    """A client of one inner service, with the few words that the tests need."""

    stub: Any
    runs: Runs
    address: str
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, **spec: Any) -> str:
        """The name of a new run."""
        spec = {"task": "quadratic", "max_trials": 3} | spec
        return (await self.stub.CreateRun(pb.CreateRunRequest(spec=trace_pb2.RunSpec(**spec)))).run.name

    async def run(self, name: str) -> trace_pb2.Run:
        return (await self.stub.GetRun(pb.GetRunRequest(name=name))).run

    async def start(self, name: str) -> None:
        await self.stub.StartRun(pb.StartRunRequest(name=name))

    async def resume(self, name: str) -> None:
        await self.stub.ResumeRun(pb.ResumeRunRequest(name=name))

    async def finished(self, name: str) -> list[trace_pb2.TraceEvent]:
        """Every event of a run, once it has ended."""
        return [e async for e in self.events(name)]

    async def driven(self, **spec: Any) -> tuple[trace_pb2.Run, list[trace_pb2.TraceEvent]]:
        """A run that was created, started and has ended, with its events."""
        name = await self.create(**spec)
        await self.start(name)
        events = await self.finished(name)
        return await self.run(name), events

    async def events(self, name: str, after: int = 0) -> AsyncIterator[trace_pb2.TraceEvent]:
        async for item in self.stub.WatchTrace(pb.WatchTraceRequest(run=name, after_sequence=after)):
            if item.WhichOneof("item") == "event":
                yield item.event

    async def events_so_far(self, name: str) -> AsyncIterator[trace_pb2.TraceEvent]:
        async for item in self.stub.WatchTrace(pb.WatchTraceRequest(run=name, no_follow=True)):
            if item.WhichOneof("item") == "event":
                yield item.event

    async def until(
        self, name: str, wanted: Callable[[trace_pb2.TraceEvent], bool], after: int = 0
    ) -> trace_pb2.TraceEvent:
        """The first event after number ``after`` that is ``wanted``."""
        async for event in self.events(name, after):
            if wanted(event):
                return event
        raise AssertionError("the run ended before that")

    async def until_state(self, name: str, state: str, after: int = 0) -> trace_pb2.TraceEvent:
        number = trace_pb2.RunState.Value(f"RUN_STATE_{state}")
        return await self.until(name, lambda event: event.run_state_changed.to_state == number, after)

    async def trials(self, name: str) -> list[trace_pb2.Trial]:
        return list((await self.stub.ListTrials(pb.ListTrialsRequest(parent=name, page_size=1000))).trials)

    async def propose(self, name: str, **request: Any) -> list[trace_pb2.Trial]:
        return list((await self.stub.Propose(pb.ProposeRequest(parent=name, **request))).trials)

    async def evaluate(self, trial: str) -> list[trace_pb2.TraceEvent]:
        request = pb.InnerLoopServiceEvaluateRequest(name=trial)
        return [response.event async for response in self.stub.Evaluate(request)]

    async def accept(self, trial: str) -> trace_pb2.Trial:
        return (await self.stub.Accept(pb.AcceptRequest(name=trial))).trial

    async def one_trial(self, name: str, **request: Any) -> trace_pb2.Trial:
        """One trial by hand, from its proposal to its decision."""
        [trial] = await self.propose(name, **request)
        await self.evaluate(trial.name)
        return await self.accept(trial.name)

    async def install(self, name: str, source: str, mechanism_id: str = "probe", **request: Any) -> trace_pb2.Mechanism:
        asked = pb.InstallMechanismRequest(run=name, mechanism_id=mechanism_id, source=source, **request)
        return (await self.stub.InstallMechanism(asked)).mechanism

    @staticmethod
    def kinds(events: list[trace_pb2.TraceEvent]) -> list[str]:
        return [str(event.WhichOneof("event")) for event in events]

    @staticmethod
    def of(events: list[trace_pb2.TraceEvent], kind: str) -> list[Any]:
        """The bodies of all events of one kind."""
        return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]

    @staticmethod
    async def refusal(call: Awaitable[Any]) -> RemoteError:
        """The typed error of a call that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return remote_error(caught.value)

    async def mechanism(self, name: str, mechanism_id: str = "probe") -> trace_pb2.Mechanism:
        found = (await self.stub.ListMechanisms(pb.ListMechanismsRequest(parent=name))).mechanisms
        return next(m for m in found if m.name.endswith(f"/{mechanism_id}"))


Serve = Callable[..., Any]


@pytest.fixture
def serve_inner(served: ServedTask, endpoint: ModelEndpoint, tmp_path: Path) -> Serve:
    """Opens inner services on one database, one after the other."""

    @asynccontextmanager
    async def serve(
        tasks: dict[str, str] | None = None,
        *,
        loopback: bool = False,
        database: str = f"sqlite:///{tmp_path / 'inner.db'}",
        lease_seconds: float = 10.0,
        patience: float = 0.0,
        server_settings: ServerSettings = ServerSettings(grace=1),  # noqa: B008 (frozen)
        quota: Quota = NO_LIMIT,
        **model_settings: Any,
    ) -> AsyncIterator[Inner]:
        settings = ModelSettings.load(base_url=endpoint.url, model="test-model", retries=0, **model_settings)
        async with AsyncExitStack() as stack:
            model = LanguageModel(settings)
            store = await Store.open(database, lease_seconds)
            addresses = tasks if tasks is not None else {"quadratic": served.address, "lost": "127.0.0.1:9"}
            configured = Tasks({name: TaskAddress(at) for name, at in addresses.items()}, loopback=loopback)
            runs, draining = Runs(store, configured, model, patience=patience, quota=quota), asyncio.Event()

            def register(server: grpc.aio.Server) -> list[str]:
                servicer = InnerLoopServicer(runs, draining)
                inner_pb2_grpc.add_InnerLoopServiceServicer_to_server(servicer, server)
                return [NAME]

            async def stop() -> None:
                for close in (runs.close, configured.close, model.close, store.close):
                    await close()

            await runs.recover()
            address = await stack.enter_async_context(
                serving(register, server_settings, name="inner", draining=draining, on_stop=stop)
            )
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            yield Inner(inner_pb2_grpc.InnerLoopServiceStub(channel), runs, address, draining)

    return serve


@pytest.fixture
async def inner(serve_inner: Serve) -> AsyncIterator[Inner]:
    async with serve_inner() as inner:
        yield inner


class Process:
    """The inner service as its own process; every start after the first is at the same address."""

    def __init__(self, folder: Path, task: str, model: str, database: str = "", **environment: str) -> None:
        self.folder, self.task, self.model = folder, task, model
        self.database = database or f"sqlite:///{folder / 'inner.db'}"
        self.environment = environment
        self.group: ProcessGroup | None = None
        self.address = "127.0.0.1:0"
        self.channel: Any = None

    async def start(self) -> inner_pb2_grpc.InnerLoopServiceStub:
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        options = ["--listen", self.address, "--address-file", str(address), "--task", f"quadratic={self.task}"]
        options += ["--database", self.database]
        environment = {"OPENAI_BASE_URL": self.model, "BILEVEL_MODEL": "test-model", "PATH": "/usr/bin:/bin"}
        environment |= self.environment
        self.group = await spawn([sys.executable, "-m", "inner_service", *options], env=environment)
        ended = asyncio.create_task(self.group.wait())
        while not address.exists():
            assert not ended.done(), "the service ended while it started"
            await asyncio.wait({ended}, timeout=0.02)
        ended.cancel()
        self.address = address.read_text().strip()
        self.channel = grpc.aio.insecure_channel(self.address)
        return inner_pb2_grpc.InnerLoopServiceStub(self.channel)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the service."""
        assert self.group is not None
        for process in psutil.Process(self.group.pid).children(recursive=True):
            process.send_signal(number)

    def service_pid(self) -> int:
        """The process that serves."""
        assert self.group is not None
        below = psutil.Process(self.group.pid).children(recursive=True)
        return next(p.pid for p in below if "inner_service" in p.cmdline())

    async def kill(self) -> None:
        assert self.group is not None
        await self.group.kill()
        await self.channel.close()


@pytest.fixture
async def process(tmp_path: Path, served, endpoint) -> Any:
    process = Process(tmp_path, served.address, endpoint.url)
    yield process
    await process.kill()
