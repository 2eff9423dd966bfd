"""Resource names and page tokens on the wire."""

from __future__ import annotations

import base64
import binascii
import re

from service_kit.errors import InvalidArgument

_ID = r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})"
_RUN = re.compile(rf"runs/{_ID}")
_CAMPAIGN = re.compile(rf"campaigns/{_ID}")
_ENTRY = re.compile(r"libraryEntries/([0-9a-f]{64})")


def run_name(name: str, field: str) -> str:
    """``name``, if it has the form ``runs/{run}``. Raises :class:`InvalidArgument` naming ``field``."""
    return _match(_RUN, name, field, "runs/RUN")[0]


def campaign_id(name: str, field: str) -> str:
    """The id in ``campaigns/{campaign}``."""
    return _match(_CAMPAIGN, name, field, "campaigns/CAMPAIGN")[1]


def entry_id(name: str, field: str) -> str:
    """The id in ``libraryEntries/{entry}``."""
    return _match(_ENTRY, name, field, "libraryEntries/SHA256, with 64 hexadecimal digits")[1]


def _match(pattern: re.Pattern[str], name: str, field: str, form: str) -> re.Match[str]:
    found = pattern.fullmatch(name)
    if found is None:
        raise InvalidArgument.of(field, f"must have the form {form}; got {name!r}")
    return found


def page_token(position: int) -> str:
    """A token that continues a list after ``position``."""
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode()


def page_position(token: str) -> int | None:
    """The position in a token of ours; None for the first page. Raises :class:`InvalidArgument`."""
    if not token:
        return None
    refused = InvalidArgument.of("page_token", "must be the next_page_token of an earlier page, unchanged")
    try:
        found = re.fullmatch(rb"after:([0-9]{1,18})", base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        raise refused from None
    if found is None:
        raise refused
    return int(found[1])


def page_size(asked: int, default: int = 50, most: int = 1000) -> int:
    """How many items a page gets. Raises :class:`InvalidArgument`."""
    if not 0 <= asked <= most:
        raise InvalidArgument.of("page_size", f"must be from 0 to {most}, where 0 is {default}; got {asked}")
    return asked or default
