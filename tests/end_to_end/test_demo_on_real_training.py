"""`bilevel demo` as in the README, in its short form: real training, real processes, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.cli.shape_check import check
from tests.end_to_end.person import User

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_short_demo_shows_a_mechanism_at_work(user: User) -> None:
    process = user.start("demo", "--short", "--out", "out", "--json")
    output, errors = process.communicate(timeout=800)
    assert process.returncode == 0, errors
    result = json.loads(output)
    check("demo", result)
    bare, bilevel = result["runs"]
    assert result["problems"] == []
    assert bare["baseline"] == bilevel["baseline"]
    assert bare["mechanisms_installed"] == 0
    assert bilevel["changed_decisions"] >= 1
    assert bilevel["trials"] == bare["trials"] == 12
    assert bilevel["confirmed_low"] is not None
    assert Path(user.folder / result["report"]).exists()
    assert user.processes() == []


def test_a_batch_that_the_device_batch_does_not_divide_is_refused(user: User) -> None:
    done = user.bilevel(
        *("run", "--local", "--levels", "1", "--trials", "1", "--budget", "short", "--out", "out"),
        *("--set", "TOTAL_BATCH_SIZE=5000"),
    )
    assert done.returncode == 2
    assert "TOTAL_BATCH_SIZE" in done.stderr
    assert "DEVICE_BATCH_SIZE" in done.stderr
    assert user.processes() == []
