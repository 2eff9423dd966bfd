"""Drawing lessons from a run's trace: one question to the model, checked, merged with what is known, committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from inner_service.budgets import model_budget
from inner_service.lessons.draft import MOST_WRITTEN, Author, Drafts, checked
from inner_service.lessons.lesson import Lesson
from inner_service.lessons.prompt import lessons_prompt
from inner_service.lessons.relevance import Situation, most_relevant, outworn
from inner_service.lessons.similarity import duplicate_of
from inner_service.run import Run, Search
from inner_service.search_state import TEMPLATES
from inner_service.store import Store
from inner_service.trace import Event, LessonMerged, LessonRefused, LessonsWritten, ModelCalled
from mechanisms.printable import one_line
from service_kit.errors import Violation
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Message, ModelError
from service_kit.llm.prompts import ask_fitting
from service_kit.llm.structured import Answer

PURPOSE = "lessons"

log = structlog.get_logger("inner_service.lessons")


def unwritten(run: Run) -> bool:
    """Whether trials were decided that no lesson has been drawn from, in a run that is to remember."""
    return run.spec.use_lessons and run.lessons_after < run.decided_trials


class LessonWriter:
    """Writes the lessons of one run."""

    def __init__(self, run_id: str, store: Store, model: LanguageModel) -> None:
        self._run_id = run_id
        self._store = store
        self._model = model

    async def write(self) -> None:
        """Ask for lessons and commit what comes of it. A model that fails is an event, and stops nothing."""
        search = await self._store.search(self._run_id)
        shown = await self._shown(search)
        try:
            answer = await ask_fitting(
                self._model,
                PURPOSE,
                lambda limit: lessons_prompt(search, shown, limit),
                Drafts,
                budget=model_budget(search.run),
            )
        except ModelError as error:
            log.warning("no lessons", reason=error.message)
            called = ModelCalled(
                PURPOSE,
                self._model.name,
                error.usage,
                timedelta(seconds=error.latency),
                error.messages,
                error=str(error),
                prompt_version=TEMPLATES.version,
            )
            failed = error.message
            await self._store.commit(
                self._run_id, lambda search: [called, LessonsWritten(search.run.decided_trials, error=failed)]
            )
            return
        async with self._store.lessons.deciding:
            known = await self._store.lessons.of_task(search.run.task.name)
            await self._store.commit(self._run_id, lambda search: _taken(search, answer, known))

    async def preview(self) -> tuple[Message, ...]:
        """The prompt that would ask for lessons now. Raises :class:`LimitTooSmall` where none would be sent."""
        search = await self._store.search(self._run_id)
        return lessons_prompt(search, await self._shown(search), self._model.settings.context_tokens)

    async def _shown(self, search: Search) -> tuple[Lesson, ...]:
        """Known lessons, so that they are not written again."""
        return most_relevant(await self._store.lessons.of_task(search.run.task.name), situation(search))


def situation(search: Search) -> Situation:
    """Where the run's lessons are wanted."""
    run = search.run
    return Situation(run.task.name, run.task.hardware, frozenset(run.active), datetime.now(UTC), run.id)


def _taken(search: Search, answer: Answer[Drafts], known: Sequence[Lesson]) -> list[Event]:
    """The call, and what of its answer is new, known already, or wrong."""
    called = ModelCalled(
        PURPOSE,
        answer.model,
        answer.usage,
        timedelta(seconds=answer.latency),
        answer.messages[:-1],
        answer.text,
        scripted=answer.scripted,
        prompt_version=TEMPLATES.version,
    )
    author, now = Author(answer.model, answer.scripted), datetime.now(UTC)
    written, merged, refused = list[Lesson](), list[LessonMerged](), list[LessonRefused]()
    for place, draft in enumerate(answer.value.lessons):
        said = one_line(draft.statement, 200)
        if place >= MOST_WRITTEN:
            refused.append(LessonRefused(said, f"at most {MOST_WRITTEN} lessons are taken from one answer"))
            continue
        lesson = checked(search, draft, author, now)
        if isinstance(lesson, Violation):
            refused.append(LessonRefused(said, f"{lesson.field} {lesson.description}"))
            continue
        repeated = duplicate_of(lesson, [*known, *written])
        if repeated is None:
            written.append(lesson)
        else:
            merged.append(LessonMerged(repeated[0].id, lesson.statement, lesson.evidence, repeated[1]))
    supported = {lesson.lesson for lesson in merged}
    pruned = [lesson.id for lesson in outworn(known, now) if lesson.id not in supported]
    decided = search.run.decided_trials
    return [called, LessonsWritten(decided, tuple(written), tuple(merged), tuple(refused), tuple(pruned))]
