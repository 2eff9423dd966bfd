"""Commands about runs that exist: follow, list, pause, resume, cancel, report."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, InnerOption, JsonOption, OuterOption, RunArgument
from service_kit.exit_codes import ExitCode, exit_codes

if TYPE_CHECKING:
    from clients.inner import InnerClient
    from clients.outer import OuterClient

app = typer.Typer()

_WATCH_CODES = exit_codes(ExitCode.RUN_FAILED, ExitCode.BUDGET_SPENT, ExitCode.LEFT, done="the run finished")


@app.command(epilog=_WATCH_CODES)
@polite
async def watch(
    run: RunArgument = "latest",
    after: Annotated[int, typer.Option(min=0, help="With --json: begin after this sequence number.")] = 0,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines on a terminal too.")] = False,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Follow a run: the best so far, current trials, what the outer loop is doing.

    Fills the screen of a terminal: q quits, p pauses the run and goes on with it, arrows, j and k scroll, ? helps. The
    run goes on when you leave. Where input or output is no terminal, prints a line for each thing that happens until
    the run is over. --json prints every event of the trace, one a line. The exit code says how the run ended.
    """
    from clients.cli.endings import check_watched
    from clients.cli.lines import LineView
    from clients.cli.resources import find_run, print_json_line, reachable_outer
    from clients.inner import InnerClient
    from clients.outer import OuterClient
    from clients.report.export import to_json
    from clients.searching import Search, catch_up, follow

    async with InnerClient(inner) as inner_client, OuterClient(outer) as outer_client:
        name = await find_run(inner_client, run)
        if json:
            async for event in inner_client.watch_trace(name, after):
                print_json_line(to_json(event))
            over = await inner_client.get_run(name)
            check_watched(name, over.state, over.state_reason, over.decided_trials, over.spec.max_trials)
            return
        if not plain and all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
            await _watch_on_screen(name, inner_client, outer_client)
            return
        above = await reachable_outer(outer_client)
        campaign = await above.campaign_of(name) if above is not None else None
        search = Search(name, campaign.name if campaign is not None else "")
        view = LineView(typer.echo)
        try:
            await catch_up(search, inner_client, above, view)
            await follow(search, inner_client, above, view)
        except asyncio.CancelledError:
            typer.echo(_goes_on(name), err=True)
            raise
        trace = search.trace
        check_watched(name, trace.state, trace.state_reason, trace.decided, trace.spec.max_trials)


def _goes_on(name: str) -> str:
    id_ = name.rpartition("/")[2]
    return f"{name} goes on: `bilevel watch {id_}` comes back to it, `bilevel cancel {id_}` ends it"


async def _watch_on_screen(name: str, inner: InnerClient, outer: OuterClient) -> None:
    """Until the person leaves; then say how to come back, or how it ended."""
    from clients.campaign_history import CampaignHistory
    from clients.cli.comparison import terminal
    from clients.cli.endings import check_watched
    from clients.cli.live import display
    from clients.cli.screen.app import WatchApp
    from clients.history import TERMINAL
    from clients.searching import Search

    app = WatchApp(name, inner, outer)
    refusal = await app.run_async()
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError  # SIGTERM or SIGHUP, which Textual takes for a wish to leave
    if refusal is not None:
        raise refusal
    view = app.feed.view
    if view.state in TERMINAL:
        above = app.above.view if app.above is not None else CampaignHistory()
        terminal().print(display([Search(name, above.name, view, above)]))
    else:
        typer.echo(_goes_on(name))
    if app.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if view.state not in TERMINAL:
        raise typer.Exit(ExitCode.LEFT)
    check_watched(name, view.state, view.state_reason, view.decided, view.spec.max_trials)


