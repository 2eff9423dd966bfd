"""``bilevel demo``: the whole thing at once, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import SEED_MAX, JsonOption


@polite
async def demo(
    trials: Annotated[int, typer.Option(min=1, max=1000, help="Trials of each run.")] = 30,
    seed: Annotated[int, typer.Option(min=0, max=SEED_MAX, help="Seed of both runs.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; ./bilevel-results/demo-TIME by default.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="At most 12 trials each, with the same checks.")] = False,
    budget: Annotated[str, typer.Option(help="The trainer's budget of a trial.")] = "short",
    json: JsonOption = False,
) -> None:
    """A bare search beside a bilevel one on real training, then a comparison and a report.

    Starts every service on loopback ports that they pick themselves and stops all of them at the end. Uses the model of
    OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL for both loops, or else the scripted researcher, and says which.
    Fails when the scripted researcher's mechanism was not installed or changed no decision.
    """
    import sys
    from datetime import datetime

    from clients.cli.comparison import print_summaries, terminal
    from clients.cli.live import shown
    from clients.cli.resources import check_folder, print_json
    from clients.demo import DemoSettings, run_demo
    from service_kit.errors import ServiceError

    now = datetime.now()
    settings = DemoSettings(
        out or Path("bilevel-results") / f"demo-{now:%Y%m%d-%H%M%S}",
        trials=trials,
        seed=seed,
        short=short,
        budget=budget,
    )
    check_folder(settings.out, "--out")
    console = terminal()
    if json:
        console.file = sys.stderr
    result = await run_demo(settings, lambda searches: shown(searches, console), console.print)
    summaries = [record.summary() for record in result.records]
    if json:
        runs = [summary.to_json() for summary in summaries]
        print_json({"report": str(result.files.html), "runs": runs, "problems": result.problems})
    else:
        console.print()
        print_summaries(summaries, console)
        console.print()
        for remark in result.remarks:
            console.print(remark)
        console.print(f"report: {result.files.html}", soft_wrap=True)
    if result.problems:
        raise ServiceError(
            "the demonstration failed: " + "; ".join(result.problems),
            hint=f"The services' logs are in {settings.out / 'logs'}.",
        )
