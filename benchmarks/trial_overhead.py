"""Seconds of a trial that are not training: what a warm worker, a fresh one and a whole process cost.

    python benchmarks/trial_overhead.py --trials 10

Trials go to a real worker process through the pool that the server uses. A trial's wall-clock time, seen by the caller,
is training plus evaluation plus overhead: starting, the model, reports, the result's way back. The first trial of a
worker is counted apart, and so is the time from nothing to a warm worker. What follows from it for longer budgets is
arithmetic: fixed seconds over fixed seconds and budget.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from gpt_trainer.clock import ClockKind
from gpt_trainer.dataset import prepare
from gpt_trainer.gpus import assign
from gpt_trainer.presets import budget_seconds, find_preset
from gpt_trainer.trial import TrialRequest, TrialResult
from gpt_trainer.workers import WorkerPool, WorkerSettings
from service_kit.settings import PathSettings

TARGET_OVERHEAD, TARGET_SHARE, LONG_BUDGET = 0.4, 0.02, 300.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Wall-clock seconds of one trial, as its caller sees them."""

    whole: float
    training: float
    evaluation: float
    """Of the metric, estimates on the way included."""
    compiling: float

    @property
    def overhead(self) -> float:
        return self.whole - self.training - self.evaluation - self.compiling

    @property
    def fixed(self) -> float:
        """Everything but training."""
        return self.whole - self.training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--budget", default="1", help="short, full, or seconds; overhead does not depend on it")
    parser.add_argument("--trials", type=int, default=10, help="warm trials, after the worker's first")
    parser.add_argument("--device", default="auto")
    os.environ.setdefault("BILEVEL_LOG_LEVEL", "warning")  # of the workers: each trial is a line otherwise
    arguments = parser.parse_args()
    asyncio.run(measure(arguments))


async def measure(arguments: argparse.Namespace) -> None:
    """Run the trials and print what they cost."""
    preset, cache = find_preset(arguments.preset), PathSettings.load().cache
    dataset = prepare(preset, cache, lambda sentence: print(sentence, file=sys.stderr))
    budget = budget_seconds(preset, arguments.budget)
    settings = WorkerSettings(preset.name, cache, arguments.device, dataset=dataset.folder)
    pool = WorkerPool(settings, assign(arguments.device, 1))
    try:
        began = time.perf_counter()
        worker = await pool.start()
        warm_after = time.perf_counter() - began
        request = TrialRequest({}, 0, budget, ClockKind.choose("auto", worker.on_cpu))
        first = await run(pool, request)
        warm = [await run(pool, request) for _ in range(arguments.trials)]
    finally:
        await pool.stop()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}  preset {preset.name}, {worker.hardware}, {worker.precision}, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, budget {budget:g} s"
    )
    report(warm_after, first, warm)


async def run(pool: WorkerPool, request: TrialRequest) -> Trial:
    """One trial that has to succeed."""
    began = time.perf_counter()
    async with contextlib.aclosing(pool.evaluate(request, 600.0)) as events:
        async for event in events:
            if isinstance(event, TrialResult):
                if event.val_bpb is None:
                    sys.exit(f"the trial did not succeed: {event.outcome.value}: {event.message}")
                m = event.side_metrics
                evaluation = m["evaluation_seconds"] + m["estimate_seconds"]
                return Trial(
                    time.perf_counter() - began,
                    m["training_wall_seconds"],
                    evaluation,
                    m.get("compile_seconds", 0.0),
                )
    raise RuntimeError("a trial ended without a result")


def report(warm_after: float, first: Trial, warm: list[Trial]) -> None:
    """Print the table and how it compares with the targets."""
    print(f"{'seconds':22}{'overhead':>10}{'evaluation':>12}{'compiling':>11}{'training':>10}{'whole':>8}")
    for name, trials in (("first trial", [first]), (f"warm, median of {len(warm)}", warm)):
        columns = (("overhead", 10), ("evaluation", 12), ("compiling", 11), ("training", 10), ("whole", 8))
        print(
            f"{name:22}"
            + "".join(f"{statistics.median(getattr(t, field) for t in trials):{width}.3f}" for field, width in columns)
        )
    overhead = statistics.median(trial.overhead for trial in warm)
    low, high = min(trial.overhead for trial in warm), max(trial.overhead for trial in warm)
    fixed = statistics.median(trial.fixed for trial in warm)
    share, cold = fixed / (fixed + LONG_BUDGET), (warm_after + first.fixed) / (warm_after + first.fixed + LONG_BUDGET)
    print(f"from nothing to a warm worker: {warm_after:.2f} s")
    print(f"warm overhead {overhead:.3f} s (from {low:.3f} to {high:.3f}); target {TARGET_OVERHEAD:g} s")
    print(
        f"fixed share of a trial with a budget of {LONG_BUDGET:g} s: warm {share:.2%}, in a fresh process {cold:.2%}; "
        f"target {TARGET_SHARE:.0%}"
    )
    if overhead > TARGET_OVERHEAD or share > TARGET_SHARE:
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
