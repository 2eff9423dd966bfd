"""What an inner service works with: a real task and a real model endpoint, each small and on a socket of its own."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from aiohttp import web
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from service_kit.context import from_metadata
from service_kit.parameters import Direction, Kind, Objective, Parameter, ParameterSpace
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
