"""``bilevel serve``: becomes one of the services; every option is that service's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from clients.cli.execution import polite

app = typer.Typer(no_args_is_help=True, help="Start one service. `bilevel serve SERVICE --help` shows its options.")

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _become(module: str, arguments: Sequence[str]) -> None:
    """Replace this process, so that signals and the exit code are the service's own."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606


@app.command(context_settings=_PASS_ON, add_help_option=False)
@polite
def inner(context: typer.Context) -> None:
    """The inner loop: runs, trials, mechanisms. By default at 127.0.0.1:7402."""
    _become("inner_service", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
@polite
def outer(context: typer.Context) -> None:
    """The outer loop: campaigns of levels 1.5 and 2. By default at 127.0.0.1:7403."""
    _become("outer_service", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
@polite
def trainer(context: typer.Context) -> None:
    """The task gpt: trains small GPTs. By default at 127.0.0.1:7401."""
    _become("gpt_trainer.as_service", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
@polite
def researcher(context: typer.Context) -> None:
    """The scripted researcher, which stands in for a language model. By default at 127.0.0.1:7400."""
    _become("clients.scripted_researcher", context.args)
