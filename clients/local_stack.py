"""All services on this machine: real processes on loopback ports that they pick themselves, gone when the block ends.

Order: the scripted researcher (only where the environment names no model endpoint) and the trainer together, then the
inner service, which is told the trainer's address, then the outer one. A service is up when it has published its
address and answers its health check. Each is a process group of its own; however the block is left (end, error, Ctrl-C,
SIGTERM, at any moment), every group is asked to end and what remains is killed whole. Should this process itself be
killed, the kernel ends them (:mod:`service_kit.supervisor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from clients.addresses import INNER, OUTER, RESEARCHER, TRAINER, ServiceAddress
from clients.connection import connect
from service_kit.errors import RemoteError, ServiceError
from service_kit.processes import ProcessGroup, clean_environment, spawn
from service_kit.settings import SCRIPTED_MODEL, ModelSettings, PathSettings

START_SECONDS = 120.0
"""How long a service may take to start. The trainer's first start trains a tokeniser and compiles nothing else."""

GRACE_SECONDS = 4.0
"""How long a service may take to drain before it is killed."""

_LOG_LINES = 12
_MODEL_VARIABLES = (
    *(str(field.alias) for field in ModelSettings.model_fields.values()),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"),
)
_PATIENCE = "30"
"""Seconds that services wait for each other here: nobody starts one again that has ended."""
_COMMON_VARIABLES = ("HOME", "PYTHONPATH", "BILEVEL_HOME", "BILEVEL_CACHE", "BILEVEL_LOG_LEVEL", "BILEVEL_LOG_FORMAT")
_DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What to start."""

    folder: Path
    """Where databases (``data/``), logs (``logs/``) and the services' addresses are kept."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Tasks that run already: name to HOST:PORT."""
    trainer: Sequence[str] | None = ()
    """Options for ``gpt_trainer serve``, whose task is called ``gpt``; None starts no trainer."""
    outer: bool = True
    """Whether to start the outer service."""
    start_seconds: float = START_SECONDS


@dataclass(slots=True)
class _Service:
    target: ServiceAddress
    group: ProcessGroup
    log: Path


