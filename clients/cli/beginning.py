"""What holds for every command before it begins: settings that a file gives, and logging to standard error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from clients.cli.execution import polite
from clients.cli.usage import WORDS

if TYPE_CHECKING:
    from service_kit.errors import Violation

_SAY_WHAT_IS_WRONG = ("doctor", "config")
"""Commands that look at every setting, and would be of no use if the first wrong one ended them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the settings file had to say; ``context.obj`` of every command."""

    names: frozenset[str]
    """Settings that it gave."""
    wrong: tuple[Violation, ...] = ()
    """What is wrong with it, where the command says so itself."""


@polite
def begin(context: typer.Context) -> None:
    """What holds for every command: settings that a file gives, where the environment does not."""
    words: list[str] = context.meta.get(WORDS, [])
    if "--help" in words:
        return
    from service_kit import logs
    from service_kit.complaint import complain
    from service_kit.errors import InvalidArgument
    from service_kit.settings_file import apply_config_file

    try:
        context.obj = Given(apply_config_file())
    except InvalidArgument as error:
        if context.invoked_subcommand != "doctor":
            raise typer.Exit(complain(error, json="--json" in words)) from None
        context.obj = Given(frozenset(), error.violations)
    try:
        logs.configure("bilevel", unless_set="warning")
    except InvalidArgument as error:
        if context.invoked_subcommand not in _SAY_WHAT_IS_WRONG:
            raise typer.Exit(complain(error, json="--json" in words)) from None
        logs.configure("bilevel", level="warning", format_="console")
