"""Finding the JSON object that a model meant, whatever stands around it and however it is spelt.

Forgiven: prose, code fences, ``<think>`` blocks, trailing commas, comments, Python's True, False and None, backslashes
that escape nothing, line breaks inside strings. Not forgiven, because a guess could change what was meant: an object
that does not end, and a key that is there twice with different values. No library is used: those that repair JSON also
complete what was cut off, and half a module must not pass for a whole one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MOST_STARTS = 200
MOST_MENDED = 8
"""So many opening braces are tried, as they are and with slips mended: a bound on the work that an answer can cause."""

# Patterns that are sure to match from each place where they begin: whatever the answer, it is read once.
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THINKING = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
"""Templates that open the block themselves leave only its end in the answer."""

_SLIPS = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*(?:"|\\?\Z))'
    r"|(?P<comma>,(?=\s*[}\]]))"
    r"|(?P<comment>//[^\n]*)"
    r"|\b(?P<word>True|False|None)\b",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_NO_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.))', re.DOTALL)


class Ambiguous(ValueError):
    """A key is there twice with different values."""


def objects(text: str) -> Iterator[dict[str, Any] | Ambiguous]:
    """Every outermost JSON object in ``text`` in order; an ambiguous one in the form of its error."""
    text, position, mended = without_thinking(text), 0, 0
    for _ in range(MOST_STARTS):
        position = text.find("{", position)
        if position < 0:
            return
        found, end = _decode(text, position)
        if found is None and mended < MOST_MENDED:
            mended += 1
            rest = _SLIPS.sub(_mend, text[position:])
            found, end = _decode(rest, 0)
            if found is not None:
                text, position = rest, 0
        if found is not None:
            yield found
        position = end if found is not None else position + 1


def without_thinking(text: str) -> str:
    """An answer without the reasoning that some endpoints leave in it."""
    text = _THINKING.sub("", text)
    rest = _END_OF_THINKING.split(text)[-1]
    return rest if "{" in rest else text


def _decode(text: str, start: int) -> tuple[dict[str, Any] | Ambiguous | None, int]:
    """The object at ``start`` and where it ends; None where there is none."""
    try:
        found, end = _DECODER.raw_decode(text, start)
    except Ambiguous as error:
        return error, len(text)
    except (ValueError, RecursionError):
        return None, start
    return found, end


def _mend(slip: re.Match[str]) -> str:
    if string := slip["string"]:
        return _NO_ESCAPE.sub(lambda m: m[0] if m[1] else "'" if m[2] == "'" else "\\\\" + m[2], string)
    return _WORDS.get(slip["word"] or "", "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise Ambiguous(f"{name}: is there twice with different values")
        found[name] = value
    return found


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique)
