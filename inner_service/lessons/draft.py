"""Lessons as a model writes them, and the checks that make a lesson of a draft."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inner_service.lessons.lesson import FailureClass, Lesson, LessonKind
from inner_service.run import Search, Trial, TrialState
from mechanisms.printable import one_line
from service_kit.errors import Violation

MOST_WRITTEN = 5
"""At most so many lessons are taken from one answer, the first ones."""
LONGEST = 400
"""Longest lesson that a model may write, in characters."""


def _given(values: object) -> object:
    """Without nulls, so that what is optional is as if it were absent."""
    return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _listed(value: Any) -> object:
    """``BATCH, LR`` and a single number as lists."""
    if isinstance(value, str):
        return re.split(r"[,\s]+", value.strip())
    return [value] if isinstance(value, int) else value


def _number(value: object) -> object:
    """``trial 3`` and ``#3`` as 3."""
    named = re.fullmatch(r"\s*(?:trial\s+|#)(\d+)\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    return int(named[1]) if named else value


class DraftLesson(BaseModel):
    """One lesson of a model's answer."""

    model_config = ConfigDict(extra="ignore")

    statement: str = Field(description=f"one or two sentences, at most {LONGEST} characters, with numbers")
    kind: Annotated[Literal["experiment", "idea"], BeforeValidator(_word)] = Field(
        description="experiment: tried, and its result; idea: not tried yet"
    )
    failure: Annotated[Literal["none", "implementation", "fundamental"], BeforeValidator(_word)] = Field(
        default="none",
        description="for a lesson about a failure: implementation, it broke before it could be judged; "
        "fundamental, it ran and did not help",
    )
    evidence: Annotated[list[Annotated[int, BeforeValidator(_number)]], BeforeValidator(_listed)] = Field(
        description="numbers of the trials that support it, at least one"
    )
    parameters: Annotated[list[str], BeforeValidator(_listed)] = Field(
        default_factory=list, description="names of the parameters that it is about"
    )
    any_hardware: bool = Field(default=False, description="whether it holds whatever the hardware is")


class Drafts(BaseModel):
    """The model's answer; no lessons is an answer."""

    model_config = ConfigDict(extra="ignore")

    lessons: list[Annotated[DraftLesson, BeforeValidator(_given)]] = Field(
        description=f"at most {MOST_WRITTEN}, the most useful first; may be empty"
    )


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a lesson."""

    name: str
    scripted: bool


def checked(search: Search, draft: DraftLesson, author: Author, now: datetime) -> Lesson | Violation:
    """The lesson, or what is wrong with the draft: its evidence must exist and be of the kind that it claims."""
    wrong = next(_violations(search, draft), None)
    if wrong is not None:
        return wrong
    task = search.run.task
    statement = one_line(draft.statement, LONGEST)
    mentioned = [p.name for p in task.space.editable if re.search(rf"\b{re.escape(p.name)}\b", statement)]
    return Lesson(
        id=secrets.token_hex(6),
        statement=statement,
        task=task.name,
        hardware="" if draft.any_hardware else task.hardware,
        evidence=tuple(f"runs/{search.run.id}/trials/{number}" for number in dict.fromkeys(draft.evidence)),
        create_time=now,
        update_time=now,
        kind=LessonKind(draft.kind),
        failure=None if draft.failure == "none" else FailureClass(draft.failure),
        parameters=tuple(sorted({*draft.parameters, *mentioned})),
        author=author.name,
        scripted=author.scripted,
    )


def _violations(search: Search, draft: DraftLesson) -> Iterator[Violation]:
    length = len(one_line(draft.statement, 2 * LONGEST))
    if not 0 < length <= LONGEST:
        yield Violation("statement", f"must have 1 to {LONGEST} characters; got {length}")
    if not draft.evidence:
        yield Violation("evidence", "must name at least one trial")
    closed = {trial.number: trial for trial in search.trials if not trial.state.open}
    unknown = [number for number in draft.evidence if number not in closed]
    if unknown:
        yield Violation("evidence", f"names trials that do not exist or have not ended: {', '.join(map(str, unknown))}")
        return
    names = set(search.run.task.space.defaults())
    invented = [name for name in draft.parameters if name not in names]
    if invented:
        yield Violation("parameters", f"names parameters that do not exist: {', '.join(invented)}")
    yield from _unsupported(draft, [closed[number] for number in draft.evidence])


def _unsupported(draft: DraftLesson, trials: list[Trial]) -> Iterator[Violation]:
    """Claims about the evidence that the evidence does not bear out."""
    if draft.kind == "experiment" and all(trial.state is TrialState.REJECTED for trial in trials):
        yield Violation("kind", "is experiment, but none of the trials ran")
    if draft.failure == "implementation" and all(trial.metric is not None for trial in trials):
        yield Violation("failure", "is implementation, but every trial was measured")
    if draft.failure == "fundamental" and all(trial.state is not TrialState.DISCARDED for trial in trials):
        yield Violation("failure", "is fundamental, but no trial was discarded")
