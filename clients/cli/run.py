"""``bilevel run``: a search from its creation to its report, on running services or on a stack of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, SEED_MAX, InnerOption, JsonOption, OuterOption
from service_kit.exit_codes import ExitCode, exit_codes

if TYPE_CHECKING:
    from clients.inner import InnerClient
    from clients.local_stack import StackSettings
    from clients.outer import OuterClient
    from clients.searching import Search, SearchPlan


EXIT_CODES = exit_codes(ExitCode.RUN_FAILED, ExitCode.BUDGET_SPENT)


@polite
async def run(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Option(
            help="Configured name of the task, or the address of one on the service's machine: localhost:PORT."
        ),
    ] = "gpt",
    levels: Annotated[str, typer.Option(help="1, 1,1.5, 1,2 or 1,1.5,2.")] = "1,1.5,2",
    trials: Annotated[int, typer.Option(min=1, max=100_000, help="Trials to decide, without the baseline.")] = 30,
    seed: Annotated[int, typer.Option(min=0, max=SEED_MAX, help="Seed of the search and of its evaluations.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Start from another value than the default; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    parallel: Annotated[int, typer.Option(min=1, help="Candidates evaluated at the same time.")] = 1,
    asynchronous: Annotated[
        bool, typer.Option("--asynchronous", help="With --parallel: fill a place as soon as it is free, no batches.")
    ] = False,
    confirm: Annotated[int, typer.Option(min=0, help="Fresh seeds for confirming the result; 0 skips it.")] = 5,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Stop cleanly before a loop uses more tokens; 0 is no limit.")
    ] = 0,
    max_cost: Annotated[
        float,
        typer.Option(min=0, metavar="USD", help="Stop cleanly before a loop costs more; needs the price."),
    ] = 0.0,
    max_time: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Stop cleanly before so much time has passed; 0: none."),
    ] = 0.0,
    max_evaluation_time: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Stop cleanly before all evaluations together (GPU time, with one GPU each) took longer.",
        ),
    ] = 0.0,
    early_stopping: Annotated[
        str, typer.Option(metavar="RULE", help="Stop trials that will not win: median or curve. Off by default.")
    ] = "",
    audit: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of early stops that are not made, to measure how often the rule errs."),
    ] = None,
    noise_repeats: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Measure the baseline on so many more seeds, 2 or more, and small gains on a second one; 0: off.",
        ),
    ] = 0,
    lessons: Annotated[
        bool | None,
        typer.Option(
            "--lessons/--no-lessons",
            help="Show lessons of earlier runs and write new ones. On with levels above 1, off for bare level 1.",
        ),
    ] = None,
    compare_lessons: Annotated[
        bool, typer.Option(help="Ask for every proposal a second time without lessons: measures what they change.")
    ] = False,
    concurrent: Annotated[
        bool, typer.Option("--concurrent", help="Let the run go on while the levels above 1 think.")
    ] = False,
    library: Annotated[
        bool, typer.Option("--library/--no-library", help="Offer mechanisms of earlier searches to level 2.")
    ] = True,
    control: Annotated[
        str, typer.Option(help="noop or restart in place of level 2's research, so that effects can be told apart.")
    ] = "",
    recursion: Annotated[
        bool, typer.Option("--recursion", help="Let level 2 propose a change of its own research procedure at the end.")
    ] = False,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another field of the campaign's policy, for example after_failures=pause_run; repeatable.",
        ),
    ] = None,
    spec: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another field of the run, for example labels.group=A; repeatable."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it, print its name and leave.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Start all services here and stop them at the end.")] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--serve-task", metavar="NAME=HOST:PORT", help="With --local: a task that runs already."),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="With --local: the trainer's budget of a trial: short, full (the default), long or seconds.",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; with --local ./bilevel-results/run-TIME by default.")
    ] = None,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Search: create a run and, above it, a campaign; follow both; confirm the result.

    Level 1 is the bare search. Level 1.5 adjusts its configuration, level 2 writes mechanisms for it. Ctrl-C leaves
    a run on a service running (`bilevel watch`, `bilevel cancel`) and stops everything that --local started.
    """
    from bilevel.v1 import outer_pb2, trace_pb2

    from clients.cli.field_options import set_fields
    from clients.cli.own_services import check_budget, stack_settings
    from clients.cli.refusals import in_flags, own_flags
    from clients.cli.resources import check_folder, split_settings
    from clients.run_options import RunOptions
    from clients.searching import SearchPlan, read_control, read_levels
    from service_kit.errors import InvalidArgument

    if local and detach:
        raise InvalidArgument.of("--detach", "cannot be combined with --local, which stops its services at the end")
    if local:
        check_not_given(context, "--local, which starts the services itself")
    above = read_levels(levels)
    share_lessons = bool(above) if lessons is None else lessons
    check_effects(
        {
            "--asynchronous": (asynchronous and parallel == 1, "needs --parallel of 2 or more"),
            "--concurrent": (concurrent and not above, "needs a level above 1: --levels 1,1.5, 1,2 or 1,1.5,2"),
            "--recursion": (recursion and "2" not in above, "needs level 2: --levels 1,2 or 1,1.5,2"),
            "--policy": (bool(policy) and not above, "needs a level above 1: --levels 1,1.5, 1,2 or 1,1.5,2"),
            "--compare-lessons": (compare_lessons and not share_lessons, "needs --lessons"),
            "--budget": (bool(budget) and not local, "is for a trainer that is started here: add --local"),
            "--serve-task": (bool(tasks) and not local, "is for services that are started here: add --local"),
        }
    )
    if budget:
        check_budget(budget)
    more_policy, more_spec = outer_pb2.CampaignPolicy(), trace_pb2.RunSpec()
    set_fields(more_policy, "--policy", policy or [], own_flags("policy"))
    set_fields(more_spec, "--spec", spec or [], own_flags("spec"))
    plan = SearchPlan(
        task=task,
        trials=trials,
        seed=seed,
        levels=above,
        lessons=share_lessons,
        compare_lessons=compare_lessons,
        concurrent=concurrent,
        library=library,
        control=read_control(control, above),
        recursion=recursion,
        title=name,
        parallelism=parallel,
        confirmation_seeds=confirm,
        max_tokens=max_tokens,
        options=RunOptions(asynchronous, max_time, max_evaluation_time, max_cost, early_stopping, audit, noise_repeats),
        more_spec=more_spec,
        more_policy=more_policy,
    )
    split_settings(settings or [])  # before anything is started
    with in_flags():
        if local:
            stack = stack_settings(plan, tasks or [], budget, out)
            check_folder(stack.folder, "--out")
            await _run_local(plan, settings or [], stack, json)
        else:
            if out is not None:
                check_folder(out, "--out")
            await _run_remote(plan, settings or [], inner, outer, detach=detach, out=out, json=json)


