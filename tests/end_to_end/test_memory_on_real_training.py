"""`bilevel demo-memory` and `bilevel ablate` as documented, in short forms: real training, real processes."""

from __future__ import annotations

import csv
import json

import pytest

from tests.clients.cli.shape_check import check
from tests.end_to_end.person import User

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


def run(user: User, *arguments: str) -> dict:
    process = user.start(*arguments)
    output, errors = process.communicate(timeout=1400)
    assert process.returncode == 0, errors
    assert user.processes() == []
    return json.loads(output)


def test_the_second_run_starts_from_what_the_first_learnt(user: User) -> None:
    result = run(user, "demo-memory", "--short", "--out", "out", "--json")
    assert result["problems"] == []
    assert result["scripted"] is True
    check("demo-memory", result)
    assert result["written_by_first"]
    second = result["second"]
    assert any(lesson["cited"] for lesson in second["lessons"])
    assert second["compared"] > 0
    assert any(change["by"] for change in second["changed"])
    assert any(again["mechanism"] and again["changed"] for again in second["library"])
    page = (user.folder / result["report"]).read_text()
    assert "Memory of earlier searches" in page
    assert "another first candidate" in page
    assert "tried again from the library" in page


def test_the_laptop_preset_goes_from_start_to_table(user: User) -> None:
    budget = ("--trials", "6", "--repeats", "1", "--confirm", "0", "--budget", "2")
    result = run(user, "ablate", "--preset", "laptop", *budget, "--out", "out", "--json")
    assert result["scripted"] is True
    table = result["results"]["search"]
    assert [row["group"] for row in table] == ["A", "B", "C", "D", "noop", "restart"]
    assert all(row["estimate"]["n"] == 1 for row in table)
    runs = list(csv.DictReader((user.folder / "out" / "runs.csv").open()))
    assert len({row["baseline"] for row in runs}) == 1
    assert {row["scripted"] for row in runs} == {"True"}
