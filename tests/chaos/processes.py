"""The processes of a storm: started, watched over, and hit. Signals go to processes that were started here only."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from service_kit.processes import clean_environment
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
START_SECONDS = 60.0


def adopt_orphans() -> None:
    """From now on every orphan below this process becomes its child, so that none can hide."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _own_port() -> int:
    """A free port that the system gives to nobody who asks for any: it must still be free when its owner restarts."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first - 10_000, first)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Service:
    """One service that is started again whenever it ends, always at the same address."""

    def __init__(
        self, name: str, folder: Path, module: str, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.address = name, ""
        self._folder, self._command = folder, [sys.executable, "-m", module, *options]
        self._env = clean_environment() | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
            "BILEVEL_HOME": str(folder / name),
            "BILEVEL_LOG_FORMAT": "json",
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._file = folder / f"{name}.address"
        self.starts = 0

    def _start(self) -> None:
        self._file.unlink(missing_ok=True)
        listen = ["--listen", self.address, "--address-file", str(self._file)]
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                # By setpriv, which replaces itself: Python code in a forked child of a gRPC process may hang.
                ["setpriv", "--pdeathsig", "KILL", *self._command, *listen],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        self.starts += 1

    async def start(self) -> None:
        """Start it for the first time and wait until it listens."""
        self.address = f"127.0.0.1:{_own_port()}"
        self._start()
        deadline = time.monotonic() + START_SECONDS
        while not self._file.exists():
            if time.monotonic() > deadline or self.ended:
                raise RuntimeError(f"{self.name} did not start: {self.log_tail()}")
            await asyncio.sleep(0.05)

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def revive(self) -> None:
        """Start it again if it has ended."""
        if self.ended:
            self._start()

    def victims(self) -> list[tuple[int, ...]]:
        """What may be hit: pids, those of a tuple in one moment."""
        return [] if self.ended or self._process is None else [(self._process.pid,)]

    def below(self) -> list[psutil.Process]:
        """Its living descendants, and theirs."""
        found: list[psutil.Process] = []
        for (pid,) in self.victims():
            with contextlib.suppress(psutil.Error):
                found += psutil.Process(pid).children(recursive=True)
        return found

    async def end(self) -> None:
        """Stop it for good, kindly first."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, 30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        return (self._folder / f"{self.name}.log").read_text()[-2000:]


class Children:
    """The evaluating processes of a task service: hit with it, but never by themselves started again."""

    def __init__(self, service: Service) -> None:
        self.name, self._service = "evaluation", service

    def victims(self) -> list[tuple[int, ...]]:
        return [(child.pid,) for child in self._service.below()]

    def revive(self) -> None:
        return


class Family(Children):
    """A task service and the supervisor of one of its evaluations, hit in one moment: neither sees the other die."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.name = "task and supervisor"

    def victims(self) -> list[tuple[int, ...]]:
        found = []
        for child in self._service.below():
            with contextlib.suppress(psutil.Error):
                if any(word.endswith("supervisor.py") for word in child.cmdline()):
                    found += [(*service, child.pid) for service in self._service.victims()]
        return found


class Database:
    """A PostgreSQL server; its postmaster is hit, and it recovers by itself when started again."""

    def __init__(self) -> None:
        self.name, self.server = "postgresql", PostgresServer()

    def create(self, name: str) -> str:
        """The URL of a new database, which goes with its server."""
        self.server._execute(f"CREATE DATABASE {name}_loop")
        return self.server.url(f"{name}_loop")

    def victims(self) -> list[tuple[int, ...]]:
        process = self.server._process
        return [(process.pid,)] if process is not None and process.poll() is None else []

    def revive(self) -> None:
        if not self.victims():
            # Backends of a killed postmaster notice within moments; until then the data folder is theirs.
            with contextlib.suppress(RuntimeError):
                self.server.start()


Target = Service | Children | Database


async def watch_over(targets: Sequence[Target], keep: Callable[[], bool]) -> None:
    """Start again what has ended, while ``keep`` says so."""
    while keep():
        for target in targets:
            if isinstance(target, Database):
                await asyncio.to_thread(target.revive)
            else:
                target.revive()
        await asyncio.sleep(0.3)


def hit(pids: Sequence[int], number: signal.Signals) -> bool:
    """Send a signal to all in one moment, none seeing another die of it; whether there was something to hit."""
    stopped_first = number is signal.SIGKILL and len(pids) > 1
    for step in (signal.SIGSTOP, number) if stopped_first else (number,):
        try:
            for pid in pids:
                os.kill(pid, step)
        except ProcessLookupError:
            hit(pids[: pids.index(pid)], signal.SIGCONT)
            return False
    return True


async def leftovers(seconds: float = 10.0) -> list[str]:
    """Living descendants of this process, once they have had a moment to end."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)
