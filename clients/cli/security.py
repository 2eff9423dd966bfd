"""``bilevel certs`` and ``bilevel tokens``: what servers need that other machines can reach."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from clients.cli.execution import EXIT_CODES, polite
from clients.cli.options import JsonOption

tokens_app = typer.Typer(no_args_is_help=True, help="Who may call the services: names, roles, expiry.")

FileOption = Annotated[Path, typer.Option("--file", metavar="FILE", help="The token file: BILEVEL_TOKENS of a server.")]
_FILE = Path("tokens.toml")


@polite
def certs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path("certs"),
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name or IP address of a server; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long they are valid, in days: 1 to 3650.")] = 365,
    json: JsonOption = False,
) -> None:
    """Make a development CA and one server and one client certificate of it."""
    from clients.certificates import make_certificates
    from clients.cli.resources import print_json

    files = make_certificates(out, host or [], days)
    if json:
        print_json({file.name.replace(".", "_"): str(file) for file in files})
        return
    for file in files:
        typer.echo(file)
    typer.echo(
        f"servers: BILEVEL_TLS_CERT={out}/server.pem BILEVEL_TLS_KEY={out}/server.key BILEVEL_TOKENS=... "
        f"(mutual TLS: BILEVEL_TLS_CLIENT_CA={out}/ca.pem)\n"
        f"clients: BILEVEL_CA={out}/ca.pem BILEVEL_TOKEN_FILE=... "
        f"(mutual TLS: BILEVEL_CLIENT_CERT={out}/client.pem BILEVEL_CLIENT_KEY={out}/client.key)",
        err=True,
    )


@tokens_app.command(epilog=EXIT_CODES)
@polite
def add(
    name: Annotated[str, typer.Argument(help="Who or what will hold it; letters, digits, dot, dash, underscore.")],
    role: Annotated[list[str], typer.Option(metavar="ROLE", help="read, drive or install; repeatable.")],
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="For example 90d, 12h, never, or a date such as 2027-01-31.")
    ] = "90d",
    file: FileOption = _FILE,
    json: JsonOption = False,
) -> None:
    """Make a token, write its hash to the file, and print the token: it is shown only this once."""
    from clients.cli.resources import print_json
    from clients.token_file import add_token

    until = _moment(expires)
    token = add_token(file, name, role, until)
    if json:
        end = until.isoformat(timespec="seconds") if until is not None else None
        print_json({"name": name, "token": token, "roles": sorted(role), "expires": end, "file": str(file)})
    else:
        typer.echo(token)


@tokens_app.command("list", epilog=EXIT_CODES)
@polite
def list_(file: FileOption = _FILE, json: JsonOption = False) -> None:
    """Names, roles and expiry of the tokens in the file."""
    from clients.cli.resources import print_json
    from service_kit.security.tokens import read_tokens

    entries = read_tokens(file, "--file").tokens
    if json:
        print_json({name: entry.model_dump(mode="json", exclude={"sha256"}) for name, entry in entries.items()})
        return
    for name, entry in entries.items():
        until = f"until {entry.expires:%Y-%m-%d %H:%M} UTC" if entry.expires is not None else "for good"
        typer.echo(f"{name}\t{', '.join(sorted(entry.roles))}\t{until}")


@tokens_app.command(epilog=EXIT_CODES)
@polite
def remove(
    name: Annotated[str, typer.Argument(help="The token's name.")], file: FileOption = _FILE, json: JsonOption = False
) -> None:
    """Revoke a token: running servers stop letting it in at once."""
    from clients.cli.resources import print_json
    from clients.token_file import remove_token

    remove_token(file, name)
    if json:
        print_json({"removed": name, "file": str(file)})
    else:
        typer.echo(f"{name} is revoked: {file} no longer has it")


def _moment(text: str) -> datetime | None:
    """The end of a token's life in UTC, from an age, a date, or ``never``."""
    from service_kit.errors import InvalidArgument

    if text == "never":
        return None
    now = datetime.now(UTC)
    if age := re.fullmatch(r"([1-9]\d{0,4})([dh])", text):
        number = int(age[1])
        return now + (timedelta(days=number) if age[2] == "d" else timedelta(hours=number))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment <= now:
        raise InvalidArgument.of("--expires", f"must be like 90d or 12h, never, or a date to come; got {text!r}")
    return moment
