"""Where lessons are kept, across all runs of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, insert, select, update

from inner_service import trace
from inner_service.lessons.lesson import FailureClass, Lesson, LessonKind, joined
from inner_service.lessons.similarity import duplicate_of
from inner_service.run import Search
from inner_service.tables import lessons
from service_kit.database import Database
from service_kit.errors import NotFound

_TUPLES = ("evidence", "parameters")


class LessonStore:
    """The lessons of one inner service.

    Services that share a database may both write the same lesson in the same moment; within one it is written once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.deciding = asyncio.Lock()
        """Held from looking what is known until what is new has been committed."""

    async def create(self, lesson: Lesson, request_id: str = "") -> Lesson:
        """Write a lesson. One that says what another does adds its evidence to that one, which is returned.

        With a ``request_id`` that was used before, the lesson that it wrote then.
        """
        async with self.deciding:
            return await self._database.uninterrupted(self._database.transact(self._create, lesson, request_id))

    def _create(self, connection: Connection, lesson: Lesson, request_id: str) -> Lesson:
        if request_id:
            found = connection.execute(select(lessons).where(lessons.c.request_id == request_id)).first()
            if found is not None:
                return _lesson(found)
        known = [_lesson(row) for row in connection.execute(_of_task(lesson.task))]
        repeated = duplicate_of(lesson, known)
        if repeated is None:
            self.write(connection, [lesson], request_id)
            return lesson
        self.support(connection, repeated[0].id, lesson.evidence, datetime.now(UTC))
        return _lesson(connection.execute(select(lessons).where(lessons.c.id == repeated[0].id)).one())

    async def get(self, lesson_id: str) -> Lesson:
        """Raises :class:`NotFound`."""
        rows = await self._database.fetch(select(lessons).where(lessons.c.id == lesson_id))
        if not rows:
            raise _unknown(lesson_id)
        return _lesson(rows[0])

    async def of_task(self, task: str) -> list[Lesson]:
        """Every lesson of a task, oldest first."""
        return [_lesson(row) for row in await self._database.fetch(_of_task(task))]

    async def list(self, task: str = "", limit: int = 1000, before: int | None = None) -> list[tuple[int, Lesson]]:
        """Up to ``limit`` lessons with their numbers, newest first; ``before`` continues after that number."""
        query = select(lessons).order_by(lessons.c.number.desc()).limit(limit)
        if task:
            query = query.where(lessons.c.task == task)
        if before is not None:
            query = query.where(lessons.c.number < before)
        return [(row.number, _lesson(row)) for row in await self._database.fetch(query)]

    async def delete(self, lesson_id: str) -> None:
        """Forget a lesson. Raises :class:`NotFound`."""
        async with self.deciding:
            await self._database.uninterrupted(self._database.transact(self._delete, lesson_id))

    def _delete(self, connection: Connection, lesson_id: str) -> None:
        if self.forget(connection, [lesson_id]) == 0:
            raise _unknown(lesson_id)

    # Inside a caller's transaction

    def write(self, connection: Connection, new: Sequence[Lesson], request_id: str = "") -> None:
        """Insert lessons."""
        for lesson in new:
            connection.execute(insert(lessons), {**_row(lesson), "request_id": request_id or None})

    def support(self, connection: Connection, lesson_id: str, evidence: Sequence[str], now: datetime) -> None:
        """Add evidence to a lesson that was found again; a forgotten one is passed over."""
        row = connection.execute(select(lessons.c.evidence).where(lessons.c.id == lesson_id)).first()
        if row is not None:
            change = {"evidence": list(joined(row.evidence, evidence)), "update_time": now}
            connection.execute(update(lessons).where(lessons.c.id == lesson_id).values(**change))

    def forget(self, connection: Connection, ids: Sequence[str]) -> int:
        """Delete lessons; how many of them there were."""
        return connection.execute(delete(lessons).where(lessons.c.id.in_(ids))).rowcount if ids else 0

    def count(self, connection: Connection, ids: Sequence[str], *counters: str) -> None:
        """Add one to ``counters`` (names of :class:`Lesson`'s) of lessons; forgotten ones are passed over."""
        if ids:
            one_more: dict[str, ColumnElement[int]] = {name: lessons.c[name] + 1 for name in counters}
            connection.execute(update(lessons).where(lessons.c.id.in_(ids)).values(**one_more))

    def follow(self, connection: Connection, after: Search, events: Sequence[trace.Event]) -> None:
        """What ``events`` of a run, whose state is ``after`` them, mean for the lessons."""
        for event in events:
            match event:
                case trace.LessonsShown():
                    self.count(connection, event.lessons, "times_shown")
                case trace.LessonsCited():
                    self.count(connection, event.lessons, "times_cited")
                case trace.TrialDecided(kept=True):
                    self.count(connection, after.trials[event.number].lessons, "times_helped")
                    self.count(connection, after.trials[event.number].cited_lessons, "times_cited_kept")
                case trace.LessonsWritten():
                    self.write(connection, event.written)
                    for merged in event.merged:
                        self.support(connection, merged.lesson, merged.evidence, after.run.update_time)
                    self.forget(connection, event.pruned)


def _of_task(task: str) -> Select[Any]:
    return select(lessons).where(lessons.c.task == task).order_by(lessons.c.number)


def _unknown(lesson_id: str) -> NotFound:
    return NotFound("lesson", f"lessons/{lesson_id}", "ListLessons gives the lessons that exist")


def _row(lesson: Lesson) -> dict[str, object]:
    row: dict[str, object] = {field.name: getattr(lesson, field.name) for field in fields(lesson)}
    row |= {name: list(getattr(lesson, name)) for name in _TUPLES}
    return row | {"kind": lesson.kind.value, "failure": lesson.failure.value if lesson.failure is not None else ""}


def _lesson(row: Row[tuple[object, ...]]) -> Lesson:
    stored = row._mapping  # noqa: SLF001 (SQLAlchemy's documented way to a row by name)
    values = {field.name: stored[field.name] for field in fields(Lesson)}
    values |= {name: tuple(stored[name]) for name in _TUPLES}
    values["kind"] = LessonKind(stored["kind"])
    values["failure"] = FailureClass(stored["failure"]) if stored["failure"] else None
    return Lesson(**values)
