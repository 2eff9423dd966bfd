"""Only the command ``bilevel ablate`` is killed; the services that it used, started apart, go on living."""

from __future__ import annotations

import os
import signal

import pytest

from clients.inner import InnerClient
from clients.outer import OuterClient
from tests.end_to_end.conftest import served
from tests.end_to_end.person import User, wait_until
from tests.end_to_end.test_ablate import decided, rows

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

COMMAND = (
    *("--task", "own", "--groups", "A,C", "--trials", "4", "--repeats", "2", "--confirm", "1", "--seed", "5"),
    *("--configuration-every", "2", "--mechanism-every", "2", "--out", "out", "--json"),
)
RUNS, TRIALS = 4, 5
"""Of the design, and of each run with its baseline."""


async def test_the_command_given_again_goes_on_and_repeats_nothing(user: User, own_task: str) -> None:
    quiet = {"BILEVEL_LOG_LEVEL": "warning"}
    with served(user, "researcher", **quiet) as researcher:
        endpoint = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher", **quiet}
        with (
            served(user, "inner", "--task", f"own={own_task}", **endpoint) as inner,
            served(user, "outer", "--inner", inner, **endpoint) as outer,
        ):
            [database] = user.folder.rglob("inner*.db")
            arguments = ("ablate", *COMMAND, "--inner", inner, "--outer", outer)
            for count in (TRIALS + 2, 2 * TRIALS + 2):  # in the second run, then in the third
                process = user.start(*arguments, **endpoint)
                wait_until(lambda count=count: len(decided(database)) > count, 60, "the middle of a run")
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
            before = decided(database)
            done = user.bilevel(*arguments, **endpoint)
            assert done.returncode == 0, done.stderr
            assert "had ended before" in done.stderr
            assert f"[{RUNS}/{RUNS}]" in done.stderr
            after = decided(database)
            assert before.keys() < after.keys()
            assert set(after.values()) == {1}
            assert len(after) == RUNS * TRIALS + 1  # and the calibration, measured once over all three starts
            async with InnerClient(inner) as runs, OuterClient(outer) as campaigns:
                searched = {run.name for run in await runs.list_runs() if run.spec.max_trials == TRIALS - 1}
                supervised = [campaign.run for campaign in await campaigns.list_campaigns()]
            written = rows(user.folder / "out" / "runs.csv")
            assert {row["state"] for row in written} == {"finished"}
            assert {f"runs/{row['run'].removeprefix('runs/')}" for row in written} <= searched
            assert len(written) == len({row["run"] for row in written}) == RUNS
            assert len(supervised) == len(set(supervised)) == 2  # group C, once a repeat
