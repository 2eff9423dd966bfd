"""The inner service put together: store, tasks, model, runs, and the server in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
import structlog
from bilevel.v1 import inner_pb2_grpc

from inner_service import task_address
from inner_service.options import Options
from inner_service.runs import Runs
from inner_service.service import NAME, InnerLoopServicer
from inner_service.store import Store
from inner_service.tasks import Tasks
from service_kit.llm.cassette import Cassette
from service_kit.llm.client import LanguageModel
from service_kit.patience import PatienceSettings
from service_kit.security.quota import Quota
from service_kit.server import must_be_free, serve
from service_kit.settings import ModelSettings
from service_kit.telemetry.serving import MetricsSettings

log = structlog.get_logger("inner_service")


async def serve_inner_loop(options: Options, model_settings: ModelSettings) -> None:
    """Serve until a signal; runs that were being driven go on. Raises :class:`ServiceError` when it cannot."""
    patience, quota, _ = PatienceSettings.load().seconds, Quota.load(), MetricsSettings.load()
    must_be_free(options.server)  # both before anything is opened or brought to a newer revision
    draining = asyncio.Event()
    model = LanguageModel(model_settings, cassette=Cassette.of(model_settings, "inner"))
    store = await Store.open(options.database, options.lease_seconds)
    tasks = Tasks(options.tasks, loopback=options.loopback_tasks)
    runs = Runs(store, tasks, model, options.sandbox, patience, quota)
    recovering: list[asyncio.Task[None]] = []

    def register(server: grpc.aio.Server) -> Iterable[str]:
        # Not before the address is bound: a service that cannot start must not touch its runs.
        recovering.append(asyncio.create_task(runs.recover()))
        inner_pb2_grpc.add_InnerLoopServiceServicer_to_server(InnerLoopServicer(runs, draining), server)
        return [NAME]

    async def stop() -> None:
        await asyncio.gather(*recovering)
        await runs.close()
        await tasks.close()
        await model.close()
        await store.close()

    scripted = model.scripted
    log.info("model", name=model.name, endpoint=model_settings.base_url or "api.openai.com", scripted=scripted)
    log.info("tasks", **task_address.shown(options.tasks), loopback=options.loopback_tasks)
    await serve(register, options.server, name="inner loop", draining=draining, on_stop=stop, waits=store.waits)
