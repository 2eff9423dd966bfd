"""The configured tasks, reached over gRPC. The rest of the service knows a task by its name and in its own types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import grpc
from bilevel.v1 import task_pb2, task_pb2_grpc

from inner_service.task import EvaluationProgress, EvaluationResult, TaskDescription
from inner_service.task_messages import description_from_proto, progress_from_proto, result_from_proto
from service_kit.errors import InvalidConfiguration, NotFound, RemoteError, ServiceError, Unavailable, Violation
from service_kit.parameters import Configuration, Outcome, Split
from service_kit.server import MESSAGE_LIMITS
from service_kit.status import remote_error
from service_kit.translate import configuration_to_proto, split_to_proto

_ANSWER_SECONDS = 20.0
"""For Describe and Validate, which are cheap by contract."""


class TaskBusy(Exception):
    """The task evaluates as many configurations as it can."""


class Task:
    """One task behind its address. Any number of callers may use it at once."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        options = [*MESSAGE_LIMITS, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = task_pb2_grpc.TaskServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def describe(self) -> TaskDescription:
        """Raises :class:`Unavailable`, and :class:`ServiceError` when the description makes no sense."""
        try:
            response = await self._stub.Describe(task_pb2.DescribeRequest(), timeout=_ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        try:
            return description_from_proto(response.task)
        except ServiceError as error:
            raise ServiceError(f"the task {self.name!r} at {self.address} describes itself wrongly: {error}") from None
        except InvalidConfiguration as error:
            raise ServiceError(f"the task {self.name!r} at {self.address} has a wrong default: {error}") from None

    async def validate(self, configuration: Configuration) -> tuple[Violation, ...]:
        """Everything that the task finds wrong with ``configuration``. Raises :class:`Unavailable`."""
        request = task_pb2.ValidateRequest(configuration=configuration_to_proto(configuration))
        try:
            response = await self._stub.Validate(request, timeout=_ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            refused = remote_error(error)
            if refused.code == "INVALID_ARGUMENT":
                return refused.violations or (Violation("", refused.message),)
            raise self._failed(error) from None
        return tuple(Violation(v.parameter, v.description) for v in response.violations)

    async def evaluate(
        self, configuration: Configuration, seed: int, fraction: float, split: Split, label: str
    ) -> AsyncIterator[EvaluationProgress | EvaluationResult]:
        """Progress, then one result. Closing the iterator kills the work.

        Raises :class:`TaskBusy` and :class:`Unavailable`; whatever else the task answers is a result.
        """
        request = task_pb2.EvaluateRequest(
            configuration=configuration_to_proto(configuration),
            seed=seed,
            budget_fraction=fraction,
            split=split_to_proto(split),
            label=label,
        )
        call = self._stub.Evaluate(request)
        try:
            async for response in call:
                match response.WhichOneof("event"):
                    case "progress":
                        yield progress_from_proto(response.progress)
                    case "result":
                        yield result_from_proto(response.result)
                        return
            yield EvaluationResult(Outcome.CRASHED, message="the task ended the evaluation without a result")
        except grpc.aio.AioRpcError as error:
            yield self._as_result(error)
        finally:
            call.cancel()

    async def ready(self, seconds: float) -> None:
        """Wait until a connection stands, at most ``seconds``. Raises :class:`Unavailable`."""
        try:
            async with asyncio.timeout(seconds):
                await self._channel.channel_ready()
        except TimeoutError:
            raise self._unreachable() from None

    def _as_result(self, error: grpc.aio.AioRpcError) -> EvaluationResult:
        refused = remote_error(error)
        match refused.code:
            case "RESOURCE_EXHAUSTED":
                raise TaskBusy from None
            case "UNAVAILABLE" | "UNIMPLEMENTED":
                raise self._failed(error) from None
            case "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE":
                said = "; ".join(f"{v.field}: {v.description}" for v in refused.violations) or refused.message
                return EvaluationResult(Outcome.INFEASIBLE, message=said)
            case "DEADLINE_EXCEEDED":
                return EvaluationResult(Outcome.TIMED_OUT, message="the task gave up at its own deadline")
            case "CANCELLED":
                return EvaluationResult(Outcome.CANCELLED, message="the task cancelled the evaluation")
            case _:
                return EvaluationResult(Outcome.CRASHED, message=f"the task failed: {refused.message}")

    def _failed(self, error: grpc.aio.AioRpcError) -> ServiceError:
        refused: RemoteError = remote_error(error)
        if refused.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return self._unreachable()
        if refused.code == "UNIMPLEMENTED":
            text = f"the server at {self.address} is not a TaskService"
            return ServiceError(text, hint=f"Check the address that is configured for the task {self.name!r}.")
        return ServiceError(f"the task {self.name!r} at {self.address} failed: {refused.message}")

    def _unreachable(self) -> Unavailable:
        hint = "Start it, or check the address that is configured for it, and try again."
        return Unavailable(f"the task {self.name!r} at {self.address}", hint)


class Tasks:
    """The tasks that this service is configured with, by name. Clients choose a name and never an address."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._tasks = {name: Task(name, address) for name, address in addresses.items()}

    def all(self) -> tuple[Task, ...]:
        """In the order of the configuration."""
        return tuple(self._tasks.values())

    def get(self, name: str) -> Task:
        """Raises :class:`NotFound` with the configured names."""
        task = self._tasks.get(name)
        if task is None:
            known = ", ".join(self._tasks) or "none"
            raise NotFound("task", name, f"Configured tasks: {known}. Others are added with --task NAME=HOST:PORT.")
        return task

    async def close(self) -> None:
        for task in self._tasks.values():
            await task.close()
