"""Run one command and leave nothing of it behind: the small program that :mod:`service_kit.processes` starts.

It stands between a service and the command. On Linux it is the reaper of every orphan below it
(PR_SET_CHILD_SUBREAPER), so that a descendant cannot get away by changing its session or by losing its parent, and it
is told by the kernel when the service dies (PR_SET_PDEATHSIG), even from SIGKILL. See prctl(2).

    python -I -S supervisor.py PARENT_PID PASSED_FDS LC_CTYPE COMMAND ARGUMENT...

=========  ==========================================================
SIGTERM    is passed on to the command's process group
SIGUSR2    kills every descendant at once; also sent when the parent dies
=========  ==========================================================

Of its own death by SIGKILL it cannot tell anyone: see :mod:`service_kit.strays` for what happens then.

When the command ends, its remaining descendants are killed and the supervisor ends the way the command did. It only
imports what a bare interpreter starts with, because its start-up is part of every child's.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PASS_ON = {signal.SIGTERM}
HANDLED = PASS_ON | {signal.SIGUSR2, signal.SIGCHLD}


def main(arguments: list[str]) -> None:
    parent, passed, locale, *command = arguments
    if not locale:
        os.environ.pop("LC_CTYPE", None)  # the interpreter itself sets it in the C locale (PEP 538)
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    control(PR_SET_CHILD_SUBREAPER, 1)
    control(PR_SET_PDEATHSIG, signal.SIGUSR2)
    if os.getppid() != int(parent):
        sys.exit(1)  # the service died before the kernel was asked to tell us
    me = os.getpid()
    child = os.fork()
    if child == 0:
        become(command, me)
    os.chdir("/")
    for fd in {0, 1, 2, *(int(fd) for fd in passed.split(",") if fd)}:
        os.close(fd)  # or the service would never see end-of-file on its ends of the pipes
    end_like(supervise(child))


def control(option: int, value: int) -> None:
    """prctl(2) on Linux; other systems have no counterpart and only get the process group."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become(command: list[str], supervisor: int) -> NoReturn:
    try:
        os.setsid()
        control(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)  # Python ignores these and exec would pass that on
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def supervise(child: int) -> int:
    """Wait until the command and everything below it is gone; returns the command's wait status."""
    status = None
    while status is None:
        received = signal.sigwait(HANDLED)
        if received in PASS_ON:
            signal_group(child, received)
        elif received == signal.SIGUSR2:
            return kill_all(child)
        else:
            while status is None and (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                status = ended[1] if ended[0] == child else None
    kill_all(child)
    return status


def kill_all(child: int) -> int:
    """Kill our children until none is left: the children of the killed become ours. Returns ``child``'s wait status."""
    status = signal.SIGKILL.value
    if sys.platform != "linux":
        signal_group(child, signal.SIGKILL)
    while True:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        try:
            pid, ended = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if pid == child:
            status = ended


def children() -> list[int]:
    """Our children, dead ones that nobody waited for included: a pid in it cannot have been reused."""
    found = []
    for entry in os.scandir("/proc") if sys.platform == "linux" else ():
        if not entry.name.isdigit():
            continue
        try:
            with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 (pathlib would double the start-up time)
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just gone
        if parent == os.getpid():
            found.append(int(entry.name))
    return found


def signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return  # the group is gone already


def end_like(status: int) -> NoReturn:
    """End with the exit code or by the signal of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1:])
