"""What a mechanism's process costs: start, install, a hook call at three lengths of history, memory.

    python benchmarks/hook_latency.py [--calls N]

Beside each sandboxed call stands the same hook of the same class called in this process: the price of the boundary.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from mechanisms import standard
from mechanisms.interface import Candidate, SearchView, TrialRecord
from mechanisms.language.compiler import compile_source
from mechanisms.replay import incumbents
from mechanisms.sandbox import worker
from mechanisms.sandbox.channel import Channel
from mechanisms.sandbox.host import MechanismProcess
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace, Scale

OBJECTIVE = Objective("loss")
SPACE = ParameterSpace(
    tuple(
        Parameter(f"P{i:02d}", Kind.REAL, 0.1, "a parameter", minimum=1e-4, maximum=1.0, scale=Scale.LOG10)
        for i in range(16)
    )
)
SOURCE = standard.sources()["tabu"]
LENGTHS = (10, 100, 1000)


def percentiles(seconds: list[float]) -> str:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{1e3 * statistics.median(ordered):8.3f} {1e3 * last:8.3f}"


async def starts(count: int) -> tuple[list[float], list[float]]:
    """Seconds until an empty worker is jailed, and until a mechanism is installed in a new one."""
    empty, installed = [], []
    for _ in range(count):
        began = time.perf_counter()
        channel = await Channel.start(SandboxLimits(), SandboxPolicy())
        empty.append(time.perf_counter() - began)
        await channel.close()
        began = time.perf_counter()
        process = await MechanismProcess.start(SOURCE, SPACE, OBJECTIVE, {}, 0, name="bench")
        installed.append(time.perf_counter() - began)
        await process.close()
    return empty, installed


async def hook_calls(history: tuple[TrialRecord, ...], calls: int) -> tuple[list[float], list[float], list[float], int]:
    """Seconds of each sandboxed and each in-process ``veto``, of each observation, and proportional memory in bytes."""
    process = await MechanismProcess.start(SOURCE, SPACE, OBJECTIVE, {}, 0, name="bench")
    observed = []
    for trial in history:
        began = time.perf_counter()
        await process.observe(trial)
        observed.append(time.perf_counter() - began)
    incumbent, best = incumbents(history, OBJECTIVE)[-1]
    view = SearchView(OBJECTIVE, history, incumbent, best, SPACE.names, (), "", "", 10)
    candidate = Candidate({"P03": 0.5}, "a step")
    sandboxed = []
    for _ in range(calls):
        began = time.perf_counter()
        await process.veto(view, candidate)
        sandboxed.append(time.perf_counter() - began)
    memory = proportional_memory(process.pid)
    await process.close()
    return sandboxed, in_process(history, view, candidate, calls), observed, memory


def in_process(history: tuple[TrialRecord, ...], view: SearchView, candidate: Candidate, calls: int) -> list[float]:
    """The same hook without a boundary."""
    request = {
        "space": SPACE.to_json(),
        "objective": {"metric": "loss", "direction": "minimize"},
        "settings": {},
        "seed": 0,
    }
    session = worker.Session(request, compile_source(SOURCE, worker.OFFERED))
    for trial in history:
        session.observe({"trial": trial.to_json()})
    question: dict[str, Any] = {"hook": "veto", "view": view.to_json(), "candidate": candidate.to_json()}
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        session.call(question)
        seconds.append(time.perf_counter() - began)
    return seconds


def proportional_memory(pid: int) -> int:
    """Bytes of a process, shared pages divided among those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--starts", type=int, default=20)
    options = parser.parse_args()
    print(f"{'milliseconds':34s} {'median':>8s} {'p99':>8s}")
    empty, installed = await starts(options.starts)
    print(f"{'worker started and jailed':34s} {percentiles(empty)}")
    print(f"{'mechanism installed in a new one':34s} {percentiles(installed)}")
    for length in LENGTHS:
        history = synthetic_history(SPACE, OBJECTIVE, length - 1, 1)
        sandboxed, plain, observed, memory = await hook_calls(history, options.calls)
        print(f"{f'veto, {length} trials, sandboxed':34s} {percentiles(sandboxed)}")
        print(f"{f'veto, {length} trials, in process':34s} {percentiles(plain)}")
        print(f"{f'observe, {length} trials, sandboxed':34s} {percentiles(observed)}")
        print(f"{f'memory, {length} trials':34s} {memory / 1e6:8.1f} MB proportional")


if __name__ == "__main__":
    asyncio.run(main())
