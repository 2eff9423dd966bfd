"""Lessons: sentences of experience with evidence, kept across runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_STATEMENT = 2000
"""Longest lesson, in characters."""
SHOWN = 8
"""At most so many lessons go into one prompt."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One sentence. ``evidence`` names the trials that support it; ``hardware`` is empty when it does not matter."""

    id: str
    statement: str
    task: str
    hardware: str
    evidence: tuple[str, ...]
    create_time: datetime
    times_shown: int = 0
    times_helped: int = 0
    """Kept trials that were proposed with it in view."""

    @property
    def name(self) -> str:
        return f"lessons/{self.id}"


def relevant(lessons: Sequence[Lesson], hardware: str) -> tuple[Lesson, ...]:
    """The lessons of a task to show on ``hardware``: those that fit it, the most helpful first, then the newest."""
    fitting = [lesson for lesson in lessons if lesson.hardware in ("", hardware)]
    fitting.sort(key=lambda lesson: (_usefulness(lesson), lesson.create_time), reverse=True)
    return tuple(fitting[:SHOWN])


def _usefulness(lesson: Lesson) -> float:
    """Share of the times it was shown that it helped, as if it had helped once in two earlier times (Laplace)."""
    return (lesson.times_helped + 1) / (lesson.times_shown + 2)
