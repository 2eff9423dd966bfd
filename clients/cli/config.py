"""``bilevel config``: which settings hold, and where each comes from."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Settings: which hold, and where each comes from.")

_SECRET = re.compile(r"API_KEY$|_TOKEN$|_PASSWORD$")
_ROW = re.compile(r"^([A-Z][A-Z_]+) +(.+?) {2,}(.+)$", re.MULTILINE)
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^@\s/]+(?=@)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it holds in this process."""

    name: str
    value: str
    """As it was given, secrets hidden; the default in words where nothing gave it."""
    origin: str
    """``environment``, ``file`` or ``default``."""
    meaning: str
    problem: str = ""
    """Why the value is not valid; empty where it is."""


@app.command(epilog=EXIT_CODES)
@polite
def show(context: typer.Context, json: JsonOption = False) -> None:
    """Every setting with its value, its origin and its meaning; secrets are hidden."""
    from service_kit.settings_file import config_path

    settings = _settings(context.obj.names)
    if json:
        from clients.cli.resources import print_json

        print_json([asdict(setting) for setting in settings])
        return
    path = config_path()
    typer.echo(f"file: {path}{'' if path.exists() else ' (there is none)'}\n")
    width = max(len(setting.name) for setting in settings) + 1
    for setting in settings:
        marked = {"environment": "bright_white", "file": "bright_white", "default": None}[setting.origin]
        typer.echo(f"{typer.style(setting.name.ljust(width), fg=marked)} {setting.value}")
        if setting.problem:
            typer.echo(f"{'':<{width}} {typer.style(f'not valid: {setting.problem}', fg='red')}")
        typer.echo(f"{'':<{width}} {setting.origin}; {setting.meaning}")


def _settings(from_file: frozenset[str]) -> list[Setting]:
    from clients.wrong_settings import wrong_settings
    from service_kit import settings

    wrong: dict[str, list[str]] = {}
    for violation in wrong_settings():
        wrong.setdefault(violation.field, []).append(violation.description)
    found = []
    for name, default, meaning in _ROW.findall(settings.__doc__ or ""):
        given = os.environ.get(name, "")
        origin = ("file" if name in from_file else "environment") if given else "default"
        shown = "(hidden)" if _SECRET.search(name) else _PASSWORD.sub(r"\1***", given)
        file = f"{name}_FILE"
        if not given and (_SECRET.search(name) or name == "BILEVEL_DATABASE") and os.environ.get(file):
            given, shown = file, f"(hidden, from {file})"
            origin = "file" if file in from_file else "environment"
        found.append(
            Setting(name, shown if given else default.strip(), origin, meaning, "; ".join(wrong.get(name, [])))
        )
    return found
