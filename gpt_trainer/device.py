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
from typing import TypeVar, cast

import torch

from gpt_trainer.allocator import keep_freed_memory, release_freed_memory
from gpt_trainer.clock import HostStopwatch, Stopwatch
from gpt_trainer.peak_flops import PEAK_FLOPS
from gpt_trainer.readback import CudaStopwatch, Readback
from service_kit.errors import InvalidArgument

BFLOAT16_ADVANTAGE = 1.2
"""bfloat16 is chosen when its products are at least this much faster than float32's."""

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
        """Dense FLOPs a second that the vendor promises for bfloat16; None where that is not known or not what runs."""
        return PEAK_FLOPS.get(self.name) if self.compute is torch.bfloat16 else None

    def stopwatch(self) -> Stopwatch:
        """What measures steps on this device, without ever making the host wait for a GPU's latest one."""
        return CudaStopwatch() if self.torch_device.type == "cuda" else HostStopwatch(self.synchronise)

    def synchronise(self) -> None:
        """Wait until everything that was started on the device is done."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.torch_device.type == "mps":
            torch.mps.synchronize()

    def readback(self) -> Readback:
        """What brings losses back to the host."""
        return Readback(late=self.torch_device.type == "cuda")

    def release_memory(self) -> None:
        """Give back what earlier trials freed, so that a trial's memory is its own."""
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()
        release_freed_memory()

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


Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """``function``, compiled whole for each set of shapes: one that cannot be fails instead of running slowly."""
    return cast(Function, torch.compile(function, dynamic=False, fullgraph=True))


def open_device(name: str, threads: int, precision: Precision, cache: Path) -> Device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes the first GPU there is).

    Settles this process's threads, its allocator and where compiled code is kept. Raises InvalidArgument when torch has
    no such device.
    """
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "compiled"))
    device, hardware = _find(name)
    chosen = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT32: torch.float32}.get(precision)
    return Device(device, chosen or _probe(device, hardware, cache), hardware)


def _find(name: str) -> tuple[torch.device, str]:
    """A device that is there, and what it is called."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    unknown = InvalidArgument.of("--device", f"must be cpu, auto or a device that torch finds here; got {name!r}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown from None
    if device.type == "cpu":
        return device, cpu_name()
    if device.type == "mps" and torch.backends.mps.is_available():
        return device, f"Apple {platform.machine()}"
    if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        return device, torch.cuda.get_device_name(device)
    raise unknown


def cpu_name() -> str:
    """The processor's model, as the system calls it."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _probe(device: torch.device, hardware: str, cache: Path) -> torch.dtype:
    """The faster format on this device, measured once a machine: a choice that wavered would make results waver."""
    key = hashlib.sha256(f"{hardware}:{_capabilities()}:{torch.__version__}".encode()).hexdigest()[:16]
    file = cache / "precision" / f"{key}.json"
    if not file.exists():
        advantage = _bfloat16_advantage(device)
        chosen = Precision.BFLOAT16 if advantage >= BFLOAT16_ADVANTAGE else Precision.FLOAT32
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump({"chosen": chosen, "bfloat16_advantage": round(advantage, 2), "device": hardware}, out)
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


def _bfloat16_advantage(device: torch.device) -> float:
    """How many times faster a typical product is in bfloat16: the median of interleaved timings.

    On a CPU the laptop model's largest, elsewhere one that fills a GPU. Old GPUs only emulate the format: 0.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return 0.0
    rows, inner, columns = (4096, 64, 256) if device.type == "cpu" else (4096, 2048, 2048)
    wide, narrow = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    opened = Device(device, torch.float32, "")

    def seconds(dtype: torch.dtype) -> Callable[[], float]:
        a, b = wide.to(dtype), narrow.to(dtype)

        def once() -> float:
            opened.synchronise()
            began = time.perf_counter()
            for _ in range(5):
                a @ b
            opened.synchronise()
            return time.perf_counter() - began

        return once

    single, half = seconds(torch.float32), seconds(torch.bfloat16)
    single(), half()
    return statistics.median(single() / half() for _ in range(9))
