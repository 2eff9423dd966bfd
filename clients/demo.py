"""The demonstration: a bare search beside a bilevel one, same task, same seed, real training, everything local."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from clients import wording
from clients.inner import InnerClient
from clients.local_stack import LocalStack, StackSettings
from clients.model_endpoint import answered_by, check_endpoint, endpoint_of
from clients.outer import OuterClient
from clients.report import ReportFiles, RunRecord, collect, write_report
from clients.searching import Listener, Search, SearchPlan, begin, follow
from service_kit.errors import ServiceError
from service_kit.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demonstration runs."""

    out: Path
    trials: int = 30
    seed: int = 0
    short: bool = False
    """Fewer trials and earlier looks of the outer loop, with the same checks."""
    budget: str = "short"
    """The trainer's budget of a trial."""

    def plans(self) -> tuple[SearchPlan, SearchPlan]:
        """The bare search and the bilevel one."""
        common = SearchPlan(
            task="gpt",
            trials=min(self.trials, 12) if self.short else self.trials,
            seed=self.seed,
            levels=(),
            title="level 1",
            confirmation_seeds=2 if self.short else 5,
            configuration_every=4 if self.short else 5,
            mechanism_every=8 if self.short else 10,
        )
        return common, replace(common, levels=("1.5", "2"), title="bilevel")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it."""

    records: tuple[RunRecord, RunRecord]
    files: ReportFiles
    problems: tuple[str, ...]
    """Why the demonstration failed; empty when it showed what it is for."""
    remarks: tuple[str, ...]
    """What the reader should know, for example that a real model installed nothing."""


Show = Callable[[list[Search]], AbstractAsyncContextManager[Listener]]
"""Shows searches while they run."""


async def run_demo(settings: DemoSettings, show: Show, say: Callable[[str], None]) -> DemoResult:
    """Start the services, run both searches at the same time, stop everything, write the report.

    Raises :class:`service_kit.errors.ServiceError` when a service does not start or ends early.
    """
    model = ModelSettings.load()
    await check_endpoint(model)
    endpoint = endpoint_of(model)
    say(answered_by(model))
    say(f"starting the services on loopback ports; logs in {settings.out / 'logs'}")
    stack_settings = StackSettings(settings.out, trainer=("--workers", "2", "--budget", settings.budget))
    async with LocalStack(stack_settings) as stack:
        for name in stack.pids():
            say(f"  {name:<10} {stack.address(name)}")
        records = await stack.guard(_search_both(settings, stack, show, endpoint))
    say("every service is stopped")
    problems, remarks = judge(records)
    try:
        files = write_report(records, settings.out)
    except ServiceError as error:
        if not problems:
            raise
        raise ServiceError("; ".join((*problems, error.message)), hint=error.hint) from error
    return DemoResult(records, files, problems, remarks)


async def _search_both(
    settings: DemoSettings, stack: LocalStack, show: Show, endpoint: str
) -> tuple[RunRecord, RunRecord]:
    async with InnerClient(stack.inner) as inner, OuterClient(stack.outer) as outer:
        bare, bilevel = [await begin(inner, outer, plan) for plan in settings.plans()]
        async with show([bare, bilevel]) as listener:
            await asyncio.gather(
                *(follow(search, inner, outer, listener, until_stuck=True) for search in (bare, bilevel))
            )
        first, second = [await collect(inner, outer, search.run, endpoint) for search in (bare, bilevel)]
    return first, second


def judge(records: tuple[RunRecord, RunRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Problems and remarks, from the trace's own events.

    A scripted demonstration must install a generated mechanism that changes a decision: its script says so. With a real
    model the same is an outcome, and is reported as one.
    """
    problems = [
        f"the run {record.title!r} is {record.summary().state}, not finished: {record.history.state_reason}"
        for record in records
        if record.summary().state != "finished"
    ]
    bilevel = records[1]
    summary = bilevel.summary()
    if summary.mechanisms_installed == 0:
        finding = "no generated mechanism was installed in the bilevel run"
    elif summary.changed_decisions == 0:
        finding = "no generated mechanism changed a decision in the bilevel run"
    else:
        changed = wording.count(summary.changed_decisions, "changed decision")
        installed = wording.count(summary.mechanisms_installed, "generated mechanism")
        remark = f"{installed} installed while the run went on; {changed} by the trace's own events"
        return tuple(problems), (remark,)
    if bilevel.scripted:
        return (*problems, finding), ()
    return tuple(problems), (finding,)
