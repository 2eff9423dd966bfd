"""``bilevel conform``: the contract tests over the wire, against any implementation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.cli.execution import polite
from clients.cli.options import INNER_DEFAULT, InnerOption, JsonOption
from service_kit.exit_codes import ExitCode, exit_codes

if TYPE_CHECKING:
    from clients.conformance.suite import Suite

EXIT_CODES = exit_codes(ExitCode.UNDECIDED, done="conforms", failed="does not")

app = typer.Typer(
    no_args_is_help=True,
    help="Check an implementation of the protocol, in any language, clause by clause of docs/protocol.md.",
)

AddressArgument = Annotated[str, typer.Argument(metavar="HOST:PORT", help="Address of the implementation.")]
ProfileOption = Annotated[str, typer.Option("--profile", metavar="NAME", help="What it claims to do.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML as well.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="CLAUSE", help="Check this clause, or all below it, as TASK-5. Repeatable."),
]
TimeOption = Annotated[
    float, typer.Option("--time-limit", min=1.0, metavar="SECONDS", help="Time for the whole examination.")
]
TaskOption = Annotated[
    str,
    typer.Option("--task", metavar="NAME", help="The inner service's task to use; its first by default."),
]


@app.command(epilog=EXIT_CODES)
@polite
async def task(
    address: AddressArgument,
    profile: ProfileOption = "full",
    fraction: Annotated[
        float,
        typer.Option(min=0.0001, max=1.0, help="Share of the budget for evaluations that run to their end."),
    ] = 0.1,
    only: OnlyOption = None,
    time_limit: TimeOption = 600.0,
    junit: JunitOption = None,
    json: JsonOption = False,
) -> None:
    """A TaskService: it describes, validates, evaluates, and kills what is cancelled."""
    from clients.conformance.task import TASK, TaskSubject
    from clients.conformance.task.subject import SERVICE
    from clients.conformance.wire import Wire

    subject = TaskSubject(Wire.to(SERVICE, "task", address), fraction)
    await _examine(TASK, subject, address, profile, only, time_limit, junit, json)


@app.command(epilog=EXIT_CODES)
@polite
async def inner(
    address: AddressArgument,
    profile: ProfileOption = "full",
    task: TaskOption = "",
    only: OnlyOption = None,
    time_limit: TimeOption = 600.0,
    junit: JunitOption = None,
    json: JsonOption = False,
) -> None:
    """An InnerLoopService: runs, trials, the trace, mechanisms. Profiles: full, no-python.

    It evaluates about twenty configurations at full budget: configure it with a task whose evaluations are short.
    """
    from clients.conformance.inner import INNER, InnerSubject
    from clients.conformance.inner.subject import SERVICE
    from clients.conformance.wire import Wire

    subject = InnerSubject(Wire.to(SERVICE, "inner service", address), task)
    await _examine(INNER, subject, address, profile, only, time_limit, junit, json)


@app.command(epilog=EXIT_CODES)
@polite
async def outer(
    address: AddressArgument,
    inner: InnerOption = INNER_DEFAULT,
    profile: ProfileOption = "full",
    task: TaskOption = "",
    only: OnlyOption = None,
    time_limit: TimeOption = 600.0,
    junit: JunitOption = None,
    json: JsonOption = False,
) -> None:
    """An OuterLoopService: campaigns, their events, research, the library.

    --inner names the inner service that it is connected to.
    """
    from clients.conformance.inner import InnerSubject
    from clients.conformance.inner.subject import SERVICE as INNER_SERVICE
    from clients.conformance.outer import OUTER, OuterSubject
    from clients.conformance.outer.subject import SERVICE
    from clients.conformance.wire import Wire

    runs = InnerSubject(Wire.to(INNER_SERVICE, "inner service", inner, "--inner"), task)
    subject = OuterSubject(Wire.to(SERVICE, "outer service", address), runs)
    await _examine(OUTER, subject, address, profile, only, time_limit, junit, json)


async def _examine(
    suite: Suite[Any],
    subject: Any,
    address: str,
    profile: str,
    only: list[str] | None,
    time_limit: float,
    junit: Path | None,
    json: bool,
) -> None:
    """Examine, report and leave with the exit code; what was created is cancelled whatever happens."""
    from clients.cli.resources import check_folder, print_json
    from clients.conformance import report
    from service_kit.errors import InvalidArgument

    if profile not in suite.profiles:
        raise InvalidArgument.of("--profile", f"must be one of {', '.join(suite.profiles)}; got {profile!r}")
    for part in only or ():
        if not suite.selects(part):
            raise InvalidArgument.of("--only", f"must name a clause that is checked here, as TASK-5.3; got {part!r}")
    if junit is not None:
        check_folder(junit.parent, "--junit")
    try:
        await subject.reach()
        examination = await suite.examine(subject, address, profile, only=only or (), seconds=time_limit)
    finally:
        await subject.close()
    if junit is not None:
        await asyncio.to_thread(_write, junit, report.to_junit(examination))
    if json:
        print_json(report.to_json(examination))
    else:
        for line in report.lines(examination):
            typer.echo(line)
    if examination.exit_code:
        raise typer.Exit(examination.exit_code)


def _write(file: Path, content: bytes) -> None:
    from service_kit.given_files import unwritable

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise unwritable(file, "--junit", error, hint="Choose another file with --junit.") from None
