"""Running the cells: each run is created once, supervised once, and followed to its end, whoever died meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from bilevel.v1 import outer_pb2, trace_pb2

from clients import history
from clients.ablation.design import Cell
from clients.ablation.folder import Plan
from clients.inner import InnerClient
from clients.outer import OuterClient
from clients.report import RunRecord, collect
from clients.searching import Search, SearchPlan, follow
from service_kit.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell whose run has ended."""

    cell: Cell
    record: RunRecord
    seconds: float | None
    """What it took now; None when it had ended before."""


Report = Callable[[Finished, int], None]
"""Is told of each finished cell, with the number of finished ones."""


async def run_cells(
    plan: Plan, inner: InnerClient, outer: OuterClient, parallel: int, report: Report, endpoint: str = ""
) -> list[Finished]:
    """Run every cell in the plan's order, ``parallel`` at a time. Raises :class:`ServiceError` when one needs a person.

    What had ended before is read and not run again.
    """
    places, finished = asyncio.Semaphore(parallel), list[Finished]()

    async def one(cell: Cell) -> None:
        # A semaphore lets waiting tasks in by their turn, so the cells begin in the plan's order.
        async with places:
            result = await _run(plan, cell, inner, outer, endpoint)
            finished.append(result)
            report(result, len(finished))

    try:
        async with asyncio.TaskGroup() as group:
            for cell in plan.design.schedule():
                group.create_task(one(cell))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    order = {plan.request_id(cell): place for place, cell in enumerate(plan.design.schedule())}
    return sorted(finished, key=lambda result: order[plan.request_id(result.cell)])


async def _run(plan: Plan, cell: Cell, inner: InnerClient, outer: OuterClient, endpoint: str) -> Finished:
    began, search_plan = time.monotonic(), _search_plan(plan, cell)
    spec = search_plan.spec()
    spec.labels.update(plan.labels(cell))
    run = await inner.create_run(spec, plan.request_id(cell))
    above = outer if cell.group.levels else None
    if run.state in history.TERMINAL:
        return Finished(cell, await collect(inner, above, run.name, endpoint), None)
    search = Search(run.name)
    if above is not None:
        campaign = await above.create_campaign(run.name, search_plan.policy(), plan.request_id(cell))
        search.campaign = campaign.name
    await _catch_up(search, inner, above)
    await _set_going(search, inner, above)
    await follow(search, inner, above, lambda *_: None, until_stuck=True)
    if not search.finished:
        reason = f"{search.trace.state_reason}\n{search.outer.state_reason}".strip()
        raise ServiceError(
            f"{cell.title} ({run.name}) is paused: {reason}",
            hint="Mend the cause and give the same command again: it goes on where it was.",
        )
    return Finished(cell, await collect(inner, above, run.name, endpoint), time.monotonic() - began)


def _search_plan(plan: Plan, cell: Cell) -> SearchPlan:
    design = plan.design
    return SearchPlan(
        task=design.task,
        trials=design.trials,
        seed=cell.seed,
        levels=cell.group.levels,
        title=cell.title,
        confirmation_seeds=design.confirmation_seeds,
        configuration_every=design.configuration_every,
        mechanism_every=design.mechanism_every,
        control=cell.group.control,
        # A group must not learn from another.
        library=False,
        lessons=False,
    )


async def _catch_up(search: Search, inner: InnerClient, outer: OuterClient | None) -> None:
    """Read what has happened already, so that a pause of the past is not taken for one of now."""
    async for event in inner.watch_trace(search.run, follow=False):
        search.trace.apply(event)
    if outer is not None:
        await _catch_up_campaign(search, outer)


async def _set_going(search: Search, inner: InnerClient, outer: OuterClient | None) -> None:
    """Start the run, or go on with it and its campaign where they wait for a person: the command was given again."""
    if outer is not None and search.outer.state == outer_pb2.CAMPAIGN_STATE_PAUSED:
        await outer.resume_campaign(search.campaign)
        await _catch_up_campaign(search, outer)
    if search.trace.state == trace_pb2.RUN_STATE_CREATED:
        await inner.start_run(search.run)
    elif search.stuck:
        await inner.resume_run(search.run)
    else:
        return
    async for event in inner.watch_trace(search.run, search.trace.last_sequence, follow=False):
        search.trace.apply(event)


async def _catch_up_campaign(search: Search, outer: OuterClient) -> None:
    async for event in outer.watch_campaign(search.campaign, search.outer.last_sequence, follow=False):
        search.outer.apply(event)
