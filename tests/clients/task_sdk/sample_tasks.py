"""Tasks as authors write them, one for each way in which an evaluation can end."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from clients.task_sdk import Context, Infeasible, Integer, Real, Result, Split, task

HOW = [
    *("number", "result", "nothing", "text", "truth", "nan", "infinity", "huge", "noted"),
    *("raise", "library", "exit", "refuse", "memory", "abort", "segfault", "endless", "flood", "backwards"),
]


@task(
    metric="latency_ms",
    goal="minimize",
    unit="ms",
    space={"threads": Integer(1, 64, log=True, doc="Worker threads."), "how": HOW, "cached": bool},
    budget=8.0,
    hard_limit=20.0,
    held_out=True,
    intermediate_metric="latency_so_far",
    memory_mb=400,
    identity={"data": "none"},
)
def endings(  # noqa: C901 (one branch for each ending)
    threads: int, how: str, cached: bool = True, *, context: Context
) -> object:
    """Ends as it is told.

    For tests.
    """
    match how:
        case "number":
            return threads + context.seed + context.budget_seconds + (0.5 if context.split is Split.HELD_OUT else 0.0)
        case "result":
            (context.folder / "scratch").write_text("kept until the evaluation ends")
            return Result(1, {"rows": 3, "ratio": float("nan")}, "a remark", {"folder": str(context.folder)})
        case "text":
            return "12 ms"
        case "truth":
            return True
        case "nan":
            return float("nan")
        case "infinity":
            return Result(float("inf"), {"step": 7}, "the loss exploded at step 7")
        case "huge":
            return 10**400
        case "noted":
            return Result(1.0, {"name": "three"})  # type: ignore[dict-item]
        case "raise":
            raise ValueError("threads do not fit\nthe socket")
        case "library":
            return int("twelve".join(["1", "2"]), base=10)
        case "exit":
            sys.exit(3)
        case "refuse":
            raise Infeasible("threads must be at most 8 on this socket")
        case "memory":
            return len(bytearray(10**9))
        case "abort":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "endless":
            return wait_with_a_child(context)
        case "flood":
            for step in range(200_000):
                context.report(step / 200_000, step=step, phase="counting", loss=1.0 / (1 + step), bad=float("nan"))
            return 1.0
        case "backwards":
            context.report(1.5)
    return None


def wait_with_a_child(context: Context) -> float:
    """Start a process that leaves its session, and wait for ever."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    context.report(0.25, phase="waiting", child=child.pid)
    child.wait()
    return 0.0


@endings.check
def enough_threads(threads: int, cached: bool) -> bool:
    """threads must be at most 32 unless cached is set"""
    return cached or threads <= 32


@endings.check
def even(threads: int) -> bool:
    """threads must not be 63"""
    if threads == 63:
        raise Infeasible("is 63, which no scheduler takes")
    return True


@task(metric="pid", goal="maximize", space={"x": Real(0.0, 1.0)}, fresh_process=False, capacity=2, hard_limit=3.0)
async def reused(x: float) -> Result:
    """Says who evaluated."""
    if x == 1.0:
        time.sleep(600)  # noqa: ASYNC251 (stuck, as an author may be)
    if x == 0.0:
        raise RuntimeError("worn out")
    return Result(os.getpid(), {"draw": random.random(), "order": float(hash("order") % 1000)})


@task(metric="waited", goal="minimize", space={"note": ["note"], "x": range(2)}, cleanup_seconds=10.0)
def tidy(note: str, x: int, *, context: Context) -> float:
    """Leaves a note when it is cancelled."""
    try:
        context.report(0.5)
        time.sleep(600)
    finally:
        Path(os.environ["TIDY_NOTE"]).write_text("tidied up")
    return 0.0


@task(metric="x", goal="minimize", space={"x": range(3)})
def misjudged(x: int) -> float:
    """Has a check with a mistake."""
    return float(x)


@misjudged.check
def forgets(x: int) -> bool:
    """x must be small"""
    if x == 2:
        return x < 1 / 0
    return None if x == 1 else True  # type: ignore[return-value]


if __name__ == "__main__":
    endings.serve()
