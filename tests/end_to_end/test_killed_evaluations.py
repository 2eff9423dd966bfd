"""Whoever kills an evaluating process costs the search an attempt, and no trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.person import User, wait_until

ENDLESS_AT_FIRST = '''
import os, time
from pathlib import Path

from clients.task_sdk import Integer, task

PIDS = Path(__file__).with_name("pids")


@task(metric="cost", goal="minimize", space={"SIZE": Integer(1, 100, default=50)}, name="slow", hard_limit=90.0)
def slow(SIZE: int) -> float:
    """A size."""
    with PIDS.open("a") as file:
        print(os.getpid(), file=file)
    while len(PIDS.read_text().splitlines()) == 1:
        time.sleep(0.01)
    return float(SIZE)


if __name__ == "__main__":
    slow.serve()
'''


@pytest.mark.long
def test_a_killed_evaluation_is_another_attempt_of_the_same_trial(user: User) -> None:
    (user.folder / "slow.py").write_text(ENDLESS_AT_FIRST)
    pids = user.folder / "pids"
    address = user.folder / "slow.address"
    serve = [sys.executable, "slow.py", "--listen", "127.0.0.1:0", "--address-file", str(address)]
    server = subprocess.Popen(serve, cwd=user.folder, stderr=subprocess.DEVNULL)
    try:
        wait_until(address.exists, 60, "the task's address")
        process = user.start(
            *("run", "--local", "--serve-task", f"slow={address.read_text().strip()}", "--task", "slow"),
            *("--levels", "1", "--trials", "1", "--confirm", "0", "--out", "out"),
        )
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 60, "the first evaluation")
        os.kill(int(pids.read_text()), signal.SIGKILL)
        output, errors = process.communicate(timeout=90)
        assert process.returncode == 0, output + errors
    finally:
        server.terminate()
        server.wait(timeout=40)
    (record,) = (user.folder / "out").rglob("run.json")
    started = [event["trial_started"] for event in json.loads(record.read_text())["events"] if "trial_started" in event]
    assert [(start.get("number", 0), start["attempt"]) for start in started] == [(0, 1), (0, 2), (1, 1)]
