"""The walls of a worker, each in a child process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mechanisms.sandbox import channel, jail
from mechanisms.sandbox.host import SandboxLimits, SandboxPolicy, SandboxUnavailable

ROOT = Path(__file__).parents[2]
ENTER = "layers = jail.enter(1 << 28, 60, False)\n"
SAY = "os.write(1, ' '.join(layers).encode())\n"


def child(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``code`` in a child in which jail, os and ctypes are imported."""
    imports = "import ctypes, os, socket, sys\nfrom mechanisms.sandbox import jail\n"
    return subprocess.run(
        [sys.executable, "-c", imports + code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )


REQUIRED = {b"clean_environment", b"closed_descriptors", b"no_new_privs", b"rlimits", b"seccomp"}


def test_the_required_layers_hold_for_whoever_runs_the_tests() -> None:
    assert set(child(ENTER + SAY).stdout.split()) >= REQUIRED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; others are unprivileged already")
def test_the_required_layers_hold_for_an_unprivileged_user() -> None:
    result = child("os.setgroups([]); os.setgid(1234); os.setuid(1234)\n" + ENTER + SAY)
    assert set(result.stdout.split()) >= REQUIRED | {b"unprivileged_uid"}, result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "os.fork()",
        "os.kill(os.getppid(), 9)",
        "os.execv('/bin/true', ['true'])",
        "os.write(2, b'x')",
        "os.read(1, 1)",
        "os.dup(1)",
        "os.unlink('/tmp/x')",
        "os.setuid(0)",
        "ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
        "ctypes.CDLL(None).mprotect(ctypes.c_void_p(0), 4096, 7)",
        "ctypes.CDLL(None).personality(0xffffffff)",
    ],
)
def test_what_the_filter_does_not_name_kills(code: str) -> None:
    prepared = code.replace("ctypes.CDLL(None)", "libc")
    result = child("libc = ctypes.CDLL(None)\n" + ENTER + prepared + "\nos.write(1, b'still here')")
    assert result.returncode == -signal.SIGSYS
    assert result.stdout == b""


@pytest.mark.parametrize(
    "code", ["open('/etc/passwd')", "os.stat('/')", "os.listdir('/')", "os.getcwd()", "os.urandom(1)"]
)
def test_looking_at_files_is_refused(code: str) -> None:
    result = child(f"{ENTER}try:\n    {code}\nexcept OSError:\n    os.write(1, b'refused')")
    assert result.stdout == b"refused"


def test_memory_and_files_are_limited() -> None:
    result = child(f"{ENTER}try:\n    x = b'x' * (1 << 30)\nexcept MemoryError:\n    os.write(1, b'refused')")
    assert result.stdout == b"refused"


HOST = """
import asyncio
from mechanisms.sandbox.channel import Channel
from mechanisms.sandbox.host import SandboxLimits, SandboxPolicy

async def main():
    channel = await Channel.start(SandboxLimits(), SandboxPolicy())
    os.write(1, str(channel.pid).encode())
    source = "while True: pass"
    await channel.ask({"op": "install", "source": source, "language_only": False}, 60)

asyncio.run(main())
"""


def test_a_busy_worker_dies_with_its_host() -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", "import os\n" + HOST], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert host.stdout is not None
    worker = psutil.Process(int(os.read(host.stdout.fileno(), 20)))
    host.kill()
    host.communicate()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_another_system_is_refused_unless_weak_walls_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail.sys, "platform", "darwin")
    monkeypatch.setattr(jail.os, "closerange", lambda low, high: None)
    monkeypatch.setattr(jail.os, "chdir", lambda path: None)
    monkeypatch.setattr(jail, "_limit_resources", lambda memory, cpu: None)
    with pytest.raises(jail.JailError, match="need the Linux sandbox"):
        jail.enter(1, 1, allow_weak=False)
    assert jail.enter(1, 1, allow_weak=True) == ["clean_environment", "closed_descriptors", "rlimits"]


async def test_a_worker_that_cannot_be_jailed_is_unavailable_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in = tmp_path / "worker.py"
    stand_in.write_text(
        "import sys\nsys.path[:0] = sys.argv[1:3]\n"
        "from mechanisms.sandbox import jail, worker\n"
        "jail._CALLS.clear()\nsys.exit(worker.main())\n"
    )
    monkeypatch.setattr(channel, "_WORKER", stand_in)
    with pytest.raises(SandboxUnavailable, match="need the Linux sandbox"):
        await channel.Channel.start(SandboxLimits(), SandboxPolicy())
