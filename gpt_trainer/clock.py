"""How a training budget is measured: by the wall, or by a virtual clock that charges what the work costs.

Timing on a shared CPU is noisier than most effects that a search looks for. The virtual clock therefore charges every
pass and every optimiser step an analytic price, computed from the FLOPs, the bytes and the operations of the model
that is really built. A slow or busy machine then gives the same result, and a configuration still pays for its own
cost. Importing this needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gpt_trainer.architecture import MLP_RATIO, Architecture


class ClockKind(StrEnum):
    """Which clock measures the budget."""

    VIRTUAL = "virtual"
    WALL = "wall"

    @classmethod
    def choose(cls, choice: str, on_cpu: bool) -> ClockKind:
        """The clock called ``choice``; ``auto`` is virtual on a CPU and the wall on a GPU."""
        if choice != "auto":
            return cls(choice)
        return cls.VIRTUAL if on_cpu else cls.WALL


@dataclass(frozen=True, slots=True)
class CostModel:
    """Prices of a reference core. Frozen: a change is a new version, because results depend on it.

    The counts below follow the fused kernels; the prices were fitted to their idle one-thread times for 1 to 256 rows
    a pass and heads of 8 to 64 channels, which they meet within 25 %. The reference core is about 0.6 times as fast as
    the one that was measured (a Zen 5 server core, bfloat16), so that most machines finish before the virtual clock.
    """

    version: str
    flops_per_second: float
    bytes_per_second: float
    seconds_per_operation: float
    """Fixed price of starting one vector operation: what makes small passes dear."""

    def micro_step(self, a: Architecture, rows: int) -> float:
        """Seconds of one forward and backward pass over ``rows`` rows."""
        tokens = rows * a.context
        # Each weight takes one product forwards and two backwards; attention's two products take the same.
        flops = 6.0 * (a.matrix_parameters + a.unembedding_parameters) * tokens
        flops += 12.0 * a.depth * a.context * a.width * tokens
        layer = 88 * a.width + 16 * MLP_RATIO * a.width + 42 * a.heads * a.context
        bytes_ = (a.depth * layer + 24 * a.vocabulary) * tokens
        return self._seconds(flops, bytes_, 40 + 130 * a.depth)

    def optimizer_step(self, a: Architecture) -> float:
        """Seconds of one update of every parameter."""
        # Five times a Gram matrix, its square and one more product, for four square and two oblong matrices a layer.
        multiplications = 5 * a.depth * a.width**3 * (4 * 3 + 2 * (2 * MLP_RATIO + 1))
        embeddings = a.embedding_parameters + a.unembedding_parameters
        return self._seconds(2.0 * multiplications, 4.0 * (20 * a.matrix_parameters + 6 * embeddings), 150)

    def step(self, a: Architecture, rows: int, micro_steps: int) -> float:
        """Seconds of one optimiser step that accumulates ``micro_steps`` passes."""
        return micro_steps * self.micro_step(a, rows) + self.optimizer_step(a)

    def _seconds(self, flops: float, bytes_: float, operations: float) -> float:
        return flops / self.flops_per_second + bytes_ / self.bytes_per_second + operations * self.seconds_per_operation


REFERENCE_CORE = CostModel("reference-core-1", 200e9, 5.3e9, 17e-6)
"""The prices that the virtual clock charges."""


class Clock(Protocol):
    """Measures training against a budget in seconds."""

    budget: float

    @property
    def spent(self) -> float:
        """Seconds charged so far."""

    def affords_step(self) -> bool:
        """Whether another optimiser step may begin."""

    def begin_step(self) -> None: ...

    def end_step(self) -> None:
        """Charge the step that :meth:`begin_step` opened."""


class VirtualClock:
    """Charges every optimiser step the same price and never overspends: a step that does not fit is not begun."""

    def __init__(self, budget: float, step_seconds: float) -> None:
        self.budget, self._step_seconds, self._steps = budget, step_seconds, 0

    @property
    def spent(self) -> float:
        return self._steps * self._step_seconds

    def affords_step(self) -> bool:
        return (self._steps + 1) * self._step_seconds <= self.budget * (1 + 1e-9)

    def begin_step(self) -> None:
        return None

    def end_step(self) -> None:
        self._steps += 1


class Stopwatch(Protocol):
    """Measures intervals, some of which may still be under way on a device."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def read(self) -> tuple[float, int, int]:
        """Seconds of all intervals that are over, their number, and the number of those that are not."""

    def wait(self) -> None:
        """Until every interval is over."""


class HostStopwatch:
    """Measures by this machine's clock. ``synchronise`` waits for the device, so that no work is left uncounted."""

    def __init__(self, synchronise: Callable[[], None], now: Callable[[], float] = time.perf_counter) -> None:
        self._synchronise, self._now = synchronise, now
        self._seconds = self._began = 0.0
        self._count = 0

    def start(self) -> None:
        self._synchronise()
        self._began = self._now()

    def stop(self) -> None:
        self._synchronise()
        self._seconds += self._now() - self._began
        self._count += 1

    def read(self) -> tuple[float, int, int]:
        return self._seconds, self._count, 0

    def wait(self) -> None:
        return None


class WallClock:
    """Charges the time that steps take on this machine; the step during which the budget ends is finished.

    A step that is still under way is taken for as long as the others were on average, so that queueing steps ahead on a
    device gains no budget.
    """

    def __init__(self, budget: float, stopwatch: Stopwatch) -> None:
        self.budget, self._stopwatch = budget, stopwatch

    @property
    def spent(self) -> float:
        seconds, over, under_way = self._stopwatch.read()
        if under_way and not over:
            self._stopwatch.wait()
            return self._stopwatch.read()[0]
        return seconds + under_way * seconds / max(over, 1)

    def affords_step(self) -> bool:
        return self.spent < self.budget

    def begin_step(self) -> None:
        self._stopwatch.start()

    def end_step(self) -> None:
        self._stopwatch.stop()
