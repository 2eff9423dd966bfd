"""What memory did to a run is told in three strengths: in view, cited, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from clients import lesson_files
from clients.history import RunHistory
from clients.memory import lines, retried, to_json
from clients.report.page import render_page
from service_kit.errors import InvalidArgument
from tests.clients.conftest import Script, tell_run


def remembered(scripted: bool = True, compare: bool = True) -> RunHistory:
    script = Script("runs/r")
    script.say(model_called=trace_pb2.ModelCalled(purpose="propose", model="m", scripted=scripted))
    for number, kept in ((0, True), (1, True), (2, False)):
        trial = trace_pb2.Trial(name=f"runs/r/trials/{number}", number=number, state=trace_pb2.TRIAL_STATE_PROPOSED)
        script.say(trial_proposed=trace_pb2.TrialProposed(trial=trial))
        if number:
            shown = trace_pb2.LessonsShown(trial=number, lessons=["lessons/a", "lessons/b"], statements=["x", "y"])
            script.say(lessons_shown=shown)
            script.say(lessons_cited=trace_pb2.LessonsCited(trial=number, lessons=["lessons/a"]))
            if compare:
                compared = trace_pb2.LessonsCompared(
                    trial=number, without_lessons="p", with_lessons="q", differs=number == 1
                )
                script.say(lessons_compared=compared)
        script.say(trial_decided=trace_pb2.TrialDecided(number=number, kept=kept))
    written = trace_pb2.LessonsWritten(decided_trials=2, written=[trace_pb2.Lesson(name="lessons/c", statement="z")])
    script.say(lessons_written=written)
    return RunHistory.of(script.events)


def test_in_view_cited_and_changed_are_three_things() -> None:
    told = to_json(remembered())
    a, b = told["lessons"]
    assert (a["in_view"], a["cited"], a["cited_and_kept"]) == ([1, 2], [1, 2], [1])
    assert (b["in_view"], b["cited"], b["cited_and_kept"]) == ([1, 2], [], [])
    assert (told["compared"], [(c["trial"], c["by"], c["kept"]) for c in told["changed"]]) == (
        2,
        [(1, ("lessons/a",), True)],
    )
    assert told["written"] == [{"name": "lessons/c", "statement": "z"}]


def test_what_came_from_the_library_and_what_it_changed_is_told() -> None:
    script, history = Script("runs/r"), remembered()
    session, offer = (
        "campaigns/c1/researchSessions/1",
        outer_pb2.LibraryOffer(choice="library:tabu", record="kept once"),
    )
    chosen = outer_pb2.LibraryEntryChosen(session=session, offer=offer, reason="it fits")
    script.tell(library_entry_chosen=chosen)
    [unfinished] = retried(history, script.campaign)
    assert (unfinished.choice, unfinished.mechanism, unfinished.changed) == ("library:tabu", "", ())
    assert unfinished.outcome == "not installed yet"
    script.tell(research_finished=outer_pb2.ResearchFinished(session=session, mechanism="tabu", outcome=1))
    history.on_mechanism_installed(
        trace_pb2.MechanismInstalled(mechanism=trace_pb2.Mechanism(name="runs/r/mechanisms/tabu")), script.events
    )  # type: ignore[arg-type]
    for trial in (2, 1):
        change = trace_pb2.DecisionChanged(
            mechanism="tabu", hook=trace_pb2.MECHANISM_HOOK_VETO, trial=trial, before="b", after="a"
        )
        history.on_decision_changed(change, script.events)  # type: ignore[arg-type]
    reached = outer_pb2.VerdictReached(mechanism="tabu", verdict=outer_pb2.VERDICT_RETIRE, reason="inert")
    script.tell(verdict_reached=reached)
    [told] = to_json(history, script.campaign)["library"]
    assert [change["trial"] for change in told["changed"]] == [2, 1]
    said = "\n".join(lines(history, script.campaign))
    assert "from the library: library:tabu was tried again: installed as tabu, 2 decisions changed" in said
    assert "    trial 1 (tabu, veto; kept): b → a" in said
    assert "    verdict here: retire: inert" in said


def test_what_the_gate_refused_of_the_library_is_told_with_the_reason() -> None:
    script, session = Script("runs/r"), "campaigns/c1/researchSessions/1"
    offer = outer_pb2.LibraryOffer(choice="library:tabu", record="kept once")
    script.tell(library_entry_chosen=outer_pb2.LibraryEntryChosen(session=session, offer=offer))
    for attempt in (1, 2):
        script.tell(mechanism_judged=outer_pb2.MechanismJudged(session=session, attempt=attempt))
    script.tell(research_finished=outer_pb2.ResearchFinished(session=session, outcome=2, message="inert"))
    [refused] = retried(remembered(), script.campaign)
    assert (refused.outcome, refused.repaired) == ("not installed: inert", True)
    said = "\n".join(lines(remembered(), script.campaign))
    assert "library:tabu was tried again: not installed: inert" in said


def test_the_report_shows_lessons_escaped_and_their_part() -> None:
    record = tell_run("r9", "second run", True, trials=12)
    shown = trace_pb2.LessonsShown(trial=1, lessons=["lessons/a"], statements=["<i>less</i>"])
    record.history.on_lessons_shown(shown, record.events[0])
    record.history.on_lessons_cited(trace_pb2.LessonsCited(trial=1, lessons=["lessons/a"]), record.events[0])
    compared = trace_pb2.LessonsCompared(trial=1, without_lessons="p<q", with_lessons="q", differs=True)
    record.history.on_lessons_compared(compared, record.events[0])
    page = render_page([record])
    assert "&lt;i&gt;less&lt;/i&gt;" in page
    assert "<i>less" not in page
    assert "another first candidate 1 time" in page
    assert "p&lt;q" in page
    assert "Memory of earlier searches" not in render_page([tell_run("r8", "bare", False, trials=3)])


def test_the_words_claim_no_more_than_was_measured() -> None:
    said = "\n".join(lines(remembered()))
    assert "in view of 2 trials (1, 2); cited by 2 trials (1, 2), 1 of them kept" in said
    assert "never cited" in said
    assert "another first candidate 1 time" in said
    assert "chance" not in said
    assert "in part perhaps by chance" in "\n".join(lines(remembered(scripted=False)))
    assert "was not measured" in "\n".join(lines(remembered(compare=False)))
    assert "caused" not in said


def test_an_exported_lesson_comes_back_the_same(tmp_path: Path) -> None:
    lesson = trace_pb2.Lesson(
        name="lessons/a", statement="x", task="t", evidence=["runs/r/trials/1"], kind=1, failure=2
    )
    lesson.update_time.FromSeconds(1_760_000_000)
    file = tmp_path / "lessons.json"
    file.write_text(json.dumps(lesson_files.document([lesson])))
    [back] = lesson_files.read(file)
    assert back == lesson
    assert lesson_files.request_id(back) == lesson_files.request_id(lesson)
    assert len(lesson_files.request_id(back)) <= 64


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "must be JSON"),
        ("[]", "bilevel-lessons/1"),
        ('{"format": "bilevel-lessons/2", "lessons": []}', "bilevel-lessons/1"),
        ('{"format": "bilevel-lessons/1", "lessons": [{"colour": 1}]}', r"lessons\[0\]"),
    ],
)
def test_a_file_that_is_no_export_is_refused_with_what_is_wrong(tmp_path: Path, text: str, wrong: str) -> None:
    file = tmp_path / "lessons.json"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=wrong):
        lesson_files.read(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        lesson_files.read(tmp_path / "lessons.json")
