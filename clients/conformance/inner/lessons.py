"""Lessons, kept across runs. INNER-6."""

from __future__ import annotations

import uuid

from bilevel.v1 import trace_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, refused, same
from clients.conformance.inner.subject import INNER, InnerSubject

_SENTENCES = ("Warm up for longer.", "Halving the batch size first pays off.", "Dropout changes nothing at this depth.")
"""Unlike each other: a service may add what repeats a lesson to that one."""


@INNER.check("INNER-6.1")
async def writing(inner: InnerSubject) -> None:
    """A lesson is written and listed, for its task alone"""
    task = f"conformance-{uuid.uuid4().hex[:8]}"
    first, second = [await _create(inner, task, text) for text in _SENTENCES[:2]]
    expect(first.name.startswith("lessons/"), f"name must have the form lessons/LESSON; it is {first.name!r}")
    same("the lesson", (first.statement, first.task), (_SENTENCES[0], task))
    same("what GetLesson gives", (await inner.wire.call("GetLesson", name=first.name)).lesson, first)
    mine = [lesson.name for lesson in (await inner.wire.call("ListLessons", task=task)).lessons]
    same("the lessons of the task, newest first", mine, [second.name, first.name])
    other = [lesson.name for lesson in (await inner.wire.call("ListLessons", task=f"{task}-other")).lessons]
    same("the lessons of another task", other, [])


@INNER.check("COMMON-3.1")
async def pages_of_lessons(inner: InnerSubject) -> None:
    """ListLessons gives every lesson once, in pages"""
    task = f"conformance-{uuid.uuid4().hex[:8]}"
    written = [(await _create(inner, task, text)).name for text in _SENTENCES]
    listed = [lesson.name for lesson in await common.pages(inner.wire, "ListLessons", "lessons", 2, task=task)]
    same("the lessons in pages of two", listed, written[::-1])


@INNER.check("COMMON-4.1")
async def once(inner: InnerSubject) -> None:
    """A repeated request_id writes no second lesson"""
    task, id_ = f"conformance-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    first, again = [await _create(inner, task, "Once.", id_) for _ in range(2)]
    same("the lesson of a repeated request_id", again.name, first.name)


@INNER.check("INNER-6.2")
async def wrong_lessons(inner: InnerSubject) -> None:
    """A lesson needs a statement and a task"""
    await invalid(_create(inner, "conformance", " "), "CreateLesson without a statement", "lesson.statement")
    await invalid(_create(inner, "", "A statement."), "CreateLesson without a task", "lesson.task")


@INNER.check("INNER-6.3")
async def forgetting(inner: InnerSubject) -> None:
    """A deleted lesson is gone"""
    task = f"conformance-{uuid.uuid4().hex[:8]}"
    name = (await _create(inner, task, "Soon forgotten.")).name
    await inner.wire.call("DeleteLesson", name=name)
    same("the lessons after deleting", list((await inner.wire.call("ListLessons", task=task)).lessons), [])
    await refused(inner.wire.call("DeleteLesson", name=name), "DeleteLesson a second time", "NOT_FOUND")
    await refused(inner.wire.call("GetLesson", name=name), "GetLesson of a deleted one", "NOT_FOUND")


async def _create(inner: InnerSubject, task: str, statement: str, request_id: str = "") -> trace_pb2.Lesson:
    written = trace_pb2.Lesson(task=task, statement=statement)
    lesson: trace_pb2.Lesson = (await inner.wire.call("CreateLesson", lesson=written, request_id=request_id)).lesson
    inner.lessons.append(lesson.name)
    return lesson
