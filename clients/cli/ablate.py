"""``bilevel ablate``: the paper's groups and two controls, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, SEED_MAX, InnerOption, JsonOption, OuterOption

if TYPE_CHECKING:
    from clients.ablation.execution import Place
    from clients.ablation.folder import Plan
    from clients.ablation.results import Results
    from service_kit.settings import ModelSettings

LONGEST = 100_000


@polite
async def ablate(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="Start services here, of this size: laptop, workstation or paper.")] = "",
    groups: Annotated[str, typer.Option(help="Some of A, B, C, D, noop, restart; all by default.")] = "",
    trials: Annotated[int | None, typer.Option(min=1, max=LONGEST, help="Trials a run; 30, or the preset's.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, max=1000, help="Runs a group; 10, or the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=SEED_MAX, help="Seeds of the repeats follow from it.")] = 0,
    confirm: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Fresh seeds to confirm each run; 3, or the preset's.")
    ] = None,
    configuration_every: Annotated[
        int | None, typer.Option(min=1, help="Trials between two looks of level 1.5; 5, or the preset's.")
    ] = None,
    mechanism_every: Annotated[
        int | None, typer.Option(min=1, help="Trials between two sessions of level 2; 10, or the preset's.")
    ] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Runs at a time; 1, or the preset's.")] = None,
    budget: Annotated[str, typer.Option(help="With --preset: the trainer's budget of a trial.")] = "",
    task: Annotated[str, typer.Option(help="Configured name of the task.")] = "gpt",
    local: Annotated[bool, typer.Option("--local", help="Start services here for a task of --serve-task.")] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--serve-task", metavar="NAME=HOST:PORT", help="With --local: a task that runs already."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of plan and results; ./bilevel-results/ablate-TIME by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the plan that --out holds.")] = False,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Run groups A (level 1), B (+ 1.5), C (+ 1.5 + 2), D (+ 2) and the controls noop and restart; compare them.

    Says first what it will take. The same command with the same --out goes on where it was, whatever was killed:
    nothing is lost and no decided trial is repeated. Uses the model of OPENAI_BASE_URL, OPENAI_API_KEY and
    BILEVEL_MODEL, or else the scripted researcher, and says which in every file.
    """
    from datetime import datetime

    from clients.ablation.design import GROUPS, Design
    from clients.ablation.execution import run_ablation
    from clients.ablation.folder import begin, resumable
    from clients.ablation.presets import SIZE, find_preset
    from clients.ablation.statistics import check_scipy
    from clients.cli.resources import check_folder
    from clients.cli.run import check_not_given
    from clients.model_endpoint import check_endpoint
    from service_kit.errors import InvalidArgument
    from service_kit.settings import ModelSettings

    if local or preset:
        check_not_given(context, "--local or --preset, which start the services themselves")
    check_scipy()
    size = find_preset(preset) if preset else SIZE
    if resume and out is None:
        raise InvalidArgument.of("--resume", "needs --out, the folder of the ablation to go on with")
    folder = out or Path("bilevel-results") / f"ablate-{datetime.now():%Y%m%d-%H%M%S}"
    check_folder(folder, "--out")
    model = ModelSettings.load()
    if resume:
        plan, resumed = resumable(folder), True
    else:
        design = Design(
            task=task,
            groups=tuple(name.strip() for name in groups.split(",")) if groups else tuple(GROUPS),
            repeats=repeats or size.repeats,
            trials=trials or size.trials,
            seed=seed,
            confirmation_seeds=size.confirm if confirm is None else confirm,
            configuration_every=configuration_every or size.configuration_every,
            mechanism_every=mechanism_every or size.mechanism_every,
            own_services=bool(preset) or local,
            trainer=size.options(budget) if preset else (),
            researcher=(model.or_scripted().model or "") if preset or local else "",
        )
        plan, resumed = begin(folder, design)
    if plan.design.own_services:
        await check_endpoint(model)
    at_once = parallel or size.parallel
    place = place_of(plan, tasks or [], model, inner, outer, at_once)
    results = await run_ablation(plan, place, at_once, lambda line: typer.echo(line, err=json), resumed=resumed)
    show(results, json)


def place_of(plan: Plan, tasks: list[str], model: ModelSettings, inner: str, outer: str, at_once: int) -> Place:
    """Where the plan runs. Raises InvalidArgument where that does not fit the plan, or another model would answer."""
    from clients.ablation.execution import Place
    from clients.cli.own_services import served_tasks
    from clients.local_stack import StackSettings
    from clients.model_endpoint import endpoint_of
    from service_kit.errors import InvalidArgument

    design, served = plan.design, served_tasks(tasks)
    if not design.own_services:
        if served:
            raise InvalidArgument.of("--serve-task", "is for services that are started here: add --local")
        return Place(inner, outer)
    answers = model.or_scripted().model or ""
    if design.researcher != answers:
        hint = "Set BILEVEL_MODEL and its endpoint as they were, or begin a new ablation in another folder."
        said = f"was begun with {design.researcher}; now {answers} would answer"
        raise InvalidArgument.of("--out", f"holds an ablation that {said}", hint=hint)
    if not design.trainer and design.task not in served:
        raise InvalidArgument.of("--serve-task", f"must say where the task {design.task!r} is: NAME=HOST:PORT")
    trainer = (*design.trainer, "--workers", str(at_once)) if design.trainer else None
    stack = StackSettings(plan.folder, served, trainer)
    return Place(stack=stack, endpoint=endpoint_of(model))


def show(results: Results, json: bool) -> None:
    """The tables on the terminal, or everything as JSON."""
    from rich.table import Table

    from clients.ablation.writing import HEADER, cells
    from clients.cli.comparison import terminal
    from clients.cli.resources import print_json

    if json:
        print_json(results.to_json())
        return
    console = terminal()
    for measure in results.measures:
        console.print(f"\n{measure.value}, {results.metric}; positive is better", style="bold")
        table = Table(*HEADER, show_edge=False, pad_edge=False)
        for row in results.rows(measure):
            table.add_row(*cells(row))
        console.print(table)
    console.print(f"\n{results.label}", style="yellow" if results.scripted else "")
    console.print(f"files: {results.plan.folder}/results.md, runs.csv, trials.csv, best_so_far.png", soft_wrap=True)
