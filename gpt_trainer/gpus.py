"""Which GPU each worker gets: one worker a GPU, as many trials at a time as there are GPUs.

A worker sees its own GPU alone, through CUDA_VISIBLE_DEVICES. Asking the driver's tool instead of torch keeps torch and
a CUDA context out of the server process. Importing this needs no torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

from service_kit.errors import InvalidArgument

QUERY_LIMIT = 60.0
"""Seconds that the driver's tool may take; the first call after boot wakes every GPU."""

Slots = tuple[str | None, ...]
"""For each worker its GPU as CUDA_VISIBLE_DEVICES names it, or None where it needs none."""


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() not in ("", "-1"))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()  # a tool without a driver: no GPU can be used
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def assign(device: str, workers: int | None) -> Slots:
    """One entry for each worker on ``device`` (cpu, mps, cuda, cuda:1 or auto); ``workers`` None takes what suits it.

    Raises InvalidArgument for a GPU that is not there and for more workers than GPUs.
    """
    kind, _, index = device.partition(":")
    gpus = visible_gpus() if kind in ("cuda", "auto") else ()
    if index and index.isdecimal():
        if int(index) >= len(gpus):
            raise InvalidArgument.of(
                "--device", f"must be one of the {len(gpus)} GPU(s) here, from cuda:0; got {device}"
            )
        gpus = gpus[int(index) : int(index) + 1]
    if gpus:
        if workers is not None and workers > len(gpus):
            raise InvalidArgument.of("--workers", f"must be at most {len(gpus)}, one for each GPU; got {workers}")
        return gpus[:workers]
    if kind == "cuda":
        raise InvalidArgument.of("--device", "no NVIDIA GPU is visible here; use --device cpu, or check nvidia-smi")
    return (None,) * (workers or _default_count(kind))


def _default_count(kind: str) -> int:
    """Two one-thread workers on a CPU of two cores or more; one on an Apple GPU."""
    if kind == "mps" or (kind == "auto" and sys.platform == "darwin" and platform.machine() == "arm64"):
        return 1
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(2, cores)
