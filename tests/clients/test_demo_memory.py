"""The demonstration of memory fails when it did not show what it is for, and claims nothing beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bilevel.v1 import outer_pb2, trace_pb2
from typer.testing import CliRunner

from clients import demo_memory
from clients.cli import app
from clients.demo_memory import MemoryDemoResult, MemoryDemoSettings, judge, reached
from clients.report import ReportFiles
from clients.report.page import render_page
from clients.report.record import RunRecord
from tests.clients.conftest import SOURCE, tell_run


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
    session = "campaigns/c1/researchSessions/9"
    offer = outer_pb2.LibraryOffer(choice="library:tabu", entry="libraryEntries/ab", record="Tried 1 times on gpt.")
    for happened in (
        outer_pb2.CampaignEvent(library_entry_chosen=outer_pb2.LibraryEntryChosen(session=session, offer=offer)),
        outer_pb2.CampaignEvent(research_finished=outer_pb2.ResearchFinished(session=session, mechanism="tabu")),
        outer_pb2.CampaignEvent(
            verdict_reached=outer_pb2.VerdictReached(mechanism="tabu", verdict=outer_pb2.VERDICT_KEEP, reason="it acts")
        ),
    ):
        records[1].campaign_events.append(happened)
    installed = trace_pb2.Mechanism(name="runs/m2/mechanisms/tabu", source=SOURCE)
    second.on_mechanism_installed(trace_pb2.MechanismInstalled(mechanism=installed), event)
    veto = trace_pb2.MECHANISM_HOOK_VETO
    changed = trace_pb2.DecisionChanged(mechanism="tabu", hook=veto, trial=4, before="larger", after="refused")
    second.on_decision_changed(changed, event)
    return records[0], records[1]


def test_a_demonstration_that_shows_memory_at_work_has_no_problems() -> None:
    assert judge(pair()) == ()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("writings", "the first run wrote no lessons"),
        ("comparisons", "no proposal of the second run that cites a lesson was another one without lessons"),
    ],
)
def test_a_scripted_one_must_show_each_part(missing: str, said: str) -> None:
    records = pair()
    getattr(records[missing != "writings"].history.memory, missing).clear()
    assert judge(records) == (said,)


def test_a_second_run_that_cites_no_lesson_shows_none_at_work() -> None:
    first, second = pair()
    second.history.memory.lessons.clear()
    said = "no proposal of the second run that cites a lesson was another one without lessons"
    assert judge((first, second)) == ("the second run cited no lesson", said)


def test_a_change_that_no_lesson_is_named_for_is_not_enough() -> None:
    first, second = pair()
    [compared] = second.history.memory.comparisons
    compared.trial = 5
    assert judge((first, second)) == (
        "no proposal of the second run that cites a lesson was another one without lessons",
    )


def test_a_mechanism_of_the_library_must_be_installed_again() -> None:
    first, second = pair()
    second.campaign_events[:] = [e for e in second.campaign_events if not e.HasField("library_entry_chosen")]
    assert judge((first, second)) == ("the second run installed no mechanism of the library again",)
    first, second = pair()
    for event in second.campaign_events:
        if event.research_finished.mechanism == "tabu":
            event.research_finished.mechanism = ""
    assert judge((first, second)) == ("the second run installed no mechanism of the library again",)


def test_what_was_installed_again_must_change_a_decision() -> None:
    first, second = pair()
    second.history.mechanisms["tabu"].changes.clear()
    said = "what the second run installed again from the library changed no decision: library:tabu"
    assert judge((first, second)) == (said,)


def test_the_command_fails_where_nothing_was_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = pair()
    second.history.mechanisms["tabu"].changes.clear()

    async def found(*_: object) -> MemoryDemoResult:
        files = ReportFiles(tmp_path / "report.html", tmp_path / "r.png", (), ())
        return MemoryDemoResult((first, second), files, judge((first, second)))

    monkeypatch.setattr(demo_memory, "run_memory_demo", found)
    result = CliRunner().invoke(app, ["demo-memory", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "the demonstration failed: what the second run installed again from the library" in result.output


def test_the_report_says_which_lesson_and_which_mechanism_changed_which_decision() -> None:
    first, second = pair()
    page = " ".join(render_page([first, second]).split())
    assert "<strong>another first candidate 1 time</strong>" in page
    assert '<td class="right num">3</td><td><code>a</code> </td><td>p</td><td>q</td>' in page
    assert "installed as tabu; it changed <strong>1 decision</strong> here" in page
    assert '<td class="right num">4</td><td><code>tabu</code> <code>veto</code> </td><td>larger</td>' in page
    assert "Verdict of this run's own probation: keep: it acts" in page
    told = MemoryDemoResult((first, second), ReportFiles(Path("r"), Path("p"), (), ()), ()).to_json()["second"]
    assert [(c["trial"], c["by"]) for c in told["changed"]] == [(3, ("lessons/a",))]
    assert [(c["trial"], c["by"]) for c in told["library"][0]["changed"]] == [(4, ("tabu", "veto"))]


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
    short = MemoryDemoSettings(Path("out"), seed=7, short=True)
    first, second = short.plans()
    assert (short.trial_budget, MemoryDemoSettings(Path("out")).trial_budget) == ("2", "short")
    assert (first.seed, second.seed) == (7, 8)
    assert (first.lessons, second.lessons) == (True, True)
    assert (first.compare_lessons, second.compare_lessons) == (False, True)
    assert second.library
