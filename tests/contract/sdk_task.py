"""A task of the SDK whose evaluations take a while."""

from __future__ import annotations

import time

from clients.task_sdk import Context, Integer, Real, Split, task


@task(
    metric="distance",
    goal="minimize",
    space={"width": Real(0.0, 1.0), "rows": Integer(1, 16), "mode": ["plain", "fancy"]},
    capacity=2,
    budget=1.5,
    hard_limit=30.0,
    held_out=True,
    deterministic=True,
)
def paced(width: float = 0.25, rows: int = 4, mode: str = "plain", *, context: Context) -> float:
    """A distance, measured step by step.

    Nothing is known about it.
    """
    for step in range(5):
        context.report(step / 5, step=step)
        time.sleep(context.budget_seconds / 5)
    return abs(width - 0.75) + 0.01 * rows + (0.5 if context.split is Split.HELD_OUT else 0.0)


@paced.check
def fits(rows: int, mode: str) -> bool:
    """rows must be at most 8 where mode is fancy"""
    return mode == "plain" or rows <= 8
