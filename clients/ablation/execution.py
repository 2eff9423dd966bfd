"""An ablation from its plan to its files: say what it will take, run what is missing, say how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from clients import wording
from clients.ablation.expectation import Expectation, measure
from clients.ablation.folder import Plan
from clients.ablation.results import Results
from clients.ablation.running import Finished, run_cells
from clients.ablation.writing import write_results
from clients.inner import InnerClient
from clients.local_stack import LocalStack, StackSettings
from clients.outer import OuterClient

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ablation runs: on services at addresses, or on a stack of its own."""

    inner: str = ""
    outer: str = ""
    stack: StackSettings | None = None
    endpoint: str = ""
    """Address of the model endpoint, where it is known."""


async def run_ablation(plan: Plan, place: Place, parallel: int, say: Say, *, resumed: bool) -> Results:
    """Run every cell that has not ended and write the results. Raises :class:`service_kit.errors.ServiceError`."""
    async with AsyncExitStack() as stack:
        inner, outer = place.inner, place.outer
        local = await stack.enter_async_context(LocalStack(place.stack)) if place.stack is not None else None
        if local is not None:
            inner, outer = local.inner, local.outer
        inner_client = await stack.enter_async_context(InnerClient(inner))
        outer_client = await stack.enter_async_context(OuterClient(outer))
        await outer_client.connection.healthy()  # before anything is created that nobody would supervise
        work = _run(plan, inner_client, outer_client, parallel, place.endpoint, say, resumed=resumed)
        finished = await (local.guard(work) if local is not None else work)
    results = Results(plan, finished)
    write_results(results, plan.folder)
    return results


async def _run(
    plan: Plan, inner: InnerClient, outer: OuterClient, parallel: int, endpoint: str, say: Say, *, resumed: bool
) -> list[Finished]:
    for line in plan_lines(plan, await measure(plan, inner, parallel), resumed=resumed):
        say(line)
    cells, took = plan.design.schedule(), list[float]()

    def report(finished: Finished, count: int) -> None:
        if finished.seconds is not None:
            took.append(finished.seconds)
        say(progress_line(finished, count, len(cells), took, parallel))

    return await run_cells(plan, inner, outer, parallel, report, endpoint)


def plan_lines(plan: Plan, expected: Expectation, *, resumed: bool) -> list[str]:
    """What will be run and how long that takes."""
    design = plan.design
    order = ", ".join(f"{cell.group.name}{cell.repeat}" for cell in design.schedule())
    each = wording.duration(expected.evaluation_seconds)
    fresh = wording.count(design.confirmation_seeds, "fresh seed")
    confirmed = f", {fresh} to confirm" if design.confirmation_seeds else ""
    return [
        f"{'going on with' if resumed else 'new'} ablation {plan.id} of {design.task} on "
        f"{expected.hardware or 'unknown hardware'}",
        f"  {len(design.groups)} groups x {design.repeats} repeats x {design.trials} trials{confirmed}; "
        "the same seed for all groups of a repeat",
        f"  in this order: {order}",
        f"  one evaluation takes {each} here (measured once, alone); at most {expected.evaluations} evaluations, "
        f"{expected.at_once} at a time",
        f"  expected: {wording.duration(expected.seconds)} of evaluations in all; what the model takes comes on top",
    ]


def progress_line(finished: Finished, count: int, of: int, took: list[float], parallel: int) -> str:
    """How one cell ended, how far the whole is, and what is left by the mean of the cells so far."""
    summary = finished.record.summary()
    how = f"gain {wording.gain(summary.search_gain)}" if summary.state == "finished" else summary.state
    if finished.seconds is None:
        return f"[{count}/{of}] {finished.cell.title}: {how}, had ended before"
    left = (of - count) * sum(took) / len(took) / parallel
    rest = f"; about {wording.duration(left)} left" if count < of else ""
    return f"[{count}/{of}] {finished.cell.title}: {how} in {wording.duration(finished.seconds)}{rest}"
