"""One worker process and the request-and-answer line to it: start, ask with a deadline, kill and reap."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import RestrictedPython

from mechanisms.sandbox.failures import FailureKind, SandboxUnavailable
from mechanisms.sandbox.frames import HEADER_BYTES, FrameError, FrameTooLarge, body_length, decode, encode
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy

_WORKER = Path(__file__).with_name("worker.py")
_ROOT = _WORKER.parents[2]
_SITE = Path(RestrictedPython.__file__).parents[1]
# -S and -s: no site packages but the one that is named; -P: nothing from the folder of the script; -B: writes nothing.
_FLAGS = ("-S", "-s", "-P", "-B")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}


class ChannelFailure(Exception):
    """The worker did not answer as it must; it is dead."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Channel:
    """A jailed worker. After any :class:`ChannelFailure` the process is dead and reaped."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: SandboxLimits,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._requests = 0
        self._lock = asyncio.Lock()
        self.layers: tuple[str, ...] = ()

    @classmethod
    async def start(cls, limits: SandboxLimits, policy: SandboxPolicy) -> Channel:
        """Start a worker and wait until it is jailed. Raises :class:`SandboxUnavailable`."""
        numbers = (
            limits.memory_bytes,
            limits.cpu_seconds,
            int(policy.allow_weak),
            limits.answer_bytes,
            limits.request_bytes,
        )
        # A pair of sockets rather than the subprocess's pipes: asyncio waits for the end of its pipes before it reaps,
        # so that a worker that floods its pipe would never be reaped.
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, *_FLAGS, str(_WORKER), str(_ROOT), str(_SITE), *map(str, numbers)),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=asyncio.subprocess.DEVNULL,
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        channel = cls(process, *await asyncio.open_connection(sock=ours), limits)
        try:
            async with asyncio.timeout(limits.start_seconds):
                hello = await channel._read(0)
            channel.layers = tuple(str(layer) for layer in hello.get("answer", ()))
        except (TimeoutError, ChannelFailure) as error:
            await channel.close()
            why = str(error) or f"it was not ready after {limits.start_seconds:g} s"
            raise SandboxUnavailable(f"the sandbox worker did not start: {why}") from None
        except BaseException:
            await channel.close()
            raise
        if "unavailable" in hello:
            await channel.close()
            raise SandboxUnavailable(str(hello["unavailable"])[:500])
        return channel

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    async def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send ``message`` and return the answer to it; writing counts towards ``seconds``.

        Raises :class:`ChannelFailure`, and ValueError for a message that is too large to send.
        """
        async with self._lock:
            self._requests += 1
            try:
                frame = encode({"id": self._requests, **message}, self._limits.request_bytes)
            except FrameTooLarge as error:
                raise ValueError(f"the request cannot be sent: {error}") from None
            try:
                async with asyncio.timeout(seconds):
                    await self._write(frame)
                    return await self._read(self._requests)
            except TimeoutError:
                await self.close()
                raise ChannelFailure(FailureKind.TIMED_OUT, f"no answer within {seconds:g} s") from None
            except BaseException:
                # A cancelled call leaves an answer in the pipe that nobody would expect.
                await self.close()
                raise

    async def close(self) -> None:
        """Kill the worker's process group and reap it. Safe to call again."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            await asyncio.shield(asyncio.ensure_future(self._process.wait()))
        finally:
            self._writer.close()

    async def _write(self, frame: bytes) -> None:
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise ChannelFailure(FailureKind.DIED, await self._obituary()) from None

    async def _read(self, identifier: int) -> dict[str, Any]:
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            length = body_length(header, self._limits.answer_bytes)
            message = decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            raise ChannelFailure(FailureKind.DIED, await self._obituary()) from None
        except FrameTooLarge as error:
            raise ChannelFailure(FailureKind.FRAME_TOO_LARGE, str(error)) from None
        except FrameError as error:
            raise ChannelFailure(FailureKind.PROTOCOL, str(error)[:200]) from None
        if type(message.get("id")) is not int or message["id"] != identifier:
            raise ChannelFailure(FailureKind.PROTOCOL, "an answer to another request")
        return message

    async def _obituary(self) -> str:
        await self.close()
        code = self._process.returncode
        if code is not None and code < 0:
            number = -code
            named = signal.Signals(number).name if number in signal.Signals._value2member_map_ else f"signal {number}"
            causes = {signal.SIGSYS: ": a forbidden system call", signal.SIGXCPU: ": out of processor time"}
            return f"the worker was ended by {named}{causes.get(signal.Signals(number), '')}"
        return f"the worker ended with status {code}"
