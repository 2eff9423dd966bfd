"""The demonstration of memory fails when it did not show what it is for, and claims nothing beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from clients.demo_memory import MemoryDemoResult, MemoryDemoSettings, judge, reached
from clients.report import ReportFiles
from clients.report.record import RunRecord
from tests.clients.conftest import tell_run


def pair(*, scripted: bool = True) -> tuple[RunRecord, RunRecord]:
    """Two finished runs, the second with a lesson of the first in view, cited and shown to matter."""
    records = [tell_run(f"m{i}", f"run {i}", scripted, trials=14, scripted=scripted) for i in (1, 2)]
    first, second = (record.history for record in records)
    lesson = trace_pb2.Lesson(name="lessons/a", statement="smaller batches")
    written = trace_pb2.LessonsWritten(decided_trials=14, written=[lesson])
    first.on_lessons_written(written, records[0].events[-1])
    event = records[1].events[-1]
    shown = trace_pb2.LessonsShown(trial=3, lessons=["lessons/a"], statements=["smaller batches"])
    second.on_lessons_shown(shown, event)
    second.on_lessons_cited(trace_pb2.LessonsCited(trial=3, lessons=["lessons/a"]), event)
    compared = trace_pb2.LessonsCompared(trial=3, without_lessons="p", with_lessons="q", differs=True)
    second.on_lessons_compared(compared, event)
    return records[0], records[1]


def test_a_demonstration_that_shows_memory_at_work_has_no_problems() -> None:
    assert judge(pair()) == ()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("writings", "the first run wrote no lessons"),
        ("lessons", "the second run cited no lesson"),
        ("comparisons", "no proposal of the second run was another one without lessons"),
    ],
)
def test_a_scripted_one_must_show_each_part(missing: str, said: str) -> None:
    records = pair()
    getattr(records[missing != "writings"].history.memory, missing).clear()
    assert judge(records) == (said,)


def test_what_stayed_must_be_tried_again() -> None:
    first, second = pair()
    kept = outer_pb2.VerdictReached(mechanism="turn-round", verdict=outer_pb2.VERDICT_KEEP)
    assert first.campaign is not None
    first.campaign.verdicts.append(kept)
    [problem] = judge((first, second))
    assert "tried no mechanism of the library again" in problem
    chosen = outer_pb2.LibraryEntryChosen(session="s", offer=outer_pb2.LibraryOffer(choice="library:turn-round"))
    second.campaign_events.append(outer_pb2.CampaignEvent(library_entry_chosen=chosen))
    assert judge((first, second)) == ()


def test_with_a_real_model_the_same_is_a_result() -> None:
    records = pair(scripted=False)
    for record in records:
        for part in ("writings", "lessons", "comparisons"):
            getattr(record.history.memory, part).clear()
    assert judge(records) == ()


def test_a_run_that_did_not_finish_is_a_problem_of_its_own() -> None:
    first, second = pair()
    cut = RunRecord(second.events[:-3], second.campaign_events)
    assert judge((first, cut))[0].startswith("the run 2 is ")


def test_the_numbers_say_when_the_first_runs_gain_was_reached() -> None:
    first, second = pair()
    assert first.history.best is not None
    assert reached(first, first) == first.history.best
    bare = tell_run("m3", "bare", False, trials=3)
    assert reached(bare, first) is None
    files = ReportFiles(Path("r.html"), Path("r.png"), (), ())
    result = MemoryDemoResult((first, second), files, ())
    said = "\n".join(result.lines())
    assert "cited by 1 trial (3)" in said
    assert "not that it helps" in said
    assert result.to_json()["trials_to_first_gain"]["first"] == first.history.best
    assert result.to_json()["scripted"] is True


def test_the_second_run_has_another_seed_and_compares() -> None:
    first, second = MemoryDemoSettings(Path("out"), seed=7, short=True).plans()
    assert (first.seed, second.seed) == (7, 8)
    assert (first.lessons, second.lessons) == (True, True)
    assert (first.compare_lessons, second.compare_lessons) == (False, True)
    assert second.library
