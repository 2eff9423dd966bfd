"""The walls of a worker, put up by the worker itself after its imports and before it sees any source.

Required on Linux: resource limits, no_new_privs, closed descriptors, a seccomp allow-list. Added where the kernel lets
us: an unprivileged uid, network and other namespaces, Landlock. :func:`enter` returns the names of the layers that hold
and raises :class:`JailError` when a required one does not: the sandbox fails closed.

seccomp and Landlock are set up with ctypes directly, so that nothing but the kernel and libc is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

_NOBODY = 65534

# prctl(2)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
# unshare(2)
_NAMESPACES = {"user": 0x10000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "mount": 0x00020000}
# landlock(7)
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION = 444, 446, 1


class JailError(RuntimeError):
    """A required layer could not be applied on this machine."""


# Names and numbers of the system calls that the filter knows; every other call kills.
_CALLS = {
    "x86_64": """
        read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13
        rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 access 21 sched_yield 24 mremap 25 madvise 28 getpid 39 exit 60
        getcwd 79 readlink 89 sigaltstack 131 gettid 186 futex 202 clock_gettime 228 exit_group 231 openat 257
        newfstatat 262 readlinkat 267 faccessat 269 getrandom 318 statx 332 openat2 437 faccessat2 439""",
    "aarch64": """
        getcwd 17 ioctl 29 faccessat 48 openat 56 close 57 lseek 62 read 63 write 64 readlinkat 78 newfstatat 79
        fstat 80 exit 93 exit_group 94 futex 98 clock_gettime 113 sched_yield 124 sigaltstack 132 rt_sigaction 134
        rt_sigprocmask 135 rt_sigreturn 139 getpid 172 gettid 178 brk 214 munmap 215 mremap 216 mmap 222 mprotect 226
        madvise 233 getrandom 278 statx 291 openat2 437 faccessat2 439""",
}
_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOWED = """
    munmap brk mremap madvise futex clock_gettime exit exit_group rt_sigreturn rt_sigaction rt_sigprocmask sigaltstack
    sched_yield getpid gettid"""
# CPython opens the source while it formats a SyntaxError, and looks around when an import fails: told no, not killed.
_REFUSED = """
    open openat openat2 close stat fstat lstat newfstatat statx lseek ioctl access faccessat faccessat2 getcwd readlink
    readlinkat getrandom"""
_PROT_EXEC = 4

# BPF instructions: linux/bpf_common.h and linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES
_OFFSET_CALL, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16


def enter(memory_bytes: int, cpu_seconds: int, allow_weak: bool) -> list[str]:
    """Put up every wall that this machine offers and return their names, outermost first."""
    layers = ["clean_environment", "closed_descriptors"]
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform == "linux" else 4096)
    os.chdir("/")
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        if not allow_weak:
            raise JailError(
                "mechanisms need the Linux sandbox on x86-64 or AArch64; "
                f"this is {sys.platform} on {platform.machine()}. "
                "Run the service on Linux, or allow the weak sandbox (deadlines and resource limits only)"
            )
        _limit_resources(memory_bytes, cpu_seconds)
        return [*layers, "rlimits"]
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    layers.append("no_new_privs")
    layers += _leave_namespaces(libc)
    layers += _drop_privileges()
    # After the change of uid, which clears it: no worker outlives its host.
    _require(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent death signal")
    _require(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "undumpable")
    _limit_resources(memory_bytes, cpu_seconds)
    layers.append("rlimits")
    if _landlock(libc):
        layers.append("landlock")
    _seccomp(libc, platform.machine())
    _verify()
    return [*layers, "seccomp"]


def _require(result: int, layer: str) -> None:
    if result != 0:
        raise JailError(f"{layer} failed: {os.strerror(ctypes.get_errno())}. Mechanisms cannot run on this machine")


def _limit_resources(memory_bytes: int, cpu_seconds: int) -> None:
    limits = {"CPU": cpu_seconds, "FSIZE": 0, "CORE": 0, "NOFILE": 3}
    if sys.platform == "linux":
        limits |= {"AS": memory_bytes, "NPROC": 0, "MEMLOCK": 0, "MSGQUEUE": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (ValueError, OSError) as error:
            raise JailError(f"resource limit {name} failed: {error}") from None


def _leave_namespaces(libc: Any) -> list[str]:
    # An unprivileged process may only unshare together with a user namespace; under Docker's profile it may not at all.
    everything = sum(flag for name, flag in _NAMESPACES.items() if name != "user" or os.geteuid() != 0)
    return ["namespaces"] if libc.unshare(everything) == 0 else []


def _drop_privileges() -> list[str]:
    if os.geteuid() != 0:
        return ["unprivileged_uid"]
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return []
    return ["unprivileged_uid"]


def _landlock(libc: Any) -> bool:
    """Refuse every access to files, and to TCP where the kernel knows how."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return False
    files = (1 << 13) - 1
    files |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0) | (1 << 15 if version >= 5 else 0)
    attributes = struct.pack("=QQ", files, 3) if version >= 4 else struct.pack("=Q", files)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    restricted = bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    os.close(ruleset)
    return restricted


def _seccomp(libc: Any, machine: str) -> None:
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _filter(machine))
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    described = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _require(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0), "seccomp")


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """Read from 0, write to 1, memory without execution, clocks and exit; everything unnamed kills."""
    words = _CALLS[machine].split()
    calls = {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_CALL),
    ]
    for name, descriptor in (("read", 0), ("write", 1)):
        program += [
            (_JUMP_EQUAL, 0, 4, calls[name]),
            (_LOAD, 0, 0, _OFFSET_ARGUMENTS),
            (_JUMP_EQUAL, 0, 1, descriptor),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _KILL),
        ]
    for name in ("mmap", "mprotect"):
        program += [
            (_JUMP_EQUAL, 0, 4, calls[name]),
            (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 2 * 8),
            (_JUMP_SET, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _KILL),
            (_RETURN, 0, 0, _ALLOW),
        ]
    for names, verdict in ((_ALLOWED, _ALLOW), (_REFUSED, _REFUSE)):
        for name in names.split():
            if name in calls:
                program += [(_JUMP_EQUAL, 0, 1, calls[name]), (_RETURN, 0, 0, verdict)]
    return [*program, (_RETURN, 0, 0, _KILL)]


def _verify() -> None:
    """The filter answers for itself: opening a file must be refused."""
    try:
        os.open("/", os.O_RDONLY)
    except PermissionError:
        return
    raise JailError("seccomp was applied but does not hold. Mechanisms cannot run on this machine")
