"""``python -m clients.cli.reference`` prints docs/cli.md: every command, option, JSON shape and exit code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import bilevel.v1
import typer

from clients.cli import app
from clients.cli.shapes import EXEMPT, SHAPES, Layout, Shape
from service_kit.exit_codes import OF_KIND, ExitCode

_HEAD = """\
# The command

Made from the command itself by `make cli-docs`; do not edit by hand. `bilevel COMMAND --help` says the same.

Commands that talk to services find them at the default addresses, or where `--inner` and `--outer` or the variables
`BILEVEL_INNER` and `BILEVEL_OUTER` say ([settings](settings.md)). A RUN is a run's id, its name, its display name, or
`latest`. Completion for a shell: `bilevel --install-completion`.

`bilevel watch` fills the screen of a terminal: q quits, p pauses the run and goes on with it, arrows, j and k scroll,
? helps. It survives restarts of the services and says while it reconnects. `NO_COLOR` is heeded. Where input or output
is no terminal, or with `--plain`, it prints a line for each thing that happens.

## JSON

Every command that prints a result takes `--json`: one JSON document on standard output, or JSON lines where that is
said. The shapes below are stable: fields may be added, none is removed, renamed or given another meaning. A shape that
is a message of the protocol has the names of its .proto file; as in every JSON form of protobuf, 64-bit numbers are
strings and fields without a value are left out.

An error is then one line of JSON too, the last one on standard error:

```
{"error": {"kind": "NOT_FOUND", "message": "run 'runs/x' does not exist", "fields": [],
 "next_step": "`bilevel runs` lists those that exist.", "exit_code": 5}}
```

| field | meaning |
|---|---|
| kind | a reason of [the protocol](protocol.md), or one of the table below |
| message | what is wrong, for people |
| fields | list of `field` and `problem`: each wrong option, argument or setting |
| next_step | what to do, for people; may be empty |
| exit_code | the command's exit code |

A command whose result is bad news, such as `bilevel doctor`, prints its result and no error, and ends with 1.

## Exit codes

| code | name | meaning | kinds of errors |
|---|---|---|---|
"""


def page() -> str:
    """docs/cli.md."""
    kinds = {code: [kind for kind, its in OF_KIND.items() if its is code] for code in ExitCode}
    kinds[ExitCode.FAILED].append("any other")
    rows = [f"| {code.value} | {code.name} | {code.meaning} | {', '.join(kinds[code])} |" for code in ExitCode]
    return "\n".join([_HEAD + "\n".join(rows), "", "## Commands", "", *_commands()])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words after ``bilevel``."""
    yield from _below(typer.main.get_command(app), ())


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, below in command.commands.items():
        yield from _below(below, (*words, name))


def _commands() -> Iterator[str]:
    for name, command in commands():
        yield f"### bilevel {name}"
        yield ""
        yield inspect.cleandoc(command.help or "")
        yield ""
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        if parameters:
            yield "| argument or option | default | meaning |"
            yield "|---|---|---|"
            yield from (_parameter(parameter) for parameter in parameters)
            yield ""
        if name in SHAPES:
            yield from _shape(SHAPES[name])
        else:
            yield f"No `--json`: it {EXEMPT[name]}."
        if command.epilog:
            yield ""
            yield command.epilog
        yield ""


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    else:
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        names += "" if parameter.is_flag else f" {parameter.metavar or _kind(parameter.type_descriptor.annotation)}"
    default = "required" if parameter.required else parameter.default
    shown = "" if default is None or default is False or default == "" else getattr(default, "value", default)
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    limits = f" From {low:g}{f' to {high}' if high is not None else ''}." if low is not None else ""
    variable = f" Also from {parameter.envvar}." if parameter.envvar else ""
    return f"| `{names}` | {shown} | {_cell(parameter.help or '')}{limits}{variable} |"


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation).replace("|", "\\|")
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _shape(shape: Shape) -> Iterator[str]:
    if shape.message:
        said = f"the message [{shape.message}](../proto/bilevel/v1/{_file_of(shape.message)})"
        each = ":" if shape.layout is Layout.OBJECT else ", each"
        yield f"`--json`: {shape.layout.value}{each} {said}. {shape.note}".rstrip()
        return
    yield f"`--json`: {shape.layout.value}. {shape.note}".rstrip()
    yield ""
    yield "| field | meaning |"
    yield "|---|---|"
    yield from (f"| {name} | {_cell(meaning)} |" for name, meaning in shape.fields.items())


@cache
def _file_of(message: str) -> str:
    """The .proto file that defines it. Raises LookupError where none does."""
    for folder in bilevel.v1.__path__:
        for file in sorted(Path(folder).glob("*.proto")):
            if f"\nmessage {message} {{" in file.read_text(encoding="utf-8"):
                return file.name
    raise LookupError(f"no .proto file defines {message}")


if __name__ == "__main__":
    sys.stdout.write(page())
