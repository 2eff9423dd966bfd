"""The configured tasks, reached over gRPC. The rest of the service knows a task by its name and in its own types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from weakref import WeakValueDictionary

import grpc
from bilevel.v1 import task_pb2, task_pb2_grpc

from inner_service.task import EvaluationResult, Misbehaviour, TaskDescription, TaskFault
from inner_service.task_address import TaskAddress
from inner_service.task_messages import description_from_proto
from inner_service.task_stream import TaskEvent, judged
from service_kit.errors import (
    InvalidArgument,
    InvalidConfiguration,
    NotFound,
    RemoteError,
    ServiceError,
    Unavailable,
    Violation,
)
from service_kit.parameters import Configuration, Outcome, Split
from service_kit.patience import Patient
from service_kit.security.channels import open_channel
from service_kit.server import MESSAGE_LIMITS
from service_kit.status import remote_error
from service_kit.translate import configuration_to_proto, split_to_proto

_ANSWER_SECONDS = 20.0
"""For Describe and Validate, which are cheap by contract."""
_CONNECT_SECONDS = 2.0
"""For one attempt to connect of those who are patient."""


class TaskBusy(Exception):
    """The task evaluates as many configurations as it can."""


class Task(Patient):
    """One task behind its address. Any number of callers may use it at once."""

    def __init__(self, name: str, address: TaskAddress) -> None:
        self.name = name
        self.address = address.target
        self._channel = _channel(address)
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
        return await self._wait_out(self._called, lambda: self._validate(configuration), _lost)

    async def _validate(self, configuration: Configuration) -> tuple[Violation, ...]:
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
    ) -> AsyncIterator[TaskEvent]:
        """Progress and misbehaviour, then one result. Closing the iterator kills the work.

        Raises :class:`TaskBusy` and :class:`Unavailable`; whatever else the task answers is a result.
        """
        request = task_pb2.EvaluateRequest(
            configuration=configuration_to_proto(configuration),
            seed=seed,
            budget_fraction=fraction,
            split=split_to_proto(split),
            label=label,
        )
        call, answered = self._stub.Evaluate(request), False
        try:
            async for event in judged(aiter(call)):
                answered = True
                yield event
        except grpc.aio.AioRpcError as error:
            for event in self._as_events(error, answered=answered):
                yield event
        finally:
            call.cancel()

    async def ready(self, seconds: float) -> None:
        """Wait until a connection stands, ``seconds`` or for as long as this client is patient.

        Raises :class:`Unavailable`.
        """
        step = seconds if self.waiting is None else min(seconds, _CONNECT_SECONDS)
        await self._wait_out(self._called, lambda: self._connected(step), _lost)

    async def _connected(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._channel.channel_ready()
        except TimeoutError:
            raise self._unreachable() from None

    def _as_events(self, error: grpc.aio.AioRpcError, *, answered: bool) -> list[TaskEvent]:
        """What an evaluation that failed as a call has come to."""
        refused = remote_error(error)
        match refused.code:
            case "RESOURCE_EXHAUSTED" if "larger than max" in refused.message:  # said by gRPC itself, on this side
                hint = "Send fewer side metrics and a shorter message."
                said = f"the task sent a message that is too large: {refused.message}"
                return [
                    Misbehaviour(TaskFault.MESSAGE_TOO_LARGE, said, hint),
                    EvaluationResult(Outcome.CRASHED, message=said),
                ]
            case "RESOURCE_EXHAUSTED" if not answered:
                raise TaskBusy from None
            case "UNAVAILABLE" | "UNIMPLEMENTED" | "CANCELLED":  # we did not cancel: the server is going down
                raise self._failed(error) from None
            case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
                said = _said(refused)
                hint = "Describe the space that Evaluate takes, or refuse in Validate what it does not."
                return [
                    Misbehaviour(
                        TaskFault.REFUSED_PARAMETERS, f"Evaluate refused what Describe and Validate allow: {said}", hint
                    ),
                    EvaluationResult(Outcome.INFEASIBLE, message=said),
                ]
            case "FAILED_PRECONDITION":
                return [EvaluationResult(Outcome.INFEASIBLE, message=_said(refused))]
            case "DEADLINE_EXCEEDED":
                return [EvaluationResult(Outcome.TIMED_OUT, message="the task gave up at its own deadline")]
            case _:
                return [EvaluationResult(Outcome.CRASHED, message=f"the task failed: {refused.message}")]

    def _failed(self, error: grpc.aio.AioRpcError) -> ServiceError:
        refused: RemoteError = remote_error(error)
        if refused.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
            return self._unreachable()
        if refused.code == "UNIMPLEMENTED":
            text = f"the server at {self.address} is not a TaskService"
            return ServiceError(text, hint=f"Check the address that is configured for the task {self.name!r}.")
        return ServiceError(f"the task {self.name!r} at {self.address} failed: {refused.message}")

    def _unreachable(self) -> Unavailable:
        hint = "Start it, or check the address that is configured for it, and try again."
        return Unavailable(self._called, hint)

    @property
    def _called(self) -> str:
        return f"the task {self.name!r} at {self.address}"


def _lost(error: Exception) -> bool:
    return isinstance(error, Unavailable)


def _channel(address: TaskAddress) -> grpc.aio.Channel:
    options: list[tuple[str, str | int]] = [
        *MESSAGE_LIMITS,
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
    if address.on_this_machine:
        options.append(("grpc.enable_http_proxy", 0))  # a proxy that the environment names would be asked to dial it
    return open_channel(address.target, address.security, options)


def _said(refused: RemoteError) -> str:
    return "; ".join(f"{v.field}: {v.description}" for v in refused.violations) or refused.message


class Tasks:
    """The tasks that runs can name: configured ones, and, where ``loopback`` allows it, addresses on this machine.

    Clients choose a name or a loopback address and never another address.
    """

    def __init__(self, addresses: Mapping[str, TaskAddress], *, loopback: bool = False) -> None:
        self._tasks = {name: Task(name, address) for name, address in addresses.items()}
        self._loopback_allowed = loopback
        # Kept as long as a run uses it: a client can name as many addresses as there are ports.
        self._loopback: WeakValueDictionary[str, Task] = WeakValueDictionary()

    def all(self) -> tuple[Task, ...]:
        """The configured ones, in the order of the configuration."""
        return tuple(self._tasks.values())

    def get(self, name: str) -> Task:
        """Raises :class:`NotFound` with the configured names, :class:`InvalidArgument` for a refused address."""
        if (task := self._tasks.get(name)) is not None:
            return task
        if ":" in name:
            return self._at(name)
        known = ", ".join(self._tasks) or "none"
        beside = (
            " A task on this machine is also known by its address, localhost:PORT." if self._loopback_allowed else ""
        )
        hint = f"Configured tasks: {known}. Others are added with --task NAME=HOST:PORT.{beside}"
        raise NotFound("task", name, hint)

    def _at(self, name: str) -> Task:
        if not self._loopback_allowed:
            raise InvalidArgument.of(
                "spec.task",
                f"must be the name of a configured task; got the address {name[:100]!r}",
                hint="Who starts the inner service allows addresses on its machine with --loopback-tasks.",
            )
        address = TaskAddress.loopback(name)
        task = self._loopback.get(address.target)
        if task is None:
            task = self._loopback[address.target] = Task(address.target, address)
        return task

    async def close(self) -> None:
        for task in (*self._tasks.values(), *self._loopback.values()):
            await task.close()
