"""Warm workers: every way in which a trial can end, and that the pool is healthy afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from gpt_trainer import workers
from gpt_trainer.trial import Progress, TrialRequest, TrialResult
from gpt_trainer.workers import WorkerPool, WorkerSettings
from service_kit.errors import CutOff, Exhausted, ServiceError
from service_kit.parameters import Outcome, Value

QUICK = TrialRequest({}, seed=0, budget=0.4)
ENDLESS = TrialRequest({}, seed=0, budget=3600.0)


@contextlib.asynccontextmanager
async def pool(
    cache: Path, count: int = 1, memory_limit_mb: float | None = None, growth_mb: float = 512.0
) -> AsyncIterator[WorkerPool]:
    settings = WorkerSettings("laptop", cache, "cpu", memory_limit_mb=memory_limit_mb, growth_mb=growth_mb)
    opened = WorkerPool(settings, (None,) * count)
    try:
        await opened.start()
        yield opened
    finally:
        await opened.stop()


async def result_of(
    opened: WorkerPool, request: TrialRequest, limit: float = 60.0, at_first: Callable[[int], None] = lambda _: None
) -> TrialResult:
    """Run a trial; ``at_first`` gets the trainer's process id once training is under way."""
    results, acted = [], False
    async with contextlib.aclosing(opened.evaluate(request, limit)) as events:
        async for event in events:
            if isinstance(event, TrialResult):
                results.append(event)
            elif not acted:
                acted = True
                at_first(busy_pid(opened))
    assert len(results) == 1
    return results[0]


def busy_pid(opened: WorkerPool) -> int:
    (worker,) = opened._busy
    assert worker is not None
    return worker.pid


async def test_a_crash_a_kill_and_a_time_out_are_told_apart_and_leave_a_healthy_pool(cache: Path) -> None:
    async with pool(cache) as opened:
        before = await result_of(opened, QUICK)
        assert before.outcome is Outcome.SUCCEEDED

        victims: list[int] = []

        def hit(number: int) -> Callable[[int], None]:
            return lambda pid: (victims.append(pid), os.kill(pid, number))[-1]  # type: ignore[func-returns-value]

        segfault = await result_of(opened, ENDLESS, at_first=hit(signal.SIGSEGV))
        assert (segfault.outcome, segfault.val_bpb) == (Outcome.CRASHED, None)
        assert "SIGSEGV" in segfault.message
        for _ in range(2):
            with pytest.raises(CutOff, match="killed from outside"):
                await result_of(opened, ENDLESS, at_first=hit(signal.SIGKILL))
        killed = await result_of(opened, ENDLESS, at_first=hit(signal.SIGKILL))
        assert killed.outcome is Outcome.CRASHED
        assert "SIGKILL 3 times" in killed.message
        late = await result_of(opened, ENDLESS, limit=1.0, at_first=victims.append)
        assert late.outcome is Outcome.TIMED_OUT
        assert "1 s" in late.message

        after = await result_of(opened, QUICK)
        assert after.val_bpb == before.val_bpb
        assert not any(psutil.pid_exists(pid) for pid in victims)
        assert len(set(victims)) == len(victims) >= 2  # a busy machine may reach the limit before the first report


async def test_a_kill_by_the_kernel_for_memory_is_out_of_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([4, 5])
    monkeypatch.setattr(workers, "out_of_memory_kills", lambda: next(kills))
    async with pool(cache) as opened:
        result = await result_of(opened, ENDLESS, at_first=lambda pid: os.kill(pid, signal.SIGKILL))
    assert result.outcome is Outcome.OUT_OF_MEMORY


async def test_refused_memory_is_out_of_memory_and_the_next_trial_succeeds(cache: Path) -> None:
    greedy: dict[str, Value] = {"TOTAL_BATCH_SIZE": 2**16, "DEVICE_BATCH_SIZE": 512}
    async with pool(cache, memory_limit_mb=200) as opened:
        result = await result_of(opened, TrialRequest(greedy, 0, 8.0))
        assert result.outcome is Outcome.OUT_OF_MEMORY
        assert "lower DEVICE_BATCH_SIZE" in result.message
        assert (await result_of(opened, QUICK)).outcome is Outcome.SUCCEEDED


async def test_a_worker_that_holds_more_memory_than_it_may_is_replaced_after_its_trial(cache: Path) -> None:
    """The allowance is below what the first trial leaves behind, so every trial ends its worker."""
    pids: list[int] = []
    async with pool(cache, growth_mb=-1.0) as opened:
        results = [await result_of(opened, QUICK, at_first=pids.append) for _ in range(2)]
    assert [result.outcome for result in results] == [Outcome.SUCCEEDED] * 2
    assert results[0].val_bpb == results[1].val_bpb
    assert len(set(pids)) == 2


@pytest.mark.long  # the tests of the service cancel over the socket
async def test_cancelling_kills_the_work_and_frees_the_slot(cache: Path) -> None:
    async with pool(cache) as opened:
        started = asyncio.get_running_loop().create_future()

        async def endless() -> None:
            async for _ in opened.evaluate(ENDLESS, 60.0):
                if not started.done():
                    started.set_result(busy_pid(opened))

        task = asyncio.create_task(endless())
        pid = await started
        with pytest.raises(Exhausted, match="limit of 1"):
            await anext(opened.evaluate(QUICK, 60.0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await result_of(opened, QUICK)).outcome is Outcome.SUCCEEDED
        assert not psutil.pid_exists(pid)


async def test_stopping_the_pool_ends_running_trials_as_cancelled_and_leaves_no_process(cache: Path) -> None:
    async with pool(cache, count=2) as opened:
        outcomes: list[Outcome] = []
        training = asyncio.Event()

        async def endless() -> None:
            async for event in opened.evaluate(ENDLESS, 60.0):
                if isinstance(event, Progress):
                    training.set()
                else:
                    outcomes.append(event.outcome)

        task = asyncio.create_task(endless())
        await training.wait()
        await opened.stop()
        await task
        assert outcomes == [Outcome.CANCELLED]
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if "gpt_trainer.worker" in command]


async def test_a_worker_that_cannot_start_says_so(cache: Path) -> None:
    opened = WorkerPool(WorkerSettings("laptop", cache, device="cuda:99"), (None,))
    with pytest.raises(ServiceError, match="did not start"):
        await opened.start()
    await opened.stop()
