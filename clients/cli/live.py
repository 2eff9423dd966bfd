"""A search as a live display: the current trial's training, the best so far, and what the outer loop is doing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from bilevel.v1 import outer_pb2, trace_pb2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clients import wording
from clients.cli.lines import LineView
from clients.cli.screen.plot import blocks
from clients.cli.screen.sections import mechanism_state, state, trials
from clients.report.record import answered_by
from clients.searching import Listener, Search

_RECENT = 6
_REFRESH = 0.25


@contextlib.asynccontextmanager
async def shown(searches: Sequence[Search], console: Console) -> AsyncIterator[Listener]:
    """Show the searches while the block runs; yields what must be told of every event.

    On a terminal a display that changes in place, else plain lines.
    """
    if not console.is_terminal:
        yield LineView(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
                       several=len(searches) > 1)  # fmt: skip
        return

    def listen(search: Search, event: trace_pb2.TraceEvent | outer_pb2.CampaignEvent) -> None:
        """The display reads the searches themselves."""

    with Live(console=console, auto_refresh=False, transient=True) as live:

        async def refresh() -> None:
            while True:
                live.update(display(searches), refresh=True)
                await asyncio.sleep(_REFRESH)

        refreshing = asyncio.create_task(refresh())
        try:
            yield listen
        finally:
            refreshing.cancel()


def display(searches: Sequence[Search]) -> RenderableType:
    """One panel a search."""
    return Group(*(_panel(search) for search in searches))


def _panel(search: Search) -> Panel:
    trace = search.trace
    title = Text.assemble((search.title, "bold"), f"  {trace.task.name or trace.spec.task}  ", state(search.trace))
    if trace.spending.scripted_calls:
        title.append("  scripted researcher", style="yellow")
    elif trace.spending.models:
        title.append(f"  {answered_by(trace.spending)}", style="dim")
    return Panel(Group(_numbers(search), _current(search), *_outer(search), trials(search.trace, _RECENT)), title=title,
                 title_align="left", border_style="dim", padding=(0, 1))  # fmt: skip


def _numbers(search: Search) -> RenderableType:
    trace = search.trace
    line = Text.assemble(
        f"trial {trace.decided}/{trace.spec.max_trials}   {trace.task.objective.metric} best ",
        (wording.metric(trace.best_metric), "bold green"),
        f"   baseline {wording.metric(trace.baseline_metric)}   gain {wording.gain(trace.search_gain)}   ",
        (sparkline(search), "cyan"),
    )
    line.no_wrap = True
    return line


def _current(search: Search) -> RenderableType:
    progress = search.trace.progress
    if (lost := search.trace.lost) is not None:
        return Text(wording.availability(lost), style="yellow")
    if progress is None:
        if search.trace.state == trace_pb2.RUN_STATE_CONFIRMING:
            return Text("measuring the best configuration again on fresh seeds", style="dim")
        return Text("between trials", style="dim")
    table = Table.grid(padding=(0, 2))
    loss = progress.progress.metrics.get("train_loss")
    facts = f"trial {progress.number} {progress.progress.phase or 'starting'}"
    tail = f"step {progress.progress.step}" + (f"  loss {loss:.3f}" if loss is not None else "")
    table.add_row(facts, ProgressBar(total=1.0, completed=progress.progress.fraction, width=30), tail)
    return table


def _outer(search: Search) -> list[RenderableType]:
    if not search.campaign:
        return []
    lines: list[RenderableType] = [Text.assemble(("outer loop ", "dim"), (search.outer.activity, "magenta"))]
    for mechanism in search.trace.mechanisms.values():
        changed = wording.count(len(mechanism.changes), "decision")
        lines.append(
            Text.assemble(
                ("mechanism  ", "dim"), (mechanism.name, "yellow"), f"  {mechanism_state(mechanism)}, {changed} changed"
            )
        )
    return lines


def sparkline(search: Search, width: int = 32) -> str:
    """The best so far at the last ``width`` trials, one block each: lower is lower."""
    trace = search.trace
    values: list[float] = []
    for number in sorted(trace.trials):
        metric = trace.metric(number)
        if metric is not None:
            values.append(metric if not values else (max if trace.maximize else min)(values[-1], metric))
    return blocks(values, width)
