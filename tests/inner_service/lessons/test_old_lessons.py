"""Lessons that were written before there were kinds and citations are read as they were meant."""

from sqlalchemy import text

from inner_service.lessons.lesson import LessonKind
from inner_service.lessons.store import LessonStore
from inner_service.tables import SCHEMA
from service_kit.database import Database


async def test_an_old_lesson_keeps_what_it_says_and_its_credit(database_url: str) -> None:
    database = await Database.open(database_url)
    async with database.transaction() as connection:
        await connection.run_sync(SCHEMA.upgrade, SCHEMA.first)
        await connection.execute(
            text(
                "INSERT INTO lessons (number, id, statement, task, hardware, evidence, create_time, times_shown, "
                "times_helped) VALUES (1, 'old', 'x helps', 't', 'cpu', '[\"runs/a/trials/1\"]', "
                "'2026-01-02 03:04:05', 4, 2)"
            )
        )
    await database.close()
    database = await Database.open(database_url, SCHEMA)
    [lesson] = await LessonStore(database).of_task("t")
    assert (lesson.statement, lesson.kind, lesson.failure, lesson.parameters) == (
        "x helps",
        LessonKind.EXPERIMENT,
        None,
        (),
    )
    assert lesson.update_time == lesson.create_time
    assert (lesson.times_shown, lesson.times_helped, lesson.times_cited, lesson.times_cited_kept) == (4, 2, 0, 0)
    await database.close()
