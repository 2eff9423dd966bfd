"""Children die whole: every test starts real processes and looks at the process table."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest

from service_kit import processes, strays
from service_kit.errors import ServiceError
from service_kit.processes import ProcessGroup, clean_environment, spawn

TREE = """
import os, signal, sys, time
def descend(kind):
    if os.fork():
        return
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind in ("session", "daemon"):
        os.setsid()
    if kind == "daemon" and os.fork():
        os._exit(0)  # the grandchild has lost its parent as well as its session
    os.write(1, f"{kind} {os.getpid()}\\n".encode())
    time.sleep(3600)
for kind in sys.argv[1:]:
    descend(kind)
os.write(1, f"root {os.getpid()}\\n".encode())
time.sleep(3600)
"""
KINDS = ("plain", "stubborn", "session", "daemon")


async def tree(*kinds: str) -> tuple[ProcessGroup, dict[str, int]]:
    """A process with one descendant of each kind, all of them known to run."""
    group = await spawn([sys.executable, "-c", TREE, *kinds], env=clean_environment(), stdout=PIPE)
    assert group.stdout is not None
    lines = [(await group.stdout.readline()).split() for _ in range(len(kinds) + 1)]
    return group, {kind.decode(): int(pid) for kind, pid in lines}


async def test_kill_leaves_no_descendant_not_even_one_that_left_the_session() -> None:
    group, pids = await tree(*KINDS)
    # The daemon's parent may not have ended yet.
    assert {member.pid for member in group.members()} >= set(pids.values())
    assert await group.kill() == -signal.SIGKILL
    assert not any(psutil.pid_exists(pid) for pid in (*pids.values(), group.pid))
    assert group.members() == []


async def test_terminate_is_polite_first_and_then_kills_whatever_stays() -> None:
    group, pids = await tree(*KINDS)
    assert await group.terminate(grace=30) == -signal.SIGTERM
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


async def test_a_command_that_ignores_the_request_is_killed_after_its_grace() -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    group = await spawn(["/bin/sh", "-c", script], env=clean_environment(), stdout=PIPE)
    assert group.stdout is not None
    assert await group.stdout.readline() == b"ready\n"
    assert await group.terminate(grace=0.1) == -signal.SIGKILL


async def test_what_a_command_leaves_behind_when_it_ends_by_itself_is_killed_too() -> None:
    script = f"{sys.executable} -c 'import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(3600)' &"
    group = await spawn(
        ["/bin/sh", "-c", f"{script} read line; exit 3"], env=clean_environment(), stdin=PIPE, stdout=PIPE
    )
    assert group.stdout is not None
    assert group.stdin is not None
    pid = int(await group.stdout.readline())
    group.stdin.write(b"go\n")
    assert await group.wait() == 3
    assert not psutil.pid_exists(pid)


PARENT = """
import asyncio, os, sys
from service_kit.processes import clean_environment, spawn
async def main():
    group = await spawn([sys.executable, '-c', sys.argv[1], *sys.argv[2:]], env=clean_environment())
    print('supervisor', group.pid, flush=True)
    await group.wait()
asyncio.run(main())
"""


async def service_with_a_tree() -> tuple[asyncio.subprocess.Process, dict[str, int]]:
    """A process that has started a tree, all of it known to run, and the pids of that."""
    env = clean_environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, TREE, *KINDS, env=env, stdout=PIPE)
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).split() for _ in range(len(KINDS) + 2)]
    return process, {kind.decode(): int(pid) for kind, pid in lines}


async def all_gone(process: asyncio.subprocess.Process) -> None:
    """Every descendant holds the pipe open, so its end is the moment the last of them has died."""
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.read(), 20) == b""
    await process.wait()


def kill_in_one_moment(*pids: int) -> None:
    """None of them gets to act on the death of another."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def warden_of(process: asyncio.subprocess.Process) -> psutil.Process:
    (found,) = [child for child in psutil.Process(process.pid).children() if "strays.py" in child.cmdline()[3]]
    return found


async def test_the_tree_dies_with_a_parent_that_is_killed() -> None:
    process, _ = await service_with_a_tree()
    process.kill()
    await all_gone(process)


async def test_nothing_outlives_a_service_and_a_supervisor_that_are_killed_in_one_moment() -> None:
    process, pids = await service_with_a_tree()
    kill_in_one_moment(process.pid, pids["supervisor"])
    await all_gone(process)


async def test_what_a_killed_warden_missed_ends_when_anything_else_starts_a_tree() -> None:
    process, pids = await service_with_a_tree()
    other, others = await service_with_a_tree()
    warden = warden_of(process)
    kill_in_one_moment(process.pid, pids["supervisor"], warden.pid)
    await process_ended(process.pid)
    assert running(pids["daemon"]), "this test shows nothing if it has ended by itself"
    started, _ = await service_with_a_tree()
    await all_gone(process)
    assert all(running(pid) for pid in others.values()), "their owner lives"
    for living in (other, started):
        living.kill()
        await all_gone(living)


