"""The ``bilevel`` command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import typer

from clients.cli import (
    ablate,
    beginning,
    campaign,
    config,
    conform,
    dashboard,
    demo,
    demo_memory,
    doctor,
    lessons,
    library,
    mechanisms,
    prompts,
    run,
    runs,
    security,
    serve,
    trace,
)
from clients.cli.execution import EXIT_CODES
from clients.cli.usage import Commands
from service_kit.exit_codes import ExitCode

app = typer.Typer(
    name="bilevel",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Autoresearch that researches itself: search over a task, and over the way of searching, while it runs.",
    epilog="Exit codes:\n\n" + "\n\n".join(f"{code.value} {code.meaning}" for code in ExitCode),
    cls=Commands,
)


app.callback()(beginning.begin)
app.command(name="demo", epilog=EXIT_CODES)(demo.demo)
app.command(name="demo-memory", epilog=EXIT_CODES)(demo_memory.demo_memory)
app.command(name="run", epilog=run.EXIT_CODES)(run.run)
app.command(name="ablate", epilog=EXIT_CODES)(ablate.ablate)
app.add_typer(runs.app)
app.add_typer(mechanisms.app, name="mechanisms")
app.add_typer(lessons.app, name="lessons")
app.add_typer(library.app, name="library")
app.add_typer(campaign.app, name="campaign")
app.add_typer(prompts.app, name="prompts")
app.add_typer(conform.app, name="conform")
app.add_typer(trace.app, name="trace")
app.add_typer(serve.app, name="serve")
app.command(name="dashboard", epilog=EXIT_CODES)(dashboard.dashboard)
app.add_typer(config.app, name="config")
app.command(name="doctor", epilog=doctor.EXIT_CODES)(doctor.doctor)
app.command(name="certs", epilog=EXIT_CODES)(security.certs)
app.add_typer(security.tokens_app, name="tokens")


def main() -> None:
    """Entry point of the console script."""
    app()
