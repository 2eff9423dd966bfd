"""What the researcher makes of a parameter of kind SOURCE: templates of known heuristics, else other constants.

It reads nothing of the source but the line of its first ``def`` and its numbers; it writes no idea that is not in a
template. Every text says of itself that a script wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

_TEMPLATES = Path(__file__).with_name("templates")
_FUNCTION = re.compile(r"^def (\w+)\((\w+(?:, \w+)*)\)", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.'\"])\d+(?:\.\d+)?(?![\w.'\"])")
_KNOWN = {("priority", ("item", "bins")): "priority"}
"""Function to its folder of templates. Online bin packing: first fit, best fit, worst fit and their relatives, see
Coffman, Garey and Johnson, "Approximation algorithms for bin packing: a survey" (1996)."""


def variants(source: str, max_length: int) -> Sequence[str]:
    """Other sources for the same purpose, in a fixed order."""
    declared = _FUNCTION.search(source)
    folder = _KNOWN.get((declared[1], tuple(declared[2].split(", ")))) if declared is not None else None
    known = _known(folder) if folder is not None else tuple(_other_constants(source))
    return [text for text in known if len(text) <= max_length]


@cache
def _known(folder: str) -> tuple[str, ...]:
    return tuple(file.read_text("utf-8") for file in sorted((_TEMPLATES / folder).glob("*.py")))


def _other_constants(source: str) -> Iterator[str]:
    """The source with one of its numbers doubled or halved."""
    body = re.sub(r"\A# scripted: .*\n", "", source)
    for found in _NUMBER.finditer(body):
        for factor in (2.0, 0.5):
            number = float(found[0]) * factor
            written = f"{number:g}" if "." in found[0] else str(int(number))
            if written == found[0]:
                continue
            line = body[: found.start()].count("\n") + 1
            label = f"# scripted: {written} in place of {found[0]} in line {line}\n"
            yield label + body[: found.start()] + written + body[found.end() :]