async def test_a_service_gets_another_warden_with_its_next_tree() -> None:
    await (await spawn(["true"], env=clean_environment())).wait()
    first = processes._wardens[os.getpid()]
    first.kill()
    first.wait()
    await (await spawn(["true"], env=clean_environment())).wait()
    assert processes._wardens[os.getpid()].poll() is None


async def process_ended(pid: int) -> None:
    while running(pid):  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0.01)


def test_only_an_owner_that_is_known_to_be_dead_counts_as_dead() -> None:
    here = strays.this_process()
    namespaces, pid, start = here.split(".")
    assert strays.may_live(here)
    assert not strays.may_live(f"{namespaces}.{pid}.{int(start) - 1}"), "the pid is another process's by now"
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert not strays.may_live(f"{namespaces}.{ended.pid}.{start}")
    assert strays.may_live(f"1{namespaces}.{ended.pid}.{start}"), "its namespace cannot be looked into"
    assert strays.may_live("outer"), "no owner of ours"
    assert not strays.may_live(f"{namespaces}.1.{start}"), "init is visible, whoever it belongs to"


async def test_a_descendant_that_kills_its_supervisor_leaves_nobody_behind() -> None:
    """The command kills the supervisor once all of its descendants, one of every kind, are known to run."""
    script = TREE.replace('os.write(1, f"root', 'sys.stdin.readline(); os.kill(os.getppid(), 9); os.write(1, f"root')
    group = await spawn([sys.executable, "-c", script, *KINDS], env=clean_environment(), stdin=PIPE, stdout=PIPE)
    assert group.stdout is not None
    assert group.stdin is not None
    pids = [int((await group.stdout.readline()).split()[1]) for _ in KINDS]
    group.stdin.write(b"go\n")
    assert await asyncio.wait_for(group.wait(), 20) == -signal.SIGKILL
    assert not [pid for pid in pids if running(pid)]


async def test_marks_add_up_so_that_an_outer_tree_finds_what_an_inner_one_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(strays.MARK, "outer")
    group = await spawn(["/bin/sh", "-c", "echo ready; sleep 3600"], env=clean_environment(), stdout=PIPE)
    assert group.stdout is not None
    assert await group.stdout.readline() == b"ready\n"
    assert await asyncio.to_thread(strays.kill_strays, "outer") == 0
    assert await asyncio.wait_for(group.wait(), 20) == -signal.SIGKILL


def running(pid: int) -> bool:
    """Whether a process lives; one that is dead and waits for init to notice does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_leaving_the_block_kills_the_command_even_when_cancelled() -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with await spawn(["sleep", "3600"], env=clean_environment()) as group:
            started.set_result(group.pid)
            await group.wait()

    task = asyncio.create_task(work())
    pid = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", -11), ("kill -KILL $$", -9)]
)
async def test_the_return_code_is_the_commands_own(script: str, code: int) -> None:
    group = await spawn(["/bin/sh", "-c", script], env=clean_environment())
    assert await group.wait() == code == group.returncode
    assert await group.terminate(grace=1) == code


async def test_the_command_sees_exactly_the_given_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "OPENAI_API_KEY" not in clean_environment()
    assert clean_environment("CUDA_VISIBLE_DEVICES")["CUDA_VISIBLE_DEVICES"] == "1"
    group = await spawn(["/usr/bin/env"], env={"ONLY": "this"}, stdout=PIPE)
    assert group.stdout is not None
    only, mark = (await group.stdout.read()).splitlines()
    assert only == b"ONLY=this"
    assert re.fullmatch(rb"BILEVEL_PROCESS_TREES=[0-9+]+\.\d+\.\d+-[0-9a-f]{16}", mark)
    await group.wait()


async def test_end_of_file_travels_in_both_directions() -> None:
    group = await spawn(
        ["/bin/sh", "-c", "cat; exec >&-; sleep 3600"], env=clean_environment(), stdin=PIPE, stdout=PIPE
    )
    assert group.stdin is not None
    assert group.stdout is not None
    group.stdin.write(b"abc")
    group.stdin.close()
    assert await asyncio.wait_for(group.stdout.read(), 10) == b"abc"
    await group.kill()


async def test_passed_descriptors_reach_the_command_and_only_the_command() -> None:
    read, write = os.pipe()
    group = await spawn(
        [sys.executable, "-c", f"import os; os.write({write}, b'hello')"], env=clean_environment(), pass_fds=[write]
    )
    os.close(write)
    assert await group.wait() == 0
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"hello"


async def test_a_missing_command_is_one_clear_message() -> None:
    with pytest.raises(ServiceError, match="'no-such-command' cannot be run"):
        await spawn(["no-such-command"], env=clean_environment())


async def test_spawning_from_a_pool_thread_is_refused() -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(asyncio.run, spawn(["true"], env=clean_environment()))
