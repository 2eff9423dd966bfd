"""What a task says about itself: TASK-1, and COMMON-1."""

from __future__ import annotations

import re

from bilevel.v1 import common_pb2, task_pb2

from clients.conformance import common
from clients.conformance.expect import expect, same
from clients.conformance.task.subject import TASK, TaskSubject
from service_kit.translate import duration_from_proto


@TASK.check("TASK-1.1")
async def description(task: TaskSubject) -> None:
    """Describe names the task, its objective, budget, hard limit and capacity"""
    said = await task.described()
    expect(
        re.fullmatch(r"[a-z0-9-]+", said.name), f"name must be lowercase letters, digits, dashes; it is {said.name!r}"
    )
    expect(said.objective.metric, "objective.metric must not be empty")
    known = (common_pb2.DIRECTION_MINIMIZE, common_pb2.DIRECTION_MAXIMIZE)
    expect(said.objective.direction in known, "objective.direction must be MINIMIZE or MAXIMIZE")
    for field in ("budget", "hard_limit"):
        seconds = duration_from_proto(getattr(said, field))
        expect(seconds > 0, f"{field} must be above 0 s; it is {seconds:g} s")
    expect(said.capacity >= 1, f"capacity must be at least 1; it is {said.capacity}")


@TASK.check("TASK-1.1", advice=True)
async def words(task: TaskSubject) -> None:
    """Describe has words for people and for a language model"""
    said = await task.described()
    missing = [field for field in ("title", "documentation") if not getattr(said, field).strip()]
    expect(not missing, f"{' and '.join(missing)} should not be empty")


@TASK.check("TASK-1.2")
async def space(task: TaskSubject) -> None:
    """The parameter space is valid and its defaults lie within it"""
    found = await task.space()
    expect(found.editable, "at least one parameter must not be locked")


@TASK.check("TASK-1.3")
async def stable(task: TaskSubject) -> None:
    """Describe answers the same each time"""
    same("the description", (await task.wire.call("Describe")).task, await task.described())


@TASK.check("COMMON-1.1", advice=True)
async def health(task: TaskSubject) -> None:
    """Health checks are answered"""
    await common.health(task.wire)


@TASK.check("COMMON-1.2", advice=True)
async def reflection(task: TaskSubject) -> None:
    """Server reflection lists the service"""
    await common.reflection(task.wire)


@TASK.check("COMMON-1.3")
async def later_fields(task: TaskSubject) -> None:
    """Fields of later versions are ignored"""
    await common.unknown_fields(task.wire, "Validate", task_pb2.ValidateRequest())
