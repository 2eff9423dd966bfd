"""What the gate found in a source: the stages it passes through and findings with their line.

Imported on both sides of the sandbox, so it stays free of heavy imports.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from mechanisms.printable import one_line


class Stage(StrEnum):
    """The gate's stages, in order. A rejection names the stage at which the source stopped."""

    SIZE = "size"
    """Encoding and length, judged without parsing."""
    LANGUAGE = "language"
    """Desugaring and RestrictedPython, inside a worker."""
    CONFORMANCE = "conformance"
    """One class ``Mechanism``, known hooks, exact arity, and an ``__init__`` that succeeds."""
    REPLAY = "replay"
    """Every hook on recorded and synthetic history, twice, with equal answers."""
    EFFECT = "effect"
    """At least one decision that the mechanism would have changed."""


class Finding(NamedTuple):
    """One thing wrong with a source, or worth knowing about it."""

    stage: Stage
    line: int | None
    """Line of the source, counted from 1; None when it belongs to no line."""
    message: str
    hint: str = ""
    """What to do about it."""

    def to_json(self) -> dict[str, Any]:
        return {"stage": self.stage.value, "line": self.line, "message": self.message, "hint": self.hint}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """Read a finding that crossed from a worker; its texts are cleaned and capped: the worker is not trusted."""
        line = data.get("line")
        return cls(
            Stage(data["stage"]),
            line if type(line) is int and 0 < line < 1_000_000 else None,
            one_line(str(data["message"]), 500),
            one_line(str(data.get("hint", "")), 500),
        )

    def render(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


def size_finding(source: str, most_bytes: int, wanted: str) -> Finding | None:
    """Why ``source`` is no text of acceptable length, judged without parsing it; None when it is.

    ``wanted`` says what to write where there is nothing.
    """
    if not source.strip():
        return Finding(Stage.SIZE, None, "the source is empty", wanted)
    if "\x00" in source:
        return Finding(Stage.SIZE, None, "the source holds a null character", "send plain UTF-8 text")
    try:
        length = len(source.encode("utf-8"))
    except UnicodeEncodeError:
        return Finding(Stage.SIZE, None, "the source is not valid Unicode text", "send plain UTF-8 text")
    if length > most_bytes:
        message = f"the source has {length} bytes; at most {most_bytes} are allowed"
        return Finding(Stage.SIZE, None, message, "write it in fewer lines")
    return None
