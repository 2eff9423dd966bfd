"""From the wire's lessons to the domain's, checked."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bilevel.v1 import inner_pb2, trace_pb2

from inner_service import names
from inner_service.lessons.lesson import MAX_EVIDENCE, MAX_STATEMENT, FailureClass, Lesson, LessonKind
from mechanisms.printable import one_line
from service_kit.errors import InvalidArgument, Violation
from service_kit.translate import timestamp_from_proto

MAX_NAME = 255
MAX_PARAMETERS = 64

TrialExists = Callable[[str, int], Awaitable[bool]]
"""Whether a run, by id, has a trial of that number."""


async def lesson_from_proto(request: inner_pb2.CreateLessonRequest, trial_exists: TrialExists) -> Lesson:
    """The lesson to write. Raises :class:`InvalidArgument` with everything that is wrong."""
    message, now = request.lesson, datetime.now(UTC)
    wrong = [*_violations(message, request.request_id), *await _unproven(request, trial_exists)]
    if wrong:
        raise InvalidArgument(wrong)
    learnt = timestamp_from_proto(message.update_time) if message.HasField("update_time") else now
    return Lesson(
        id=secrets.token_hex(6),
        statement=one_line(message.statement, MAX_STATEMENT),
        task=message.task,
        hardware=message.hardware,
        evidence=tuple(dict.fromkeys(message.evidence)),
        create_time=now,
        # An imported lesson is as old as where it comes from; nothing comes from the future.
        update_time=min(learnt, now) if request.imported else now,
        kind=_KINDS[message.kind],
        failure=_FAILURES[message.failure],
        parameters=tuple(sorted(set(message.parameters))),
        author=message.author,
        scripted=message.scripted,
        imported=request.imported,
    )


def _violations(message: trace_pb2.Lesson, request_id: str) -> list[Violation]:
    wrong: list[Violation] = []

    def need(field: str, condition: bool, description: str) -> None:
        if not condition:
            wrong.append(Violation(field, description))

    length = len(message.statement)
    short = bool(one_line(message.statement, MAX_STATEMENT)) and length <= MAX_STATEMENT
    need("lesson.statement", short, f"must have 1 to {MAX_STATEMENT} characters; got {length}")
    need(
        "lesson.task",
        0 < len(message.task) <= MAX_NAME,
        "must name the task that it was learnt on, in at most 255 characters",
    )
    need("lesson.hardware", len(message.hardware) <= MAX_NAME, "must have at most 255 characters")
    need("lesson.author", len(message.author) <= MAX_NAME, "must have at most 255 characters")
    need("lesson.kind", message.kind in _KINDS, "must be IDEA or EXPERIMENT")
    need("lesson.failure", message.failure in _FAILURES, "must be IMPLEMENTATION, FUNDAMENTAL or left out")
    need("lesson.parameters", len(message.parameters) <= MAX_PARAMETERS, f"must be at most {MAX_PARAMETERS} names")
    need("lesson.evidence", len(message.evidence) <= MAX_EVIDENCE, f"must be at most {MAX_EVIDENCE} trials")
    need("request_id", len(request_id) <= 64, f"must have at most 64 characters; got {len(request_id)}")
    return wrong


async def _unproven(request: inner_pb2.CreateLessonRequest, trial_exists: TrialExists) -> list[Violation]:
    """Evidence that is not there. That of an imported lesson is elsewhere and must only have the form of a trial."""
    wrong: list[Violation] = []
    for place, name in enumerate(request.lesson.evidence[:MAX_EVIDENCE]):
        field = f"lesson.evidence[{place}]"
        try:
            run_id, number = names.trial_of(name, field)
        except InvalidArgument as error:
            wrong += error.violations
            continue
        if not request.imported and not await trial_exists(run_id, number):
            wrong.append(
                Violation(field, f"names a trial that does not exist here: {name}; imported takes it unchecked")
            )
    return wrong


_KINDS = {
    trace_pb2.LESSON_KIND_UNSPECIFIED: LessonKind.EXPERIMENT,
    trace_pb2.LESSON_KIND_IDEA: LessonKind.IDEA,
    trace_pb2.LESSON_KIND_EXPERIMENT: LessonKind.EXPERIMENT,
}
_FAILURES = {
    trace_pb2.FAILURE_CLASS_UNSPECIFIED: None,
    trace_pb2.FAILURE_CLASS_IMPLEMENTATION: FailureClass.IMPLEMENTATION,
    trace_pb2.FAILURE_CLASS_FUNDAMENTAL: FailureClass.FUNDAMENTAL,
}
