"""The parent's end of one evaluating process: start it, send requests, read events, leave nothing of it behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from clients.task_sdk.evaluation import Request
from clients.task_sdk.location import Location
from service_kit.processes import ProcessGroup, spawn

_LINE_BYTES = 2**20
_BEGIN = (
    "import json, sys; place = json.loads(sys.argv[1]); sys.path[:] = place['path']; "
    "from clients.task_sdk.child import Location, main; main(Location.from_json(place))"
)
"""The child searches modules where its parent does. PYTHONPATH would say that to every program it starts as well."""


class ProcessEnded(Exception):
    """It ended without a result. ``returncode`` is minus the signal's number where a signal ended it."""

    def __init__(self, returncode: int) -> None:
        super().__init__(str(returncode))
        self.returncode = returncode

    @property
    def how(self) -> str:
        code = self.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class UnreadableEvent(Exception):
    """It sent more than an event may hold."""


class EvaluatingProcess:
    """One process; it has the environment and the current folder of this one, and a temporary folder of its own."""

    def __init__(self, group: ProcessGroup, folder: Path) -> None:
        self._group, self._folder = group, folder

    @classmethod
    async def start(cls, location: Location) -> EvaluatingProcess:
        folder = Path(tempfile.mkdtemp(prefix=f"{location.task}-"))
        # A fixed hash seed: the order of a set of texts is a random choice too.
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONHASHSEED": "0"}
        try:
            group = await spawn(
                [sys.executable, "-P", "-c", _BEGIN, json.dumps(location.to_json())],
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
            )
        except BaseException:
            shutil.rmtree(folder)
            raise
        return cls(group, folder)

    async def send(self, request: Request) -> None:
        """Begin an evaluation; its events follow from :meth:`read`."""
        assert self._group.stdin is not None
        self._group.stdin.write(json.dumps(request.to_json()).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # a dead process shows in read(), with its exit code
            await self._group.stdin.drain()

    async def read(self) -> dict[str, Any]:
        """The next event. Raises :class:`ProcessEnded` and :class:`UnreadableEvent`."""
        assert self._group.stdout is not None
        try:
            line = await self._group.stdout.readline()
        except ValueError:
            raise UnreadableEvent(
                f"the answer is longer than {_LINE_BYTES} bytes: return fewer side metrics, a shorter message"
            ) from None
        if not line.endswith(b"\n"):
            raise ProcessEnded(await self._group.wait())
        event: dict[str, Any] = json.loads(line)
        return event

    @property
    def alive(self) -> bool:
        return self._group.returncode is None

    async def end(self, cleanup_seconds: float = 0.0) -> None:
        """Kill the process with everything that it started, after asking it to end where that is allowed time."""
        if cleanup_seconds and self.alive:
            await self._group.terminate(cleanup_seconds)
        else:
            await self._group.kill()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
