"""What a database holds and nobody can read: kept apart from what can, and said in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

_ERRORS_SAID = 3


class Unfoldable(Exception):
    """An event of a log cannot be read, or cannot follow those before it."""


class Damaged:
    """Stands where a column should hold JSON and does not, so that the rows beside it can be read.

    No model validates it, and as a mapping it raises ValueError: nothing takes it for a value.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"it is not JSON: {self.reason}"

    def keys(self) -> Iterable[str]:
        raise ValueError(str(self))

    def __getitem__(self, key: object) -> Any:
        raise ValueError(str(self))


def read_json(text: str | bytes) -> Any:
    """The value of a JSON column, or :class:`Damaged`."""
    try:
        return from_json(text)
    except ValueError as error:
        return Damaged(str(error))


def in_one_line(error: Exception) -> str:
    """What is wrong, without line breaks, addresses of manuals, or the whole of what was read."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    errors = error.errors(include_url=False)
    said = [_sentence(one["loc"], one["msg"], one["input"]) for one in errors[:_ERRORS_SAID]]
    more = len(errors) - len(said)
    return "; ".join([*said, f"and {more} more"] if more else said)


def _sentence(place: tuple[int | str, ...], message: str, found: object) -> str:
    if isinstance(found, Damaged):
        return str(found)
    text = " ".join(message.split())
    return f"{'.'.join(map(str, place))}: {text}" if place else text
