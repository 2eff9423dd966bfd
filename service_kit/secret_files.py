"""Secrets that come from files, as container orchestrators hand them over: ``NAME_FILE`` beside ``NAME``.

A settings class declares the file before the secret; the secret's validator takes it from there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import structlog

_HANDED_OVER = Path("/run/secrets")
"""Where Docker and its like mount secrets, readable by every user of a container that has only one."""

_MOST_CHARACTERS = 65_536
"""Of a file that should hold a secret: a device that never ends is not read until the memory is full."""

log = structlog.get_logger("service_kit.settings")


def readable_secret(file: Path | None) -> Path | None:
    """For the validator of a ``NAME_FILE``: the file, which holds one secret. Raises ValueError."""
    if file is not None:
        file = file.expanduser()
        _content(file)
        _warn_if_open(file)
    return file


def secret_of(given: object, file: Path | None, name: str) -> object:
    """For the validator of the secret ``name``: what was given, else what its file holds. Raises ValueError."""
    if file is None:
        return given
    if given is not None:
        raise ValueError(f"must not be set beside {name}_FILE: unset one of them")
    return _content(file)


def _content(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            content = stream.read(_MOST_CHARACTERS).strip()
    except OSError as error:
        raise ValueError(f"must name a file that can be read; {file}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"must name a file of text; {file} is none") from None
    if not content:
        raise ValueError(f"must name a file that holds the secret; {file} is empty")
    return content


@cache
def _warn_if_open(file: Path) -> None:
    if file.stat().st_mode & 0o004 and _HANDED_OVER not in file.absolute().parents:
        log.warning("every user of this machine can read a file with a secret", path=str(file), hint="chmod 600")
