"""What memory did to a run, in words and numbers that claim no more than the trace shows."""

from __future__ import annotations

from typing import Any

from bilevel.v1 import trace_pb2

from clients import wording
from clients.history import RunHistory
from clients.memory_history import LessonHistory


def to_json(history: RunHistory) -> dict[str, Any]:
    """Every lesson's part in the run, the comparisons, and what was written."""
    memory = history.memory
    return {
        "run": history.name,
        "lessons": [
            {
                "name": lesson.name,
                "statement": lesson.statement,
                "in_view": lesson.in_view,
                "cited": lesson.cited,
                "cited_and_kept": _kept(history, lesson.cited),
            }
            for lesson in memory.lessons.values()
        ],
        "compared": len(memory.comparisons),
        "changed": [
            {"trial": c.trial, "without_lessons": c.without_lessons, "with_lessons": c.with_lessons}
            for c in memory.comparisons
            if c.differs
        ],
        "written": [lesson.name for lesson in memory.written],
    }


def lines(history: RunHistory) -> list[str]:
    """The same for people."""
    memory = history.memory
    said = [f"{history.name}: {wording.count(len(memory.lessons), 'lesson')} in view of its proposals"]
    for lesson in memory.lessons.values():
        said += [f"  {lesson.name} {lesson.statement}", f"    {_part(history, lesson)}"]
    if memory.comparisons:
        changed = len(memory.changed)
        said.append(
            f"  asked again without lessons {wording.count(len(memory.comparisons), 'time')}: "
            f"another first candidate {wording.count(changed, 'time')}"
            + ("" if _scripted(history) else ", in part perhaps by chance")
        )
        for comparison in memory.comparisons:
            if comparison.differs:
                without, with_lessons = comparison.without_lessons, comparison.with_lessons
                said.append(f"    trial {comparison.trial}: {without} → {with_lessons}")
    elif memory.lessons:
        said.append("  whether they changed a proposal was not measured (compare_lessons does, at twice the calls)")
    for writing in memory.writings:
        said.append(f"  after trial {writing.decided_trials}: {_written(writing)}")
        said += [f"    {lesson.name} {lesson.statement}" for lesson in writing.written]
    return said


def _part(history: RunHistory, lesson: LessonHistory) -> str:
    cited = f"cited by {_numbers(lesson.cited)}, {len(_kept(history, lesson.cited))} of them kept"
    return f"in view of {_numbers(lesson.in_view)}; {cited if lesson.cited else 'never cited'}"


def _numbers(trials: list[int]) -> str:
    return f"{wording.count(len(trials), 'trial')} ({', '.join(map(str, trials))})"


def _kept(history: RunHistory, numbers: list[int]) -> list[int]:
    return [n for n in numbers if history.trials[n].state == trace_pb2.TRIAL_STATE_KEPT]


def _scripted(history: RunHistory) -> bool:
    return history.spending.calls > 0 and history.spending.scripted_calls == sum(history.spending.models.values())


def _written(writing: trace_pb2.LessonsWritten) -> str:
    if writing.error:
        return f"no lessons: {writing.error}"
    counts = (("new", writing.written), ("known already", writing.merged), ("refused", writing.refused))
    parts = [f"{len(found)} {what}" for what, found in counts if found]
    parts += [f"{wording.count(len(writing.pruned), 'old one')} forgotten"] if writing.pruned else []
    return f"lessons: {', '.join(parts) or 'none'}"