class LocalStack:
    """``async with LocalStack(settings) as stack:`` runs the services for the length of the block.

    Raises :class:`ServiceError` with the last lines of the log when a service does not start.
    """

    def __init__(self, settings: StackSettings) -> None:
        self.settings = settings
        self.model = ModelSettings.load()
        self._services: dict[str, _Service] = {}

    @property
    def scripted(self) -> bool:
        """Whether the scripted researcher answers, because the environment names no model endpoint."""
        return not self.model.configured

    @property
    def inner(self) -> str:
        """Address of the inner service."""
        return self.address("inner")

    @property
    def outer(self) -> str:
        """Address of the outer service."""
        return self.address("outer")

    def address(self, name: str) -> str:
        """Address of ``researcher``, ``trainer``, ``inner`` or ``outer``; KeyError where it was not started."""
        return self._services[name].target.address

    def pids(self) -> dict[str, int]:
        """Process id of each service's supervisor, which lives as long as anything of the service does."""
        return {name: service.group.pid for name, service in self._services.items()}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End every service, the last started first to be asked; returns when nothing of them is left."""
        groups = [service.group for service in self._services.values()]
        ends = [asyncio.ensure_future(group.terminate(GRACE_SECONDS)) for group in groups]
        try:
            await _all_done(ends)
        except asyncio.CancelledError:
            # A second Ctrl-C: no more grace, but still nothing may be left behind.
            await _all_done([asyncio.ensure_future(group.kill()) for group in groups])
            await asyncio.wait(ends)
            raise
        finally:
            for service in self._services.values():
                self._address_file(service.target).unlink(missing_ok=True)

    async def guard(self, work: Awaitable[ResultT]) -> ResultT:
        """Result of ``work``; raises :class:`ServiceError` as soon as a service ends while it goes on."""
        working = asyncio.ensure_future(work)
        ends = {asyncio.ensure_future(service.group.wait()): name for name, service in self._services.items()}
        try:
            await asyncio.wait((working, *ends), return_when=asyncio.FIRST_COMPLETED)
            for end, name in ends.items():
                if end.done() and not working.done():
                    raise self._ended(self._services[name], end.result())
            return await working
        finally:
            for future in (working, *ends):
                future.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(working, *ends, return_exceptions=True)

    # Starting

    async def _start(self) -> None:
        for name in ("logs", "data", "run"):
            (self.settings.folder / name).mkdir(parents=True, exist_ok=True)
        first = []
        if self.scripted:
            first.append(self._launch("researcher", RESEARCHER, ["clients.scripted_researcher"]))
        if self.settings.trainer is not None:
            command = ["gpt_trainer", "serve", *self.settings.trainer]
            first.append(self._launch("trainer", TRAINER, command, _DEVICE_VARIABLES))
        await _together(first)
        tasks = dict(self.settings.tasks)
        if self.settings.trainer is not None:
            tasks["gpt"] = self.address("trainer")
        options = [part for name, address in tasks.items() for part in ("--task", f"{name}={address}")]
        database = ["--database", f"sqlite:///{self.settings.folder.absolute()}/data/inner.db"]
        await self._launch("inner", INNER, ["inner_service", *database, *options], _MODEL_VARIABLES)
        if self.settings.outer:
            database = ["--database", f"sqlite:///{self.settings.folder.absolute()}/data/outer.db"]
            command = ["outer_service", *database, "--inner", self.inner]
            await self._launch("outer", OUTER, command, _MODEL_VARIABLES)

    async def _launch(
        self, name: str, target: ServiceAddress, command: Sequence[str], variables: Sequence[str] = ()
    ) -> None:
        """Start one service and wait until it is up."""
        published, log = self._address_file(target), self._log_file(name)
        published.unlink(missing_ok=True)
        module, *options = command
        argv = [
            sys.executable,
            "-P",
            "-m",
            module,
            *options,
            "--listen",
            "127.0.0.1:0",
            "--address-file",
            str(published),
        ]
        with log.open("wb") as output:
            # To the end even when cancelled: a group that nobody holds could not be ended.
            launching = asyncio.ensure_future(
                spawn(argv, env=self._environment(variables), stdout=output.fileno(), stderr=output.fileno())
            )
            try:
                group = await asyncio.shield(launching)
            except asyncio.CancelledError:
                await (await launching).kill()
                raise
        service = self._services[name] = _Service(target, group, log)
        try:
            async with asyncio.timeout(self.settings.start_seconds):
                service.target = target.at(await self._published(service, published))
                await self._answering(service)
        except TimeoutError:
            raise ServiceError(
                f"the {target.service} did not start within {self.settings.start_seconds:g} s{_tail(log)}",
                hint=f"Its whole log is in {log}. The machine may be too busy; try again.",
            ) from None

    def _environment(self, variables: Sequence[str]) -> dict[str, str]:
        environment = clean_environment(*_COMMON_VARIABLES, *variables)
        paths = PathSettings.load()
        # Said outright, so that the services look where this process does.
        environment |= {"BILEVEL_HOME": str(paths.home), "BILEVEL_CACHE": str(paths.cache), "PYTHONUNBUFFERED": "1"}
        environment |= {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
        environment["BILEVEL_PATIENCE"] = os.environ.get("BILEVEL_PATIENCE") or _PATIENCE
        if self.scripted and "OPENAI_API_KEY" in variables and "researcher" in self._services:
            environment["OPENAI_BASE_URL"] = f"http://{self.address('researcher')}/v1"
            environment["BILEVEL_MODEL"] = SCRIPTED_MODEL
        return environment

    async def _published(self, service: _Service, file: Path) -> str:
        """The address that the service has written; fails as soon as the service ends."""
        while True:
            if service.group.returncode is not None:
                raise self._ended(service, service.group.returncode)
            if address := _read(file):
                return address
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(service.group.wait()), 0.05)

    async def _answering(self, service: _Service) -> None:
        """Wait until the health check is answered."""
        while True:
            if service.group.returncode is not None:
                raise self._ended(service, service.group.returncode)
            with contextlib.suppress(RemoteError, urllib.error.URLError, ConnectionError):
                if await _healthy(service.target):
                    return
            await asyncio.sleep(0.05)

    def _ended(self, service: _Service, code: int) -> ServiceError:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ServiceError(
            f"the {service.target.service} {how}{_tail(service.log)}",
            hint=f"Its whole log is in {service.log}. `{service.target.start}` starts it alone.",
        )

    def _address_file(self, target: ServiceAddress) -> Path:
        return (self.settings.folder / "run" / f"{target.service.replace(' ', '-')}.address").absolute()

    def _log_file(self, name: str) -> Path:
        return self.settings.folder / "logs" / f"{name}.log"


async def _all_done(ends: Sequence[asyncio.Future[int]]) -> None:
    """Wait for all, which go on when the waiting is cancelled; the first failure is raised."""
    if ends:
        await asyncio.wait(ends)
    for end in ends:
        end.result()


async def _together(launches: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for launch in launches:
                group.create_task(launch)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _healthy(target: ServiceAddress) -> bool:
    if target.service == RESEARCHER.service:
        return await asyncio.to_thread(_http_ok, f"http://{target.address}/v1/models")
    connection = connect(target)
    try:
        return await connection.healthy(timeout=2.0)
    finally:
        await connection.close()


def _http_ok(url: str) -> bool:
    # Loopback: without the proxies that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2.0) as response:
        return bool(response.status == 200)


def _read(file: Path) -> str:
    """The file's text; empty where it does not exist yet."""
    return file.read_text().strip() if file.exists() else ""


def _tail(log: Path) -> str:
    """The log's last lines as a block to append to a message; empty where there are none."""
    lines = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:] if log.exists() else []
    return "".join(f"\n  | {line}" for line in lines)