def check_not_given(context: typer.Context, why: str) -> None:
    """Raise InvalidArgument where --inner or --outer was typed, which ``why`` makes useless; a variable may be set."""
    from service_kit.errors import InvalidArgument, Violation

    given = [
        name for name in ("inner", "outer") if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        wrong = [Violation(f"--{name}", f"cannot be combined with {why}") for name in given]
        raise InvalidArgument(wrong, hint="Leave out one of them.")


def check_effects(without: dict[str, tuple[bool, str]]) -> None:
    """Raise InvalidArgument naming each flag that would change nothing, with what it needs."""
    from service_kit.errors import InvalidArgument, Violation

    wrong = [Violation(flag, needs) for flag, (useless, needs) in without.items() if useless]
    if wrong:
        raise InvalidArgument(wrong)


async def _run_local(plan: SearchPlan, settings: list[str], stack_settings: StackSettings, json: bool) -> None:
    from clients.cli.comparison import terminal
    from clients.cli.endings import check_finished
    from clients.inner import InnerClient
    from clients.local_stack import LocalStack
    from clients.model_endpoint import answered_by, check_endpoint, endpoint_of
    from clients.outer import OuterClient
    from service_kit.settings import ModelSettings

    model = ModelSettings.load()
    await check_endpoint(model)
    if not json:
        terminal().print(answered_by(model), style="dim")
        terminal().print("starting the services on this machine", style="dim")
    async with LocalStack(stack_settings) as stack, InnerClient(stack.inner) as inner:
        outer = OuterClient(stack.outer) if plan.levels else None
        try:
            work = _search(plan, settings, inner, outer, stack_settings.folder, json, endpoint_of(model), local=True)
            search = await stack.guard(work)
        finally:
            if outer is not None:
                await outer.close()
    check_finished(search, stack_settings.folder)


async def _run_remote(
    plan: SearchPlan,
    settings: list[str],
    inner_address: str,
    outer_address: str,
    *,
    detach: bool,
    out: Path | None,
    json: bool,
) -> None:
    from dataclasses import replace

    from clients.cli.endings import check_finished
    from clients.cli.resources import print_json, read_start
    from clients.inner import InnerClient
    from clients.outer import OuterClient
    from clients.searching import begin
    from service_kit.errors import RemoteError

    async with InnerClient(inner_address) as inner, OuterClient(outer_address) as outer:
        try:
            await inner.connection.healthy()
            if plan.levels:
                await outer.connection.healthy()  # before a run exists that nobody would supervise
        except RemoteError as error:
            if error.code == "UNAVAILABLE":
                error.hint += " Or let this command start every service itself: add --local."
            raise
        if not detach:
            search = await _search(plan, settings, inner, outer if plan.levels else None, out, json)
        else:
            start = await read_start(inner, plan.task, settings)
            search = await begin(inner, outer if plan.levels else None, replace(plan, start=start))
            if json:
                print_json({"run": search.run, "campaign": search.campaign})
            else:
                typer.echo(search.run)
            return
    check_finished(search)


async def _search(
    plan: SearchPlan,
    settings: list[str],
    inner: InnerClient,
    outer: OuterClient | None,
    out: Path | None,
    json: bool,
    endpoint: str = "",
    *,
    local: bool = False,
) -> Search:
    """Begin, show, and report one search."""
    import asyncio
    from dataclasses import replace

    from bilevel.v1 import trace_pb2

    from clients.cli.comparison import print_summaries, terminal
    from clients.cli.live import shown
    from clients.cli.resources import print_json, read_start
    from clients.report import collect, write_report
    from clients.searching import begin, follow
    from service_kit.complaint import complain
    from service_kit.errors import ServiceError

    start = await read_start(inner, plan.task, settings)
    search = await begin(inner, outer, replace(plan, start=start))
    console = terminal()
    if json:
        await follow(search, inner, outer, lambda *_: None, until_stuck=True)
    else:
        console.print(f"{search.run} on task {plan.task}, levels {' + '.join(('1', *plan.levels))}", style="dim")
        try:
            async with shown([search], console) as listener:
                await follow(search, inner, outer, listener, until_stuck=True)
        except asyncio.CancelledError:
            if not local:
                id_ = search.run.rpartition("/")[2]
                console.print(f"{search.run} goes on: `bilevel watch {id_}` follows it, `bilevel cancel {id_}` ends it")
            raise
    record = await collect(inner, outer, search.run, endpoint)
    files, unwritten = None, None
    try:
        files = write_report([record], out) if out is not None else None
    except ServiceError as error:
        unwritten = error
    if json:
        print_json(record.summary().to_json() | {"report": str(files.html) if files is not None else None})
    else:
        print_summaries([record.summary()], console)
        if unwritten is None:
            where = str(files.html) if files is not None else f"bilevel report {search.run.rpartition('/')[2]}"
            console.print(f"\nreport: {where}")
    if unwritten is not None:
        if search.trace.state == trace_pb2.RUN_STATE_FINISHED:
            raise unwritten
        complain(unwritten, json=json)  # why the run did not finish matters more, and is said last
    return search
