"""The training loop: as many optimiser steps as the budget pays for."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gpt_trainer.batches import Batches
from gpt_trainer.clock import Clock
from gpt_trainer.device import Device
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.paths import Losses, LossPath
from gpt_trainer.trial import Plan, Progress

LOSS_SMOOTHING = 0.9
"""Weight of the past in the reported training loss, as in the published script."""

EXPLOSION = 2.0
"""A training loss above this many times ln(vocabulary), the loss of knowing nothing, is an explosion."""

REPORT_INTERVAL = 0.2
"""Seconds between progress reports, at least."""


class DivergenceError(ArithmeticError):
    """The loss is not a number, infinite or exploded; the message says where."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a finished training did."""

    steps: int
    tokens: int
    train_loss: float
    """Smoothed loss of the last steps, nats a token."""
    clock_seconds: float
    wall_seconds: float
    """Of training alone: estimates on the way are left out."""
    estimate_seconds: float
    """Wall-clock time of all estimates together."""
    epochs: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """Cheap looks at the metric on the way. They cost no budget and leave no trace in the training."""

    at: Sequence[float] = ()
    """Shares of the budget after which to look, ascending."""
    measure: Callable[[], float] = lambda: math.nan


NO_ESTIMATES = Estimates()


def train(
    path: LossPath,
    optimizer: MuonAdamW,
    batches: Batches,
    plan: Plan,
    clock: Clock,
    device: Device,
    report: Callable[[Progress], None],
    estimates: Estimates = NO_ESTIMATES,
) -> Training:
    """Train until ``clock`` affords no further step. Raises :class:`DivergenceError`.

    On a GPU the host is one step ahead of the device and never waits for the step that it has just started.
    """
    h = plan.hyperparameters
    curve = LossCurve(EXPLOSION * math.log(plan.architecture.vocabulary))
    readback = device.readback()
    began = reported = time.perf_counter()
    step, estimating, due = 0, 0.0, list(estimates.at)
    gc.collect()
    gc.disable()  # a collection in the middle of a step would be charged to it
    try:
        while clock.affords_step():
            clock.begin_step()
            mean_loss = accumulate(path.loss, batches, h.device_batch_size, plan.micro_steps)
            optimizer.step(min(clock.spent / clock.budget, 1.0))
            finished = readback.push(mean_loss)
            clock.end_step()
            step += 1
            curve.extend(finished)
            fraction, now = min(clock.spent / clock.budget, 1.0), time.perf_counter()
            trained, estimate = now - began - estimating, None
            if due and fraction >= due[0]:
                due = [share for share in due if share > fraction]
                estimate = estimates.measure()
                estimating += time.perf_counter() - now
            if now - reported >= REPORT_INTERVAL or curve.length == len(finished) == 1 or estimate is not None:
                reported = now
                report(
                    Progress(
                        phase="training",
                        fraction=fraction,
                        step=step,
                        tokens=step * h.total_batch_size,
                        train_loss=curve.smoothed,
                        clock_seconds=clock.spent,
                        wall_seconds=trained,
                        val_bpb_estimate=estimate,
                    )
                )
        curve.extend(readback.drain())
        device.synchronise()
    finally:
        gc.enable()
    return Training(
        steps=step,
        tokens=step * h.total_batch_size,
        train_loss=curve.smoothed,
        clock_seconds=clock.spent,
        wall_seconds=time.perf_counter() - began - estimating,
        estimate_seconds=estimating,
        epochs=batches.epoch,
    )


class LossCurve:
    """The training loss, smoothed; a value above ``limit`` ends it."""

    def __init__(self, limit: float) -> None:
        self._limit, self._sum = limit, 0.0
        self.length = 0

    def extend(self, losses: Sequence[float]) -> None:
        """Append the losses of the next steps. Raises :class:`DivergenceError`."""
        for loss in losses:
            self.length += 1
            if not math.isfinite(loss) or loss > self._limit:
                raise DivergenceError(
                    f"training loss {loss:.4g} at step {self.length}: not finite or above {self._limit:.3g} "
                    "(twice ln(vocabulary))"
                )
            self._sum = LOSS_SMOOTHING * self._sum + (1 - LOSS_SMOOTHING) * loss

    @property
    def smoothed(self) -> float:
        """Mean of the last steps, nats a token; not a number before the first."""
        return self._sum / (1 - LOSS_SMOOTHING**self.length) if self.length else math.nan


def accumulate(loss_of: Losses, batches: Batches, rows: int, micro_steps: int) -> Tensor:
    """Leave the gradient of one optimiser step on the parameters; returns its mean loss in nats."""
    total: Tensor | None = None
    for _ in range(micro_steps):
        loss = loss_of(*batches.take(rows)) / micro_steps
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total
