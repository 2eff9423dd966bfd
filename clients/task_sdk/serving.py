"""Bring a task's server up and down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clients.task_sdk.definition import Task
from clients.task_sdk.service import TaskServicer, register
from service_kit import server
from service_kit.server import ServerSettings


async def serve(task: Task, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidTask and ServiceError when that is not possible."""
    servicer = TaskServicer(task)
    await server.serve(register(servicer), settings, name=task.name, on_stop=servicer.close)


@asynccontextmanager
async def serving(task: Task, settings: ServerSettings) -> AsyncIterator[str]:
    """A served task for the length of the block; yields the address it is bound to."""
    servicer = TaskServicer(task)
    async with server.serving(register(servicer), settings, name=task.name, on_stop=servicer.close) as address:
        yield address
