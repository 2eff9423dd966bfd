"""The objects of the positive control, in a module whose globals are those of any module."""

from __future__ import annotations

from typing import Any


class Open:
    """An ordinary object, as a program without a sandbox would pass it on."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
