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

    The prices were fitted once to the measured times of the fused kernels at the laptop size, over rows a pass, head
    sizes and vocabularies on an idle core, and scaled to a core on which a pass over 4,096 tokens takes 83 ms.
    """

    version: str
    flops_per_second: float
    bytes_per_second: float
    seconds_per_operation: float

    def micro_step(self, a: Architecture, rows: int) -> float:
        """Seconds of one forward and backward pass over ``rows`` rows."""
        tokens = rows * a.context
        # One product forwards and two backwards for each weight; queries × keys and weights × values take two more each way.
        flops = 6.0 * (a.matrix_parameters + a.unembedding_parameters) * tokens
        flops += 12.0 * a.depth * tokens * a.context * a.width
        elements = (
            a.depth * (60 * a.width + 8 * MLP_RATIO * a.width + 7 * a.heads * a.context + 40 * a.heads)
            + 20 * a.vocabulary
        )
        operations = 40 + 130 * a.depth + 16 * (tokens / 256) + 8 * a.depth * (rows * a.heads / 16)
        return self._seconds(flops, 2.0 * elements * tokens, operations)

    def optimizer_step(self, a: Architecture) -> float:
        """Seconds of one update of every parameter."""
        # Five iterations of one Gram matrix, its square and one product, for 4 square and 2 oblong matrices a layer.
        newton = a.depth * a.width**3 * (4 * 3 + 2 * (2 * MLP_RATIO + 1))
        embeddings = a.embedding_parameters + a.unembedding_parameters
        return self._seconds(5 * 2.0 * newton, 4.0 * (40 * a.matrix_parameters + 12 * embeddings), 320)

    def step(self, a: Architecture, rows: int, micro_steps: int) -> float:
        """Seconds of one optimiser step that accumulates ``micro_steps`` passes."""
        return micro_steps * self.micro_step(a, rows) + self.optimizer_step(a)

    def _seconds(self, flops: float, bytes_: float, operations: float) -> float:
        return flops / self.flops_per_second + bytes_ / self.bytes_per_second + operations * self.seconds_per_operation


REFERENCE_CORE = CostModel("reference-core-1", 130e9, 8e9, 6e-6)
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


class WallClock:
    """Charges the time that steps take on this machine; the step during which the budget ends is finished.

    ``synchronise`` waits for the device, so that no work is left uncounted.
    """

    def __init__(
        self, budget: float, synchronise: Callable[[], None], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.budget, self._synchronise, self._now = budget, synchronise, now
        self._spent = self._began = 0.0

    @property
    def spent(self) -> float:
        return self._spent

    def affords_step(self) -> bool:
        return self._spent < self.budget

    def begin_step(self) -> None:
        self._synchronise()
        self._began = self._now()

    def end_step(self) -> None:
        self._synchronise()
        self._spent += self._now() - self._began
