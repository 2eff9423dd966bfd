"""Lessons: all that are kept, with what came of them, and those of one run, with what they changed in it."""

from __future__ import annotations

from collections.abc import Sequence

from bilevel.v1 import trace_pb2
from nicegui import app, ui

from clients import wording
from clients.dashboard.elements import box, by_trial, empty, facts, link, tag, text, words_filter
from clients.dashboard.feeds import Feeds, StreamFeed
from clients.dashboard.folding import fold
from clients.dashboard.frame import connection, follow, frame
from clients.dashboard.part import Part
from clients.dashboard.polling import PolledFeed
from clients.dashboard.projection.run import RunView
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services
from clients.history import short
from clients.memory_history import LessonHistory

MOST = 1000
"""Lessons that are listed, newest first."""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the pages."""
    lessons = PolledFeed[trace_pb2.Lesson](lambda: services.inner.list_lessons(limit=MOST))
    app.on_shutdown(lessons.stop)

    @ui.page("/lessons")
    def every_lesson() -> None:
        with frame("Lessons", here="/lessons"):
            with box("div", "heading"):
                text("h1", "Lessons")
                connection(lessons)
                box("span", "space")
                wanted = words_filter("lessons", "words, task, parameter")
            part = Part()

        def draw() -> None:
            found = [lesson for lesson in lessons.items if _mentions(lesson, wanted.value or "")]
            shown = (lessons.was_read, lessons.version, wanted.value)
            part.draw(shown, lambda: _all(found, len(lessons.items), read=lessons.was_read))

        wanted.on_value_change(draw)
        follow(lessons, draw)

    @ui.page("/runs/{run_id}/lessons")
    def of_run(run_id: str) -> None:
        with run_frame(services, feeds, run_id, "/lessons") as feed:
            part = Part()

        def draw() -> None:
            memory = feed.view.memory
            parts = [(name, len(lesson.in_view), len(lesson.cited)) for name, lesson in memory.lessons.items()]
            shown = (parts, len(memory.comparisons), len(memory.writings), feed.behind)
            part.draw(shown, lambda: _in_run(feed, run_id))

        follow(feed, draw)


def _mentions(lesson: trace_pb2.Lesson, wanted: str) -> bool:
    said = " ".join((lesson.statement, lesson.task, *lesson.parameters, lesson.author)).lower()
    return all(word in said for word in wanted.lower().split())


def _all(lessons: Sequence[trace_pb2.Lesson], known: int, *, read: bool) -> None:
    if not read:
        return
    if not known:
        empty(
            "No lesson yet",
            "Runs with lessons write them at their checkpoints and at their end. Start one with:",
            command="bilevel run --lessons",
        )
    elif not lessons:
        empty("No lesson matches", "Clear the filter to see all of them.")
    for lesson in lessons:
        _lesson(lesson)


def _lesson(lesson: trace_pb2.Lesson) -> None:
    with box("section", "panel lesson"):
        text("p", lesson.statement, "said")
        with box("div", "tags"):
            tag(wording.member(trace_pb2.LessonKind.Name(lesson.kind), "LESSON_KIND_"))
            if lesson.failure:
                tag(wording.member(trace_pb2.FailureClass.Name(lesson.failure), "FAILURE_CLASS_") + " failure")
            for parameter in lesson.parameters:
                tag(parameter)
            if lesson.scripted:
                tag("scripted", "warning")
            if lesson.imported:
                tag("imported: nobody checked its evidence here", "warning")
        facts(
            [
                ("Task", lesson.task or wording.NOTHING),
                ("Author", lesson.author or wording.NOTHING),
                ("Written", wording.moment(lesson.create_time)),
                ("In view of", wording.count(lesson.times_shown, "proposal")),
                ("Kept of those in view", str(lesson.times_helped)),
                ("Cited by", wording.count(lesson.times_cited, "proposal")),
                ("Kept of those citing", str(lesson.times_cited_kept)),
            ],
            "gap-above",
        )
        if lesson.evidence:
            fold("Evidence", lambda: _evidence(lesson.evidence), note=wording.count(len(lesson.evidence), "trial"))


def _evidence(names: Sequence[str]) -> None:
    with box("div", "line-up"):
        for name in names:
            parts = name.split("/")
            if len(parts) == 4:
                link(f"{parts[1]}, trial {parts[3]}", f"/runs/{parts[1]}/trials/{parts[3]}")
            else:
                text("span", name)


def _in_run(feed: StreamFeed[RunView], run_id: str) -> None:
    view, memory = feed.view, feed.view.memory
    if feed.behind:
        text("p", "Reading the trace.", "quiet")
        return
    if not memory.lessons and not memory.writings:
        if view.spec.use_lessons:
            empty("No lesson so far", "They are written at checkpoints and at the end.")
        else:
            empty("This run works without lessons", "It was started so.", command="bilevel run --lessons")
        return
    with box("section", "panel"):
        facts(
            [
                ("In view of its proposals", wording.count(len(memory.lessons), "lesson")),
                ("Cited", str(sum(bool(lesson.cited) for lesson in memory.lessons.values()))),
                ("Proposals compared", str(len(memory.comparisons))),
                ("Changed by lessons", str(len(memory.changed)) if memory.comparisons else "not measured"),
                ("Written", str(len(memory.written))),
            ]
        )
    if memory.comparisons:
        _comparisons(view, run_id)
    for lesson in memory.lessons.values():
        _part(view, lesson, run_id)
    if memory.written:
        text("h2", "Written in this run", "section-title")
    for written in memory.written:
        _lesson(written)


def _part(view: RunView, lesson: LessonHistory, run_id: str) -> None:
    kept = sum(view.trials[n].state == trace_pb2.TRIAL_STATE_KEPT for n in lesson.cited if n in view.trials)
    with box("section", "panel lesson"):
        text("p", lesson.statement or short(lesson.name), "said")
        facts(
            [
                ("In view of", wording.count(len(lesson.in_view), "proposal")),
                ("Cited by", wording.count(len(lesson.cited), "proposal")),
                ("Kept of those citing", str(kept)),
            ],
            "gap-above",
        )
        if lesson.cited:
            with box("div", "line-up gap-above"):
                for number in lesson.cited:
                    link(f"trial {number}", f"/runs/{run_id}/trials/{number}")


def _comparisons(view: RunView, run_id: str) -> None:
    """What the same question without lessons was answered with."""
    differing = [comparison for comparison in view.memory.comparisons if comparison.differs]

    def listed() -> None:
        cells = [(answer.trial, (answer.without_lessons, answer.with_lessons)) for answer in differing]
        by_trial(run_id, ("without lessons", "with lessons"), cells)

    if differing:
        with box("section", "panel"):
            note = f"{len(differing)} of {len(view.memory.comparisons)}; with a model that samples, some by chance"
            fold("Proposals that lessons changed", listed, note=note)
