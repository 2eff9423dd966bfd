"""Which worker gets which GPU: with a driver's tool that the test puts on the path, and real worker processes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest

from gpt_trainer.gpus import assign, visible_gpus
from gpt_trainer.trial import TrialRequest
from gpt_trainer.workers import WorkerPool, WorkerSettings
from service_kit.errors import InvalidArgument


def install_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_every_gpu_gets_one_worker_unless_fewer_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tool(tmp_path, monkeypatch, '[ "$1" = --query-gpu=uuid ] && printf "GPU-a\\nGPU-b\\n"')
    assert assign("auto", None) == assign("cuda", None) == ("GPU-a", "GPU-b")
    assert assign("cuda", 1) == ("GPU-a",)
    assert assign("cuda:1", None) == ("GPU-b",)
    assert assign("cpu", 3) == (None, None, None)
    with pytest.raises(InvalidArgument, match="at most 2"):
        assign("auto", 3)
    with pytest.raises(InvalidArgument, match="2 GPU"):
        assign("cuda:2", None)


def test_gpus_that_the_user_hides_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tool(tmp_path, monkeypatch, "echo GPU-a; echo GPU-b")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus() == ("3", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


def test_a_tool_without_a_driver_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tool(tmp_path, monkeypatch, "echo NVIDIA-SMI has failed; exit 9")
    assert visible_gpus() == ()
    assert set(assign("auto", None)) == {None}
    with pytest.raises(InvalidArgument, match="no NVIDIA GPU"):
        assign("cuda", None)


async def test_each_worker_sees_its_own_gpu_and_its_successor_sees_the_same(cache: Path) -> None:
    pool = WorkerPool(WorkerSettings("laptop", cache, "cpu"), ("GPU-a", "GPU-b"))
    try:
        await pool.start()
        assert await seen_by_workers(pool) == ["GPU-a", "GPU-b"]
        async with contextlib.aclosing(pool.evaluate(TrialRequest({}, 0, 3600.0), 60.0)) as events:
            await anext(events)  # leaving now kills the first worker
        assert sorted(await seen_by_workers(pool)) == ["GPU-a", "GPU-b"]
    finally:
        await pool.stop()


async def seen_by_workers(pool: WorkerPool) -> list[str]:
    workers = await asyncio.gather(*(launch.worker for launch in pool._idle))
    return [psutil.Process(worker.pid).environ()["CUDA_VISIBLE_DEVICES"] for worker in workers]
