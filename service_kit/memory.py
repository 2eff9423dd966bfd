"""Memory of the process that calls: limit it, and learn whether the kernel killed something for it (Linux)."""

from __future__ import annotations

import sys
from pathlib import Path


def limit_memory(megabytes: float) -> None:
    """Let this process take ``megabytes`` of memory beyond what it holds now; the system refuses the rest.

    Every process that it starts gets the same limit for itself. Does nothing outside of Linux.
    """
    if sys.platform != "linux":
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = int(status.partition("VmData:")[2].split()[0]) * 2**10
    limit = held + int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def out_of_memory_kills() -> int | None:
    """How many processes of this control group the kernel has killed for memory; None where that is not told."""
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "" and (file := Path(f"/sys/fs/cgroup{group}/memory.events")).exists():
                return _counter(file)
            if controllers == "memory" and (file := Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control")).exists():
                return _counter(file)
    except OSError:
        return None
    return None


def _counter(file: Path) -> int | None:
    for line in file.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None
