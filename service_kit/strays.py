"""Finding what is left of a process tree whose supervisor was killed: by a mark in the environment (Linux).

A supervisor reaps every orphan below it, whatever session that is in. Killed itself, by one of its descendants or by
the kernel for memory, it can do so no longer: the command dies with it, and further descendants are adopted by init.
They still have the environment that they began with, and in it the mark of every tree that they belong to. A mark
names the process that started the tree, its owner, so that anyone can tell whether that still lives.

    python -I -S strays.py OWNER

is the warden of one owner, started with its first tree (:mod:`service_kit.processes`): it kills what owners that are
dead already have left, waits for the end of its own owner, and kills what that has left.

Not found is what gave itself another environment (execve with an empty one, or written over its own) or another user.
Only a control group that the service may kill (cgroup.kill) would be without that gap, and in most containers
none is delegated to it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "BILEVEL_PROCESS_TREES"
"""The environment variable; it holds the marks of all trees that a process is part of, outermost first, as
``OWNER-TOKEN:OWNER-TOKEN``."""
SECONDS = 10.0
"""How long to hunt for what starts new processes as fast as they are killed."""
_PAUSE = 0.02


def this_process() -> str:
    """This process as an owner: ``NAMESPACES.PID.START``.

    A pid means something in its pid namespace alone, and only with the start (clock ticks since boot, as the time
    namespace counts them) is it never another process's.
    """
    if sys.platform != "linux":
        return f"0.{os.getpid()}.0"
    return f"{_namespaces()}.{os.getpid()}.{_stat(os.getpid())[1]}"


def new_mark() -> str:
    """A mark that no other tree has, of a tree that this process owns."""
    return f"{this_process()}-{os.urandom(8).hex()}"


def marked(mark: str) -> str:
    """The variable's value for a child of this process, which begins a tree of its own."""
    return ":".join([*filter(None, [os.environ.get(MARK)]), mark])


def kill_strays(mark: str) -> int:
    """Kill every process with the mark until none is found, or for :data:`SECONDS`; returns how many were left.

    Reads /proc, which blocks for milliseconds.
    """
    return _hunt(lambda other: other == mark)


def kill_trees_of(owner: str) -> int:
    """Like :func:`kill_strays`, for all trees of one owner."""
    return _hunt(lambda mark: mark.partition("-")[0] == owner)


def kill_abandoned() -> int:
    """Like :func:`kill_strays`, for all trees whose owner is known to be dead."""
    return _hunt(lambda mark: not may_live(mark.partition("-")[0]))


def may_live(owner: str) -> bool:
    """Whether an owner lives, or cannot be judged from here: it is of another namespace, or hidden from this user."""
    namespaces, _, process = owner.partition(".")
    pid, _, start = process.partition(".")
    if namespaces != _namespaces() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
        state, began = _stat(int(pid))
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except FileNotFoundError:
        return True  # hidden, or gone since: the next look will tell
    return began == start and state not in "ZX"


def _namespaces() -> str:
    """The pid namespace, and the time namespace where the kernel has one."""
    found = (Path("/proc/self/ns/pid"), Path("/proc/self/ns/time"))
    return "+".join(str(path.stat().st_ino) for path in found if path.exists())


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process and when it started, in clock ticks since boot; see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], fields[19]


def _hunt(wanted: Callable[[str], bool]) -> int:
    ends_at = time.monotonic() + SECONDS
    found, clean = 0, not list(_kill_all(wanted))
    while not clean:
        time.sleep(_PAUSE)  # what is just being replaced (execve) shows no environment for a moment
        found = len(list(_kill_all(wanted)))
        clean = found == 0
        if time.monotonic() > ends_at:
            return found
    return 0


def _kill_all(wanted: Callable[[str], bool]) -> Iterator[int]:
    """Kill whatever has a wanted mark now, and yield its pid; zombies have no environment any more."""
    for folder in Path("/proc").iterdir() if sys.platform == "linux" else ():
        if not folder.name.isdigit() or int(folder.name) == os.getpid() or not _has(folder, wanted):
            continue
        try:
            handle = os.pidfd_open(int(folder.name))
        except ProcessLookupError:
            continue
        try:
            if _has(folder, wanted):  # still: the pid may have become another process's
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                yield int(folder.name)
        except (ProcessLookupError, PermissionError):
            continue  # it has just gone, or has become another user's
        finally:
            os.close(handle)


def _has(folder: Path, wanted: Callable[[str], bool]) -> bool:
    """Whether one of a process's marks is wanted."""
    name = f"{MARK}=".encode()
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # it has just gone, or is another user's
    values = [variable[len(name) :].decode(errors="replace") for variable in variables if variable.startswith(name)]
    return any(wanted(mark) for value in values for mark in value.split(":"))


def _watch_over(owner: str) -> int:
    """The warden's whole life; returns how many processes it could not kill."""
    left = kill_abandoned()
    try:
        handle = os.pidfd_open(int(owner.split(".")[1]))
    except ProcessLookupError:
        return left + kill_trees_of(owner)
    if may_live(owner):
        select.select([handle], [], [])
    return left + kill_trees_of(owner)


if __name__ == "__main__":
    if left := _watch_over(sys.argv[1]):
        sys.exit(f"{left} processes that an ended service had started cannot be killed as fast as they start new ones")
