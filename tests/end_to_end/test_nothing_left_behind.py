"""Ctrl-C, SIGTERM, SIGKILL, at any moment: no process stays."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.person import User, wait_until

LOCAL = ("run", "--local", "--task", "own", "--trials", "5000", "--levels", "1", "--confirm", "0", "--out", "out")


def start(user: User, own_task: str) -> subprocess.Popen[str]:
    return user.start(*LOCAL, "--serve-task", f"own={own_task}")


def service_up(user: User, name: str) -> bool:
    return (user.folder / "out" / "run" / f"{name}.address").exists()


def running(user: User) -> bool:
    """Whether trials are being decided."""
    log = user.folder / "out" / "logs" / "inner.log"
    return log.exists() and "model answered" in log.read_text()


MOMENTS = {
    "while the command itself starts": lambda user: user.processes(),
    "when the first service is being started": lambda user: (user.folder / "out" / "logs" / "researcher.log").exists(),
    "when the researcher is up": lambda user: service_up(user, "scripted-researcher"),
    "while the inner service starts": lambda user: (user.folder / "out" / "logs" / "inner.log").exists(),
    "when the inner service is up": lambda user: service_up(user, "inner-service"),
    "in the middle of the search": running,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_no_process_behind(user: User, own_task: str, moment: str) -> None:
    process = start(user, own_task)
    wait_until(lambda: MOMENTS[moment](user), 60, moment)
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=40)
    if moment != "while the command itself starts":  # the interpreter itself may still be loading then
        assert process.returncode == 130, (output, errors)
        assert "Traceback" not in output + errors
    assert user.processes() == []
    wait_until(lambda: not any(alive(child) for child in descendants), 10, "the end of every descendant")


def alive(process: psutil.Process) -> bool:
    """A warden sees the end of its service before it ends itself."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_other_ends_leave_no_process_behind_either(
    user: User, own_task: str, number: signal.Signals, code: int
) -> None:
    process = start(user, own_task)
    wait_until(lambda: running(user), 60, "the search")
    process.send_signal(number)
    process.communicate(timeout=40)
    assert process.returncode == code
    wait_until(lambda: user.processes() == [], 10, "the end of every process")


def test_a_second_ctrl_c_does_not_leave_anything_either(user: User, own_task: str) -> None:
    process = start(user, own_task)
    wait_until(lambda: running(user), 60, "the search")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    wait_until(lambda: user.processes() == [], 10, "the end of every process")


def test_a_service_that_dies_ends_the_search_with_its_log(user: User, own_task: str) -> None:
    process = start(user, own_task)
    wait_until(lambda: running(user), 60, "the search")
    inner = next(p for p in user.processes() if "inner_service" in " ".join(p.cmdline()) and "supervisor.py" not in
                 " ".join(p.cmdline()))  # fmt: skip
    inner.kill()
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 1
    assert "the inner service was ended by signal 9" in errors
    assert "inner.log" in errors
    assert "Traceback" not in errors
    assert user.processes() == []


def test_a_service_that_does_not_start_says_why(user: User, tmp_path: Path) -> None:
    done = user.bilevel("run", "--local", "--budget", "999999999", "--out", "out")
    assert done.returncode == 1
    assert "the trainer ended with exit code 2" in done.stderr
    assert "budget: must be short (4 s)" in done.stderr
    assert "trainer.log" in done.stderr
    assert user.processes() == []
