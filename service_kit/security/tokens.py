"""Tokens: a TOML file of names, hashes, roles and expiry dates. A token itself is never stored.

::

    [tokens.notebook]
    sha256 = "9f86d081884c7d65..."
    roles = ["read", "drive"]
    expires = 2027-01-31T00:00:00Z

``bilevel tokens add`` writes entries. The file is looked at with every call and read again when it has changed, so
that tokens are added, revoked and rotated while servers run: during a rotation the old and the new one stand side by
side. A file that cannot be read lets nobody in.
"""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service_kit.errors import InvalidArgument, ServiceError, Unauthenticated, Violation
from service_kit.given_files import SETTINGS_BYTES, read_given_text
from service_kit.security.roles import Role

log = structlog.get_logger("service_kit.security")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the name that the token file gives a token, and what it may do."""

    name: str
    roles: frozenset[Role]


class TokenEntry(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """Hash of the token, hexadecimal."""
    roles: frozenset[Role] = Field(min_length=1)
    expires: AwareDatetime | None = None
    """None: never."""


class TokensFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: dict[Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")], TokenEntry] = {}


def new_token() -> str:
    """A token that nobody can guess: 256 random bits."""
    return f"blv_{secrets.token_urlsafe(32)}"


def hash_of(token: str) -> str:
    """What the file stores of a token. Tokens are random and long, so that a plain hash cannot be searched."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path, field: str = "BILEVEL_TOKENS") -> TokensFile:
    """Raises :class:`InvalidArgument` naming each wrong key, or ``field``, which named the file, when it cannot be
    read."""
    hint = "`bilevel tokens add NAME --role ROLE` writes such a file."
    try:
        content: dict[str, Any] = tomllib.loads(read_given_text(path, field, SETTINGS_BYTES, hint=hint))
        file = TokensFile.model_validate(content)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument.of(field, f"must name a TOML file; {path}: {error}", hint=hint) from None
    except ValidationError as error:
        wrong = [Violation(".".join(map(str, e["loc"])), e["msg"].lower()) for e in error.errors()]
        raise InvalidArgument(wrong, hint=f"Mend {path}, or write it anew with `bilevel tokens add`.") from None
    hashes = [entry.sha256 for entry in file.tokens.values()]
    if len(set(hashes)) != len(hashes):
        raise InvalidArgument.of("tokens", "must not hold the same hash twice", hint=f"Mend {path}.")
    return file


class Tokens:
    """The tokens that a server knows, as its file says at this moment."""

    def __init__(self, path: Path) -> None:
        """Raises like :func:`read_tokens`."""
        self._path = path
        self._seen = self._stamp()
        self._by_hash = _by_hash(read_tokens(path))

    def identify(self, token: str) -> Identity:
        """Who shows ``token``. Raises :class:`Unauthenticated`."""
        self._refresh()
        found = self._by_hash.get(hash_of(token))
        if found is None:
            raise Unauthenticated(
                "the token is not known to this server", hint="Ask its operator for one (`bilevel tokens add`)."
            )
        name, entry = found
        if entry.expires is not None and entry.expires <= datetime.now(UTC):
            raise Unauthenticated(
                f"the token {name!r} expired at {entry.expires:%Y-%m-%d %H:%M} UTC",
                hint="Ask the server's operator for a new one (`bilevel tokens add`).",
            )
        return Identity(name, entry.roles)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._by_hash = _by_hash(read_tokens(self._path))
            log.info("tokens read again", path=str(self._path), names=len(self._by_hash))
        except ServiceError as error:
            # A revoked token must not live on because of a slip in the file that revokes it.
            self._by_hash = {}
            log.error("token file cannot be read: nobody is let in", path=str(self._path), reason=str(error))


def _by_hash(file: TokensFile) -> dict[str, tuple[str, TokenEntry]]:
    return {entry.sha256: (name, entry) for name, entry in file.tokens.items()}
