"""``str.format`` without its reach: a format field may name an argument, not walk along its attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mechanisms.language.names import hide

_FIELD = re.compile(r"\{\{|\}\}|\{(?P<key>[A-Za-z_0-9]*)(?:!(?P<conversion>[rs]))?(?::(?P<spec>[^{}]*))?\}|[{}]")


def format_text(template: str, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """``str.format`` with plain fields only: no attributes, no items, no nested specifications."""
    position = iter(range(len(args)))

    def value(match: re.Match[str]) -> str:
        text = match[0]
        if text in ("{{", "}}"):
            return text[0]
        if text in "{}" and len(text) == 1:
            raise ValueError("format takes {}, {0}, {name} and {:.3f} fields only; use an f-string")
        key = match["key"]
        try:
            found = keywords[hide(key)] if key and not key.isdigit() else args[int(key) if key else next(position)]
        except StopIteration:
            raise IndexError("format: more fields than arguments") from None
        if match["conversion"]:
            found = repr(found) if match["conversion"] == "r" else str(found)
        return format(found, match["spec"] or "")

    return _FIELD.sub(value, template)
