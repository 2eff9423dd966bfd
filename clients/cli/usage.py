"""What is refused before a command begins: Typer's words for people, a line of JSON where ``--json`` was given."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from service_kit.exit_codes import ExitCode

_UsageError: Any = typer.BadParameter.__base__
"""Click's, of which Typer carries a copy that it does not export."""


WORDS = "clients.cli.words"
"""Key of a context's ``meta``: every word after ``bilevel``, for what happens before a command has read its own."""


class Commands(TyperGroup):
    """The outermost command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if "--json" not in words or not options.get("standalone_mode", True):
            return super().main(args, *rest, **options)
        try:
            code = super().main(words, *rest, **options | {"standalone_mode": False})
        except _UsageError as error:
            sys.exit(_refused(error))
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)


def _refused(error: Any) -> ExitCode:
    from service_kit.complaint import say_json

    parameter = getattr(error, "param", None)
    field = parameter.get_error_hint() if parameter is not None else getattr(error, "option_name", None) or ""
    fields = [{"field": field.strip("'"), "problem": error.message or error.format_message()}] if field else []
    command = error.ctx.command_path if error.ctx is not None else "bilevel"
    return say_json("INVALID_ARGUMENT", error.format_message(), fields, f"`{command} --help` shows what it takes.")
