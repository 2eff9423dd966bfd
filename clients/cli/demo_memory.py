"""``bilevel demo-memory``: what a search takes over from an earlier one, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import SEED_MAX, JsonOption


@polite
async def demo_memory(
    trials: Annotated[int, typer.Option(min=1, max=1000, help="Trials of each run.")] = 24,
    seed: Annotated[
        int, typer.Option(min=0, max=SEED_MAX - 1, help="Seed of the first run; the second has the next.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; ./bilevel-results/memory-TIME by default.")
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Half the budget a trial and no confirmation, with the same checks.")
    ] = False,
    budget: Annotated[
        str, typer.Option(metavar="SIZE", help="The trainer's budget of a trial: short (the default), full or seconds.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Two searches on one task on real training: the second starts from the first one's lessons and library.

    Says which lesson was in view of which trial, which was cited, and, by asking again without lessons, which proposals
    they changed; and which mechanism of the library was tried again, and which decisions it changed. Fails when, by the
    scripted researcher, no lesson or no mechanism of the first run changed a decision of the second.
    """
    import sys
    from datetime import datetime

    from clients.cli.comparison import print_summaries, terminal
    from clients.cli.live import shown
    from clients.cli.own_services import check_budget
    from clients.cli.resources import check_folder, print_json
    from clients.demo_memory import MemoryDemoSettings, run_memory_demo
    from service_kit.errors import ServiceError

    now = datetime.now()
    folder = out or Path("bilevel-results") / f"memory-{now:%Y%m%d-%H%M%S}"
    if budget:
        check_budget(budget)
    settings = MemoryDemoSettings(folder, trials=trials, seed=seed, short=short, budget=budget)
    check_folder(folder, "--out")
    console = terminal()
    if json:
        console.file = sys.stderr
    result = await run_memory_demo(settings, lambda searches: shown(searches, console), console.print)
    if json:
        print_json(result.to_json() | {"report": str(result.files.html)})
    else:
        console.print()
        print_summaries([record.summary() for record in result.records], console)
        console.print()
        for line in result.lines():
            console.print(line, soft_wrap=True)
        console.print(f"report: {result.files.html}", soft_wrap=True)
    if result.problems:
        raise ServiceError(
            "the demonstration failed: " + "; ".join(result.problems),
            hint=f"The services' logs are in {folder / 'logs'}.",
        )
