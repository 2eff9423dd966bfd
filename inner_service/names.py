"""Resource names on the wire: ``runs/{run}/trials/{trial}`` and its kin."""

from __future__ import annotations

import base64
import binascii
import re

from service_kit.errors import InvalidArgument

_ID = r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})"
_RUN = re.compile(rf"runs/{_ID}")
_TRIAL = re.compile(rf"runs/{_ID}/trials/([0-9]{{1,9}})")
_MECHANISM = re.compile(rf"runs/{_ID}/mechanisms/{_ID}")
_LESSON = re.compile(rf"lessons/{_ID}")


def run_id(name: str, field: str) -> str:
    """The id in ``runs/{run}``. Raises :class:`InvalidArgument` naming ``field``."""
    return _match(_RUN, name, field, "runs/RUN")[1]


def trial_of(name: str, field: str) -> tuple[str, int]:
    """Run id and number in ``runs/{run}/trials/{trial}``."""
    found = _match(_TRIAL, name, field, "runs/RUN/trials/NUMBER")
    return found[1], int(found[2])


def mechanism_of(name: str, field: str) -> tuple[str, str]:
    """Run id and mechanism id in ``runs/{run}/mechanisms/{mechanism}``."""
    found = _match(_MECHANISM, name, field, "runs/RUN/mechanisms/MECHANISM")
    return found[1], found[2]


def lesson_id(name: str, field: str) -> str:
    """The id in ``lessons/{lesson}``."""
    return _match(_LESSON, name, field, "lessons/LESSON")[1]


def _match(pattern: re.Pattern[str], name: str, field: str, form: str) -> re.Match[str]:
    found = pattern.fullmatch(name)
    if found is None:
        raise InvalidArgument.of(field, f"must have the form {form}; got {name!r}")
    return found


def page_token(position: int) -> str:
    """A token that continues a list after ``position``."""
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode()


def page_position(token: str) -> int | None:
    """The position in a token of ours, None for the first page. Raises :class:`InvalidArgument`."""
    if not token:
        return None
    try:
        word, position = base64.urlsafe_b64decode(token.encode()).decode().split(":")
    except (ValueError, binascii.Error):
        word, position = "", ""
    if word == "after" and position.isdecimal():
        return int(position)
    raise InvalidArgument.of("page_token", "must be the next_page_token of an earlier page, unchanged")


def page_size(asked: int, default: int, most: int = 1000) -> int:
    """How many items a page gets. Raises :class:`InvalidArgument`."""
    if not 0 <= asked <= most:
        raise InvalidArgument.of("page_size", f"must be from 0 to {most}, where 0 is {default}; got {asked}")
    return asked or default
