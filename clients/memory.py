"""What memory did to a run, in words and numbers that claim no more than the events show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients import wording
from clients.history import RunHistory, short
from clients.memory_history import LessonHistory


@dataclass(frozen=True, slots=True)
class Changed:
    """A decision that something of an earlier search changed."""

    trial: int
    kept: bool
    """Whether the trial was kept in the end. That it was kept because of the change is not said."""
    by: tuple[str, ...]
    """Lessons that the proposal cited, or the mechanism and its hook."""
    without: str
    """What would have happened."""
    instead: str
    """What happened."""


@dataclass(frozen=True, slots=True)
class Retried:
    """A mechanism of the library that a research session chose to try again."""

    choice: str
    record: str
    """Its measured effects in earlier searches, as they were offered."""
    reason: str
    outcome: str
    """How the session ended, in words."""
    mechanism: str
    """Its id in this run; empty when it was not installed."""
    repaired: bool
    """Whether the gate sent it back, so that what was installed is another source."""
    changed: tuple[Changed, ...]
    verdicts: tuple[str, ...]
    """What this run's probation said, each with its numbers."""


def changed_by_lessons(history: RunHistory) -> list[Changed]:
    """The proposals that lessons changed: the same question without any lesson got another first candidate."""
    memory = history.memory
    return [
        Changed(c.trial, _kept(history, c.trial), memory.cited_by(c.trial), c.without_lessons, c.with_lessons)
        for c in memory.comparisons
        if c.differs
    ]


def retried(history: RunHistory, campaign: list[outer_pb2.CampaignEvent]) -> list[Retried]:
    """What was taken from the library, and what it did in this run by the run's own trace."""
    chosen = [event.library_entry_chosen for event in campaign if event.HasField("library_entry_chosen")]
    return [_retried(history, event, campaign) for event in chosen]


def _retried(
    history: RunHistory, chosen: outer_pb2.LibraryEntryChosen, campaign: list[outer_pb2.CampaignEvent]
) -> Retried:
    ends = [e.research_finished for e in campaign if e.research_finished.session == chosen.session]
    judged = [e.mechanism_judged for e in campaign if e.mechanism_judged.session == chosen.session]
    name = short(ends[-1].mechanism) if ends else ""
    verdicts = [e.verdict_reached for e in campaign if name and short(e.verdict_reached.mechanism) == name]
    changes = history.mechanisms[name].changes if name in history.mechanisms else []
    missing = f"not installed: {ends[-1].message}" if ends else "not installed yet"
    return Retried(
        choice=chosen.offer.choice,
        record=chosen.offer.record,
        reason=chosen.reason,
        outcome=f"installed as {name}" if name else missing,
        mechanism=name,
        repaired=len(judged) > 1,
        changed=tuple(
            Changed(c.trial, _kept(history, c.trial), (name, wording.hook(c.hook)), c.before, c.after) for c in changes
        ),
        verdicts=tuple(f"{_verdict(reached)}: {reached.reason}" for reached in verdicts),
    )


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
        "changed": [asdict(change) for change in changed_by_lessons(history)],
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
        decisions = wording.count(len(tried.changed), "decision")
        did = f"{tried.outcome}{' after a repair' if tried.repaired else ''}, {decisions} changed"
        said.append(f"  from the library: {tried.choice} was tried again: {did if tried.mechanism else tried.outcome}")
        said.append(f"    before: {tried.record}")
        said += [f"    {line(change)}" for change in tried.changed]
        said += [f"    verdict here: {verdict}" for verdict in tried.verdicts]
    for writing in memory.writings:
        said.append(f"  after trial {writing.decided_trials}: {_written(writing)}")
        said += [f"    {lesson.name} {lesson.statement}" for lesson in writing.written]
    return said


def line(change: Changed) -> str:
    """A changed decision on one line."""
    by = ", ".join(name.removeprefix("lessons/") for name in change.by) or "no lesson named"
    return f"trial {change.trial} ({by}; {'kept' if change.kept else 'not kept'}): {change.without} → {change.instead}"


def kept_of(history: RunHistory, numbers: list[int]) -> list[int]:
    """The kept ones among trials."""
    return [number for number in numbers if _kept(history, number)]


def _kept(history: RunHistory, number: int) -> bool:
    trial = history.trials.get(number)
    return trial is not None and trial.state == trace_pb2.TRIAL_STATE_KEPT


def _verdict(reached: outer_pb2.VerdictReached) -> str:
    return wording.member(outer_pb2.Verdict.Name(reached.verdict), "VERDICT_")


def _comparisons(history: RunHistory) -> list[str]:
    memory = history.memory
    if not memory.comparisons:
        unmeasured = "  whether they changed a proposal was not measured (compare_lessons does, at twice the calls)"
        return [unmeasured] if memory.lessons else []
    by_chance = "" if _scripted(history) else ", in part perhaps by chance"
    asked, changed = wording.count(len(memory.comparisons), "time"), wording.count(len(memory.changed), "time")
    return [
        f"  asked again without lessons {asked}: another first candidate {changed}{by_chance}",
        *(f"    {line(change)}" for change in changed_by_lessons(history)),
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
