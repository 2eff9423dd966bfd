"""A real task, a real model endpoint and a real inner service, each small and on a socket of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from bilevel.v1 import inner_pb2_grpc

from inner_service.runs import Runs
from inner_service.service import NAME, InnerLoopServicer
from inner_service.store import Store
from inner_service.task_address import TaskAddress
from inner_service.tasks import Tasks
from service_kit.llm.client import LanguageModel
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.server import ServerSettings, serving
from service_kit.settings import ModelSettings
from tests.inner_service.peers import ModelEndpoint, QuadraticTask, ServedTask
from tests.inner_service.services import Inner, Process


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
                serving(register, server_settings, name="inner", draining=draining, on_stop=stop, waits=store.waits)
            )
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            yield Inner(inner_pb2_grpc.InnerLoopServiceStub(channel), runs, address, draining)

    return serve


@pytest.fixture
async def inner(serve_inner: Serve) -> AsyncIterator[Inner]:
    async with serve_inner() as inner:
        yield inner


@pytest.fixture
async def process(tmp_path: Path, served, endpoint) -> Any:
    process = Process(tmp_path, served.address, endpoint.url)
    yield process
    await process.kill()
