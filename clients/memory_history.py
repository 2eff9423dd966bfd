"""What lessons had to do with a run, as its trace tells it.

Three things of different strength: a lesson was *in view* when a trial was proposed; the proposal *cited* it, which is
what the model says of itself; and, where the run compared, the same question without any lesson got another answer.
Only the last is measured, for all lessons in view together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bilevel.v1 import trace_pb2


@dataclass(slots=True)
class LessonHistory:
    """One lesson's part in a run."""

    name: str
    """Resource name."""
    statement: str = ""
    in_view: list[int] = field(default_factory=list)
    """Numbers of the trials that were proposed with it in view."""
    cited: list[int] = field(default_factory=list)
    """Those of them whose proposal named it as a reason."""


@dataclass(slots=True)
class MemoryHistory:
    """Every lesson that a run was shown, every comparison, and what was written."""

    lessons: dict[str, LessonHistory] = field(default_factory=dict)
    """By resource name, in the order in which they were first shown."""
    comparisons: list[trace_pb2.LessonsCompared] = field(default_factory=list)
    writings: list[trace_pb2.LessonsWritten] = field(default_factory=list)

    @property
    def written(self) -> list[trace_pb2.Lesson]:
        """Every lesson that was new."""
        return [lesson for writing in self.writings for lesson in writing.written]

    @property
    def changed(self) -> list[int]:
        """Trials for which the model's first candidate was another one without lessons."""
        return [comparison.trial for comparison in self.comparisons if comparison.differs]

    def cited_by(self, trial: int) -> tuple[str, ...]:
        """Resource names of the lessons that the trial's proposal cited."""
        return tuple(lesson.name for lesson in self.lessons.values() if trial in lesson.cited)

    def show(self, event: trace_pb2.LessonsShown) -> None:
        # Traces from before statements were kept have none.
        statements = [*event.statements, *[""] * (len(event.lessons) - len(event.statements))]
        for name, statement in zip(event.lessons, statements, strict=True):
            lesson = self.lessons.setdefault(name, LessonHistory(name, statement))
            lesson.in_view.append(event.trial)

    def cite(self, event: trace_pb2.LessonsCited) -> None:
        for name in event.lessons:
            self.lessons.setdefault(name, LessonHistory(name)).cited.append(event.trial)
