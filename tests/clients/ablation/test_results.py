"""Every file of an ablation says who answered, and counts only runs that finished."""

import csv
import json
from pathlib import Path

import pytest
from bilevel.v1 import outer_pb2

from clients.ablation.design import GROUPS, Cell, Design
from clients.ablation.execution import plan_lines, progress_line
from clients.ablation.expectation import Expectation
from clients.ablation.figure import curve
from clients.ablation.folder import Plan
from clients.ablation.results import Measure, Results
from clients.ablation.running import Finished
from clients.ablation.writing import write_results
from clients.report.record import RunRecord
from tests.clients.conftest import tell_run


def results_of(folder: Path, *, scripted: bool = True, cut: bool = False) -> Results:
    design = Design(groups=("A", "C"), repeats=2, trials=12, confirmation_seeds=3)
    plan = Plan("ab12", design, folder)
    finished = []
    for repeat in (1, 2):
        for name, levels in (("A", False), ("C", True)):
            record = tell_run(f"{name}{repeat}", name, levels and scripted, trials=12 + repeat, scripted=scripted)
            if cut and (name, repeat) == ("C", 2):
                record = RunRecord(record.events[:-3], record.campaign_events)
            finished.append(Finished(Cell(GROUPS[name], repeat, 7 + repeat), record, 60.0))
    return Results(plan, finished)


@pytest.mark.parametrize(("scripted", "word"), [(True, "scripted, no language model"), (False, "a-model")])
def test_every_file_says_who_answered(tmp_path: Path, scripted: bool, word: str) -> None:
    files = write_results(results_of(tmp_path, scripted=scripted), tmp_path)
    texts = {file.name: file.read_text() for file in files if file.suffix != ".png"}
    for name, text in texts.items():
        assert word in text, name
        assert ("no evidence for or against the method" in text) == (scripted and name == "results.md")
    assert (tmp_path / "best_so_far.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_hold_the_numbers_of_the_runs(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    write_results(results, tmp_path)
    runs = list(csv.DictReader((tmp_path / "runs.csv").open()))
    trials = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [(row["group"], row["repeat"]) for row in runs] == [("A", "1"), ("C", "1"), ("A", "2"), ("C", "2")]
    assert len(trials) == 2 * (14 + 15)
    gains = [float(row["search_gain"]) for row in runs if row["group"] == "A"]
    [a, c] = results.rows(Measure.SEARCH)
    assert a.estimate is not None
    assert a.estimate.mean == pytest.approx(sum(gains) / 2)
    assert a.against_reference is None
    assert c.against_reference is not None
    assert c.against_reference.pairs == 2
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"]["search"][0]["estimate"]["mean"] == a.estimate.mean
    text = (tmp_path / "results.md").read_text()
    assert "Gain confirmed on fresh seeds" in text
    assert "With fewer than 10 runs a group" in text


def test_a_run_that_did_not_finish_is_named_and_not_counted(tmp_path: Path) -> None:
    results = results_of(tmp_path, cut=True)
    write_results(results, tmp_path)
    assert results.gains("C", Measure.SEARCH).keys() == {1}
    assert "Not counted: C, repeat 2 (runs/C2)" in (tmp_path / "results.md").read_text()


def test_a_run_whose_outer_loop_failed_is_named(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    campaign = results.finished[1].record.campaign
    assert campaign is not None
    campaign.on_cycle_finished(outer_pb2.CycleFinished(cycle=1, error="the model failed"))
    write_results(results, tmp_path)
    assert "C, repeat 1: 1 cycle of its outer loop failed: the model failed" in (tmp_path / "results.md").read_text()
    assert [row["failed_cycles"] for row in csv.DictReader((tmp_path / "runs.csv").open())] == ["0", "1", "0", "0"]


def test_a_curve_is_the_gain_of_the_best_so_far() -> None:
    record = tell_run("x", "x", True, trials=14)
    gains = curve(record)
    assert gains[0] == 0.0
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(record.history.search_gain)
    assert len(gains) == 15


def test_the_plan_says_what_it_takes_before_anything_runs(tmp_path: Path) -> None:
    plan = Plan("ab12", Design(groups=("A", "C"), repeats=2, trials=10, confirmation_seeds=0), tmp_path)
    expected = Expectation(5.0, plan.design.evaluations, 2, "cpu, 1 thread")
    said = "\n".join(plan_lines(plan, expected, resumed=False))
    assert "2 groups x 2 repeats x 10 trials" in said
    assert "at most 44 evaluations, 2 at a time" in said
    assert "expected: 1 min 50 s of evaluations in all" in said
    assert all(f"{cell.group.name}{cell.repeat}" in said for cell in plan.design.schedule())
    assert "going on with ablation ab12" in "\n".join(plan_lines(plan, expected, resumed=True))


def test_progress_says_how_far_it_is_and_what_is_left(tmp_path: Path) -> None:
    [first, *_] = results_of(tmp_path).finished
    assert "[1/4] A, repeat 1: gain" in progress_line(first, 1, 4, [60.0], 1)
    assert "about 3 min 0 s left" in progress_line(first, 1, 4, [60.0], 1)
    assert "left" not in progress_line(first, 4, 4, [60.0], 1)
    ended = Finished(first.cell, first.record, None)
    assert "had ended before" in progress_line(ended, 2, 4, [60.0], 1)
