"""The page: one self-contained HTML file. Everything that a model or a person wrote is escaped by the template engine.

The page's own policy forbids scripts and every outside reference, should anything slip through nevertheless.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clients import wording
from clients.campaign_history import Research
from clients.history import MechanismHistory, Spending
from clients.memory import Changed, Retried, changed_by_lessons, kept_of, retried
from clients.memory_history import LessonHistory
from clients.report.chart import Chart, comparison_chart, run_chart
from clients.report.record import RunRecord, Summary


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the trial table."""

    trial: trace_pb2.Trial
    status: str
    changes: list[str]
    gain: float | None
    """Over the incumbent that it had to beat."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the research dialogue."""

    title: str
    summary: str
    answer: str
    turn: outer_pb2.ResearchTurn
    new_messages: list[common_pb2.ChatMessage]
    """What this round was asked that no earlier round had been shown."""


@dataclass(frozen=True, slots=True)
class Session:
    """A research session with its rounds laid out."""

    research: Research
    rounds: list[Round]
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class Purpose:
    """Model calls of one purpose."""

    name: str
    spending: Spending = field(default_factory=Spending)


@dataclass(frozen=True, slots=True)
class LessonRow:
    """A lesson's part in a run."""

    lesson: LessonHistory
    kept: list[int]
    """Kept trials that cited it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One run on the page."""

    record: RunRecord
    summary: Summary
    anchor: str
    chart: Chart | None
    rows: list[Row]
    mechanisms: list[MechanismHistory]
    sessions: list[Session]
    purposes: list[Purpose]
    lessons: list[LessonRow]
    changed_by_lessons: list[Changed]
    retried: list[Retried]
    """What was taken from the library."""


def render_page(records: Sequence[RunRecord]) -> str:
    """The complete document."""
    sections = [_section(record, f"run-{index + 1}") for index, record in enumerate(records)]
    environment = _environment()
    return environment.get_template("report.html.j2").render(
        sections=sections,
        comparison=comparison_chart(records) if len(records) > 1 else None,
        task=records[0].history.task,
        scripted=[section for section in sections if section.summary.scripted],
        # The only text that is not escaped: our own file.
        style=Markup(_style()),  # noqa: S704
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("clients.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": wording.metric,
        "signed": wording.signed,
        "gain": wording.gain,
        "value": wording.value,
        "seconds": wording.seconds,
        "duration": wording.duration,
        "moment": wording.moment,
        "cost": wording.cost,
        "hook": wording.hook,
        "origin": wording.origin,
        "short": lambda name: name.rpartition("/")[2],
        "stage": lambda number: wording.member(trace_pb2.GateStage.Name(number), "GATE_STAGE_"),
        "verdict": lambda number: wording.member(outer_pb2.Verdict.Name(number), "VERDICT_"),
        "count": wording.count,
        "interval": wording.interval,
        "percent": "{:.0%}".format,
    }
    return environment


@cache
def _style() -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), "report.css")[0]


def _section(record: RunRecord, anchor: str) -> Section:
    history = record.history
    return Section(
        record,
        record.summary(),
        anchor,
        run_chart(record),
        [_row(record, history.trials[number]) for number in sorted(history.trials)],
        list(history.mechanisms.values()),
        [_session(research) for research in record.campaign.research] if record.campaign is not None else [],
        _purposes(record),
        [LessonRow(lesson, kept_of(history, lesson.cited)) for lesson in history.memory.lessons.values()],
        changed_by_lessons(history),
        retried(history, record.campaign_events),
    )


def _row(record: RunRecord, trial: trace_pb2.Trial) -> Row:
    history = record.history
    base = history.bases.get(trial.number)
    gain = history.gain(history.metric(base), history.metric(trial.number))
    changes = wording.changes(trial, history.trials.get(base) if base is not None else None)
    return Row(trial, wording.status(trial), changes, gain, trial.number == history.best)


def _session(research: Research) -> Session:
    seen: set[tuple[str, str]] = set()
    rounds = []
    for finished in research.rounds:
        turn = finished.turn
        new = [message for message in turn.prompt if (message.role, message.content) not in seen]
        seen |= {(message.role, message.content) for message in turn.prompt} | {("assistant", turn.answer)}
        title = wording.member(outer_pb2.ResearchRound.Name(turn.round), "RESEARCH_ROUND_")
        rounds.append(Round(title, finished.summary, _readable(turn.answer), turn, new))
    if research.finished is None:
        return Session(research, rounds, "not finished", "")
    outcome = wording.member(outer_pb2.ResearchOutcome.Name(research.finished.outcome), "RESEARCH_OUTCOME_")
    return Session(research, rounds, outcome, research.finished.message)


def _purposes(record: RunRecord) -> list[Purpose]:
    """Calls by purpose, the inner loop's first."""
    found: dict[str, Purpose] = {}
    for call in record.history.calls:
        found.setdefault(call.purpose, Purpose(call.purpose)).spending.add(call)
    if record.campaign is not None:
        for _, analysis in record.campaign.analyses:
            found.setdefault("analyse", Purpose("analyse")).spending.add(analysis.turn)
        for research in record.campaign.research:
            for finished in research.rounds:
                name = wording.member(outer_pb2.ResearchRound.Name(finished.turn.round), "RESEARCH_ROUND_")
                found.setdefault(name, Purpose(name)).spending.add(finished.turn)
    return list(found.values())


def _readable(answer: str) -> str:
    """A JSON answer with its texts on lines of their own; anything else as it is."""
    try:
        document = json.loads(answer)
    except ValueError:
        return answer
    if not isinstance(document, dict):
        return answer
    return "\n".join(f"{name}: {_shown(content)}" for name, content in document.items())


def _shown(content: object) -> str:
    if isinstance(content, str):
        return f"\n{content.rstrip()}\n" if "\n" in content else content
    return json.dumps(content, ensure_ascii=False, indent=2)
