"""Children die whole: every test starts real processes and looks at the process table."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest

from service_kit import strays
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


async def test_the_tree_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, sys\n"
        "from service_kit.processes import clean_environment, spawn\n"
        "async def main():\n"
        "    group = await spawn([sys.executable, '-c', sys.argv[1], *sys.argv[2:]], env=clean_environment())\n"
        "    await group.wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    env = clean_environment() | {"PYTHONPATH": str(root)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(parent), TREE, *KINDS, env=env, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    for _ in range(len(KINDS) + 1):
        assert await process.stdout.readline()
    process.kill()
    # Every descendant holds the pipe open, so its end is the moment the last of them has died.
    assert await asyncio.wait_for(process.stdout.read(), 10) == b""
    await process.wait()


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
    assert re.fullmatch(rb"BILEVEL_PROCESS_TREES=[0-9a-f]{32}", mark)
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
