"""What lessons had to do with a proposal, as events: in view, cited, compared."""

from __future__ import annotations

from collections.abc import Sequence

from inner_service.choice import Option
from inner_service.lessons.lesson import Lesson
from inner_service.run import Search
from inner_service.search_state import described
from inner_service.trace import LessonsCited, LessonsCompared, LessonsShown
from mechanisms.interface import Candidate, Origin


def credited(shown: Sequence[Lesson], option: Option, number: int) -> list[LessonsShown | LessonsCited]:
    """Which lessons the model had in view of trial ``number`` and which it named; a mechanism's candidate saw none."""
    if option.candidate.origin is not Origin.MODEL or not shown:
        return []
    ids, statements = zip(*((lesson.id, lesson.statement) for lesson in shown), strict=True)
    cited = [LessonsCited(number, option.cited)] if option.cited else []
    return [LessonsShown(number, ids, statements), *cited]


def comparison(search: Search, number: int, without: Candidate, with_lessons: Candidate) -> LessonsCompared:
    """The model's first candidate without lessons beside the one with them."""
    differs = dict(without.changes) != dict(with_lessons.changes)
    return LessonsCompared(number, described(search, without), described(search, with_lessons), differs)
