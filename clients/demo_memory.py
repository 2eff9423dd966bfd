"""The demonstration of memory: two searches on one task, the second with the first one's lessons and library.

The second has another seed, so that it does not meet the same measurements again, and asks for every proposal a second
time without lessons: what they change is measured and not claimed. One pair of runs shows that memory works, and
nothing about whether it helps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients import memory, wording
from clients.inner import InnerClient
from clients.local_stack import LocalStack, StackSettings
from clients.model_endpoint import answered_by, check_endpoint, endpoint_of
from clients.outer import OuterClient
from clients.report import ReportFiles, RunRecord, collect, write_report
from clients.report.chart import best_so_far
from clients.searching import Listener, Search, SearchPlan, begin, follow
from service_kit.given_files import unwritable
from service_kit.settings import ModelSettings

Show = Callable[[list[Search]], AbstractAsyncContextManager[Listener]]


@dataclass(frozen=True, slots=True)
class MemoryDemoSettings:
    """What the demonstration runs."""

    out: Path
    trials: int = 24
    seed: int = 0
    short: bool = False
    """Smaller trials and no confirmation, with the same checks."""
    budget: str = ""
    """The trainer's budget of a trial; empty for what the form takes."""

    @property
    def trial_budget(self) -> str:
        return self.budget or ("2" if self.short else "short")

    def plans(self) -> tuple[SearchPlan, SearchPlan]:
        """The first search, and the one that remembers it."""
        first = SearchPlan(
            task="gpt",
            trials=self.trials,
            seed=self.seed,
            title="first run",
            confirmation_seeds=0 if self.short else 2,
            configuration_every=4,
            mechanism_every=4,
            probation_trials=8,
            lessons=True,
        )
        return first, replace(first, seed=self.seed + 1, title="second run", compare_lessons=True)


@dataclass(frozen=True, slots=True)
class MemoryDemoResult:
    """What came of it."""

    records: tuple[RunRecord, RunRecord]
    files: ReportFiles
    problems: tuple[str, ...]
    """Why the demonstration failed; empty when it showed what it is for."""

    def to_json(self) -> dict[str, Any]:
        first, second = self.records
        return {
            "scripted": first.scripted or second.scripted,
            "answered_by": second.answered_by,
            "written_by_first": [lesson.statement for lesson in first.history.memory.written],
            "second": memory.to_json(second.history, second.campaign_events),
            "first_gain": first.history.search_gain,
            "second_gain": second.history.search_gain,
            "trials_to_first_gain": {"first": reached(first, first), "second": reached(second, first)},
            "problems": list(self.problems),
        }

    def lines(self) -> list[str]:
        """The result for people."""
        first, second = self.records
        target = wording.gain(first.history.search_gain)
        return [
            *memory.lines(first.history, first.campaign_events),
            *memory.lines(second.history, second.campaign_events),
            f"gain over its own baseline: first run {target}, second run {wording.gain(second.history.search_gain)}",
            f"trials until a gain of {target}: first run {_word(reached(first, first))}, "
            f"second run {_word(reached(second, first))}",
            f"answered by {second.answered_by}; one pair of runs shows that memory works, not that it helps",
        ]


async def run_memory_demo(settings: MemoryDemoSettings, show: Show, say: Callable[[str], None]) -> MemoryDemoResult:
    """Start the services, run the two searches one after the other, stop everything, write the report.

    Raises :class:`service_kit.errors.ServiceError` when a service does not start or ends early.
    """
    model = ModelSettings.load()
    await check_endpoint(model)
    say(answered_by(model))
    say(f"starting the services on loopback ports; logs in {settings.out / 'logs'}")
    stack_settings = StackSettings(settings.out, trainer=("--workers", "1", "--budget", settings.trial_budget))
    async with LocalStack(stack_settings) as stack:
        records = await stack.guard(_search(settings, stack, show, endpoint_of(model)))
    say("every service is stopped")
    problems = judge(records)
    try:
        result = MemoryDemoResult(records, write_report(records, settings.out), problems)
        text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
        (settings.out / "memory.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(settings.out, "--out", error, hint="Choose another folder with --out.") from None
    return result


async def _search(
    settings: MemoryDemoSettings, stack: LocalStack, show: Show, endpoint: str
) -> tuple[RunRecord, RunRecord]:
    async with InnerClient(stack.inner) as inner, OuterClient(stack.outer) as outer:
        records = []
        for plan in settings.plans():
            search = await begin(inner, outer, plan)
            async with show([search]) as listener:
                await follow(search, inner, outer, listener, until_stuck=True)
            records.append(await collect(inner, outer, search.run, endpoint))
    return records[0], records[1]


def judge(records: tuple[RunRecord, RunRecord]) -> tuple[str, ...]:
    """Why the demonstration failed, from the events: what a scripted one must show, by its script."""
    first, second = records
    problems = [
        f"the {record.title} is {record.summary().state}, not finished: {record.history.state_reason}"
        for record in records
        if record.summary().state != "finished"
    ]
    if problems or not second.scripted:
        return tuple(problems)  # with a real model, what comes of memory is a result and no condition
    if not first.history.memory.written:
        problems.append("the first run wrote no lessons")
    if not any(lesson.cited for lesson in second.history.memory.lessons.values()):
        problems.append("the second run cited no lesson")
    if not any(change.by for change in memory.changed_by_lessons(second.history)):
        problems.append("no proposal of the second run that cites a lesson was another one without lessons")
    tried = memory.retried(second.history, second.campaign_events)
    if not any(again.mechanism for again in tried):
        problems.append("the second run installed no mechanism of the library again")
    elif not any(again.changed for again in tried):
        names = ", ".join(again.choice for again in tried if again.mechanism)
        problems.append(f"what the second run installed again from the library changed no decision: {names}")
    return tuple(problems)


def reached(record: RunRecord, first: RunRecord) -> int | None:
    """The first trial that gains as much over the run's own baseline as the first run's best did; None without one."""
    history, target = record.history, first.history.search_gain
    if target is None or target <= 0:
        return None
    gains = [(number, history.gain(history.baseline_metric, metric)) for number, metric in best_so_far(record)]
    return next((number for number, gain in gains if gain is not None and gain >= target), None)


def _word(trial: int | None) -> str:
    return "never" if trial is None else str(trial)
