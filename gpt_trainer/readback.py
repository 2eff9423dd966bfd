"""Learn from a CUDA device how long steps took and what their losses were, without waiting for the latest step.

Both work by events on the device's own queue. Waiting for the step before the latest bounds how far the host runs ahead
and leaves the device a whole step of work meanwhile.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """Returns losses in order: at once, or ``late`` by one step."""

    def __init__(self, late: bool) -> None:
        self._late = late
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def push(self, loss: Tensor) -> list[float]:
        """Hand in a step's loss; returns those that are known now and were not returned before."""
        if not self._late:
            return [loss.item()]
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
        copy.copy_(loss, non_blocking=True)
        arrived = _event(timed=False)
        arrived.record()
        known = self.drain()
        self._pending = (copy, arrived)
        return known

    def drain(self) -> list[float]:
        """Wait for what is outstanding and return it."""
        if self._pending is None:
            return []
        copy, arrived = self._pending
        self._pending = None
        arrived.synchronize()
        return [copy.item()]


class CudaStopwatch:
    """Measures intervals that the host need not wait for; see :class:`gpt_trainer.clock.Stopwatch`."""

    def __init__(self) -> None:
        self._seconds, self._count = 0.0, 0
        self._under_way: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._began: torch.cuda.Event | None = None

    def start(self) -> None:
        self._began = _event(timed=True)
        self._began.record()

    def stop(self) -> None:
        assert self._began is not None
        ended = _event(timed=True)
        ended.record()
        self._under_way.append((self._began, ended))

    def read(self) -> tuple[float, int, int]:
        while self._under_way and self._under_way[0][1].query():  # type: ignore[no-untyped-call]
            began, ended = self._under_way.pop(0)
            self._seconds += began.elapsed_time(ended) / 1e3
            self._count += 1
        return self._seconds, self._count, len(self._under_way)

    def wait(self) -> None:
        if self._under_way:
            self._under_way[-1][1].synchronize()


def _event(timed: bool) -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
