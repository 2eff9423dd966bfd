"""Streams that survive: a watch goes on after a lost connection, from the last number it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from clients.connection import Explain
from service_kit.errors import RemoteError

HEARTBEAT = 5.0
"""Seconds without events after which the server shows that it is alive."""

PATIENCE = 30.0
"""Seconds without any sign of the server after which a watch gives up."""

_SILENCES = 3
_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to resume, where the server does not say how many; the last one repeats."""


async def resumed(
    open_stream: Callable[[int], Any],
    explain: Explain,
    after: int,
    *,
    heartbeat: float = HEARTBEAT,
    patience: float = PATIENCE,
) -> AsyncGenerator[Any, None]:
    """Events after number ``after``, each exactly once and in order, until the server ends the stream.

    ``open_stream(after)`` begins a call whose messages hold an ``event`` or a ``heartbeat``. A lost connection, a
    draining server (UNAVAILABLE with the reason DRAINING, see docs/protocol.md) and a silence of three heartbeats are
    followed by a new call from the last number received. Raises :class:`RemoteError` for any other refusal, for a gap,
    at once when nothing answers in the first place (nothing was received, now or before ``after``), and when the server
    stays away for ``patience`` seconds later on.
    """
    last, alive, received, failures = after, time.monotonic(), after > 0, 0
    while True:
        asked: float | None = None
        stream = open_stream(last)
        try:
            while True:
                # Not wait_for: that of Python 3.11 loses a cancellation that comes together with a message.
                async with asyncio.timeout(_SILENCES * heartbeat):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    return
                alive, received, failures = time.monotonic(), True, 0
                if message.WhichOneof("item") != "event":
                    continue
                if message.event.sequence != last + 1:
                    raise RemoteError(
                        f"event {last + 1} is missing from the stream: {message.event.sequence} came instead",
                        code="DATA_LOSS",
                        hint="Watch again from the beginning; if it repeats, the server's log is damaged.",
                    )
                last = message.event.sequence
                yield message.event
        except (grpc.RpcError, TimeoutError) as error:
            if isinstance(error, grpc.aio.AioRpcError):
                refusal = explain(error)
                asked = refusal.retry_after
                # A server that is draining gives a reason; one that was never there cannot.
                absent = not received and not refusal.reason
                if absent or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise refusal from None
            if time.monotonic() - alive > patience:
                raise RemoteError(
                    f"the stream was lost and could not be resumed within {patience:g} s",
                    code="UNAVAILABLE",
                    hint=f"Everything up to event {last} was received. Check the service and watch again.",
                ) from None
        finally:
            stream.cancel()
        await asyncio.sleep(asked if asked is not None else _PAUSES[min(failures, len(_PAUSES) - 1)])
        failures += 1
