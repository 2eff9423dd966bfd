"""``bilevel trace``: does a database say what its log says? By the service's own code, which need not be running."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from clients.cli.execution import polite
from clients.cli.options import JsonOption
from service_kit.exit_codes import exit_codes

app = typer.Typer(no_args_is_help=True, help="Verify a service's database against its event log; write its rows anew.")

_EPILOG = exit_codes(done="all agrees", failed="something differs or failed")


class Service(StrEnum):
    """Whose database it is."""

    INNER = "inner"
    OUTER = "outer"


NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Runs or campaigns, by name or id; all by default.")
]
ServiceOption = Annotated[Service, typer.Option(help="Whose database it is.")]
DatabaseOption = Annotated[
    str, typer.Option(metavar="URL", help="SQLAlchemy URL; by default where that service keeps its data.")
]


@app.command(epilog=_EPILOG)
@polite
def verify(
    names: NamesArgument = None,
    service: ServiceOption = Service.INNER,
    database: DatabaseOption = "",
    json: JsonOption = False,
) -> None:
    """Fold every log again, look for gaps in its numbers, and compare with the rows. Changes nothing."""
    _become(service, "verify", names or [], database, json)


@app.command(epilog=_EPILOG)
@polite
def rebuild(
    names: NamesArgument = None,
    service: ServiceOption = Service.INNER,
    database: DatabaseOption = "",
    json: JsonOption = False,
) -> None:
    """Write the rows anew from the log, then verify."""
    _become(service, "rebuild", names or [], database, json)


def _become(service: Service, action: str, names: list[str], database: str, json: bool) -> None:
    """Replace this process: only the service's own code knows its database."""
    options = [*(["--database", database] if database else []), *(["--json"] if json else [])]
    command = [sys.executable, "-P", "-m", f"{service.value}_service.audit", action, *names, *options]
    os.execv(sys.executable, command)  # noqa: S606
