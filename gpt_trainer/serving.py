"""Bring a trainer server up and down: data first, then warm workers, then the port."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from gpt_trainer.clock import REFERENCE_CORE, ClockKind
from gpt_trainer.dataset import Dataset, prepare
from gpt_trainer.gpus import Slots
from gpt_trainer.presets import Preset
from gpt_trainer.service import Task, TaskServicer, register
from gpt_trainer.trial import code_identity
from gpt_trainer.workers import Worker, WorkerPool, WorkerSettings
from service_kit.server import ServerSettings, serve

log = structlog.get_logger("gpt_trainer.serving")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything that a person chooses when starting a server."""

    preset: Preset
    budget: float
    """Seconds of training of a full-budget trial."""
    clock: str
    """``virtual``, ``wall`` or ``auto``."""
    hard_limit: float | None
    """Wall-clock seconds after which a trial is killed; None derives it from the budget."""
    slots: Slots
    """The GPU of each worker, or None; there is one for each trial at a time."""
    workers: WorkerSettings
    server: ServerSettings
    tensorboard: Path | None = None
    """Folder for event files of every trial."""


async def run_server(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises ServiceError when data, workers or the address are not to be had."""
    dataset = await asyncio.to_thread(
        prepare, options.preset, options.workers.cache, lambda sentence: log.info(sentence)
    )
    pool = WorkerPool(replace(options.workers, dataset=dataset.folder), options.slots)
    try:
        worker = await pool.start()
        servicer = TaskServicer(_task(options, dataset, worker), pool)
        await serve(register(servicer), options.server, name="gpt_trainer", on_stop=pool.stop)
    finally:
        await pool.stop()


def _task(options: ServeOptions, dataset: Dataset, worker: Worker) -> Task:
    clock = ClockKind.choose(options.clock, worker.on_cpu)
    return Task(
        preset=options.preset,
        budget=options.budget,
        clock=clock,
        hard_limit=options.hard_limit or 60.0 + 10.0 * options.budget,
        identity={
            "corpus": dataset.corpus,
            "tokenizer": dataset.tokenizer,
            "code": code_identity(),
            "clock": REFERENCE_CORE.version if clock is ClockKind.VIRTUAL else clock.value,
            "precision": worker.precision,
        },
        hardware=worker.hardware if len(options.slots) == 1 else f"{len(options.slots)} x {worker.hardware}",
        tensorboard=options.tensorboard,
    )
