"""``bilevel ablate`` as a user has it: killed half-way with everything that it started, and gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cli.shape_check import check
from tests.end_to_end.conftest import Services
from tests.end_to_end.person import User, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # two starts of all services

COMMAND = (
    *("--groups", "A,noop", "--trials", "4", "--repeats", "2", "--confirm", "1", "--seed", "5"),
    *("--configuration-every", "2", "--mechanism-every", "2"),
)


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open()))


def decided(database: Path) -> Counter[tuple[str, int]]:
    """How often each trial of each run was decided, by the inner service's own log."""
    import sqlite3

    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT stream, payload FROM events WHERE kind = 'trial_decided'").fetchall()
    return Counter((stream, json.loads(payload)["number"]) for stream, payload in found)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory, own_task: str) -> tuple[User, dict[str, Any], Counter[Any], str]:
    """A user whose ablation was killed half-way and then finished by the same command."""
    user = User(tmp_path_factory.mktemp("ablate"))
    place = ("--local", "--task", "own", "--serve-task", f"own={own_task}", "--out", "out")
    database = user.folder / "out" / "data" / "inner.db"
    process = user.start("ablate", *place, *COMMAND)
    assert process.stdout is not None
    said = next(line for line in process.stdout if line.startswith("[1/4]"))
    assert "left" in said
    # A run has ended; the second has begun and is somewhere in the middle.
    wait_until(lambda: len(decided(database)) > 5 + 2, 60, "the middle of the second run")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not user.processes(), 20, "the end of all that the killed command had started")
    before = decided(database)
    done = user.bilevel("ablate", *place, *COMMAND, "--json")
    assert done.returncode == 0, done.stderr
    check("ablate", json.loads(done.stdout))
    return user, json.loads(done.stdout), before, done.stderr


def test_nothing_was_lost_and_no_trial_was_repeated(ablated) -> None:
    user, _, before, _ = ablated
    after = decided(user.folder / "out" / "data" / "inner.db")
    assert set(after.values()) == {1}
    assert before.keys() <= after.keys()
    assert 0 < len(before) < len(after)
    runs = rows(user.folder / "out" / "runs.csv")
    assert len({row["run"] for row in runs}) == 4
    assert Counter(row["group"] for row in runs) == {"A": 2, "noop": 2}
    assert {row["state"] for row in runs} == {"finished"}
    assert {row["trials"] for row in runs} == {"4"}
    # Four baselines, four times four trials, and the calibration, measured once over both starts.
    assert len(after) == 4 * 5 + 1


def test_seeds_are_paired_and_all_groups_share_a_baseline(ablated) -> None:
    runs = rows(ablated[0].folder / "out" / "runs.csv")
    for repeat in ("1", "2"):
        block = [row for row in runs if row["repeat"] == repeat]
        assert len({row["seed"] for row in block}) == 1
        assert len({row["baseline"] for row in block}) == 1
    assert len({row["seed"] for row in runs}) == 2


def test_the_second_start_says_that_it_goes_on(ablated) -> None:
    _, results, _, said = ablated
    assert f"going on with ablation {results['ablation']} of own" in said
    assert "had ended before" in said
    assert "[4/4]" in said


def test_the_table_compares_each_group_with_the_first(ablated) -> None:
    _, results, _, _ = ablated
    assert results["scripted"] is True
    for measure in ("search", "confirmed"):
        table = {row["group"]: row for row in results["results"][measure]}
        assert list(table) == ["A", "noop"]
        assert all(row["estimate"]["n"] == 2 for row in table.values())
        assert table["noop"]["against_reference"]["pairs"] == 2
    # A mechanism that does nothing changes nothing: the same seeds, the same answers, the same metrics.
    noop = {row["group"]: row for row in results["results"]["search"]}["noop"]
    assert noop["against_reference"]["mean"] == 0.0


def test_the_levels_did_what_their_group_says(ablated) -> None:
    runs = rows(ablated[0].folder / "out" / "runs.csv")
    by_group = {row["group"]: row for row in runs}
    assert by_group["A"]["levels"] == "1"
    assert by_group["noop"]["levels"] == "1 + 2"
    assert by_group["A"]["mechanisms_installed"] == "0"
    assert by_group["noop"]["mechanisms_installed"] == "1"
    assert by_group["noop"]["changed_decisions"] == "0"


def test_another_design_in_the_same_folder_is_refused(ablated, own_task: str) -> None:
    user = ablated[0]
    arguments = ("ablate", "--local", "--task", "own", "--serve-task", f"own={own_task}", "--out", "out")
    done = user.bilevel(*arguments, "--groups", "A,noop", "--trials", "5")
    assert done.returncode == 2
    assert "trials is 4, not 5" in done.stderr


def test_nothing_runs_any_more(ablated) -> None:
    assert ablated[0].processes() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--groups", "A,E"), "--groups"),
        (("--preset", "cluster"), "must be one of laptop, workstation, paper"),
        (("--resume",), "--resume: needs --out"),
        (("--resume", "--out", "empty"), "there is no"),
        (("--local", "--task", "own", "--out", "x"), "--serve-task"),
        (("--serve-task", "own=127.0.0.1:1", "--out", "y"), "add --local"),
    ],
)
def test_wrong_input_is_refused_before_anything_starts(
    services: Services, arguments: tuple[str, ...], said: str
) -> None:
    done = services.bilevel("ablate", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
