"""Warm worker processes: started once, one for each slot, reused across trials, killed whole and replaced when needed.

Starting a process and importing torch costs more than a short trial, so workers wait for work. Each is a process group
of its own that dies with this process. Importing this needs no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from gpt_trainer.gpus import Slots
from gpt_trainer.trial import Progress, TrialRequest, TrialResult
from service_kit import context
from service_kit.errors import Exhausted, ServiceError
from service_kit.interruptions import ACCIDENTS, Interruptions
from service_kit.memory import out_of_memory_kills
from service_kit.parameters import Outcome
from service_kit.processes import ProcessGroup, clean_environment, spawn
from service_kit.telemetry import tracing

START_LIMIT = 300.0
"""Seconds after which a worker that is not ready is given up; preparing a large corpus is part of it."""

_LINE_LIMIT = 2**20
_ENVIRONMENT = (
    *("HOME", "USER", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "HF_HOME"),
    *("BILEVEL_LOG_FORMAT", "BILEVEL_LOG_LEVEL"),
)

_SOURCE_ROOT = str(Path(__file__).resolve().parents[1])

log = structlog.get_logger("gpt_trainer.workers")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with."""

    preset: str
    cache: Path
    """Folder of prepared data."""
    device: str = "auto"
    threads: int = 1
    """CPU threads of a worker. One keeps its speed beside a busy neighbour; two lose most of it."""
    precision: str = "auto"
    memory_limit_mb: float | None = None
    """Memory that trials may take beyond an idle worker's; None leaves it to the system."""
    growth_mb: float = 512.0
    """Memory that a worker may hold beyond what it held after its first trial, before it is replaced."""
    dataset: Path | None = None
    """Folder of the prepared data; None prepares the preset's own."""

    def argument(self) -> str:
        return json.dumps(asdict(self), default=str)

    def environment(self, gpu: str | None) -> dict[str, str]:
        """What a worker's process sees; ``gpu`` is the only GPU that it can use, None leaves what there is."""
        environment = clean_environment(*_ENVIRONMENT)
        environment["PYTHONPATH"] = _SOURCE_ROOT
        environment["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # GPU memory that does not fragment
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(self.threads)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        return environment


class WorkerEndedError(Exception):
    """The process ended without a result. ``returncode`` is minus the signal's number where a signal ended it."""

    def __init__(self, returncode: int) -> None:
        super().__init__(str(returncode))
        self.returncode = returncode


class Worker:
    """One warm process."""

    def __init__(self, group: ProcessGroup, ready: dict[str, Any]) -> None:
        self._group = group
        self.hardware: str = ready["hardware"]
        """For example ``AMD EPYC, 1 thread``."""
        self.precision: str = ready["precision"]
        self.on_cpu: bool = ready["on_cpu"]

    @classmethod
    async def start(cls, settings: WorkerSettings, gpu: str | None = None) -> Worker:
        """Start a process and wait until it is warm. Raises ServiceError when it ends before that."""
        if gpu is not None and settings.device.startswith("cuda"):
            settings = replace(settings, device="cuda")  # the only one that it sees
        group = await spawn(
            [sys.executable, "-m", "gpt_trainer.worker", settings.argument()],
            env=settings.environment(gpu),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        try:
            ready = await asyncio.wait_for(_read(group), START_LIMIT)
        except (WorkerEndedError, TimeoutError) as error:
            await group.kill()
            raise ServiceError(
                "a training worker did not start", hint="Its own message is in the log above."
            ) from error
        except BaseException:
            await group.kill()
            raise
        return cls(group, ready)

    @property
    def pid(self) -> int:
        """Process id of the trainer itself, below its supervisor."""
        return self._group.members()[0].pid

    async def send(self, request: TrialRequest) -> None:
        """Begin a trial; its events follow from :meth:`read`."""
        assert self._group.stdin is not None
        line = {**request.to_json(), "context": {**context.current(), **tracing.for_logs()}}
        self._group.stdin.write(json.dumps(line).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # a dead process shows in read(), with its exit code
            await self._group.stdin.drain()

    async def read(self) -> dict[str, Any]:
        """The next event. Raises :class:`WorkerEndedError`."""
        return await _read(self._group)

    async def kill(self) -> None:
        await self._group.kill()


async def _read(group: ProcessGroup) -> dict[str, Any]:
    assert group.stdout is not None
    line = await group.stdout.readline()
    if not line.endswith(b"\n"):
        raise WorkerEndedError(await group.wait())
    event: dict[str, Any] = json.loads(line)
    return event


@dataclass(frozen=True, slots=True)
class _Launch:
    """A slot's GPU and its worker, warm or on its way, which waits for the death of the one that it replaces."""

    gpu: str | None
    worker: asyncio.Task[Worker]
    replaced: Worker | None = None


class WorkerPool:
    """A fixed number of slots, each with a warm worker or one on its way, and each with a GPU of its own or none."""

    def __init__(self, settings: WorkerSettings, slots: Slots) -> None:
        self.settings, self.capacity = settings, len(slots)
        self._slots = slots
        self._idle: list[_Launch] = []
        self._busy: set[Worker | None] = set()
        self._interruptions = Interruptions()
        self._stopping = False

    async def start(self) -> Worker:
        """Start every worker; returns the first that is warm. Raises ServiceError when it cannot start."""
        self._idle = [self._launch(gpu) for gpu in self._slots]
        return await asyncio.shield(self._idle[0].worker)

    async def stop(self) -> None:
        """Kill every worker. Trials that are running end as CANCELLED."""
        self._stopping = True
        for worker in tuple(self._busy):
            if worker is not None:
                await worker.kill()
        for launch in self._idle:
            launch.worker.cancel()  # one that is still starting kills its process
        for started in await asyncio.gather(*(launch.worker for launch in self._idle), return_exceptions=True):
            if isinstance(started, Worker):
                await started.kill()
        for launch in self._idle:
            if launch.replaced is not None:  # a launch that was cancelled before it began has not killed it
                await launch.replaced.kill()

    async def evaluate(self, request: TrialRequest, hard_limit: float) -> AsyncGenerator[Progress | TrialResult, None]:
        """Progress and then exactly one result of a trial.

        After ``hard_limit`` seconds of wall-clock time the worker is killed and the outcome is TIMED_OUT. Closing the
        iterator or cancelling the task that drives it kills the worker too. Raises :class:`Exhausted` when every slot
        is busy, and :class:`CutOff` when the worker was killed by someone else and the trial is to be begun again.
        """
        if not self._idle:
            raise Exhausted(
                "evaluations at a time", self.capacity, hint="Wait for one to end, or serve with more --workers."
            )
        launch = self._idle.pop(0)
        worker: Worker | None = None
        reusable = False
        try:
            worker = await asyncio.shield(launch.worker)
            self._busy.add(worker)
            kills_before = out_of_memory_kills()
            ends_at = time.monotonic() + hard_limit
            try:
                await worker.send(request)
                while True:
                    event = await asyncio.wait_for(worker.read(), max(0.0, ends_at - time.monotonic()))
                    if event.pop("event") == "progress":
                        yield Progress(**event)
                        continue
                    reusable = not event["retire"]
                    began, ended = event["span"]
                    tracing.measured("train", began, ended, {"process.pid": event["pid"]})
                    yield TrialResult.from_json(event["result"])
                    return
            except TimeoutError:
                yield TrialResult(Outcome.TIMED_OUT, message=f"killed after the hard limit of {hard_limit:g} s")
            except WorkerEndedError as ended:
                yield self._ended(request, ended.returncode, kills_before)
        finally:
            self._release(launch, worker, reusable)

    def _ended(self, request: TrialRequest, returncode: int, kills_before: int | None) -> TrialResult:
        """The result of a trial whose process ended without one. Raises :class:`CutOff`."""
        if self._stopping:
            return TrialResult(Outcome.CANCELLED, message="the server is shutting down")
        how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
        if returncode == -signal.SIGKILL:
            kills_now = out_of_memory_kills()
            if kills_before is not None and kills_now is not None and kills_now > kills_before:
                return TrialResult(
                    Outcome.OUT_OF_MEMORY, message="the kernel killed the worker for memory; lower DEVICE_BATCH_SIZE"
                )
            self._interruptions.note(repr(request))
            how += f" {ACCIDENTS + 1} times"
        return TrialResult(Outcome.CRASHED, message=f"the worker process ended by {how}")

    def _launch(self, gpu: str | None, replaced: Worker | None = None) -> _Launch:
        return _Launch(gpu, asyncio.create_task(self._start(gpu, replaced)), replaced)

    async def _start(self, gpu: str | None, replaced: Worker | None) -> Worker:
        if replaced is not None:
            await replaced.kill()
            log.info("replacing worker")
        return await Worker.start(self.settings, gpu)

    def _release(self, launch: _Launch, worker: Worker | None, reusable: bool) -> None:
        """Give the slot back: with its worker when that is healthy, else with a fresh one once the old one is dead."""
        self._busy.discard(worker)
        # Still starting: the call was cancelled meanwhile, and the next one can have the worker.
        starting = worker is None and not launch.worker.done()
        self._idle.append(launch if reusable or starting or self._stopping else self._launch(launch.gpu, worker))
