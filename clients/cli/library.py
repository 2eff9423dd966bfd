"""``bilevel library``: the mechanisms that were ever accepted, what they did, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import OUTER_DEFAULT, JsonOption, OuterOption

if TYPE_CHECKING:
    from bilevel.v1 import outer_pb2

    from clients.outer import OuterClient

app = typer.Typer(no_args_is_help=True, help="The library of accepted mechanisms: list, show, export, import.")

EntryArgument = Annotated[
    str,
    typer.Argument(metavar="ENTRY", help="A title, or the beginning of an id, as `bilevel library list` shows them."),
]


@app.command(name="list", epilog=EXIT_CODES)
@polite
async def list_(
    task: Annotated[str, typer.Option(help="Only entries that were installed on this task.")] = "",
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Every mechanism that was ever accepted, newest first, with what it did."""
    from rich.table import Table

    from clients import wording
    from clients.cli.comparison import terminal
    from clients.cli.resources import print_json
    from clients.library_files import measured, origin, stayed
    from clients.outer import OuterClient
    from clients.report.export import to_json

    async with OuterClient(outer) as client:
        entries = await client.list_library_entries(limit=10_000)
    shown = [entry for entry in entries if not task or task in {trial.task for trial in entry.trials}]
    if json:
        print_json([to_json(entry) for entry in shown])
        return
    if not shown:
        typer.echo("The library is empty." if not task else f"The library has nothing that was installed on {task}.")
        return
    table = Table("title", "id", "origin", "author", "tried", "stayed", "kept trials", "summary", show_edge=False)
    for entry in shown:
        judged = measured(entry)
        kept = sum(trial.verdicts[-1].effect.kept_trials for trial in judged)
        table.add_row(
            entry.title, _id(entry)[:12], origin(entry), entry.author, str(len(judged)), str(stayed(entry)), str(kept),
            entry.summary,
        )  # fmt: skip
    terminal().print(table)
    typer.echo(f"\n{wording.count(len(shown), 'entry') if len(shown) == 1 else f'{len(shown)} entries'}")


@app.command(epilog=EXIT_CODES)
@polite
async def show(entry: EntryArgument, outer: OuterOption = OUTER_DEFAULT, json: JsonOption = False) -> None:
    """One entry: lineage, every time it was tried with its verdicts, and the source."""
    from clients.cli.resources import print_json
    from clients.library_files import story
    from clients.outer import OuterClient
    from clients.report.export import to_json

    async with OuterClient(outer) as client:
        found = await find_entry(client, entry)
    if json:
        print_json(to_json(found))
        return
    typer.echo(story(found))
    typer.echo(f"\n{found.source}")


@app.command(epilog=EXIT_CODES)
@polite
async def export(
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTRY]...", help="Titles or ids; everything by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("library.json"),
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Write entries into one JSON file: sources, lineage, and every verdict."""
    from clients.cli.resources import print_json
    from clients.library_files import write
    from clients.outer import OuterClient

    async with OuterClient(outer) as client:
        if entries:
            found = [await find_entry(client, entry) for entry in entries]
        else:
            found = await client.list_library_entries(limit=10_000)
    write(out, found)
    if json:
        print_json({"file": str(out), "entries": len(found)})
    else:
        typer.echo(f"{len(found)} written to {out}")


@app.command(name="import", epilog=EXIT_CODES)
@polite
async def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that export wrote, or a mechanism's .py source.")
    ],
    outer: OuterOption = OUTER_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Take mechanisms in. They are compiled in the sandbox and run nowhere before a campaign tries them under the gate.

    What the file says about their effects is kept as a report, told apart from what is measured here.
    """
    from clients.cli.resources import print_json
    from clients.library_files import read
    from clients.outer import OuterClient
    from clients.report.export import to_json

    found = read(file)
    taken = []
    async with OuterClient(outer) as client:
        for given in found:
            entry, created = await client.import_library_entry(given)
            taken.append(entry)
            if not json:
                typer.echo(f"{'imported' if created else 'known already'}: {entry.title} ({_id(entry)[:12]})")
    if json:
        print_json([to_json(entry) for entry in taken])


async def find_entry(client: OuterClient, text: str) -> outer_pb2.LibraryEntry:
    """The entry with that title, or whose id begins so. Raises NotFound with what there is, InvalidArgument when
    several fit."""
    from service_kit.errors import InvalidArgument, NotFound

    wanted = text.removeprefix("libraryEntries/")
    entries = await client.list_library_entries(limit=10_000)
    found = [e for e in entries if e.title == wanted] or [e for e in entries if wanted and _id(e).startswith(wanted)]
    if not found:
        known = ", ".join(sorted({entry.title for entry in entries})) or "none"
        raise NotFound("library entry", text, hint=f"Titles in the library: {known}.")
    if len(found) > 1:
        ids = ", ".join(_id(entry)[:12] for entry in found)
        raise InvalidArgument.of("ENTRY", f"must name one entry; {text!r} fits {len(found)}: {ids}")
    return found[0]


def _id(entry: outer_pb2.LibraryEntry) -> str:
    return entry.name.removeprefix("libraryEntries/")
