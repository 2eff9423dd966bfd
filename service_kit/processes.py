"""Child processes that die whole: with their descendants, when told to and with the service that started them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
import structlog

from service_kit.errors import ServiceError
from service_kit.strays import MARK, kill_strays, marked, new_mark, this_process

log = structlog.get_logger("service_kit.processes")

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_WARDEN = Path(__file__).with_name("strays.py")
_wardens: dict[int, subprocess.Popen[bytes]] = {}
"""By the pid of its owner, which a forked child is not."""
_KEEP = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


def clean_environment(*keep: str) -> dict[str, str]:
    """What a child needs to start at all (search path, locale, time zone, temporary folder) and the names in ``keep``.

    Nothing else of this process's environment, so that no key or token reaches a child by accident.
    """
    return {name: os.environ[name] for name in (*_KEEP, *keep) if name in os.environ}


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | Path | None = None,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    limit: int = 2**16,
) -> ProcessGroup:
    """Start ``argv`` in a session of its own, in exactly the environment ``env`` and the mark of its process tree.

    ``stdin``, ``stdout`` and ``stderr`` are as for :func:`asyncio.create_subprocess_exec`; ``limit`` is the longest
    line in bytes that the pipes' ``readline`` takes. The command ends with this process, however that ends (Linux).

    Call it from the main thread: the kernel reports the death of the *thread* that started a child, so that a
    child of a pool thread would be killed when the pool shrinks. Raises :class:`ServiceError` when the command does
    not exist and RuntimeError from any other thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("spawn must be called from the main thread: a child dies with the thread that started it")
    if shutil.which(argv[0], path=env.get("PATH", os.defpath)) is None:
        raise ServiceError(f"the command {argv[0]!r} cannot be run", hint="Check that it is installed and executable.")
    _ward()
    mark = new_mark()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
        *(str(os.getpid()), ",".join(map(str, pass_fds)), env.get("LC_CTYPE", ""), *argv),
        env={**env, MARK: marked(mark)},
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        limit=limit,
        start_new_session=True,
    )
    return ProcessGroup(process, mark)


def _ward() -> None:
    """Have a warden: it outlives this process, and kills what that leaves behind when a supervisor died with it."""
    warden = _wardens.get(os.getpid())
    if sys.platform != "linux" or (warden is not None and warden.poll() is None):
        return
    _wardens[os.getpid()] = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WARDEN), this_process()],
        env={name: os.environ[name] for name in (MARK,) if name in os.environ},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


class ProcessGroup:
    """A running command with everything below it. Its owner calls :meth:`terminate` or :meth:`kill` in the end.

    ``async with await spawn(...) as group:`` kills what is left at the end of the block, cancelled or not.
    """

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self._process = process
        self._mark = mark

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        """The supervisor's process id; the command and its descendants are :meth:`members`."""
        return self._process.pid

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        return self._process.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        return self._process.stderr

    @property
    def returncode(self) -> int | None:
        """The command's exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    def members(self) -> list[psutil.Process]:
        """The command and its living descendants, those included that changed their session or lost their parent."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in below if _alive(process)]

    async def wait(self) -> int:
        """The return code, once the command has ended and nothing of it is left."""
        await self._supervisor_ended()
        left = await asyncio.to_thread(kill_strays, self._mark)  # none, unless the supervisor itself was killed
        if left:
            log.error("processes cannot be killed as fast as they start new ones", left=left)
        return await self._process.wait()

    async def _supervisor_ended(self) -> None:
        """Wait for the supervisor's own end: asyncio's wait is for that of its pipes too, which strays may hold."""
        if self.returncode is not None or sys.platform != "linux":
            return
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def terminate(self, grace: float) -> int:
        """Ask the command's group to end (SIGTERM), kill everything after ``grace`` seconds, and reap it."""
        self._signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kill the command and all its descendants at once (SIGKILL) and reap them."""
        self._signal(signal.SIGUSR2)
        return await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return  # it ended by itself between the check and the signal


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
