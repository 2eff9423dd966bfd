"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from clients.addresses import INNER, OUTER

SEED_MAX = 2**63 - 1
"""Seeds are 64-bit numbers on the wire."""

InnerOption = Annotated[
    str, typer.Option("--inner", metavar="HOST:PORT", envvar="BILEVEL_INNER", help="Address of the inner service.")
]
OuterOption = Annotated[
    str, typer.Option("--outer", metavar="HOST:PORT", envvar="BILEVEL_OUTER", help="Address of the outer service.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or name, or `latest`.")]

INNER_DEFAULT = INNER.address
OUTER_DEFAULT = OUTER.address
