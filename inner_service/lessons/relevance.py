"""Which lessons are shown, and which are forgotten.

A lesson's relevance to a proposal is a product, 0 for what is not shown at all::

    scope * parameters * usefulness * recency

* scope: 1 on the same task and hardware, or for a lesson to which hardware does not matter; 0.5 on other hardware,
  and 0 there for a failure of the implementation, which says nothing about another machine; 0 on another task.
* parameters: from 0.5, when none of the parameters that it is about may be changed now, to 1, when all may or when it
  is about none.
* usefulness: (1 + helped + cited and kept) / (2 + shown + cited): the share of the trials with it in view that were
  kept, as if it had helped once in two earlier ones (Laplace); a trial that named it counts twice.
* recency: one half to the power of its age in units of 30 days, counted from its newest evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from inner_service.lessons.lesson import FailureClass, Lesson

SHOWN = 5
"""At most so many lessons go into one prompt."""
HALF_LIFE = timedelta(days=30)
PATIENCE = 30
"""A lesson that was shown so often and never helped is forgotten."""
FADED = HALF_LIFE * 4
"""So is one that never helped and found no new evidence for so long."""
MOST_KEPT = 200
"""Lessons of one task that are kept, the most relevant ones."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Where lessons are wanted."""

    task: str
    hardware: str
    active: Collection[str]
    """Parameters that may be changed now."""
    now: datetime
    run: str = ""
    """Id of the run, whose own experience is in its history and need not be repeated."""


def most_relevant(lessons: Sequence[Lesson], situation: Situation) -> tuple[Lesson, ...]:
    """The few lessons to show, the most relevant first.

    Equally relevant ones by age, the newest first, then by evidence, the most first, then by what they say: two
    searches that learnt the same are shown the same.
    """
    known = [lesson for lesson in lessons if not lesson.learnt_only_in(situation.run)]
    scored = [(relevance(lesson, situation), lesson) for lesson in known]
    fitting = [(score, lesson) for score, lesson in scored if score > 0]
    fitting.sort(key=lambda entry: entry[1].statement)
    fitting.sort(key=lambda entry: (entry[0], entry[1].update_time, len(entry[1].evidence)), reverse=True)
    return tuple(lesson for _, lesson in fitting[:SHOWN])


def relevance(lesson: Lesson, situation: Situation) -> float:
    """The product above, in [0, 1]."""
    return (
        _scope(lesson, situation)
        * _reach(lesson, situation.active)
        * usefulness(lesson)
        * recency(lesson, situation.now)
    )


def usefulness(lesson: Lesson) -> float:
    """In (0, 1); 0.5 for a lesson that was never shown."""
    good = lesson.times_helped + lesson.times_cited_kept
    return (1 + good) / (2 + lesson.times_shown + lesson.times_cited)


def recency(lesson: Lesson, now: datetime) -> float:
    """1 for new evidence, one half after 30 days."""
    age: float = max(now - lesson.update_time, timedelta()) / HALF_LIFE
    return float(0.5**age)


def outworn(lessons: Sequence[Lesson], now: datetime) -> list[Lesson]:
    """The lessons of one task to forget: what never helped, and the least useful and oldest beyond the most kept."""
    idle = [lesson for lesson in lessons if _never_helped(lesson, now)]
    left = [lesson for lesson in lessons if lesson not in idle]
    left.sort(key=lambda lesson: (usefulness(lesson) * recency(lesson, now), lesson.id))
    return [*idle, *left[: max(0, len(left) - MOST_KEPT)]]


def _never_helped(lesson: Lesson, now: datetime) -> bool:
    return lesson.times_helped == 0 and (lesson.times_shown >= PATIENCE or now - lesson.update_time >= FADED)


def _scope(lesson: Lesson, situation: Situation) -> float:
    if lesson.task != situation.task:
        return 0.0
    if lesson.hardware in ("", situation.hardware):
        return 1.0
    return 0.0 if lesson.failure is FailureClass.IMPLEMENTATION else 0.5


def _reach(lesson: Lesson, active: Collection[str]) -> float:
    if not lesson.parameters:
        return 1.0
    return 0.5 + 0.5 * sum(name in active for name in lesson.parameters) / len(lesson.parameters)
