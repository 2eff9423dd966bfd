"""Where tasks are: addresses that the operator configures, and loopback addresses that a client may name.

A client must never make this service dial an address of its choice, so what it names is compared with three exact
spellings and nothing is resolved: not a DNS name, not a number in another notation, not a mapped or zoned IPv6 address.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from service_kit.addresses import is_loopback, parse_address
from service_kit.errors import InvalidArgument, ServiceError, Violation
from service_kit.given_files import SETTINGS_BYTES, read_given_text
from service_kit.security.channels import ChannelSecurity
from service_kit.security.tls import ClientTls

TASK_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})")

_OPEN = ChannelSecurity()


@dataclass(frozen=True, slots=True)
class TaskAddress:
    """Where one task is and how it is reached."""

    target: str
    """HOST:PORT, [IPV6]:PORT or unix:PATH."""
    security: ChannelSecurity = _OPEN
    """Whom to trust, and what to show."""

    @property
    def on_this_machine(self) -> bool:
        """Whether nothing between here and the task can listen."""
        return self.target.startswith("unix:") or is_loopback(parse_address(self.target)[0])

    @classmethod
    def loopback(cls, text: str, field: str = "spec.task") -> Self:
        """The loopback address that a client named. Raises :class:`InvalidArgument` for every other spelling."""
        found = _LOOPBACK.fullmatch(text)
        if found is None or int(found[2]) > 65535:
            spellings = "localhost:PORT, 127.0.0.1:PORT or [::1]:PORT with a port from 1 to 65535"
            raise InvalidArgument.of(
                field,
                f"must be the name of a configured task, or {spellings}; got {text[:100]!r}",
                hint="A task on another machine is configured where the inner service is started: --task or --tasks.",
            )
        # Not "localhost": that would be looked up, and what it leads to is not ours to trust.
        return cls(f"{'127.0.0.1' if found[1] == 'localhost' else found[1]}:{found[2]}")


def from_entries(entries: Iterable[str], field: str) -> dict[str, TaskAddress]:
    """``NAME=HOST:PORT`` texts. Raises :class:`InvalidArgument` naming ``field``."""
    tasks: dict[str, TaskAddress] = {}
    for entry in entries:
        name, equals, address = entry.partition("=")
        if not equals or not TASK_NAME.fullmatch(name):
            text = f"must be NAME=HOST:PORT with a name of lowercase letters, digits and dashes; got {entry!r}"
            raise InvalidArgument.of(field, text)
        if name in tasks:
            raise InvalidArgument.of(field, f"must name each task once; {name} is there twice")
        if not address.startswith("unix:"):
            parse_address(address, field)
        tasks[name] = TaskAddress(address)
    return tasks


class _Entry(BaseModel):
    """One ``[tasks.NAME]`` table of a settings file."""

    model_config = ConfigDict(extra="forbid")

    address: str
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    token_file: Path | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tasks: dict[str, _Entry]


def from_file(file: Path) -> dict[str, TaskAddress]:
    """The ``[tasks.NAME]`` tables of a TOML file; the paths in it are relative to its folder, and tokens are read anew
    with every call.

    Raises :class:`InvalidArgument` naming the file and the wrong key; a token is never part of a message.
    """
    try:
        document = _File.model_validate(tomllib.loads(read_given_text(file, "--tasks", SETTINGS_BYTES)))
    except ValidationError as error:
        wrong = [Violation(f"{file}: {'.'.join(map(str, e['loc']))}", e["msg"].lower()) for e in error.errors()]
        raise InvalidArgument(wrong) from None
    except ValueError as error:
        raise InvalidArgument.of(str(file), f"must be a TOML file: {error}") from None
    return {name: _read(name, entry, file) for name, entry in document.tasks.items()}


def _read(name: str, entry: _Entry, file: Path) -> TaskAddress:
    where = f"{file}: tasks.{name}"
    target = from_entries([f"{name}={entry.address}"], where)[name].target
    ca, certificate, key, token = (
        file.parent / path if path is not None else None
        for path in (entry.ca_file, entry.certificate_file, entry.key_file, entry.token_file)
    )
    if ca is None and (certificate or key or entry.server_name):
        raise InvalidArgument.of(f"{where}.ca_file", "must be given with certificate_file, key_file or server_name")
    tls = ClientTls(ca, certificate, key, entry.server_name) if ca is not None else None
    address = TaskAddress(target, ChannelSecurity(tls, token_file=token))
    try:
        if tls is not None:
            tls.credentials()
        address.security.current_token()
    except ServiceError as error:
        raise InvalidArgument.of(where, error.message, hint=error.hint) from None
    if token is not None and tls is None and not address.on_this_machine:
        raise InvalidArgument.of(f"{where}.ca_file", "must be given where a token goes to another machine")
    return address


def shown(tasks: Mapping[str, TaskAddress]) -> dict[str, str]:
    """Name and address of each, for logs; without tokens."""
    return {
        name: f"{address.target}{' (TLS)' if address.security.tls is not None else ''}"
        for name, address in tasks.items()
    }
