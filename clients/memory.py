"""What memory did to a run, in words and numbers that claim no more than the events show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients import wording
from clients.history import RunHistory
from clients.memory_history import LessonHistory


@dataclass(frozen=True, slots=True)
class Retried:
    """A mechanism of the library that a research session chose to try again."""

    choice: str
    record: str
    """Its measured effects in earlier searches, as they were offered."""
    reason: str
    mechanism: str
    """Its id in this run; empty when it was not installed."""
    changed: list[int]
    """Trials about which it changed a decision."""


def retried(history: RunHistory, campaign: list[outer_pb2.CampaignEvent]) -> list[Retried]:
    """What was taken from the library, and what it did in this run by the run's own trace."""
    chosen = [event.library_entry_chosen for event in campaign if event.HasField("library_entry_chosen")]
    ends = {e.research_finished.session: e.research_finished for e in campaign if e.HasField("research_finished")}
    found = []
    for event in chosen:
        end = ends.get(event.session)
        name = end.mechanism if end is not None else ""
        changes = history.mechanisms[name].changes if name in history.mechanisms else []
        trials = sorted({change.trial for change in changes})
        found.append(Retried(event.offer.choice, event.offer.record, event.reason, name, trials))
    return found


def to_json(history: RunHistory, campaign: list[outer_pb2.CampaignEvent] | None = None) -> dict[str, Any]:
    """Every lesson's part in the run, the comparisons, what was taken from the library, and what was written."""
    memory = history.memory
    return {
        "run": history.name,
        "lessons": [
            {
                "name": lesson.name,
                "statement": lesson.statement,
                "in_view": lesson.in_view,
                "cited": lesson.cited,
                "cited_and_kept": kept_of(history, lesson.cited),
            }
            for lesson in memory.lessons.values()
        ],
        "compared": len(memory.comparisons),
        "changed": [
            {"trial": c.trial, "without_lessons": c.without_lessons, "with_lessons": c.with_lessons}
            for c in memory.comparisons
            if c.differs
        ],
        "library": [asdict(tried) for tried in retried(history, campaign or [])],
        "written": [{"name": lesson.name, "statement": lesson.statement} for lesson in memory.written],
    }


def lines(history: RunHistory, campaign: list[outer_pb2.CampaignEvent] | None = None) -> list[str]:
    """The same for people."""
    memory = history.memory
    said = [f"{history.name}: {wording.count(len(memory.lessons), 'lesson')} in view of its proposals"]
    for lesson in memory.lessons.values():
        said += [f"  {lesson.name} {lesson.statement}", f"    {_part(history, lesson)}"]
    said += _comparisons(history)
    for tried in retried(history, campaign or []):
        numbers = f" (trials {', '.join(map(str, tried.changed))})" if tried.changed else ""
        changed = f"{wording.count(len(tried.changed), 'decision')} changed{numbers}"
        did = f"installed as {tried.mechanism}, {changed}" if tried.mechanism else "not installed"
        said.append(f"  from the library: {tried.choice} was tried again: {did}; before: {tried.record}")
    for writing in memory.writings:
        said.append(f"  after trial {writing.decided_trials}: {_written(writing)}")
        said += [f"    {lesson.name} {lesson.statement}" for lesson in writing.written]
    return said


def kept_of(history: RunHistory, numbers: list[int]) -> list[int]:
    """The kept ones among trials."""
    return [n for n in numbers if history.trials[n].state == trace_pb2.TRIAL_STATE_KEPT]


def _comparisons(history: RunHistory) -> list[str]:
    memory = history.memory
    if not memory.comparisons:
        unmeasured = "  whether they changed a proposal was not measured (compare_lessons does, at twice the calls)"
        return [unmeasured] if memory.lessons else []
    by_chance = "" if _scripted(history) else ", in part perhaps by chance"
    asked, changed = wording.count(len(memory.comparisons), "time"), wording.count(len(memory.changed), "time")
    return [
        f"  asked again without lessons {asked}: another first candidate {changed}{by_chance}",
        *(f"    trial {c.trial}: {c.without_lessons} → {c.with_lessons}" for c in memory.comparisons if c.differs),
    ]


def _part(history: RunHistory, lesson: LessonHistory) -> str:
    cited = f"cited by {_numbers(lesson.cited)}, {len(kept_of(history, lesson.cited))} of them kept"
    return f"in view of {_numbers(lesson.in_view)}; {cited if lesson.cited else 'never cited'}"


def _numbers(trials: list[int]) -> str:
    return f"{wording.count(len(trials), 'trial')} ({', '.join(map(str, trials))})"


def _scripted(history: RunHistory) -> bool:
    """Whether every answer was a script's, which answers the same question the same way."""
    return history.spending.scripted_calls == sum(history.spending.models.values())


def _written(writing: trace_pb2.LessonsWritten) -> str:
    if writing.error:
        return f"no lessons: {writing.error}"
    counts = (("new", writing.written), ("known already", writing.merged), ("refused", writing.refused))
    parts = [f"{len(found)} {what}" for what, found in counts if found]
    parts += [f"{wording.count(len(writing.pruned), 'old one')} forgotten"] if writing.pruned else []
    return f"lessons: {', '.join(parts) or 'none'}"
