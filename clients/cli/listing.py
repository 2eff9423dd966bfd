"""Runs and campaigns as a table: whose they are where tokens are known, and what waits for its database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import typer


class Head(Protocol):
    """What runs and campaigns have in common."""

    name: str
    owner: str
    state_reason: str
    model: str
    scripted: bool


H = TypeVar("H", bound=Head)


def answered_by(item: Head) -> str:
    """The model, labelled where it was the script."""
    return f"{item.model} (scripted)" if item.scripted else item.model


def print_table(found: Sequence[H], columns: Sequence[str], cells: Callable[[H], Sequence[str]]) -> None:
    """Print a row for each, then a line for each that waits for its database."""
    from rich.table import Table

    from clients.cli.comparison import terminal
    from service_kit.waits import WAITS

    owned = any(item.owner for item in found)
    table = Table(*columns, *(["token"] if owned else []), show_edge=False)
    for item in found:
        table.add_row(*cells(item), *([item.owner] if owned else []))
    terminal().print(table)
    for item in found:
        if item.state_reason.startswith(WAITS):
            typer.echo(f"{item.name} {item.state_reason}")
