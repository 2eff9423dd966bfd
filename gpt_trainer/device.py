"""The processor that trains, and the number format in which it is fastest."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from service_kit.errors import InvalidArgument

BFLOAT16_ADVANTAGE = 1.2
"""bfloat16 is chosen when its products are at least this much faster than float32's."""

PEAK_FLOPS = {"H100": 989.5e12, "H200": 989.5e12, "A100": 312e12, "RTX 5090": 209.5e12, "RTX 4090": 165.2e12}
"""Dense bfloat16 FLOPs a second by part of the device's name, from the vendors' data sheets."""

_CLEAR_REFS, _STATUS, _CPUINFO = Path("/proc/self/clear_refs"), Path("/proc/self/status"), Path("/proc/cpuinfo")


class Precision(StrEnum):
    """Number format of activations and matrix products."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Device:
    """Where trials run in this process."""

    torch_device: torch.device
    compute: torch.dtype
    name: str

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    @property
    def peak_flops(self) -> float | None:
        """Dense FLOPs a second that the vendor promises; None where that is not known."""
        return next((flops for part, flops in PEAK_FLOPS.items() if part in self.name), None)

    def synchronise(self) -> None:
        """Wait until everything that was started on the device is done."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.torch_device.type == "mps":
            torch.mps.synchronize()

    def reset_peak_memory(self) -> None:
        """Begin a new measurement of :meth:`peak_memory_mb`."""
        if self.torch_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.torch_device)
        elif _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5", encoding="ascii")  # resets VmHWM; see proc(5)

    def peak_memory_mb(self) -> float:
        """Most memory held since the reset, in MB: the device's own on a GPU, else this process's."""
        if self.torch_device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.torch_device) / 2**20
        if _STATUS.exists():
            return int(_STATUS.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def open_device(name: str, threads: int, precision: Precision, cache: Path) -> Device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes the first GPU there is).

    Sets the number of threads of this process. Raises InvalidArgument when torch has no such device.
    """
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind == "cuda" and torch.cuda.is_available():
        device = torch.device(name)
        chosen = torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16
        return Device(device, chosen, torch.cuda.get_device_name(device))
    if kind == "mps" and torch.backends.mps.is_available():
        chosen = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
        return Device(torch.device("mps"), chosen, f"Apple {platform.machine()}")
    if kind != "cpu":
        raise InvalidArgument.of("device", f"must be cpu, auto or a device that torch finds here; got {name!r}")
    chosen = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT32: torch.float32}.get(precision) or _probe(cache)
    return Device(torch.device("cpu"), chosen, cpu_name())


def cpu_name() -> str:
    """The processor's model, as the system calls it."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _probe(cache: Path) -> torch.dtype:
    """The faster format on this CPU, measured once a machine: a choice that wavered would make results waver."""
    key = hashlib.sha256(f"{cpu_name()}:{_capabilities()}:{torch.__version__}".encode()).hexdigest()[:16]
    file = cache / "precision" / f"{key}.json"
    if not file.exists():
        advantage = _bfloat16_advantage()
        chosen = Precision.BFLOAT16 if advantage >= BFLOAT16_ADVANTAGE else Precision.FLOAT32
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump({"chosen": chosen, "bfloat16_advantage": round(advantage, 2), "cpu": cpu_name()}, out)
        try:
            os.link(temporary, file)  # the first of several processes decides for all
        except FileExistsError:
            pass
        finally:
            Path(temporary).unlink()
    return (
        torch.bfloat16
        if json.loads(file.read_text(encoding="utf-8"))["chosen"] == Precision.BFLOAT16
        else torch.float32
    )


def _capabilities() -> str:
    return torch.backends.cpu.get_cpu_capability()


def _bfloat16_advantage() -> float:
    """How many times faster the laptop model's largest product is in bfloat16: the median of interleaved timings."""
    wide, narrow = torch.randn(4096, 64), torch.randn(64, 256)

    def seconds(dtype: torch.dtype) -> Callable[[], float]:
        a, b = wide.to(dtype), narrow.to(dtype)

        def once() -> float:
            began = time.perf_counter()
            for _ in range(5):
                a @ b
            return time.perf_counter() - began

        return once

    single, half = seconds(torch.float32), seconds(torch.bfloat16)
    single(), half()
    return statistics.median(single() / half() for _ in range(9))
