"""Files that a person names: read up to a size, and only where they are plain files, so that no device or pipe that
never ends is read until the memory is full."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from service_kit.errors import InvalidArgument

SETTINGS_BYTES = 2**20
"""Largest file of settings, tokens or tasks that is read."""


def read_given(file: Path, field: str, most: int, *, hint: str = "") -> bytes:
    """Content of ``file``, of ``most`` bytes at most. Raises :class:`InvalidArgument` naming ``field``."""

    def wrong(description: str) -> InvalidArgument:
        return InvalidArgument.of(field, description, hint=hint)

    try:
        with open(file, "rb", opener=_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise wrong(f"must name a plain file; {file} is none")
            content = stream.read(most + 1)
    except OSError as error:
        raise wrong(f"must name a readable file; {file}: {(error.strerror or str(error)).lower()}") from None
    if len(content) > most:
        raise wrong(f"must name a file of at most {most} bytes; {file} is larger")
    return content


def read_given_text(file: Path, field: str, most: int, *, hint: str = "") -> str:
    """As :func:`read_given`, for UTF-8 text."""
    try:
        return read_given(file, field, most, hint=hint).decode()
    except UnicodeDecodeError:
        raise InvalidArgument.of(field, f"must be UTF-8 text; {file} is not", hint=hint) from None


def unwritable(file: Path, field: str, error: OSError, *, hint: str = "") -> InvalidArgument:
    """The error where ``file``, which ``field`` names, cannot be written."""
    reason = (error.strerror or str(error)).lower()
    return InvalidArgument.of(field, f"must be a place that can be written; {file}: {reason}", hint=hint)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer is refused rather than waited for
