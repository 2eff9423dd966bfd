"""Finding what is left of a process tree whose supervisor was killed: by a mark in the environment (Linux).

A supervisor reaps every orphan below it, whatever session that is in. Killed itself, by one of its descendants or by
the kernel for memory, it can do so no longer: the command dies with it, and further descendants are adopted by init.
They still have the environment that they began with, and in it the mark of every tree that they belong to.

Not found is what gave itself another environment (execve with an empty one, or written over its own) or another user.
Only a control group that the service may kill (cgroup.kill) would be without that gap, and in most containers
none is delegated to it.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "BILEVEL_PROCESS_TREES"
"""The environment variable; it holds the marks of all trees that a process is part of, outermost first."""
SECONDS = 10.0
"""How long to hunt for what starts new processes as fast as they are killed."""


def new_mark() -> str:
    """A mark that no other tree has."""
    return secrets.token_hex(16)


def marked(mark: str) -> str:
    """The variable's value for a child of this process, which begins a tree of its own."""
    return ":".join([*filter(None, [os.environ.get(MARK)]), mark])


def kill_strays(mark: str) -> int:
    """Kill every process with the mark until a look finds none, or for :data:`SECONDS`; returns how many were left.

    Reads /proc, which blocks for milliseconds.
    """
    ends_at = time.monotonic() + SECONDS
    while found := list(_strays(mark)):
        for pid in found:
            _kill(pid)
        if time.monotonic() > ends_at:
            return len(found)
    return 0


def _strays(mark: str) -> Iterator[int]:
    wanted, name = mark.encode(), f"{MARK}=".encode()
    for folder in Path("/proc").iterdir() if sys.platform == "linux" else ():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just gone, or is another user's
        if any(variable.startswith(name) and wanted in variable for variable in variables):
            yield int(folder.name)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # it has just gone, or has become another user's
