"""The installation, the processors, the clock and the disk."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import shutil
import sys
from asyncio.subprocess import PIPE
from importlib import metadata
from pathlib import Path

from clients.doctor.finding import Finding, bad, good, note
from service_kit.processes import clean_environment, spawn
from service_kit.settings import PathSettings

DISTRIBUTION = "bilevel-autoresearch"
NEEDED_BYTES = 2**30
"""Free space below which a search may end with a full disk: databases, prepared text, reports."""
_PARTS = {
    "inner and outer service": ("sqlalchemy", "alembic", "openai", "RestrictedPython"),
    "trainer": ("torch", "numpy", "tokenizers"),
}
_EXTRAS = {"inner and outer service": "inner,outer", "trainer": "trainer"}
_UNSYNCHRONISED = 5
"""What adjtimex(2) returns for a clock that nothing keeps right (TIME_ERROR)."""
_TORCH_SECONDS = 60.0
_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
mps = torch.backends.mps.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus, "mps": mps}))
"""


def installation() -> list[Finding]:
    """Python, the package, and what each service needs beside it."""
    version = platform.python_version()
    findings = [good("installation", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)} on Python {version}")]
    for part, packages in _PARTS.items():
        missing = [name for name in packages if not installed(name)]
        if missing:
            advice = f"pip install '{DISTRIBUTION}[{_EXTRAS[part]}]' where that service is to run."
            findings.append(note("installation", f"the {part} cannot run here: {', '.join(missing)} missing", advice))
        else:
            findings.append(good("installation", f"the {part} can run here"))
    return findings


def installed(name: str) -> bool:
    """Whether a distribution of that name is there; nothing is imported."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


async def processors() -> list[Finding]:
    """The GPUs that the trainer would see, asked in a process of its own because this one never loads torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [good("processor", f"{cores} core{'s' if cores != 1 else ''} ({platform.machine()})")]
    if not installed("torch"):
        return findings
    environment = clean_environment("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    async with await spawn([sys.executable, "-P", "-c", _TORCH], env=environment, stdout=PIPE, stderr=PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            async with asyncio.timeout(_TORCH_SECONDS):
                out, err = await asyncio.gather(child.stdout.read(), child.stderr.read())
                code = await child.wait()
        except TimeoutError:
            text = f"torch did not load within {_TORCH_SECONDS:g} s"
            return [*findings, bad("GPU", text, "Try `python -c 'import torch'`; a driver may hang.")]
    if code:
        last = (err.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return [*findings, bad("GPU", f"torch does not load: {last}", "Install the trainer's extra again.")]
    return [*findings, *gpu_findings(json.loads(out), nvidia=shutil.which("nvidia-smi") is not None)]


def gpu_findings(torch: dict[str, object], *, nvidia: bool) -> list[Finding]:
    gpus = torch["gpus"]
    if gpus:
        return [good("GPU", f"torch {torch['version']} sees {', '.join(map(str, gpus))}")]  # type: ignore[call-overload]
    if torch["mps"]:
        return [good("GPU", f"torch {torch['version']} sees Apple's GPU")]
    if nvidia and torch["cuda"] is None:
        advice = "Install a build of torch with CUDA: see https://pytorch.org/get-started/locally/."
        return [bad("GPU", f"there is an NVIDIA driver, but torch {torch['version']} was built without CUDA", advice)]
    if nvidia:
        return [bad("GPU", "there is an NVIDIA driver, but torch sees no GPU", "See what `nvidia-smi` says.")]
    return [note("GPU", f"none; the trainer uses the CPU (torch {torch['version']}, preset laptop)")]


def clock() -> Finding:
    """Whether something keeps the clock right: leases, expiring tokens and certificates go by it."""
    if sys.platform != "linux":
        return note("clock", "not examined on this system")
    # The structure is larger than any kernel's, and zero means: only read (adjtimex(2)).
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if state == _UNSYNCHRONISED:
        advice = "Where services run on several machines, start a time service such as chrony on each."
        return note("clock", "the kernel says that nothing keeps it right", advice)
    if state < 0:
        return note("clock", f"the kernel does not say whether it is kept right: {os.strerror(ctypes.get_errno())}")
    return good("clock", "kept right by a time service")


def disk() -> list[Finding]:
    """Room where databases, prepared text and reports go."""
    paths = PathSettings.load()
    return [_room(name, path) for name, path in (("BILEVEL_HOME", paths.home), ("BILEVEL_CACHE", paths.cache))]


def _room(name: str, path: Path) -> Finding:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        return bad("disk", f"{name}: {existing} cannot be written", f"Set {name} to a folder of your own.")
    free = shutil.disk_usage(existing).free
    text = f"{name}: {path}, {free / 2**30:.1f} GiB free"
    return good("disk", text) if free >= NEEDED_BYTES else bad("disk", text, "Make room: a full disk pauses every run.")
