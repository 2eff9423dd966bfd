"""``bilevel doctor``: is everything here that the services need?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from clients.cli.execution import polite
from clients.cli.options import INNER_DEFAULT, OUTER_DEFAULT, InnerOption, JsonOption, OuterOption
from service_kit.exit_codes import ExitCode, exit_codes

EXIT_CODES = exit_codes(done="nothing is wrong", failed="something will not work")

_MARKS = {"good": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


@polite
async def doctor(
    context: typer.Context,
    inner: InnerOption = INNER_DEFAULT,
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Examine installation, GPU, sandbox, model endpoint, databases, clock and services; say what to do.

    ✓ is as it should be, · is worth knowing, ✗ will not work.
    """
    from clients.doctor import Severity, examine

    found = []
    async for finding in examine(inner, outer, context.obj.wrong):
        found.append(finding)
        if not json:
            mark, colour = _MARKS[finding.severity]
            typer.echo(f"{typer.style(mark, fg=colour)} {finding.subject:<12} {finding.text}")
            if finding.advice:
                typer.echo(f"{'':<15}{finding.advice}")
    if json:
        from clients.cli.resources import print_json

        print_json([asdict(finding) for finding in found])
    if any(finding.severity is Severity.BAD for finding in found):
        raise typer.Exit(ExitCode.FAILED)
