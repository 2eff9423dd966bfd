"""Writing the token file that servers read: whole or not at all, so that no server ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from service_kit.errors import AlreadyExists, InvalidArgument, NotFound
from service_kit.given_files import unwritable
from service_kit.security.roles import Role
from service_kit.security.tokens import TokenEntry, TokensFile, hash_of, new_token, read_tokens

_OPTION = "--file"


def add_token(path: Path, name: str, roles: Sequence[str], expires: datetime | None) -> str:
    """Make a token, store its hash under ``name``, and return it.

    Raises :class:`InvalidArgument` for a wrong name or role and for a file that cannot be read or written, and
    :class:`AlreadyExists` for a name that is taken.
    """
    unknown = [role for role in roles if role not in set(Role)]
    if unknown or not roles:
        raise InvalidArgument.of("--role", f"must be one of {', '.join(Role)}; got {', '.join(unknown) or 'none'}")
    entries = dict(read_tokens(path, _OPTION).tokens) if path.exists() else {}
    if name in entries:
        hint = "Remove it first, or choose a second name while both are in use."
        raise AlreadyExists("token", name, hint)
    token = new_token()
    entry = TokenEntry(sha256=hash_of(token), roles=frozenset(map(Role, roles)), expires=expires)
    try:
        file = TokensFile(tokens={**entries, name: entry})
    except ValueError:
        raise InvalidArgument.of(
            "NAME", f"must have 1 to 63 letters, digits, dots, dashes and underscores; got {name!r}"
        ) from None
    _write(path, file)
    return token


def remove_token(path: Path, name: str) -> None:
    """Raises :class:`NotFound`, and :class:`InvalidArgument` when the file cannot be read or written."""
    entries = dict(read_tokens(path, _OPTION).tokens)
    if entries.pop(name, None) is None:
        raise NotFound("token", name, f"the file has: {', '.join(entries) or 'none'}")
    _write(path, TokensFile(tokens=entries))


def _write(path: Path, file: TokensFile) -> None:
    lines = [
        "# Names, hashes, roles and expiry of tokens. `bilevel tokens` writes it; servers read it again.",
        "",
    ]
    for name, entry in file.tokens.items():
        roles = ", ".join(f'"{role}"' for role in sorted(entry.roles))
        lines += [f'[tokens."{name}"]', f'sha256 = "{entry.sha256}"', f"roles = [{roles}]"]
        if entry.expires is not None:
            lines.append(f"expires = {entry.expires.isoformat(timespec='seconds')}")
        lines.append("")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text("\n".join(lines))
        draft.replace(path)
    except OSError as error:
        raise unwritable(path, _OPTION, error, hint="Name another file with --file.") from None
