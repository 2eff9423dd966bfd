"""Where lessons are kept, across all runs of the service."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inner_service.lessons import Lesson
from inner_service.tables import lessons
from service_kit.database import Database
from service_kit.errors import NotFound


class LessonStore:
    """The lessons of one inner service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, statement: str, task: str, hardware: str, evidence: Sequence[str], request_id: str = ""
    ) -> Lesson:
        """Write a lesson; with a ``request_id`` that was used before, the lesson that it wrote then."""
        return await self._database.uninterrupted(self._create(statement, task, hardware, evidence, request_id))

    async def _create(
        self, statement: str, task: str, hardware: str, evidence: Sequence[str], request_id: str
    ) -> Lesson:
        async with self._database.transaction() as connection:
            if request_id:
                found = (await connection.execute(select(lessons).where(lessons.c.request_id == request_id))).first()
                if found is not None:
                    return _lesson(found)
            now = datetime.now(UTC)
            lesson = Lesson(secrets.token_hex(6), statement, task, hardware, tuple(evidence), now)
            row = {
                "id": lesson.id,
                "request_id": request_id or None,
                "statement": statement,
                "task": task,
                "hardware": hardware,
                "evidence": list(evidence),
                "create_time": now,
            }
            await connection.execute(insert(lessons), row)
        return lesson

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
        await self._database.uninterrupted(self._delete(lesson_id))

    async def _delete(self, lesson_id: str) -> None:
        async with self._database.transaction() as connection:
            gone = await connection.execute(delete(lessons).where(lessons.c.id == lesson_id))
            if gone.rowcount == 0:
                raise NotFound("lesson", f"lessons/{lesson_id}", "ListLessons gives the lessons that exist")

    async def count(self, connection: AsyncConnection, ids: Sequence[str], *, shown: int = 0, helped: int = 0) -> None:
        """Count in the caller's transaction that lessons were shown or helped; forgotten ones are passed over."""
        if ids:
            counters = {
                "times_shown": lessons.c.times_shown + shown,
                "times_helped": lessons.c.times_helped + helped,
            }
            await connection.execute(update(lessons).where(lessons.c.id.in_(ids)).values(**counters))


def _lesson(row: Row[tuple[object, ...]]) -> Lesson:
    fields = row._mapping  # noqa: SLF001 (SQLAlchemy's documented way to a row by name)
    names = ("id", "statement", "task", "hardware", "create_time", "times_shown", "times_helped")
    return Lesson(evidence=tuple(fields["evidence"]), **{name: fields[name] for name in names})