@app.command(epilog=EXIT_CODES)
@polite
async def runs(
    limit: Annotated[int, typer.Option(min=1, help="Newest runs to show.")] = 20,
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from bilevel.v1 import trace_pb2

    from clients import wording
    from clients.cli.listing import answered_by, print_table
    from clients.cli.resources import print_json
    from clients.inner import InnerClient
    from clients.report.export import head_json

    async with InnerClient(inner) as client:
        found = await client.list_runs(limit)
    if json:
        print_json([head_json(run) for run in found])
        return
    if not found:
        typer.echo("There are no runs yet. Start one with `bilevel run`.")
        return

    def cells(item: trace_pb2.Run) -> list[str]:
        best = wording.metric(item.best_metric if item.HasField("best_metric") else None)
        baseline = wording.metric(item.baseline_metric if item.HasField("baseline_metric") else None)
        trials = f"{item.decided_trials}/{item.spec.max_trials}"
        state = wording.run_state(item.state)
        spec = item.spec
        return [item.name, spec.display_name, spec.task, state, trials, baseline, best, answered_by(item)]

    print_table(found, ("run", "name", "task", "state", "trials", "baseline", "best", "answered by"), cells)


@app.command(epilog=EXIT_CODES)
@polite
async def pause(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="Kept on the trace.")] = "paused from the command line",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Pause a run after its current trial."""
    from bilevel.v1 import trace_pb2

    from clients.cli.resources import find_run
    from clients.inner import InnerClient

    async with InnerClient(inner) as client:
        paused = await client.pause_run(await find_run(client, run), reason)
    if json or paused.state != trace_pb2.RUN_STATE_RUNNING:
        _show(paused, json)
    else:
        typer.echo(
            f"{paused.name} pauses when its current trials have ended. Go on with `bilevel resume {paused.name}`."
        )


@app.command(epilog=EXIT_CODES)
@polite
async def resume(run: RunArgument, inner: InnerOption = INNER_DEFAULT, json: JsonOption = False) -> None:
    """Go on with a paused run."""
    from clients.cli.resources import find_run
    from clients.inner import InnerClient

    async with InnerClient(inner) as client:
        _show(await client.resume_run(await find_run(client, run)), json)


@app.command(epilog=EXIT_CODES)
@polite
async def cancel(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="Kept on the trace.")] = "cancelled from the command line",
    inner: InnerOption = INNER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """End a run now; the current evaluation is killed."""
    from clients.cli.resources import find_run
    from clients.inner import InnerClient

    async with InnerClient(inner) as client:
        _show(await client.cancel_run(await find_run(client, run), reason), json)


def _show(run: object, json: bool) -> None:
    from bilevel.v1 import trace_pb2

    from clients import wording
    from clients.cli.resources import print_json
    from clients.report.export import head_json

    assert isinstance(run, trace_pb2.Run)
    if json:
        print_json(head_json(run))
    else:
        reason = f": {run.state_reason}" if run.state_reason else ""
        typer.echo(f"{run.name} is {wording.run_state(run.state)}{reason}")


@app.command(epilog=EXIT_CODES)
@polite
async def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run, or several to compare.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write into; ./bilevel-results/RUN by default.")] = None,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write report.html, best_so_far.png, results.tsv and run.json from the trace.

    results.tsv has the columns of Karpathy's autoresearch. Its first one holds a hash of the configuration, since
    nothing is committed; a failed trial has no metric, so that the field is empty where that format has 0.000000.
    """
    from clients.cli.comparison import print_summaries, terminal
    from clients.cli.resources import find_run, print_json, reachable_outer
    from clients.inner import InnerClient
    from clients.outer import OuterClient
    from clients.report import collect, write_report

    async with InnerClient(inner) as inner_client, OuterClient(outer) as outer_client:
        above = await reachable_outer(outer_client)
        names = [await find_run(inner_client, run) for run in runs]
        records = [await collect(inner_client, above, name) for name in names]
    folder = out or Path("bilevel-results") / "-".join(record.name for record in records)
    files = write_report(records, folder)
    if json:
        summaries = [record.summary().to_json() for record in records]
        print_json({"report": str(files.html), "runs": summaries})
        return
    print_summaries([record.summary() for record in records], terminal())
    if above is None:
        typer.echo(f"\nThe outer service at {outer} cannot be reached: campaigns are not in the report.")
    typer.echo(f"\nreport: {files.html}")
