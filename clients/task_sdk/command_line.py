"""The command line of every task: serve it, try one configuration of it, show what it says of itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from clients.task_sdk.definition import CheckFailed, Task
from clients.task_sdk.evaluation import Ending, Progress, Request
from clients.task_sdk.location import Location
from clients.task_sdk.pool import EvaluationPool
from clients.task_sdk.problems import InvalidTask
from clients.task_sdk.service import sentences
from service_kit.complaint import complain
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError
from service_kit.exit_codes import ExitCode
from service_kit.parameters import Outcome, Split, Value
from service_kit.server import ServerSettings
from service_kit.typed_text import parse_value


def main(task: Task, arguments: Sequence[str] | None = None) -> None:
    """Run the command line of ``task``; ends the process."""
    words = list(arguments) if arguments is not None else sys.argv[1:]
    _app(task)(words, prog_name=task.file.name)


def _app(task: Task) -> typer.Typer:
    app = typer.Typer(
        help=f"{task.title.rstrip('.')}. Serves the task unless told otherwise.",
        add_completion=False,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
    )

    @app.callback()
    def serve(
        context: typer.Context,
        listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes any free one.")] = "127.0.0.1:7500",
        address_file: Annotated[Path | None, typer.Option(help="File that receives the bound address.")] = None,
        insecure: Annotated[bool, typer.Option(help="Allow an address that other machines can reach.")] = False,
    ) -> None:
        if context.invoked_subcommand is None:
            _politely(lambda: _serve(task, ServerSettings.secured(listen, address_file, insecure=insecure)))

    @app.command("try")
    def try_(
        values: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Others: the default.")] = None,
        seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
        budget_fraction: Annotated[float, typer.Option(help="Share of the budget, above 0 and at most 1.")] = 1.0,
        held_out: Annotated[bool, typer.Option("--held-out", help="Measure on the data that searches never see.")] = (
            False
        ),
    ) -> None:
        """Evaluate one configuration as the server would and show how it ends; exit code 1 unless it is measured."""
        split = Split.HELD_OUT if held_out else Split.SEARCH
        _politely(lambda: _try(task, values or [], seed, budget_fraction, split))

    @app.command()
    def describe() -> None:
        """Show the parameters, their ranges and their defaults."""
        goal = task.objective
        typer.echo(f"{task.name}: {goal.direction.value} {goal.metric} {goal.unit}".rstrip())
        for parameter in task.space.parameters:
            words = [f"  {parameter.name} = {parameter.default}", parameter.allowed(), parameter.documentation]
            typer.echo(", ".join(filter(None, words)))
        for constraint in task.space.constraints:
            typer.echo(f"  constraint: {constraint}")

    return app


def _politely(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work``; what the author or the user got wrong is one message and an exit code, never a stack trace."""
    try:
        asyncio.run(work())
    except (ServiceError, InvalidConfiguration) as error:
        raise typer.Exit(complain(error)) from None
    except (InvalidTask, CheckFailed) as error:
        raise typer.Exit(complain(ServiceError(str(error)))) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


async def _serve(task: Task, settings: ServerSettings) -> None:
    from clients.task_sdk.serving import serve
    from service_kit import logs

    logs.configure(task.name)
    if sys.stderr.isatty():
        address = "ADDRESS" if settings.listen.endswith(":0") else settings.listen
        typer.echo(
            f"search over it: bilevel run --local --task {address}",
            err=True,
        )
    await serve(task, settings)


async def _try(task: Task, values: list[str], seed: int, fraction: float, split: Split) -> None:
    if not 0.0 < fraction <= 1.0:
        raise InvalidArgument.of("--budget-fraction", f"must be above 0 and at most 1; got {fraction:g}")
    if split is Split.HELD_OUT and not task.held_out:
        raise InvalidArgument.of("--held-out", f"is not possible: the task {task.name} has no held-out data")
    configuration = task.space.validate(read_values(task, values))
    if violations := await asyncio.to_thread(task.violations, configuration):
        _show(task, Ending(Outcome.INFEASIBLE, message=sentences(violations)))
        raise typer.Exit(ExitCode.FAILED)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
    pool = EvaluationPool(Location.of(task), task.conduct)
    ending: Ending | None = None
    try:
        async with aclosing(pool.evaluate(Request(configuration, seed, fraction, split))) as events:
            async for event in events:
                if isinstance(event, Progress):
                    _show_progress(event)
                else:
                    ending = event
    finally:
        await pool.stop()
    if ending is not None:
        _show(task, ending)
    if ending is None or ending.outcome is not Outcome.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


def read_values(task: Task, texts: Sequence[str]) -> dict[str, Value]:
    """``NAME=VALUE`` texts as a configuration. Raises InvalidArgument and InvalidConfiguration."""
    values: dict[str, Value] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument.of("NAME=VALUE", f"must name a parameter and its value; got {text!r}")
        values[name] = parse_value(task.space[name], value)
    return values


def _show_progress(event: Progress) -> None:
    measured = " ".join(f"{name}={number:.4g}" for name, number in event.metrics.items())
    typer.echo(f"  {event.fraction:4.0%} {event.phase} {measured}".rstrip(), err=True)


def _show(task: Task, ending: Ending) -> None:
    typer.echo(f"outcome: {ending.outcome.value}")
    if ending.metric is not None:
        typer.echo(f"{task.objective.metric}: {ending.metric:.6g} {task.objective.unit}".rstrip())
    for name, number in ending.side_metrics.items():
        typer.echo(f"{name}: {number:.6g}")
    if ending.message:
        typer.echo(f"message: {ending.message}")
